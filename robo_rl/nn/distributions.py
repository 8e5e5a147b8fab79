"""Diagonal normal and tanh-squashed normal densities, summed over the action axis; noise."""

import math

import jax
import jax.numpy as jnp


def normal_log_prob(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log-density (...) of x (..., A) under independent normals."""
    z = (x - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * math.log(2.0 * math.pi), axis=-1)


def normal_kl(
    mean: jax.Array, log_std: jax.Array, other_mean: jax.Array, other_log_std: jax.Array
) -> jax.Array:
    """KL(N(mean, std) || N(other_mean, other_std)) (...) between independent normals (..., A)."""
    ratio = jnp.square(jnp.exp(log_std - other_log_std))
    distance = jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return jnp.sum(other_log_std - log_std + 0.5 * (ratio + distance - 1.0), axis=-1)


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
