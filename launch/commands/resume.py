"""`robo-rl resume`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Go on with a run that was interrupted. It prints the figures it would have printed.

    Try:
    $ robo-rl resume runs/bc-demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""
    fallback: bool = False
    """Where the newest checkpoint is damaged, go on from the one before it."""

    def run(self) -> int:
        """Resume."""
        from robo_rl.workflow.finetune import resume

        run = resume(self.source, self.fallback)
        print(f"done; next: robo-rl eval {run.path}")
        return 0
