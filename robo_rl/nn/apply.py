"""The one place where Flax is called. Parameters are plain dictionaries everywhere else."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import flax.linen as linen
import jax
import jax.numpy as jnp

Params: TypeAlias = dict[str, Any]
Batch: TypeAlias = Mapping[str, jax.Array]
"""Arrays with a leading batch axis; see `robo_rl.learn.contract` for the keys."""
Metrics: TypeAlias = dict[str, jax.Array]
"""Flat scalars."""


def init_params(module: linen.Module, key: jax.Array, *inputs: jax.Array) -> Params:
    """Parameters of a module."""
    params: Params = module.init(key, *inputs)["params"]
    return params


def apply(module: linen.Module, params: Params, *inputs: jax.Array) -> Any:
    """Output of a module. Untyped in Flax: the caller names the type."""
    return module.apply({"params": params}, *inputs)


def init_ensemble(module: linen.Module, key: jax.Array, size: int, *inputs: jax.Array) -> Params:
    """Parameters of N independent members; every leaf leads with N."""
    return jax.vmap(lambda k: init_params(module, k, *inputs))(jax.random.split(key, size))


def apply_ensemble(module: linen.Module, params: Params, *inputs: jax.Array) -> jax.Array:
    """Outputs (N, ...) of all members on the same inputs, as one batched product a layer."""
    out: jax.Array = jax.vmap(lambda p: apply(module, p, *inputs))(params)
    return out


def subset(params: Params, indices: jax.Array) -> Params:
    """The members `indices` (Z,) of an ensemble."""
    picked: Params = jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0), params)
    return picked
