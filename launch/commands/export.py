"""`robo-rl export`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Write the policy of a run as a folder that runs with NumPy alone.

    Try:
    $ robo-rl export runs/bc-demo --out policies/demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""
    out: pathlib.Path | None = None
    """Folder to write; by default `policy` inside the run directory."""
    step: int | None = None
    """Checkpoint of the run; by default the newest."""

    def run(self) -> int:
        """Export."""
        from robo_rl.workflow.export import export

        folder, difference = export(self.source, self.out, step=self.step)
        print(
            f"wrote {folder}; NumPy and JAX differ by {difference:.1e} at most (1000 observations)"
        )
        return 0
