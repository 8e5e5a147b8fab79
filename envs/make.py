"""Puts scene, device, guards and task together: the entry points of the registered environments."""

from collections.abc import Mapping
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from robo_rl.envs import tasks
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.task import Task
from robo_rl.envs.tasks.cube import CubeTask, CubeTaskConfig
from robo_rl.hardware import robots
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, load_scene

_Config = TypeVar("_Config")
Fields = Mapping[str, Any]


def make_arm_env(
    task: str = "cube",
    robot: str = robots.DEFAULT,
    gap: DomainGap | Fields | None = None,
    guards: GuardConfig | Fields | None = None,
    barrier: BarrierConfig | Fields | None = None,
    render_mode: str | None = None,
    scene_path: str | None = None,
    max_steps: int | None = None,
    **options: Any,
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """Any task on any simulated robot behind its guards, with the task's own step limit.

    Args:
        task: Name of a task, or path of a file of one's own: `mine.py:Stack`.
        robot: Name of a robot, or path: `mine.py:MY_ARM`.
        gap: How the simulated arm differs from the nominal one; a mapping holds the fields.
        guards: `{"enforce": False}` reports only.
        barrier: None leaves the barrier filter out; `{}` takes its defaults for the robot.
        render_mode: None or `rgb_array`.
        scene_path: A scene that `save_scene` wrote, in place of compiling it.
        max_steps: Steps of an episode; None takes the task's.
        options: The task's own.
    """
    kit = robots.get(robot)
    made = tasks.make(task, kit, **options)
    if scene_path is not None:
        made.take_scene(load_scene(scene_path))
    env = arm_env(made, kit, gap, guards, barrier, render_mode)
    env.references = {
        "task": tasks.TASKS.find(task).reference,
        "robot": robots.ROBOTS.find(robot).reference,
    }
    return TimeLimit(env, made.max_steps if max_steps is None else max_steps)


def make_cube_env(
    scene: str = "single",
    form: str = "goal",
    task_id: int | None = None,
    goal_in_observation: bool = True,
    relative_positions: bool = False,
    gap: DomainGap | Fields | None = None,
    guards: GuardConfig | Fields | None = None,
    barrier: BarrierConfig | Fields | None = None,
    render_mode: str | None = None,
    scene_path: str | None = None,
) -> ArmEnv:
    """One of OGBench's cube tasks on its simulated arm behind its guards, without a step limit.

    Args:
        scene: Of `geometry.CUBE_SCENES`.
        form: See `CubeTaskConfig`, as the three that follow.
        gap: See `make_arm_env`, as the four that follow. With guards that report only, the arm
            moves exactly as OGBench's does.
        guards: How the guards are set.
        barrier: How the barrier filter is set.
        render_mode: None or `rgb_array`.
        scene_path: A scene that `save_scene` wrote, in place of compiling it.
    """
    kit = robots.get(scenes.ROBOT)
    config = CubeTaskConfig(scene, form, task_id, goal_in_observation, relative_positions)
    task = CubeTask(kit, config)
    if scene_path:
        task.take_scene(load_scene(scene_path))
    return arm_env(task, kit, gap, guards, barrier, render_mode)


def arm_env(
    task: Task,
    kit: RobotKit,
    gap: DomainGap | Fields | None = None,
    guards: GuardConfig | Fields | None = None,
    barrier: BarrierConfig | Fields | None = None,
    render_mode: str | None = None,
) -> ArmEnv:
    """The environment of a task that is made already, without a step limit."""
    device = MujocoDevice(task.scene, kit.spec, _config(DomainGap, gap))
    if isinstance(barrier, Mapping):
        barrier = BarrierConfig.of(kit, **_fields(barrier))
    robot = ArmController(device, _config(GuardConfig, guards), barrier=barrier, kit=kit)
    return ArmEnv(robot, task, task.kinematics, device, render_mode=render_mode)


def task_of(env: Mapping[str, Any], task_id: int | None = None) -> Task:
    """The task of a stored environment: fields of `make_cube_env`, or, where `task` is among them,
    of `make_arm_env`. `task_id` replaces the number of a task that has numbers.
    """
    fields = dict(env)
    name, robot = fields.pop("task", "cube"), fields.pop("robot", robots.DEFAULT)
    for field in _NOT_OF_THE_TASK:
        fields.pop(field, None)
    if "task" not in env or task_id is not None:
        fields["task_id"] = task_id
    return tasks.make(name, robots.get(robot), **fields)


_NOT_OF_THE_TASK = ("gap", "guards", "barrier", "render_mode", "scene_path", "max_steps")


def _config(kind: type[_Config], fields: _Config | Fields | None) -> _Config | None:
    """A config from its fields, so that a Gymnasium spec with it can be stored as JSON."""
    return kind(**_fields(fields)) if isinstance(fields, Mapping) else fields


def _fields(fields: Fields) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in fields.items()}


def _tuples(value: Any) -> Any:
    """JSON has lists where the configs have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
