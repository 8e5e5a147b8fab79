"""What a task adds to an arm: where an episode starts, what is observed, what counts as done.

A task of one's own is a subclass of `Task`, found by path or entry point (`robo_rl.envs.tasks`).
"""

import abc
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Self

import mujoco
import numpy as np

from robo_rl.envs.kinematics import ToolKinematics, tool_kinematics
from robo_rl.hardware.contracts import ArmState, Pose
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.robots.scenes import build_scene
from robo_rl.hardware.twin.mujoco_device import Scene


@dataclasses.dataclass(frozen=True)
class SceneStart:
    """A scene at rest: joint angles (J,), objects and target markers by name."""

    q_rad: np.ndarray
    objects: Mapping[str, Pose]
    targets: Mapping[str, Pose]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a state is worth. A time limit is not an outcome: the environment truncates."""

    reward: float
    terminated: bool
    success: bool


class Task(abc.ABC):
    """One episode at a time: `start` opens it, the other methods judge states within it.

    A task by name is made as `make(kit, **options)`: by default that is the constructor, whose
    further arguments are the options. They come from Gymnasium's specs, so they are JSON values.
    """

    name: str
    """What it is called in messages; by default the class's name in small letters."""
    max_steps: int = 200
    """Steps of an episode, after which the environment truncates."""
    observation_size: int
    """O, the length of what `observe` returns."""
    objects: tuple[str, ...] = ()
    """Names of the objects that must be tracked. Each is a body, with a free joint, of the scene;
    `start` puts them in place."""
    markers: tuple[str, ...] = ()
    """Names of the targets that are shown; `targets` puts them in place."""
    outcome_before_step: bool = False
    """A step is judged by the state it starts from, not by the one it leads to."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.name = cls.__dict__.get("name", cls.__name__.lower())

    _scene: Scene | None = None
    _kinematics: ToolKinematics | None = None

    def __init__(self, kit: RobotKit) -> None:
        """A task for one robot. Builds nothing yet."""
        self.kit = kit

    @classmethod
    def make(cls, kit: RobotKit, **options: Any) -> Self:
        """The task with its options. Raises ValueError for one that it does not have."""
        known = list(inspect.signature(cls).parameters)[1:]
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise ValueError(
                f"task {cls.name} has no option {', '.join(unknown)}; "
                f"it has {', '.join(known) or 'none'}"
            )
        return cls(kit, **options)

    def furnish(self, world: mujoco.MjSpec) -> None:  # noqa: B027 - an empty table is a task too
        """Put into the robot's world what the task needs: by default nothing.

        The world has the arm, a floor at z = 0, light and a camera. Add each of `objects` as a
        body of that name with a free joint; targets are added by themselves.
        """

    def build_scene(self) -> Scene:
        """The scene that is simulated: by default the robot's world, furnished."""
        return build_scene(self.kit, self.furnish, self.objects, self.markers)

    @property
    def scene(self) -> Scene:
        """The compiled scene, built when first asked for."""
        if self._scene is None:
            self._scene = self.build_scene()
        return self._scene

    def take_scene(self, scene: Scene) -> None:
        """Use a scene that is compiled already, such as one that another process wrote."""
        self._scene = scene

    @property
    def kinematics(self) -> ToolKinematics:
        """Inverse kinematics of the robot in the scene, for starts and for actions."""
        if self._kinematics is None:
            self._kinematics = tool_kinematics(self.scene, self.kit)
        return self._kinematics

    @abc.abstractmethod
    def start(self, rng: np.random.Generator, options: Mapping[str, Any]) -> SceneStart:
        """Draw the start and the goal of the next episode."""

    @abc.abstractmethod
    def observe(self, state: ArmState) -> np.ndarray:
        """The observation (O,) of a state."""

    @abc.abstractmethod
    def outcome(self, state: ArmState) -> Outcome:
        """Reward, termination and success of a state."""

    def info(self, state: ArmState) -> dict[str, Any]:
        """What else can be said about a state, under OGBench's names where it has them."""
        return {}

    def goal_scene(self) -> SceneStart | None:
        """The scene whose observation is the goal; None where the goal is not an observation."""
        return None

    def goal_observation(self, state: ArmState) -> np.ndarray:
        """The observation of a state in the form that goals have, without a goal appended."""
        return self.observe(state)

    def restore_goal(self, goal: np.ndarray, target_cube: int) -> None:
        """Take up a recorded goal, for judging recorded states."""
        raise ValueError(f"{type(self).__name__}: this task has no goal that can be restored")

    def new_target(self, rng: np.random.Generator, state: ArmState, p_stack: float) -> None:
        """Draw another target within the episode, for data collection."""
        raise ValueError(f"{type(self).__name__}: this form of the task has one target an episode")

    @property
    def targets(self) -> Mapping[str, Pose]:
        """Where the target markers are now."""
        return {}
