"""Tasks by name: `get("cube")`, one of an installed package, or `get("mine.py:Stack")`.

Each file of this folder is a task of its name. A package offers a subclass of `Task` under the
entry point group `robo_rl.tasks`.
"""

import inspect
from typing import Any

from robo_rl.envs.task import Task
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.plugins import Door, modules_of

TASKS: Door[type[Task]] = Door(
    "task",
    "robo_rl.tasks",
    modules_of(__name__),
    fits=lambda value: (
        isinstance(value, type) and issubclass(value, Task) and not inspect.isabstract(value)
    ),
)


def get(name: str) -> type[Task]:
    """The task of this name or path. Raises PluginError, which lists the known ones."""
    return TASKS.get(name)


def make(name: str, kit: RobotKit, **options: Any) -> Task:
    """A task for a robot. `options` are those of the task; an unknown one is a ValueError."""
    return get(name).make(kit, **options)
