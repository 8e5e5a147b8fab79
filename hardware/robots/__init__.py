"""Robots by name: `get("ur5e")`, one of an installed package, or `get("mine.py:MY_ARM")`.

A package offers a `RobotKit` under the entry point group `robo_rl.robots`.
"""

from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.plugins import Door

ROBOTS: Door[RobotKit] = Door(
    "robot",
    "robo_rl.robots",
    {"ur5e": "robo_rl.hardware.robots.ur5e.kit:UR5E_KIT"},
    fits=lambda value: isinstance(value, RobotKit),
)

DEFAULT = "ur5e"
"""The robot where none is named."""


def get(name: str = DEFAULT) -> RobotKit:
    """The robot of this name or path. Raises PluginError, which lists the known ones."""
    return ROBOTS.get(name)
