"""PPO (Schulman et al., 2017, arXiv:1707.06347) with generalised advantages (arXiv:1506.02438)."""

import jax
import jax.numpy as jnp


def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    masks: jax.Array,
    ends: jax.Array,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantages (T,) of rows in the order of time.

    delta_t = r_t + discount * mask_t * V(s'_t) - V(s_t) and
    A_t = delta_t + discount * lambda * (1 - end_t) * A_(t+1). A mask of 0 (terminated) takes the
    bootstrap away, an end of 1 (also a time limit, or the rollout's last row) stops the recursion.
    With lambda = 1, A + V is the Monte-Carlo return, bootstrapped where a row ends unterminated.
    """
    deltas = rewards + discount * masks * next_values - values
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
    """min(rho A, clip(rho, 1 - clip, 1 + clip) A) element by element, to be maximised.

    rho = exp(log_prob - old_log_prob). Beyond the clip, a ratio that has already moved the way the
    advantage points gets no gradient; one that moved the wrong way keeps it.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)
