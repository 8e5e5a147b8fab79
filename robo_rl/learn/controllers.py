"""Controllers as plain callables: teachers that label states, bases that corrections stand on.

A controller maps observations (B, O) to actions (B, A), or to a mean and a spread (B, A) each: an
analytic law, a planner, `from_policy` of an exported one. Agents never see it. It is asked in one
place, `label`: for the rows of a dataset, for the states that the online loop visits, and for the
action that `robo_rl.learn.bases` appends to an observation.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from robo_rl.learn.recipes import Recipe

Controller: TypeAlias = Callable[[np.ndarray], Any]
"""observations (B, O), float32 -> actions (B, A), or the tuple (mean, std) of (B, A) each."""

LABELS = ("teacher_actions", "teacher_log_std")
_ROWS = 4096  # asked at once
# After the streams of the online loop.
_STREAM_TURN, _STREAM_STEP_TURN = 6, 7


class ExportedPolicy(Protocol):
    """What `from_policy` needs of `robo_rl.hardware.runtime.policy.NumpyPolicy`."""

    action_size: int

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the noise for `rows` of observations; None for a deterministic policy."""

    def compute(self, observation: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Chunks (..., H * A) in [-1, 1] for observations (..., O) and their noise."""


def from_policy(policy: ExportedPolicy) -> Controller:
    """An exported policy as a function of the observation alone.

    A policy of chunks gives the first action of a new chunk. The noise of a stochastic one is drawn
    from a seed that is the digest of the observation: asked again, it answers the same, so what was
    stored can be recomputed and a resumed run needs no state of a generator.
    """

    def control(observations: np.ndarray) -> np.ndarray:
        shape = policy.noise_shape(())
        noise = None
        if shape is not None:
            noise = np.stack([_noise(row, shape) for row in observations])
        return policy.compute(observations, noise)[..., : policy.action_size]

    return control


def _noise(observation: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bytes_ = np.ascontiguousarray(observation, np.float32).tobytes()
    seed = int.from_bytes(hashlib.blake2b(bytes_, digest_size=16).digest(), "little")
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def label(
    controller: Controller, observations: np.ndarray, action_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Actions (N, A), clipped to [-1, 1], and spreads (N, A) or None, for observations (N, O).

    Large N is cut into parts. Raises ValueError where an answer has another shape, is not finite,
    or has a spread that is not positive.
    """
    observations = np.asarray(observations, np.float32)
    parts = [
        _answer(controller, observations[start : start + _ROWS], action_size)
        for start in range(0, len(observations), _ROWS)
    ]
    means = np.concatenate([mean for mean, _ in parts])
    spreads = [std for _, std in parts if std is not None]
    if spreads and len(spreads) < len(parts):
        raise ValueError("controller: it gave a spread at some observations only")
    return means, np.concatenate(spreads) if spreads else None


def _answer(
    controller: Controller, observations: np.ndarray, action_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    answer = controller(observations)
    given = answer if isinstance(answer, tuple) else (answer,)
    arrays = [np.asarray(part, np.float32) for part in given]
    shape = (len(observations), action_size)
    shapes = [array.shape for array in arrays]
    if len(arrays) > 2 or any(found != shape for found in shapes):
        raise ValueError(
            f"controller: for observations {observations.shape} its actions must be {shape}, alone "
            f"or with their spreads in a tuple; got {', '.join(map(str, shapes))}"
        )
    for array in arrays:
        bad = ~np.isfinite(array).all(axis=-1)
        if bad.any():
            raise ValueError(
                f"controller: its answer {array[bad][0]} to the observation "
                f"{observations[bad][0]} is not finite"
            )
    if len(arrays) == 2 and not (arrays[1] > 0.0).all():
        raise ValueError(f"controller: spreads must be > 0, got {arrays[1].min()}")
    return np.clip(arrays[0], -1.0, 1.0), arrays[1] if len(arrays) == 2 else None


def labels(
    teacher: Controller, observations: np.ndarray, action_size: int, std: float
) -> dict[str, np.ndarray]:
    """`LABELS` (N, A) for observations (N, O); a deterministic teacher has the spread `std`."""
    actions, spreads = label(teacher, observations, action_size)
    spreads = np.full_like(actions, std) if spreads is None else spreads
    return {"teacher_actions": actions, "teacher_log_std": np.log(spreads)}


def check_teaching(
    name: str, needs: tuple[str, ...], recipe: Recipe, teacher: Controller | None
) -> None:
    """Raise ValueError where agent and recipe lack a teacher, or have no use for the one given."""
    taught = recipe.teacher_share > 0.0 or any(key in LABELS for key in needs)
    if taught and teacher is None:
        raise ValueError(f"finetune: this recipe for {name} needs a teacher, got none")
    if teacher is not None and not taught:
        raise ValueError(f"finetune: this recipe for {name} has no use for a teacher")


class Turns:
    """Which steps of the online loop are the teacher's; a function of (seed, episode, env step)."""

    def __init__(self, recipe: Recipe, seed: int):
        self._recipe, self._seed = recipe, seed
        self._episode = False

    def begin(self, episode: int, step: int) -> None:
        """An episode begins at env step `step`."""
        self._episode = self._draw(_STREAM_TURN, episode) < self.share(step)

    def teacher_acts(self, step: int) -> bool:
        """Whether the action of env step `step` is the teacher's."""
        if self._recipe.teacher_turns == "episode":
            return self._episode
        return self._draw(_STREAM_STEP_TURN, step) < self.share(step)

    def share(self, step: int) -> float:
        """DAgger's beta: it falls linearly from `teacher_share` to 0."""
        over = self._recipe.teacher_share_steps
        left = 1.0 if over == 0 else max(0.0, 1.0 - step / over)
        return self._recipe.teacher_share * left

    def _draw(self, stream: int, number: int) -> float:
        return float(np.random.default_rng([self._seed, stream, number]).uniform())
