"""What a task adds to an arm: where an episode starts, what is observed, what counts as done."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rl.hardware.contracts import ArmState, Pose


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
    """One episode at a time: `start` opens it, the other methods judge states within it."""

    observation_size: int
    objects: tuple[str, ...]
    """Names of the objects that must be tracked."""
    outcome_before_step: bool = False
    """A step is judged by the state it starts from, not by the one it leads to."""

    @abc.abstractmethod
    def start(self, rng: np.random.Generator, options: Mapping[str, Any]) -> SceneStart:
        """Draw the start and the goal of the next episode."""

    @abc.abstractmethod
    def observe(self, state: ArmState) -> np.ndarray:
        """The observation (O,) of a state."""

    @abc.abstractmethod
    def outcome(self, state: ArmState) -> Outcome:
        """Reward, termination and success of a state."""

    @abc.abstractmethod
    def info(self, state: ArmState) -> dict[str, Any]:
        """What else can be said about a state, under OGBench's names where it has them."""

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
