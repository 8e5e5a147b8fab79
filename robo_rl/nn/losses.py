"""The formulas of the methods, one a function: targets, losses of V and Q, weights, surrogates.

Letters of shapes: B rows, N critics, M sampled actions, T rows in the order of time. Losses are
entry by entry, and the agent takes the mean, unless a docstring says otherwise. Where an argument
must not be differentiated through, the function stops the gradient itself and says so.
"""

import math

import jax
import jax.numpy as jnp

MAX_MULTIPLIER = 1e6
"""Bound on CQL's alpha', as in the authors' code."""


def td_target(
    rewards: jax.Array, discounts: jax.Array | float, masks: jax.Array, next_values: jax.Array
) -> jax.Array:
    """r + discount * mask * V(s') (B,), the one-step target of Sutton and Barto, eq. 6.2.

    `next_values` (B,) are what the next state is worth: V, or Q of the policy's action there,
    reduced over the critics. `masks` (B,) are 0 where the episode terminated; `discounts` are those
    of n-step rows (B,), or one number.
    """
    if rewards.shape != next_values.shape:
        raise ValueError(
            f"td_target: rewards are {rewards.shape} and next_values {next_values.shape}; reduce "
            "the values over the critics first"
        )
    return rewards + discounts * masks * next_values


def expectile_loss(difference: jax.Array, expectile: float) -> jax.Array:
    """|tau - 1[u < 0]| u^2 for u = q - v: IQL, arXiv:2110.06169, eq. 5."""
    weight = jnp.where(difference < 0.0, 1.0 - expectile, expectile)
    return weight * jnp.square(difference)


def gumbel_loss(difference: jax.Array, beta: float, z_clip: float) -> jax.Array:
    """(exp(z) - z - 1) / exp(m) (B,) for z = min(u / beta, clip), u = q - v (B,), m = max(z, -1).

    XQL's regression of V, arXiv:2301.02328, in the stable form of the authors' code: m is
    one number a batch and a constant to the gradient. It keeps every exponential at or below 1 and
    scales the gradient of the whole batch, whose direction stays that of exp(z) - z - 1.
    """
    z = jnp.minimum(difference / beta, z_clip)
    # Not to be climbed: a gradient through the scale would reward a larger maximum.
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(z), -1.0))
    return jnp.exp(z - largest) - (z + 1.0) * jnp.exp(-largest)


def total_variation_loss(difference: jax.Array, lam: float) -> jax.Array:
    """lambda * max(u, 0) - (1 - lambda) * u for u = q - v: f-DVL, arXiv:2302.08560."""
    return lam * jnp.maximum(difference, 0.0) - (1.0 - lam) * difference


def chi_square_loss(difference: jax.Array, lam: float) -> jax.Array:
    """lambda * 1[u > 0] (u + u^2 / 4) - (1 - lambda) * u for u = q - v: f-DVL, arXiv:2302.08560."""
    positive = jnp.maximum(difference, 0.0)
    return lam * (positive + 0.25 * jnp.square(positive)) - (1.0 - lam) * difference


def huber_loss(difference: jax.Array, delta: float) -> jax.Array:
    """u^2 / 2 up to |u| = delta, then delta * (|u| - delta / 2): Huber (1964)."""
    bounded = jnp.clip(difference, -delta, delta)
    return bounded * (difference - 0.5 * bounded)


def advantage_weight(advantage: jax.Array, temperature: float, clip: float) -> jax.Array:
    """min(exp(beta * A), clip): AWAC, arXiv:2006.09359, and IQL, arXiv:2110.06169, eq. 7.

    The bound is on the weight, not on the advantage.
    """
    return jnp.minimum(jnp.exp(temperature * advantage), clip)


def relative_q(q: jax.Array) -> jax.Array:
    """mean(Q) / mean |Q| () of Q (B,): what TD3+BC's actor climbs, arXiv:2106.06860, eq. 5.

    The divisor gets no gradient, or the actor could gain by it. A Q of 0 everywhere stays 0.
    """
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    return jnp.mean(q) / jnp.maximum(size, 1e-6)


def temperature_loss(
    log_temperature: jax.Array, entropy: jax.Array, target_entropy: float
) -> jax.Array:
    """alpha * (H - target): SAC, arXiv:1812.05905, eq. 18.

    It lowers alpha while the policy is more random than the target.
    """
    return jnp.exp(log_temperature) * (entropy - target_entropy)


def soft_maximum(
    sampled: jax.Array, log_density: jax.Array, data: jax.Array, importance: bool
) -> jax.Array:
    """Soft maximum (N, B) of Q over actions: the first term of CQL(H), arXiv:2006.04779, eq. 4.

    `sampled` (N, B, M) is Q of actions of log-density `log_density` (B, M), `data` (N, B) Q of the
    data's own. With `importance`, log sum exp(Q - log density); without, the data's action counts
    among the others and the logarithm of their number comes off.
    """
    if importance:
        return jax.nn.logsumexp(sampled - log_density[None], axis=-1)
    every = jnp.concatenate([sampled, data[..., None]], axis=-1)
    return jax.nn.logsumexp(every, axis=-1) - math.log(every.shape[-1])


def multiplier_loss(log_multiplier: jax.Array, excess: jax.Array) -> jax.Array:
    """-alpha' * excess: CQL's dual descent, arXiv:2006.04779, eq. 30.

    It raises alpha' while the regulariser is above its gap.
    """
    return -jnp.clip(jnp.exp(log_multiplier), 0.0, MAX_MULTIPLIER) * excess


def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    masks: jax.Array,
    ends: jax.Array,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantages (T,) of rows in the order of time, arXiv:1506.02438, eq. 16.

    delta_t = r_t + discount * mask_t * V(s'_t) - V(s_t) and
    A_t = delta_t + discount * lambda * (1 - end_t) * A_(t+1). A mask of 0 (terminated) takes the
    bootstrap away, an end of 1 (also a time limit, or the rollout's last row) stops the recursion.
    With lambda = 1, A + V is the Monte-Carlo return, bootstrapped where a row ends unterminated.
    """
    deltas = td_target(rewards, discount, masks, next_values) - values
    kept = discount * gae_lambda * (1.0 - ends)

    def back(following: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, keep = row
        advantage = delta + keep * following
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(deltas[0]), (deltas, kept), reverse=True)
    return advantages


def clipped_surrogate(
    log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: float
) -> jax.Array:
    """min(rho A, clip(rho, 1 - clip, 1 + clip) A), to be maximised: PPO, arXiv:1707.06347, eq. 7.

    rho = exp(log_prob - old_log_prob). Beyond the clip, a ratio that has already moved the way the
    advantage points gets no gradient; one that moved the wrong way keeps it.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value_loss(
    v: jax.Array, old_v: jax.Array, returns: jax.Array, clip: float
) -> jax.Array:
    """max((V - R)^2, (old V + clip(V - old V, -clip, clip) - R)^2) / 2; clip 0 is (V - R)^2 / 2.

    Of PPO's authors' code (OpenAI Baselines), not of the paper.
    """
    loss = jnp.square(v - returns)
    if clip > 0.0:
        near = old_v + jnp.clip(v - old_v, -clip, clip)
        loss = jnp.maximum(loss, jnp.square(near - returns))
    return 0.5 * loss
