"""Steps and read-outs of critic ensembles that several agents share."""

import jax
import jax.numpy as jnp
import optax

from robo_rl.nn import optimise
from robo_rl.nn.apply import Metrics, Params, apply_ensemble, members, subset
from robo_rl.nn.networks import NetConfig, Scalar

AGGREGATES = ("mean", "min")


def q(net: NetConfig, params: Params, aggregate: str, *inputs: jax.Array) -> jax.Array:
    """Mean or minimum (...) over the ensemble."""
    each = apply_ensemble(Scalar(net), params, *inputs)
    return jnp.mean(each, axis=0) if aggregate == "mean" else jnp.min(each, axis=0)


def draw(params: Params, key: jax.Array, size: int) -> Params:
    """`size` members in an order that `key` draws: all of them, reordered, where there are no more.

    REDQ's random subset (Chen et al., 2021, arXiv:2101.05982).
    """
    return subset(params, jax.random.permutation(key, members(params))[:size])


def min_q(
    net: NetConfig, params: Params, key: jax.Array, size: int, *inputs: jax.Array
) -> jax.Array:
    """Minimum (...) over `size` members drawn by `key`; over all where there are no more."""
    if size < members(params):
        params = draw(params, key, size)
    return jnp.min(apply_ensemble(Scalar(net), params, *inputs), axis=0)


def regress(
    net: NetConfig,
    params: Params,
    opt_state: optax.OptState,
    learning_rate: float | jax.Array,
    target: jax.Array,
    *inputs: jax.Array,
    weight: jax.Array | None = None,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Params, optax.OptState, Metrics]:
    """One step of all members towards `target` (B,): mean over members and rows of (Q - target)^2.

    `target` gets no gradient: it is computed outside. `weight` (B,) is that of each row, 1 without.
    `clip_norm` and `weight_decay` are those of
    `optimise.adam_step`.
    """

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        each = apply_ensemble(Scalar(net), params, *inputs)  # (N, B)
        error = jnp.square(each - target[None])
        critic_loss = jnp.mean(error if weight is None else weight[None] * error)
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(each)}

    return optimise.gradient_step(loss, params, opt_state, learning_rate, clip_norm, weight_decay)
