"""`robo-rl quickstart`."""

import dataclasses
import pathlib
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Command:
    """From recorded data to a filtered arm over ROS 2, once through, with a report.

    Collects demonstrations, trains offline, meets a changed arm, finetunes on it, deploys to an arm
    in another process with and without the barrier filter, and kills the policy in mid-motion.

    Try:
    $ robo-rl quickstart
    """

    out: pathlib.Path = pathlib.Path("runs/quickstart")
    """Run directory. One that exists already is moved aside, never overwritten."""
    seed: int = 0
    """Everything random follows from it."""
    budget: Literal["full", "smoke"] = "full"
    """`smoke` walks the same path in a minute or two; its figures mean nothing."""

    def run(self) -> int:
        """Run the path and print its table."""
        from robo_rl.workflow import quickstart

        return quickstart.run(self.out, self.seed, self.budget)
