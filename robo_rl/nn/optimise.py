"""Adam steps and target averages.

The optimiser state is always the same three entries (count, mu, nu), whatever the learning rate
or its schedule, so that moments can be handed from an offline agent to an online one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from robo_rl.nn.apply import Metrics, Params

_ADAM = optax.scale_by_adam()


def adam_init(params: Params) -> optax.OptState:
    """Zero moments for `params`."""
    return _ADAM.init(params)


def adam_step(
    params: Params,
    grads: Params,
    opt_state: optax.OptState,
    learning_rate: float | jax.Array,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Params, optax.OptState]:
    """One AdamW step; `clip_norm` 0 leaves gradients as they are, `weight_decay` 0 is Adam."""
    if clip_norm > 0.0:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        grads = jax.tree.map(lambda g: g * scale, grads)
    updates, opt_state = _ADAM.update(grads, opt_state)
    params = jax.tree.map(lambda p, u: p - learning_rate * (u + weight_decay * p), params, updates)
    return params, opt_state


def gradient_step(
    loss: Callable[[Params], tuple[jax.Array, Metrics]],
    params: Params,
    opt_state: optax.OptState,
    learning_rate: float | jax.Array,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Params, optax.OptState, Metrics]:
    """Differentiate `loss(params) -> (scalar, metrics)` and take one Adam step."""
    grads, metrics = jax.grad(loss, has_aux=True)(params)
    params, opt_state = adam_step(params, grads, opt_state, learning_rate, clip_norm, weight_decay)
    return params, opt_state, metrics


def gradient_in_blocks(
    loss: Callable[[Params, Any], tuple[jax.Array, Metrics]],
    params: Params,
    rows: Any,
    blocks: int,
) -> tuple[Params, Metrics]:
    """Gradient and metrics of `loss(params, rows) -> (scalar, metrics)`, which are means over rows.

    Equal blocks of rows go one after the other: what is in between then fits a processor's cache.
    """
    differentiate: Callable[[Params, Any], tuple[Params, Metrics]] = jax.grad(loss, has_aux=True)
    if blocks == 1:
        return differentiate(params, rows)
    parts = jax.tree.map(lambda x: x.reshape(blocks, -1, *x.shape[1:]), rows)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, differentiate(params, part)), None

    shapes = jax.eval_shape(differentiate, params, jax.tree.map(lambda x: x[0], parts))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, nothing, parts)
    grads, metrics = jax.tree.map(lambda x: x / blocks, total)
    return grads, metrics


def cosine(learning_rate: float, step: jax.Array, decay_steps: int) -> jax.Array | float:
    """Cosine decay to zero over `decay_steps`; constant when that is 0."""
    if decay_steps == 0:
        return learning_rate
    progress = jnp.minimum(step / decay_steps, 1.0)
    return learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def linear(learning_rate: float, step: jax.Array, decay_steps: int) -> jax.Array | float:
    """Linear decay to zero over `decay_steps`; constant when that is 0."""
    if decay_steps == 0:
        return learning_rate
    return learning_rate * (1.0 - jnp.minimum(step / decay_steps, 1.0))


def polyak(params: Params, target: Params, rate: float) -> Params:
    """target + rate * (params - target), leaf by leaf."""
    moved: Params = jax.tree.map(lambda p, t: t + rate * (p - t), params, target)
    return moved


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point leaf of a pytree is finite, as one boolean."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
