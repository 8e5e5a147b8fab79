"""New rewards for old data: episodes under other rewards, and goals in hindsight."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import Timing
from robo_rl.data.transitions import Transitions

AfterSuccess = Literal["split", "keep", "drop"]
"""What becomes of the steps after a termination. With "split" and "keep" all transitions equal
those of OGBench's `relabel_dataset`: "split" starts a new episode there, as other tools expect of a
stored dataset; "keep" leaves the recording whole, so that chunks of actions run on across a
success, as in OGBench. "drop" ends the recording where the environment would have ended it."""


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
