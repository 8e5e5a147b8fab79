"""Robots by name: `get("ur5e")`, one of an installed package, or `get("mine.py:MY_ARM")`.

A folder here is a robot by its name, its kit is in its `kit.py`. A package offers a `RobotKit`
under the entry point group `robo_rl.robots`.
"""

from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.plugins import Door, modules_of

ROBOTS: Door[RobotKit] = Door(
    "robot",
    "robo_rl.robots",
    {name: f"{path}.kit" for name, path in modules_of(__name__, folders=True).items()},
    fits=lambda value: isinstance(value, RobotKit),
)

DEFAULT = "ur5e"
"""The robot where none is named."""


def get(name: str = DEFAULT) -> RobotKit:
    """The robot of this name or path. Raises PluginError, which lists the known ones."""
    return ROBOTS.get(name)
