"""Puts scene, device, guards and task together: the entry point of the registered environments."""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import mujoco
import numpy as np

from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.kinematics import tool_kinematics
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.cube import CubeTask, CubeTaskConfig
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.robots.ur5e.model import ur5e_model
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, load_scene

_Config = TypeVar("_Config")


def make_cube_env(
    scene: str = "single",
    form: str = "goal",
    task_id: int | None = None,
    goal_in_observation: bool = True,
    relative_positions: bool = False,
    gap: DomainGap | Mapping[str, Any] | None = None,
    guards: GuardConfig | Mapping[str, Any] | None = None,
    barrier: BarrierConfig | Mapping[str, Any] | None = None,
    render_mode: str | None = None,
    scene_path: str | None = None,
) -> ArmEnv:
    """One of OGBench's cube tasks on a simulated UR5e behind its guards.

    Args:
        scene: Of `scenes.CUBE_SCENES`.
        form: See `CubeTaskConfig`, as the three that follow.
        gap: How the simulated arm differs from the nominal one; a mapping holds the fields.
        guards: `{"enforce": False}` reports only: then the arm moves exactly as OGBench's does.
        barrier: None leaves the barrier filter out; `{}` takes its defaults.
        render_mode: None or `rgb_array`.
        scene_path: A scene that `save_scene` wrote, in place of compiling it.
    """
    compiled = load_scene(scene_path) if scene_path else scenes.compile_cube_scene(scene)
    device = MujocoDevice(compiled, UR5E, _config(DomainGap, gap))
    barrier_config = _config(BarrierConfig, barrier)
    robot = ArmController(
        device,
        _config(GuardConfig, guards),
        barrier=barrier_config,
        model=_nominal_arm() if barrier_config else None,
    )
    task_config = CubeTaskConfig(scene, form, task_id, goal_in_observation, relative_positions)
    kinematics = tool_kinematics(compiled)
    task = CubeTask(task_config, kinematics, np.array(UR5E.home_rad))
    return ArmEnv(robot, task, kinematics, device, render_mode=render_mode)


@functools.cache
def _nominal_arm() -> mujoco.MjModel:
    return ur5e_model()


def _config(kind: type[_Config], fields: _Config | Mapping[str, Any] | None) -> _Config | None:
    """A config from its fields, so that a Gymnasium spec with it can be stored as JSON."""
    if not isinstance(fields, Mapping):
        return fields
    return kind(**{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    """JSON has lists where the configs have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
