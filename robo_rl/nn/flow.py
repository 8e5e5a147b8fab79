"""Flow matching (Lipman et al., 2023, arXiv:2210.02747): noise carried to actions along a velocity.

The path from noise x_0 ~ N(0, I) to an action a of the data is the line x_t = (1 - t) x_0 + t a.
The velocity network is an `Actor` without tanh, at (standardised observation, x_t, t).
"""

import jax
import jax.numpy as jnp
import optax

from robo_rl.nn import critics, optimise
from robo_rl.nn.apply import Metrics, Params, apply, init_params
from robo_rl.nn.encoder import features
from robo_rl.nn.networks import Actor, NetConfig


def init(net: NetConfig, key: jax.Array, obs: jax.Array, actions: jax.Array) -> Params:
    """Parameters of a velocity network for observations (B, O) and actions (B, A)."""
    return init_params(Actor(net, actions.shape[-1]), key, obs, actions, actions[..., :1])


def head(net: NetConfig, params: Params, *inputs: jax.Array) -> jax.Array:
    """Linear output (..., A) of an actor: no tanh."""
    out: jax.Array = apply(Actor(net, params["mean"]["bias"].shape[-1]), params, *inputs)[0]
    return out


def matching_loss(
    net: NetConfig,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    noise: jax.Array,
    times: jax.Array,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Mean over rows and dimensions of (v(s, x_t, t) - (a - noise))^2.

    `actions` and `noise` are (B, A), `times` (B, 1) in [0, 1). With `valid` (B, H), actions are
    chunks of H steps, of which those count that are 1; the mean is over all all the same.
    """
    blend = jnp.broadcast_to(times, actions.shape)
    point = (1.0 - blend) * noise + blend * actions
    velocity = head(net, params, obs, point, times)
    error = jnp.square(velocity - (actions - noise))
    if valid is not None:
        error = error * jnp.repeat(valid, actions.shape[-1] // valid.shape[-1], axis=-1)
    return jnp.mean(error)


def bc_step(
    net: NetConfig,
    params: Params,
    opt_state: optax.OptState,
    learning_rate: float | jax.Array,
    key: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    valid: jax.Array | None = None,
) -> tuple[Params, optax.OptState, Metrics]:
    """One step of behaviour cloning by flow matching, with noise and times drawn from `key`.

    `valid` is that of `matching_loss`.
    """
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, actions.shape)
    times = jax.random.uniform(time_key, (*actions.shape[:-1], 1))

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        flow_loss = matching_loss(net, params, obs, actions, noise, times, valid)
        return flow_loss, {"flow_loss": flow_loss}

    return optimise.gradient_step(loss, params, opt_state, learning_rate)


def integrate(
    net: NetConfig, params: Params, obs: jax.Array, noise: jax.Array, steps: int
) -> jax.Array:
    """Actions (..., A): `steps` Euler steps from `noise` (..., A), then clipped to [-1, 1]."""
    seen = features(net.encoder, params, obs)  # images are read once, not at every step

    def step(index: jax.Array, point: jax.Array) -> jax.Array:
        time = jnp.full_like(point[..., :1], index / steps)
        return point + head(net, params, seen, point, time) / steps

    return jnp.clip(jax.lax.fori_loop(0, steps, step, noise), -1.0, 1.0)


def candidates(
    net: NetConfig,
    params: Params,
    critic_net: NetConfig,
    critic: Params,
    aggregate: str,
    obs: jax.Array,
    noise: jax.Array,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """N actions (..., N, A) from `noise` (..., N, A), and what the critics say of them (..., N)."""
    of_each = obs[..., None, :]
    actions = integrate(net, params, of_each, noise, steps)
    return actions, critics.q(critic_net, critic, aggregate, of_each, actions)


def best(actions: jax.Array, scores: jax.Array) -> jax.Array:
    """Of actions (..., N, A) the one (..., A) with the highest score (..., N)."""
    chosen = jnp.argmax(scores, axis=-1)[..., None, None]
    return jnp.take_along_axis(actions, chosen, axis=-2)[..., 0, :]
