"""A robot's own world with what a task puts into it, compiled into a scene."""

import dataclasses
from collections.abc import Callable, Sequence

import mujoco

from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.twin.mujoco_device import Scene

MARKER_M = 0.02
"""Radius of a target marker."""


def build_scene(
    kit: RobotKit,
    furnish: Callable[[mujoco.MjSpec], None] | None = None,
    objects: Sequence[str] = (),
    markers: Sequence[str] = (),
) -> Scene:
    """Compile the robot's world.

    Args:
        kit: The robot.
        furnish: Adds bodies to the world, such as those of the objects.
        objects: Names of bodies, each of which `furnish` gives a free joint: they are tracked.
        markers: Names of targets; each gets a ball that is seen and touches nothing.
    """
    world = kit.world()
    if furnish is not None:
        furnish(world)
    joints = {name: _free_joint(world, name) for name in objects}
    for name in markers:
        body = world.worldbody.add_body(name=f"target/{name}", mocap=True)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[MARKER_M, 0.0, 0.0],
            rgba=[0.2, 0.8, 0.3, 0.5],
            contype=0,
            conaffinity=0,
            group=1,
        )
    targets = {name: f"target/{name}" for name in markers}
    return Scene(world.compile(), dataclasses.replace(kit.names, objects=joints, targets=targets))


def _free_joint(world: mujoco.MjSpec, name: str) -> str:
    """The name of the free joint of a body, which gets one if it has none."""
    body = world.body(name)
    free = mujoco.mjtJoint.mjJNT_FREE
    if body is None or [joint.type for joint in body.joints] != [free]:
        raise ValueError(
            f"build_scene: object {name!r} must be a body with a free joint and no other; "
            + ("there is no such body" if body is None else "it has others or none")
        )
    joint = body.joints[0]
    if not joint.name:
        joint.name = f"{name}/free"
    return str(joint.name)
