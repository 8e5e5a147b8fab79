"""Choosing among trained policies by a few online episodes (Jackson et al., 2025).

"A Clean Slate for Offline Reinforcement Learning", arXiv:2504.11453: what a method is worth depends
on how many episodes may be spent on choosing among the policies of its hyperparameter sweep. So the
choice is played: a UCB bandit picks whose episode to run next, and after n of them the policy of
the best mean so far is deployed. Its true mean, over many plays, is the score at n.

A play draws some of the policies and, at every pull, one of the stored episodes of the policy that
is pulled, with replacement. Policies that were not pulled yet come first; among equals the order of
the play's own draw decides.
"""

import dataclasses

import numpy as np

from robo_rl.fields import check_fields
from robo_rl.judge.episodes import bootstrap_interval


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the choice is played; defaults are the authors'."""

    pulls: int = 200
    """P, the most online episodes that a play has."""
    policies: int = 8
    """Drawn for each play, without replacement; all of them where there are no more."""
    plays: int = 1000
    alpha: float = 2.0
    """Of the bonus sqrt(alpha * log(n) / pulls of the policy), in units of `scale`."""
    bootstraps: int = 1000
    """Resamples of the plays, for the interval."""
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "Protocol")
        for name in ("pulls", "policies", "plays", "bootstraps"):
            if getattr(self, name) < 1:
                raise ValueError(f"Protocol.{name} must be >= 1, got {getattr(self, name)}")
        if not self.alpha >= 0.0:
            raise ValueError(f"Protocol.alpha must be >= 0, got {self.alpha}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"Protocol.confidence must be in (0, 1), got {self.confidence}")


@dataclasses.dataclass(frozen=True)
class Deployed:
    """Expected score of the deployed policy after 1 ... P online episodes, arrays (P,)."""

    mean: np.ndarray
    low: np.ndarray
    """Interval of `mean` over plays: of the draws of policies and of episodes."""
    high: np.ndarray


def expected(scores: np.ndarray, protocol: Protocol) -> Deployed:
    """Play the choice among policies with the episode scores (K, E)."""
    scores = _checked(scores)
    rng = np.random.default_rng(protocol.seed)
    chosen = play(scores, protocol, rng)
    deployed = scores.mean(axis=1)[chosen]  # (plays, P)
    return Deployed(
        deployed.mean(axis=0),
        *bootstrap_interval(deployed, protocol.bootstraps, protocol.confidence, rng),
    )


def play(scores: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Index (plays, P) of the policy that would be deployed after each pull of each play."""
    policies, episodes = scores.shape
    count = min(protocol.policies, policies)
    shape = (protocol.plays, count)
    drawn = np.argsort(rng.random((protocol.plays, policies)), axis=1)[:, :count]
    each = np.arange(protocol.plays)
    pulled, total = np.zeros(shape), np.zeros(shape)
    unit = scale(scores)
    out = np.empty((protocol.plays, protocol.pulls), np.int64)
    for step in range(protocol.pulls):
        arm = np.argmax(_upper_bound(pulled, total, step, protocol.alpha, unit), axis=1)
        seen = scores[drawn[each, arm], rng.integers(episodes, size=protocol.plays)]
        pulled[each, arm] += 1
        total[each, arm] += seen
        mean = np.where(pulled > 0, total / np.maximum(pulled, 1), -np.inf)
        out[:, step] = drawn[each, np.argmax(mean, axis=1)]
    return out


def scale(scores: np.ndarray) -> float:
    """Width of the range of all scores, 1 for successes: the unit in which UCB's bonus counts."""
    return float(np.ptp(scores)) or 1.0


def _upper_bound(
    pulled: np.ndarray, total: np.ndarray, step: int, alpha: float, unit: float
) -> np.ndarray:
    """UCB (plays, K) after `step` pulls; infinite for policies that were not pulled."""
    count = np.maximum(pulled, 1)
    bonus = unit * np.sqrt(alpha * np.log(max(step, 1)) / count)
    return np.where(pulled > 0, total / count + bonus, np.inf)


def recommend(scores: np.ndarray) -> int:
    """The policy of the highest mean over all its episodes (K, E); the first of equals."""
    return int(np.argmax(_checked(scores).mean(axis=1)))


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores must be (policies, episodes), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return scores
