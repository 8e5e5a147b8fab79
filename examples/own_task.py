"""A task of your own, on the arm that is shipped: bring the hand over a block.

    python examples/own_task.py

A task says where an episode starts, what is observed, and what counts as done. Everything else is
there: the arm and its physics, the guards, inverse kinematics, the step limit, Gymnasium's
interface. Actions are relative, in [-1, 1]: metres in x, y, z (1 is 5 cm), turn of the hand,
closing of the gripper.

The file itself is the plug-in. Every command and `gymnasium.make` find it by its path, and a
dataset that is recorded in it carries that path:

    gymnasium.make("robo_rl/Arm-v0", task="examples/own_task.py:Hover", height_m=0.1)

An installed package offers a task under the entry point group `robo_rl.tasks`.
"""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np

import robo_rl.envs  # registers robo_rl/Arm-v0
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Provenance, RewardLabel, open_dataset, write_dataset
from robo_rl.envs.kinematics import down_quaternion
from robo_rl.envs.task import Outcome, SceneStart, Task
from robo_rl.hardware.contracts import ArmState, Pose
from robo_rl.hardware.robots.kit import RobotKit

BLOCK_M = 0.04


class Hover(Task):
    """Hold the hand over a block that lies anywhere on the table."""

    name = "hover"
    max_steps = 50  # of 0.05 s each
    objects = ("block",)  # its pose is in every state that the task is shown
    markers = ("goal",)  # a ball that is drawn, and touches nothing
    observation_size = 6

    def __init__(self, kit: RobotKit, height_m: float = 0.08, within_m: float = 0.02) -> None:
        """The arguments after `kit` are the options of the task."""
        super().__init__(kit)
        self.height_m, self.within_m = height_m, within_m
        self._goal = np.zeros(3)

    def furnish(self, world: mujoco.MjSpec) -> None:
        """Add to the arm's world a body with a free joint for each of `objects`."""
        block = world.worldbody.add_body(name="block", pos=(0.4, 0.0, BLOCK_M / 2))
        block.add_freejoint()
        block.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(BLOCK_M / 2,) * 3,
            mass=0.1,
            rgba=(0.9, 0.3, 0.3, 1),
        )

    def start(self, rng: np.random.Generator, options: Mapping[str, Any]) -> SceneStart:
        """Draw where the arm and the block are. All chance comes from `rng`."""
        low, high = (np.array(corner) for corner in self.kit.workspace_m)
        middle, half = (low + high) / 2, (high - low) / 2
        place = rng.uniform(middle - 0.6 * half, middle + 0.6 * half)
        place[2] = BLOCK_M / 2
        self._goal = place + np.array((0.0, 0.0, self.height_m))
        tool = rng.uniform(middle - 0.6 * half, middle + 0.6 * half)
        home = np.array(self.kit.spec.home_rad)
        q = self.kinematics.solve(tool, down_quaternion(0.0), home)
        return SceneStart(q, {"block": _pose(place)}, self.targets)

    def observe(self, state: ArmState) -> np.ndarray:
        """Tool and block, (x, y, z) in m each, in the base frame."""
        return np.concatenate((state.tool.position_m, state.objects["block"].position_m))

    def outcome(self, state: ArmState) -> Outcome:
        """-1 a step until the hand is there, which ends the episode."""
        there = float(np.linalg.norm(state.tool.position_m - self._goal)) <= self.within_m
        return Outcome(reward=float(there) - 1.0, terminated=there, success=there)

    @property
    def targets(self) -> Mapping[str, Pose]:
        """Where the marker is drawn."""
        return {"goal": _pose(self._goal)}


def controller(observation: np.ndarray, height_m: float = 0.08) -> np.ndarray:
    """Straight towards the place over the block, 5 cm a step at most: an expert in two lines."""
    way = observation[3:] - observation[:3] + np.array((0.0, 0.0, height_m))
    return np.append(np.clip(way / 0.05, -1.0, 1.0), (0.0, 0.0)).astype(np.float32)


def play(env: gymnasium.Env[Any, Any], episodes: int) -> list[Episode]:
    """Episodes of the controller."""
    played = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        observations, steps, over = [observation], [], False
        while not over:
            action = controller(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            steps.append((action, reward, terminated, truncated))
            over = terminated or truncated
        actions, rewards, terminations, truncations = map(np.array, zip(*steps, strict=True))
        played.append(Episode(np.array(observations), actions, rewards, terminations, truncations))
    return played


def main(folder: pathlib.Path | None = None, episodes: int = 10) -> float:
    """Play, record, and make the environment again from the recording. Returns the success rate."""
    task = f"{pathlib.Path(__file__).resolve()}:Hover"
    env = gymnasium.make(robo_rl.envs.ARM_ENV_ID, task=task)
    played = play(env, episodes)
    success = float(np.mean([episode.terminations[-1] for episode in played]))
    steps = [len(episode) for episode in played]
    print(f"{success:.0%} of {episodes} episodes end over the block, in {max(steps)} steps at most")

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MINARI_DATASETS_PATH"] = str(folder or temporary)
        write_dataset(
            "hover/controller-v0",
            played,
            observation_space=env.observation_space,
            action_space=env.action_space,
            provenance=Provenance(control_hz=20.0, reward=RewardLabel("environment", "1")),
            env=env.spec,
        )
        stored = open_dataset("hover/controller-v0").env_spec
        assert stored is not None
        again = gymnasium.make(stored)
        print(f"the dataset's environment is {stored.id} with {stored.kwargs['task']}")
        again.reset(seed=0)
        again.close()
    env.close()
    return success


def _pose(place_m: np.ndarray) -> Pose:
    return Pose(np.array(place_m), np.array([1.0, 0.0, 0.0, 0.0]))


if __name__ == "__main__":
    main()
