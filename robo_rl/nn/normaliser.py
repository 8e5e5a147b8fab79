"""Observation standardisation, part of every agent's state and so of every checkpoint."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
    """(obs - mean) / std. Fixed after it was fitted: finetuning keeps the offline statistics."""

    mean: jax.Array  # (O,)
    std: jax.Array  # (O,), > 0

    def __call__(self, observations: jax.Array) -> jax.Array:
        """Standardise observations (..., O)."""
        mean = jnp.broadcast_to(self.mean, observations.shape)
        return (observations - mean) / jnp.broadcast_to(self.std, observations.shape)


def identity(size: int) -> Normaliser:
    """Leaves observations (..., size) as they are."""
    return Normaliser(jnp.zeros(size), jnp.ones(size))


def fit(observations: np.ndarray, min_std: float = 1e-2) -> Normaliser:
    """Statistics of observations (B, O).

    A spread below `min_std` is raised to it: an entry that hardly moves in the data would
    otherwise blow up as soon as the robot leaves the data. A constant entry is only centred.
    """
    if observations.ndim != 2 or len(observations) == 0:
        raise ValueError(f"fit: observations must be (B, O) with B > 0, got {observations.shape}")
    mean = observations.mean(axis=0, dtype=np.float64)
    std = observations.std(axis=0, dtype=np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(std)))
        raise ValueError(f"fit: observations have non-finite values in entries {bad.tolist()}")
    std = np.where(std < 1e-6, 1.0, np.maximum(std, min_std))
    return Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
