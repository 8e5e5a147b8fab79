"""`robo-rl data check`."""

import dataclasses

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Look for the defects that make learning fail silently. Exits with 1 when there are errors.

    Try:
    $ robo-rl data check cube-single/noisy-v0
    """

    dataset: Positional[str]
    """A local Minari dataset."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Check."""
        from robo_rl.launch import output

        return output.checked(self.dataset, self.json)
