"""Natural-gradient steps with a bound on the divergence (TRPO, Schulman et al., 2015,
arXiv:1502.05477), on parameters as one flat vector (P,)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robo_rl.nn.apply import Metrics

Function = Callable[[jax.Array], jax.Array]
"""Of a flat vector: to a scalar, or to another vector."""
_Four = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def conjugate_gradient(product: Function, b: jax.Array, iterations: int) -> jax.Array:
    """An x (P,) with product(x) near b; `product` is a symmetric positive definite matrix's.

    Exact after P iterations but for rounding. It stands still where the residual has become 10^-5
    of b: rounding would blow up what is left of it.
    """
    enough = 1e-10 * jnp.vdot(b, b)

    def body(_: int, carry: _Four) -> _Four:
        x, residual, direction, size = carry
        image = product(direction)
        going = size > enough
        curvature = jnp.where(going, jnp.vdot(direction, image), 1.0)
        length = jnp.where(going, size / curvature, 0.0)
        x, residual = x + length * direction, residual - length * image
        new_size = jnp.vdot(residual, residual)
        turn = jnp.where(going, new_size / jnp.where(going, size, 1.0), 0.0)
        return x, residual, residual + turn * direction, new_size

    first = (jnp.zeros_like(b), b, b, jnp.vdot(b, b))
    x: jax.Array = jax.lax.fori_loop(0, iterations, body, first)[0]
    return x


def curvature_product(divergence: Function, at: jax.Array, damping: float) -> Function:
    """v -> (Hessian + damping) v of a divergence from the point `at`: there the Hessian is Fisher's
    matrix, never formed."""

    def product(v: jax.Array) -> jax.Array:
        image: jax.Array = jax.jvp(jax.grad(divergence), (at,), (v,))[1]
        return image + damping * v

    return product


def trust_region_step(
    objective: Function,
    divergence: Function,
    start: jax.Array,
    max_divergence: float,
    damping: float = 0.1,
    iterations: int = 10,
    backtracks: int = 10,
) -> tuple[jax.Array, Metrics]:
    """Climb `objective` along its natural gradient; the new vector (P,) and metrics.

    The step is as long as the divergence allows to second order, then halved until the objective
    rises and the divergence is within its bound; after `backtracks` tries, there is no step.
    """
    slope = jax.grad(objective)(start)
    product = curvature_product(divergence, start, damping)
    direction = conjugate_gradient(product, slope, iterations)
    curvature = jnp.maximum(jnp.vdot(direction, product(direction)), 1e-20)
    step = jnp.sqrt(2.0 * max_divergence / curvature) * direction
    before = objective(start)

    def judge(tries: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        there = start + 0.5**tries * step
        gain, moved = objective(there) - before, divergence(there)
        return (gain > 0.0) & (moved <= max_divergence), gain, moved

    def going_on(carry: _Four) -> jax.Array:
        tries, good = carry[:2]
        return ~good & (tries < backtracks - 1)

    def halve(carry: _Four) -> _Four:
        tries = carry[0] + 1
        return tries, *judge(tries)

    first = jnp.zeros((), jnp.int32)
    tries, good, gain, moved = jax.lax.while_loop(going_on, halve, (first, *judge(first)))
    new = jnp.where(good, start + 0.5**tries * step, start)
    return new, {
        "kl": jnp.where(good, moved, 0.0),
        "surrogate_gain": jnp.where(good, gain, 0.0),
        "halvings": tries.astype(jnp.float32),
        "accepted": good.astype(jnp.float32),
    }
