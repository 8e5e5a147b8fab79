"""Recorded episodes under the rewards of one of OGBench's cube tasks."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import RewardLabel, Timing
from robo_rl.data.relabel import AfterSuccess, relabelled
from robo_rl.envs.ogbench.geometry import CENTER_M, PER_M, SUCCESS_M, cube_positions, successes

GOAL_INFO = "goal"
"""The info with the goals of the K cubes in a row of 3 K numbers, in m."""


def cube_successes(qpos: np.ndarray, goal_xyz: np.ndarray) -> np.ndarray:
    """Which cubes (N, K) lie within 0.04 m of their goals.

    Args:
        qpos: (N, nq) of a cube scene of OGBench.
        goal_xyz: (K, 3) in m, or (N, K, 3) where the goal changes.
    """
    goal_xyz = np.asarray(goal_xyz, np.float64)
    if goal_xyz.ndim not in (2, 3) or goal_xyz.shape[-1] != 3:
        raise ValueError(f"cube_successes: goal_xyz must be (K, 3), got {goal_xyz.shape}")
    return successes(cube_positions(qpos, goal_xyz.shape[-2]), goal_xyz)


def relabel_cube(
    episodes: Iterable[Episode],
    goal_xyz: np.ndarray | None,
    *,
    timing: Timing = "pre",
    after_success: AfterSuccess = "split",
    goal_in_observation: bool = False,
) -> Iterator[Episode]:
    """Rewards of one cube task: minus the number of cubes not at their goal.

    A step is terminated when all cubes are there. With timing "pre" (OGBench's single-task
    environments) both judge the state before the step, so the last state of an episode is never
    judged; with "post", the state after it.

    Args:
        episodes: With `infos["qpos"]` of a cube scene.
        goal_xyz: (K, 3), where the K cubes shall go, in m. None: `infos["goal"]` (T + 1, 3 K), the
            goal that each step was recorded under.
        timing: Which state a step is judged by.
        after_success: What becomes of steps after the first termination.
        goal_in_observation: The last 3 K numbers of the observations are the goal, scaled as
            OGBench's oracle representation; write the new one there.
    """
    needed = {"qpos"} if goal_xyz is not None else {"qpos", GOAL_INFO}
    for index, episode in enumerate(episodes):
        missing = sorted(needed - episode.infos.keys())
        if missing:
            raise ValueError(
                f"relabel_cube: episode {index} has no infos {missing}; "
                f"it has {sorted(episode.infos) or 'none'}"
            )
        qpos = episode.infos["qpos"]
        # The goal of a step is the one that was set before it.
        if goal_xyz is None:
            goal = episode.infos[GOAL_INFO][:-1].reshape(len(episode), -1, 3)
        else:
            goal = np.asarray(goal_xyz)
        judged = cube_successes(qpos[:-1] if timing == "pre" else qpos[1:], goal)
        if goal_in_observation and goal_xyz is not None:
            episode = _with_goal(episode, goal)
        rewards = judged.sum(axis=1) - float(judged.shape[1])
        yield from relabelled(episode, rewards, np.asarray(judged.all(axis=1)), after_success)


def _with_goal(episode: Episode, goal_xyz: np.ndarray) -> Episode:
    if not isinstance(episode.observations, np.ndarray):
        raise ValueError("relabel_cube: a goal can only be written into plain observations")
    row = ((goal_xyz - CENTER_M) * PER_M).ravel()
    observations = episode.observations.copy()
    observations[:, -len(row) :] = row
    infos = dict(episode.infos)
    if GOAL_INFO in infos:
        infos[GOAL_INFO] = np.tile(goal_xyz.ravel(), (len(episode) + 1, 1))
    return dataclasses.replace(episode, observations=observations, infos=infos)


def cube_label(goal_xyz: np.ndarray | None, timing: Timing = "pre") -> RewardLabel:
    """The provenance of `relabel_cube`."""
    goal = GOAL_INFO if goal_xyz is None else np.asarray(goal_xyz).tolist()
    detail = {"goal_xyz_m": goal, "success_m": SUCCESS_M}
    return RewardLabel(source="cube", version="1", timing=timing, detail=detail)
