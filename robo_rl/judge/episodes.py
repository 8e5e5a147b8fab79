"""Evaluation: N episodes on seeds that training never sees, with a Wilson interval."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    told: bool = True
    """Whether the environment says what success is; where it does not, returns count alone."""

    @property
    def success_rate(self) -> float:
        """Share of successful episodes."""
        return sum(self.success) / len(self.success)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson interval of the success rate."""
        return wilson_interval(sum(self.success), len(self.success))

    @property
    def mean_return(self) -> float:
        """Mean return of an episode."""
        return float(np.mean(self.returns))

    @property
    def return_ci95(self) -> tuple[float, float]:
        """Percentile bootstrap interval of the mean return, from a fixed seed."""
        rng = np.random.default_rng(0)
        low, high = bootstrap_interval(np.array(self.returns, np.float64), 1000, 0.95, rng)
        return float(low), float(high)

    def summary(self) -> dict[str, float]:
        """Flat numbers for metrics files; of success only where the environment tells it."""
        low, high = self.ci95
        success = {"success": self.success_rate, "success_low": low, "success_high": high}
        return_low, return_high = self.return_ci95
        return {
            "episodes": float(len(self.success)),
            **(success if self.told else {}),
            "return": self.mean_return,
            "return_low": return_low,
            "return_high": return_high,
            "length": float(np.mean(self.lengths)),
            "truncations": float(sum(self.truncated)),
        }


def normalised_score(mean_return: float, references: Mapping[str, float]) -> float | None:
    """100 * (return - low) / (high - low), D4RL's score; None without both references.

    Args:
        mean_return: of an episode.
        references: `ref_min_score` and `ref_max_score`, as Minari's datasets store them.
    """
    if not {"ref_min_score", "ref_max_score"} <= references.keys():
        return None
    low, high = references["ref_min_score"], references["ref_max_score"]
    return None if high == low else 100.0 * (mean_return - low) / (high - low)


def bootstrap_interval(
    samples: np.ndarray, resamples: int, confidence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval (...) of the mean of `samples` (N, ...) over N."""
    size = len(samples)
    counts = rng.multinomial(size, np.full(size, 1.0 / size), size=resamples)
    means = np.tensordot(counts / size, samples, axes=1)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return low, high


def merge(parts: Iterable[Episodes]) -> Episodes:
    """All episodes of several workers, in the order of their seeds."""
    parts = list(parts)
    rows = sorted(
        row
        for part in parts
        for row in zip(
            part.seeds, part.success, part.returns, part.lengths, part.truncated, strict=True
        )
    )
    if not rows:
        raise ValueError("merge: no episodes")
    return _episodes(rows, all(part.told for part in parts))


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
    rows, told = [], True
    for seed in seeds:
        if begin is not None:
            begin(seed)
        row, says = _episode(env, policy, seed)
        rows.append(row)
        told &= says
    if not rows:
        raise ValueError("evaluate: needs at least one seed")
    return _episodes(rows, told)


def _episodes(rows: Sequence[tuple[int, bool, float, int, bool]], told: bool) -> Episodes:
    seeds, success, returns, lengths, truncated = zip(*rows, strict=True)
    return Episodes(seeds, success, returns, lengths, truncated, told)


def _episode(
    env: gymnasium.Env[Any, Any], policy: Callable[[Any], np.ndarray], seed: int
) -> tuple[tuple[int, bool, float, int, bool], bool]:
    """A row of `Episodes`, and whether `info` told of success."""
    obs, _ = env.reset(seed=seed)
    success, told, total, length = False, False, 0.0, 0
    while True:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        told |= "success" in info
        success |= bool(info.get("success", False))
        total += float(reward)
        length += 1
        if terminated or truncated:
            row = seed, success, total, length, bool(truncated and not terminated)
            return row, told
