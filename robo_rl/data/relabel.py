"""New rewards for old data: single cube tasks, and goals in hindsight."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import RewardLabel, Timing
from robo_rl.data.transitions import Transitions

# OGBench's manipulation scenes: 6 arm and 8 gripper joints, then 7 numbers for each cube.
CUBE_QPOS = 14
CUBE_QPOS_STRIDE = 7
SUCCESS_M = 0.04
GOAL_INFO = "goal"  # the info with the goals of the K cubes in a row of 3 K numbers, in m
# OGBench's scaling of cube positions in observations and oracle representations.
_CENTER_M = np.array([0.425, 0.0, 0.0])
_PER_M = 10.0

AfterSuccess = Literal["split", "keep", "drop"]
"""What becomes of the steps after a termination. With "split" and "keep" all transitions equal
those of OGBench's `relabel_dataset`: "split" starts a new episode there, as other tools expect of a
stored dataset; "keep" leaves the recording whole, so that chunks of actions run on across a
success, as in OGBench. "drop" ends the recording where the environment would have ended it."""


def cube_successes(qpos: np.ndarray, goal_xyz: np.ndarray) -> np.ndarray:
    """Which cubes (N, K) lie within 0.04 m of their goals.

    Args:
        qpos: (N, nq) of a cube scene of OGBench.
        goal_xyz: (K, 3) in m, or (N, K, 3) where the goal changes.
    """
    goal_xyz = np.asarray(goal_xyz, np.float64)
    if goal_xyz.ndim not in (2, 3) or goal_xyz.shape[-1] != 3:
        raise ValueError(f"cube_successes: goal_xyz must be (K, 3), got {goal_xyz.shape}")
    cubes = goal_xyz.shape[-2]
    needed = CUBE_QPOS + cubes * CUBE_QPOS_STRIDE
    if qpos.ndim != 2 or qpos.shape[1] < needed:
        raise ValueError(
            f"cube_successes: {cubes} cubes need qpos of (N, >= {needed}), got {qpos.shape}"
        )
    starts = CUBE_QPOS + CUBE_QPOS_STRIDE * np.arange(cubes)
    xyz = qpos[:, starts[:, None] + np.arange(3)]
    return np.asarray(np.linalg.norm(goal_xyz - xyz, axis=-1) <= SUCCESS_M)


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
    row = ((goal_xyz - _CENTER_M) * _PER_M).ravel()
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


def relabelled(
    episode: Episode,
    rewards: np.ndarray,
    terminated: np.ndarray,
    after_success: AfterSuccess = "split",
) -> Iterator[Episode]:
    """`episode` under new rewards (T,) and terminations (T,), in pieces as `after_success` says.

    The end of the recording is truncated unless its last step terminated; other truncations of
    the old episode stay.
    """
    terminated = np.asarray(terminated, bool)
    truncated = np.array(episode.truncations, bool)
    truncated[-1] = True
    whole = dataclasses.replace(
        episode,
        rewards=np.asarray(rewards),
        terminations=terminated,
        truncations=truncated & ~terminated,
    )
    if after_success == "keep":
        yield whole
        return
    stops = (np.flatnonzero(terminated) + 1).tolist()
    if after_success == "drop":
        yield whole.span(0, stops[0] if stops else len(episode))
        return
    starts = [0, *stops]
    for start, stop in zip(starts, [*stops, len(episode)], strict=True):
        if stop > start:
            yield whole.span(start, stop)


@dataclasses.dataclass(frozen=True)
class HindsightConfig:
    """Where the goals of `hindsight` come from. The four shares sum to 1."""

    goal_columns: tuple[int, ...]
    """Columns of the state (the observation without its goal) that a goal is made of."""
    tolerance: float
    """Euclidean distance between goal and those columns that counts as reached."""
    p_original: float = 0.0
    """Share that keeps the goal it was recorded with."""
    p_current: float = 0.2
    """Share whose goal is the very state that is judged."""
    p_future: float = 0.5
    """Share whose goal is a later state of the same episode."""
    p_random: float = 0.3
    """Share whose goal is any state of the dataset."""
    future_discount: float = 0.99
    """The future lies 1 + Geometric(1 - this) steps ahead, the last state at most; 1: uniform."""
    timing: Timing = "post"

    def __post_init__(self) -> None:
        shares = (self.p_original, self.p_current, self.p_future, self.p_random)
        if min(shares) < 0.0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(f"HindsightConfig: shares must be >= 0 and sum to 1, got {shares}")
        if not 0.0 < self.future_discount <= 1.0:
            raise ValueError(
                f"HindsightConfig.future_discount must be in (0, 1], got {self.future_discount}"
            )
        if not self.goal_columns or not self.tolerance >= 0.0:
            raise ValueError(
                "HindsightConfig: needs goal_columns and a tolerance >= 0, "
                f"got {self.goal_columns} and {self.tolerance}"
            )


def hindsight(
    transitions: Transitions, config: HindsightConfig, rng: np.random.Generator
) -> Transitions:
    """Every transition under a freshly drawn goal: reward 0 and mask 0 at success, else -1 and 1.

    `observations` are (N, S + G): a state and, appended, its goal of G = len(goal_columns).
    `episode_id` tells which rows follow each other. Returns a copy; call it again for new goals.
    """
    observations = np.array(transitions["observations"])
    following = np.array(transitions["next_observations"])
    goal_dim = len(config.goal_columns)
    if observations.ndim != 2 or observations.shape[1] <= max(config.goal_columns) + goal_dim:
        raise ValueError(
            f"hindsight: observations must be (N, S + {goal_dim}) with goal columns "
            f"{config.goal_columns} in the first S, got {observations.shape}"
        )
    columns = list(config.goal_columns)
    reached_next = following[:, columns]
    judged = observations[:, columns] if config.timing == "pre" else reached_next
    goals = observations[:, -goal_dim:].copy()
    choice = rng.choice(
        4,
        size=len(goals),
        p=(config.p_original, config.p_current, config.p_future, config.p_random),
    )
    future = _future_rows(np.asarray(transitions["episode_id"]), config.future_discount, rng)
    anywhere = rng.integers(len(goals), size=len(goals))
    for number, candidate in ((1, judged), (2, reached_next[future]), (3, reached_next[anywhere])):
        goals[choice == number] = candidate[choice == number]
    success = np.linalg.norm(judged - goals, axis=1) <= config.tolerance
    observations[:, -goal_dim:] = goals
    following[:, -goal_dim:] = goals
    ends = np.append(np.diff(np.asarray(transitions["episode_id"])) != 0, True)
    return {
        **transitions,
        "observations": observations,
        "next_observations": following,
        "rewards": success.astype(np.float32) - np.float32(1.0),
        "terminated": success,
        "truncated": ends & ~success,
        "masks": 1.0 - success.astype(np.float32),
    }


def _future_rows(episode_id: np.ndarray, discount: float, rng: np.random.Generator) -> np.ndarray:
    """For each row (N,) a row of the same episode, not before it, whose next state is a goal."""
    rows = np.arange(len(episode_id))
    last_of_episode = np.flatnonzero(np.append(np.diff(episode_id) != 0, True))
    last = last_of_episode[np.searchsorted(last_of_episode, rows)]
    if discount < 1.0:
        return np.asarray(np.minimum(rows + rng.geometric(1.0 - discount, len(rows)) - 1, last))
    return np.asarray(rng.integers(rows, last + 1))
