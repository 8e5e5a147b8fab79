"""The one place where Flax is called. Parameters are plain dictionaries everywhere else."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import flax.linen as linen
import jax
import jax.numpy as jnp

Params: TypeAlias = dict[str, Any]
Batch: TypeAlias = Mapping[str, jax.Array]
"""Arrays with a leading batch axis; see `robo_rl.learn.batches` for the keys. Observations may be
a dict of arrays (`robo_rl.nn.observations`), which agents pass on without a look inside."""
Metrics: TypeAlias = dict[str, jax.Array]
"""Flat scalars."""
ENCODER = "encoder"
"""The part of a network's parameters that reads images. The members of an ensemble share it."""


def init_params(module: linen.Module, key: jax.Array, *inputs: Any) -> Params:
    """Parameters of a module, which must be a function of them and of its inputs alone."""
    variables = module.init(key, *inputs)
    others = sorted(variables.keys() - {"params"})
    if others:
        raise ValueError(
            f"{type(module).__name__} keeps {', '.join(others)} beside its parameters; networks "
            "here are functions of parameters alone: use LayerNorm in place of BatchNorm, and sow "
            "nothing"
        )
    params: Params = variables.get("params", {})
    return params


def apply(module: linen.Module, params: Params, *inputs: Any) -> Any:
    """Output of a module. Untyped in Flax: the caller names the type."""
    return module.apply({"params": params}, *inputs)


def init_ensemble(module: linen.Module, key: jax.Array, size: int, *inputs: jax.Array) -> Params:
    """Parameters of N independent members; every leaf leads with N, but for a shared encoder's."""
    params = jax.vmap(lambda k: init_params(module, k, *inputs))(jax.random.split(key, size))
    if ENCODER in params:
        params[ENCODER] = jax.tree.map(lambda leaf: leaf[0], params[ENCODER])
    return params


def apply_ensemble(module: linen.Module, params: Params, *inputs: jax.Array) -> jax.Array:
    """Outputs (N, ...) of all members on the same inputs, as one batched product a layer."""
    # What has no member axis is computed once: that is what sharing the encoder saves.
    axes = {name: None if name == ENCODER else 0 for name in params}
    out: jax.Array = jax.vmap(lambda p: apply(module, p, *inputs), in_axes=(axes,))(params)
    return out


def members(params: Params) -> int:
    """N, the size of an ensemble."""
    return int(jax.tree.leaves(_own(params))[0].shape[0])


def subset(params: Params, indices: jax.Array) -> Params:
    """The members `indices` (Z,) of an ensemble."""
    picked: Params = jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0), _own(params))
    return {**params, **picked}


def _own(params: Params) -> Params:
    """What every member has for itself."""
    return {name: tree for name, tree in params.items() if name != ENCODER}
