"""Ensembles of probabilistic dynamics models (Chua et al., 2018, arXiv:1805.12114).

A member gives a normal of (next observation - observation, reward) and the odds that the episode
goes on. Observations are standardised, by whoever calls. Members see the same rows and differ by
their first weights.
"""

from collections.abc import Callable
from typing import TypeAlias

import flax.linen as linen
import jax
import jax.numpy as jnp
import optax

from robo_rl.nn import distributions
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_ensemble
from robo_rl.nn.networks import NetConfig, hidden_layers

LOG_STD_MIN, LOG_STD_MAX = -7.0, 1.0
_Rollout: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Observations (B, O), odds (B,) of being under way, and whether (B,) all was finite so far."""


class Dynamics(linen.Module):
    """One member: observations (..., O) and actions (..., A) to what follows."""

    net: NetConfig
    observation_dim: int

    @linen.compact
    def __call__(
        self, observations: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean and log std (..., O + 1) of the change and the reward; logit (...) of going on."""
        inputs = jnp.concatenate([observations, actions], axis=-1)
        hidden = hidden_layers(self.net, (inputs,))
        size = self.observation_dim + 1
        mean = linen.Dense(size, name="mean")(hidden)
        log_std = linen.Dense(size, name="log_std")(hidden)
        # Soft bounds, unlike a clip, leave a gradient that leads back.
        log_std = LOG_STD_MAX - jax.nn.softplus(LOG_STD_MAX - log_std)
        log_std = LOG_STD_MIN + jax.nn.softplus(log_std - LOG_STD_MIN)
        goes_on = linen.Dense(1, name="goes_on")(hidden)
        return mean, log_std, jnp.squeeze(goes_on, axis=-1)


def init(
    net: NetConfig, key: jax.Array, size: int, observations: jax.Array, actions: jax.Array
) -> Params:
    """Parameters of `size` members for rows like these; every leaf leads with the member."""
    module = Dynamics(net, observations.shape[-1])
    return init_ensemble(module, key, size, observations, actions)


def negative_log_likelihood(
    mean: jax.Array,
    log_std: jax.Array,
    goes_on: jax.Array,
    target: jax.Array,
    masks: jax.Array,
) -> jax.Array:
    """-log p (...) of the target (..., O + 1) and of going on, masks (...) 1, or ending, 0."""
    density = distributions.normal_log_prob(target, mean, log_std)
    ending: jax.Array = optax.sigmoid_binary_cross_entropy(goes_on, masks)
    return ending - density


def loss(
    net: NetConfig,
    params: Params,
    observations: jax.Array,
    next_observations: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, Metrics]:
    """Sum over the members of the mean over rows (B,); the metrics are means over the members.

    Observations (B, O) are standardised; actions, rewards and masks are those of the batch. After a
    terminal step the next observation counts as any other: it is part of the data.
    """
    actions, rewards = batch["actions"], batch["rewards"][:, None]
    target = jnp.concatenate([next_observations - observations, rewards], axis=-1)
    module = Dynamics(net, observations.shape[-1])

    def one(member: Params) -> tuple[jax.Array, jax.Array]:
        mean, log_std, goes_on = apply(module, member, observations, actions)
        likelihood = negative_log_likelihood(mean, log_std, goes_on, target, batch["masks"])
        return jnp.mean(likelihood), jnp.mean(jnp.square(mean - target))

    likelihoods, errors = jax.vmap(one)(params)
    return jnp.sum(likelihoods), {
        "model_loss": jnp.mean(likelihoods),
        "model_mse": jnp.mean(errors),
    }


def step(
    net: NetConfig, params: Params, observations: jax.Array, actions: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A draw of next observations (..., O) and rewards (...), and the odds (...) of going on.

    One member, drawn anew for every call, serves all rows: the mixture over calls is the same, and
    the others need not be computed.
    """
    member_key, noise_key = jax.random.split(key)
    members = jax.tree.leaves(params)[0].shape[0]
    index = jax.random.randint(member_key, (), 0, members)
    member = jax.tree.map(lambda leaf: leaf[index], params)
    module = Dynamics(net, observations.shape[-1])
    mean, log_std, goes_on = apply(module, member, observations, actions)
    drawn = mean + jnp.exp(log_std) * jax.random.normal(noise_key, mean.shape)
    return observations + drawn[..., :-1], drawn[..., -1], jax.nn.sigmoid(goes_on)


def am_q(
    q: Callable[[jax.Array, jax.Array], jax.Array],
    act: Callable[[jax.Array], jax.Array],
    model: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    obs: jax.Array,
    horizon: int,
    key: jax.Array,
) -> jax.Array:
    """Mean Q along roll-outs of a policy through a model: its score ().

    Args:
        q: values (B,) of obs (B, O) and actions (B, A).
        act: actions of obs.
        model: next obs (B, O) and the odds (B,) that the episode goes on, of obs, actions, a key.
        obs: where the roll-outs start, (B, O).
        horizon: values that are averaged over; after the end of an episode they are 0.
        key: the same one for policies that are to be compared.

    A roll-out stops before the first model step that is not finite.
    """

    def body(carry: _Rollout, step_key: jax.Array) -> tuple[_Rollout, tuple[jax.Array, jax.Array]]:
        obs, odds, sound = carry
        actions = act(obs)
        value = jnp.where(sound, odds * q(obs, actions), 0.0)
        following, goes_on = model(obs, actions, step_key)
        finite = jnp.all(jnp.isfinite(following), axis=-1) & jnp.isfinite(goes_on)
        obs = jnp.where(finite[:, None], following, obs)
        odds = jnp.where(finite, odds * goes_on, odds)
        return (obs, odds, sound & finite), (value, sound)

    start = obs, jnp.ones(obs.shape[0]), jnp.ones(obs.shape[0], bool)
    _, (values, counted) = jax.lax.scan(body, start, jax.random.split(key, horizon))
    return jnp.mean(jnp.sum(values, axis=0) / jnp.sum(counted, axis=0))
