"""`robo-rl report`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Write report.html for a run: its curves, settings and results.

    Try:
    $ robo-rl report runs/bc-demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""

    def run(self) -> int:
        """Write the report."""
        from robo_rl.workflow.report import report

        print(f"wrote {report(self.source)}")
        return 0
