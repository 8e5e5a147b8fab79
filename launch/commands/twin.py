"""`robo-rl twin`."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Command:
    """Run a simulated arm in real time, as a ROS 2 robot on the bus. Ctrl-C ends it.

    Try:
    $ robo-rl twin --domain 7 --gap 1
    """

    env: Literal["cube-single", "cube-double", "cube-triple", "cube-quadruple"] = "cube-single"
    """Which of OGBench's scenes."""
    task: int = 2
    """The task that is set out at the start."""
    domain: int = 0
    """ROS_DOMAIN_ID."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean arm, 1 the quickstart's."""

    def run(self) -> int:
        """Serve until interrupted."""
        from robo_rl.workflow.deploy import serve_twin

        scene = self.env.removeprefix("cube-")
        print(serve_twin(scene, self.task, self.domain, self.gap, say=print))
        return 1
