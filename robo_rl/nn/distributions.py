"""Diagonal normal and tanh-squashed normal densities, summed over the action axis; noise."""

import math

import jax
import jax.numpy as jnp


def normal_log_prob(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log-density (...) of x (..., A) under independent normals."""
    z = (x - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * math.log(2.0 * math.pi), axis=-1)


def clipped_normal_log_prob(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log-probability (...) of x (..., A), a sample of independent normals cut at -1 and 1.

    At a bound stands the whole tail beyond it, as the sample itself is not known any more
    (Fujita and Maeda, 2018, arXiv:1802.07564): a density there would be a biased gradient.
    """
    spread = jnp.exp(-log_std)
    z = (x - mean) * spread
    inside = -0.5 * jnp.square(z) - log_std - 0.5 * math.log(2.0 * math.pi)
    # Of the two tails, that on the side of x.
    side = jnp.where(x < 0.0, -1.0, 1.0)
    tail = jax.scipy.special.log_ndtr((side * mean - 1.0) * spread)
    return jnp.sum(jnp.where(jnp.abs(x) >= 1.0, tail, inside), axis=-1)


def normal_entropy(log_std: jax.Array) -> jax.Array:
    """Differential entropy (...) of independent normals."""
    return jnp.sum(log_std + 0.5 * math.log(2.0 * math.pi * math.e), axis=-1)


def normal_kl(
    mean: jax.Array, log_std: jax.Array, other_mean: jax.Array, other_log_std: jax.Array
) -> jax.Array:
    """KL divergence (...) of independent normals from others, both (..., A)."""
    moved = jnp.square(mean - other_mean) * jnp.exp(-2.0 * other_log_std)
    ratio = log_std - other_log_std
    return jnp.sum(0.5 * (jnp.exp(2.0 * ratio) + moved - 1.0) - ratio, axis=-1)


def tanh_normal_log_prob(pre_tanh: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log-density (...) of tanh(pre_tanh), from the value before tanh (..., A).

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) stays finite where 1 - tanh(u)^2 is 0.
    """
    log_slope = 2.0 * (math.log(2.0) - pre_tanh - jax.nn.softplus(-2.0 * pre_tanh))
    return normal_log_prob(pre_tanh, mean, log_std) - jnp.sum(log_slope, axis=-1)


def tanh_normal_sample(
    key: jax.Array, mean: jax.Array, log_std: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A reparametrised action (..., A) in (-1, 1) and its log-density (...)."""
    pre_tanh = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    return jnp.tanh(pre_tanh), tanh_normal_log_prob(pre_tanh, mean, log_std)


def clipped_noise(key: jax.Array, shape: tuple[int, ...], std: float, clip: float) -> jax.Array:
    """Normal noise of spread `std`, cut at +-`clip`, as TD3 smooths its targets."""
    return jnp.clip(std * jax.random.normal(key, shape), -clip, clip)
