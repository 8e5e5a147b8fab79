"""`robo-rl twin`."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Command:
    """Run a simulated arm in real time, as a ROS 2 robot on the bus. Ctrl-C ends it.

    Try:
    $ robo-rl twin --domain 7 --gap 1
    $ robo-rl twin --task mine.py:Stack --robot mine.py:MY_ARM
    """

    env: Literal["cube-single", "cube-double", "cube-triple", "cube-quadruple"] = "cube-single"
    """Which of OGBench's scenes, where --task is a number."""
    task: str = "2"
    """What is set out at the start: the number of a task of --env, or a task by name or as a file,
    mine.py:Stack."""
    robot: str | None = None
    """With a task by name or file, on which robot; a name, or a file, mine.py:MY_ARM."""
    domain: int = 0
    """ROS_DOMAIN_ID."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean arm, 1 the quickstart's."""

    def run(self) -> int:
        """Serve until interrupted."""
        from robo_rl import extras

        extras.require_extras("sim", "robot")
        from robo_rl.workflow.deploy import serve_twin
        from robo_rl.workflow.environment import of_task

        if not self.task.isdigit():
            setting = of_task(self.task, self.robot)
            print(serve_twin(setting.kwargs, None, self.domain, self.gap, say=print))
            return 1
        if self.robot is not None:
            raise ValueError(f"--robot {self.robot}: name its task with --task")
        cubes = {"scene": self.env.removeprefix("cube-"), "form": "goal"}
        print(serve_twin(cubes, int(self.task), self.domain, self.gap, say=print))
        return 1
