"""Observation standardisation, part of every agent's state and so of every checkpoint."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.nn.observations import is_image, named

Statistics: TypeAlias = Any
"""(O,); where observations are not one vector, a dict of those of its vectors."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
    """(obs - mean) / std. Fixed after it was fitted: finetuning keeps the offline statistics."""

    mean: Statistics
    std: Statistics  # > 0

    def __call__(self, observations: Any) -> Any:
        """Standardise observations (..., O), or the vectors among them: images stay as they are."""
        if isinstance(observations, Mapping):
            return {
                name: part if is_image(part) else _scaled(part, self.mean[name], self.std[name])
                for name, part in observations.items()
            }
        if is_image(observations):
            return observations
        return _scaled(observations, self.mean, self.std)


def _scaled(vector: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    return (vector - jnp.broadcast_to(mean, vector.shape)) / jnp.broadcast_to(std, vector.shape)


def identity(size: int) -> Normaliser:
    """Leaves observations (..., size) as they are."""
    return Normaliser(jnp.zeros(size), jnp.ones(size))


def identity_for(observations: Any) -> Normaliser:
    """Leaves observations of this structure as they are."""
    return _by_part(observations, lambda name, part: identity(part.shape[-1]))


def fit(observations: Any, min_std: float = 1e-2) -> Normaliser:
    """Statistics of observations (B, O), or of every vector among them.

    A spread below `min_std` is raised to it: an entry that hardly moves in the data would
    otherwise blow up as soon as the robot leaves the data. A constant entry is only centred.
    """

    def one(name: str, part: Any) -> Normaliser:
        where = f"observations[{name!r}]" if isinstance(observations, Mapping) else "observations"
        return _fit(where, np.asarray(part), min_std)

    return _by_part(observations, one)


def _by_part(observations: Any, make: Callable[[str, Any], Normaliser]) -> Normaliser:
    vectors = {n: part for n, part in named(observations).items() if not is_image(part)}
    parts = {name: make(name, part) for name, part in vectors.items()}
    if not isinstance(observations, Mapping) and parts:
        return next(iter(parts.values()))
    return Normaliser({n: p.mean for n, p in parts.items()}, {n: p.std for n, p in parts.items()})


def _fit(name: str, observations: np.ndarray, min_std: float) -> Normaliser:
    if observations.ndim != 2 or len(observations) == 0:
        raise ValueError(f"fit: {name} must be (B, O) with B > 0, got {observations.shape}")
    mean = observations.mean(axis=0, dtype=np.float64)
    std = observations.std(axis=0, dtype=np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(std)))
        raise ValueError(f"fit: {name} have non-finite values in entries {bad.tolist()}")
    std = np.where(std < 1e-6, 1.0, np.maximum(std, min_std))
    return Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
