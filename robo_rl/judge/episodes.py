"""Evaluation: N episodes on seeds that training never sees, with a Wilson interval."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np

from robo_rl.learn.seeds import evaluation_seed

Z_95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson_interval: got {successes} successes of {trials} trials")
    rate = successes / trials
    middle = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials)
    half *= math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # At 0 and 1 the end of the interval is exact; rounding would leave a stray 1e-17.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == trials else middle + half
    return low, high


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Outcomes, one entry an episode."""

    seeds: tuple[int, ...]
    success: tuple[bool, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    truncated: tuple[bool, ...]

    @property
    def success_rate(self) -> float:
        """Share of successful episodes."""
        return sum(self.success) / len(self.success)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson interval of the success rate."""
        return wilson_interval(sum(self.success), len(self.success))

    def summary(self) -> dict[str, float]:
        """Flat numbers for metrics files."""
        low, high = self.ci95
        return {
            "episodes": float(len(self.success)),
            "success": self.success_rate,
            "success_low": low,
            "success_high": high,
            "return": float(np.mean(self.returns)),
            "length": float(np.mean(self.lengths)),
            "truncations": float(sum(self.truncated)),
        }


def merge(parts: Iterable[Episodes]) -> Episodes:
    """All episodes of several workers, in the order of their seeds."""
    rows = sorted(
        row
        for part in parts
        for row in zip(
            part.seeds, part.success, part.returns, part.lengths, part.truncated, strict=True
        )
    )
    if not rows:
        raise ValueError("merge: no episodes")
    return Episodes(*(tuple(column) for column in zip(*rows, strict=True)))


def evaluation_seeds(seed: int, episodes: int) -> tuple[int, ...]:
    """Reset seeds of an evaluation. Worker i of n runs `seeds[i::n]`."""
    return tuple(evaluation_seed(seed, episode) for episode in range(episodes))


def evaluate(
    env: gymnasium.Env[Any, Any],
    policy: Callable[[Any], np.ndarray],
    seeds: Sequence[int],
    begin: Callable[[int], None] | None = None,
) -> Episodes:
    """Run one episode a seed. An episode is a success if `info["success"]` was ever true.

    `begin` is called with the seed before each episode: a policy that draws noise draws it from
    there, and one that plays chunks of actions drops what is left of the last one.
    """
    rows = []
    for seed in seeds:
        if begin is not None:
            begin(seed)
        rows.append(_episode(env, policy, seed))
    if not rows:
        raise ValueError("evaluate: needs at least one seed")
    return Episodes(*(tuple(column) for column in zip(*rows, strict=True)))


def _episode(
    env: gymnasium.Env[Any, Any], policy: Callable[[Any], np.ndarray], seed: int
) -> tuple[int, bool, float, int, bool]:
    obs, _ = env.reset(seed=seed)
    success, total, length = False, 0.0, 0
    while True:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        success |= bool(info.get("success", False))
        total += float(reward)
        length += 1
        if terminated or truncated:
            return seed, success, total, length, bool(truncated and not terminated)
