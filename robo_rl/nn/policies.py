"""What an agent hands to others: its policy as data, and the rest of what it has learned.

A stochastic policy is a function of the observation and of standard normal noise, which `noise`
draws for all agents alike. So two programs that are given the same noise take the same action.
"""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from robo_rl.nn import flow
from robo_rl.nn.apply import ENCODER, Params, apply, members
from robo_rl.nn.networks import Actor, NetConfig
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.observations import rows


@dataclasses.dataclass(frozen=True)
class TanhPolicy:
    """action = tanh(mean of `Actor` at the standardised observation)."""

    net: NetConfig
    params: Params  # of `Actor`; see `deterministic`
    normaliser: Normaliser


@dataclasses.dataclass(frozen=True)
class ResidualPolicy:
    """action = clip(base + scale * tanh(mean at (standardised observation, base)), -1, 1)."""

    base: TanhPolicy
    correction: TanhPolicy
    scale: float


@dataclasses.dataclass(frozen=True)
class CorrectionPolicy:
    """action = clip(base + scale * tanh(mean at the standardised observation), -1, 1).

    The base is not part of it: its action (A,) is the end of the observation.
    """

    correction: TanhPolicy
    scale: float


@dataclasses.dataclass(frozen=True)
class FamilyPolicy:
    """tanh of the mean of `Actor` at (standardised observation, code of a balance coefficient).

    The coefficient is `coefficient(balance, low, high)` of what `balance`, a policy of one action,
    does at the observation; see `sinusoidal_code` for its code.
    """

    policy: TanhPolicy
    balance: TanhPolicy
    low: float
    high: float
    code_size: int


@dataclasses.dataclass(frozen=True)
class OneStepPolicy:
    """action = clip(mean of `Actor` at (standardised observation, noise), -1, 1); noise (A,)."""

    net: NetConfig
    params: Params
    normaliser: Normaliser


@dataclasses.dataclass(frozen=True)
class FlowPolicy:
    """action = `flow.integrate` from noise (A,) at the standardised observation."""

    net: NetConfig
    params: Params
    normaliser: Normaliser
    steps: int


@dataclasses.dataclass(frozen=True)
class BestOfNPolicy:
    """Of N = `samples` actions of a flow, from noise (N, A), the one that critics value most."""

    flow: FlowPolicy
    critic_net: NetConfig
    critic: Params
    """Of `Scalar`; leaves lead with the ensemble axis."""
    aggregate: str
    samples: int


Stochastic: TypeAlias = OneStepPolicy | FlowPolicy | BestOfNPolicy
Policy: TypeAlias = TanhPolicy | ResidualPolicy | CorrectionPolicy | FamilyPolicy | Stochastic


@dataclasses.dataclass(frozen=True)
class Learned:
    """The parts of an agent that can start another one. None where the agent has no such part."""

    policy: TanhPolicy
    actor_opt: optax.OptState
    log_std: jax.Array | None = None
    """(A,) one spread for all states, before tanh."""
    log_std_head: Params | None = None
    """Of a spread that depends on the state: one layer on the actor's trunk."""
    log_temperature: jax.Array | None = None
    temperature_opt: optax.OptState | None = None
    critic_net: NetConfig | None = None
    critic: Params | None = None
    """Leaves lead with the ensemble axis N."""
    target_critic: Params | None = None
    critic_opt: optax.OptState | None = None
    value_net: NetConfig | None = None
    value: Params | None = None
    """Of `Scalar`: V of the standardised observation."""

    @property
    def critics(self) -> int:
        """N, the number of ensemble members; 0 without critics."""
        return 0 if self.critic is None else members(self.critic)


def deterministic(params: Params) -> Params:
    """What of an actor's parameters its mean depends on."""
    return {name: params[name] for name in (ENCODER, "trunk", "mean") if name in params}


def lent(net: NetConfig, params: Params, lender: NetConfig, of: Params) -> tuple[NetConfig, Params]:
    """An actor that reads what another network's encoder makes, as one with an encoder of its own.

    `of` are the lender's parameters; one that reads plain vectors has no encoder to lend.
    """
    if ENCODER not in of:
        return net, params
    return dataclasses.replace(net, encoder=lender.encoder), {**params, ENCODER: of[ENCODER]}


def mean_action(net: NetConfig, params: Params, *inputs: jax.Array) -> jax.Array:
    """tanh of the actor's mean (..., A). `inputs` are standardised already."""
    action_dim = params["mean"]["bias"].shape[-1]
    bare = deterministic(params)
    mean: jax.Array = apply(Actor(net, action_dim), bare, *inputs)[0]
    return jnp.tanh(mean)


def coefficient(balance: jax.Array, low: float, high: float) -> jax.Array:
    """low at -1 and high at 1, and in a straight line between them."""
    return low + (high - low) * 0.5 * (balance + 1.0)


def sinusoidal_code(x: jax.Array, size: int) -> jax.Array:
    """sin and cos of x (..., 1) over 10000^(2 i / size), in turn, (..., size); `size` is even."""
    divisors = 10_000.0 ** (jnp.arange(0, size, 2) / size)
    shape = (*x.shape[:-1], size // 2)
    angles = jnp.broadcast_to(x, shape) / jnp.broadcast_to(divisors, shape)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*x.shape[:-1], size)


def noise(policy: Policy, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
    """Noise for `shape` observations; None where the policy is deterministic."""
    if isinstance(policy, BestOfNPolicy):
        width = policy.flow.params["mean"]["bias"].shape[-1]
        return jax.random.normal(key, (*shape, policy.samples, width))
    if isinstance(policy, (OneStepPolicy, FlowPolicy)):
        return jax.random.normal(key, (*shape, policy.params["mean"]["bias"].shape[-1]))
    return None


def candidates(
    policy: BestOfNPolicy, observations: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The actions (..., N, A) and their scores (..., N)."""
    base = policy.flow
    return flow.candidates(
        base.net,
        base.params,
        policy.critic_net,
        policy.critic,
        policy.aggregate,
        base.normaliser(observations),
        noise,
        base.steps,
    )


def act(policy: Policy, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """Action (..., A) for observations (..., O), a function of the noise where it is stochastic."""
    if isinstance(policy, TanhPolicy):
        return mean_action(policy.net, policy.params, policy.normaliser(observations))
    if isinstance(policy, ResidualPolicy):
        base = act(policy.base, observations)
        net, params = policy.correction.net, policy.correction.params
        push = mean_action(net, params, policy.correction.normaliser(observations), base)
        return jnp.clip(base + policy.scale * push, -1.0, 1.0)
    if isinstance(policy, CorrectionPolicy):
        push = act(policy.correction, observations)
        return jnp.clip(observations[..., -push.shape[-1] :] + policy.scale * push, -1.0, 1.0)
    if isinstance(policy, FamilyPolicy):
        obs = policy.policy.normaliser(observations)
        balance = mean_action(policy.balance.net, policy.balance.params, obs)
        chosen = coefficient(balance, policy.low, policy.high)
        inputs = jnp.concatenate([obs, sinusoidal_code(chosen, policy.code_size)], axis=-1)
        return mean_action(policy.policy.net, policy.policy.params, inputs)
    if noise is None:
        raise ValueError(f"policies.act: a {type(policy).__name__} needs noise")
    if isinstance(policy, BestOfNPolicy):
        return flow.best(*candidates(policy, observations, noise))
    obs = policy.normaliser(observations)
    if isinstance(policy, FlowPolicy):
        return flow.integrate(policy.net, policy.params, obs, noise, policy.steps)
    return jnp.clip(flow.head(policy.net, policy.params, obs, noise), -1.0, 1.0)


def sample(policy: Policy, observations: jax.Array, key: jax.Array) -> jax.Array:
    """`act` (..., A) with noise drawn from `key`."""
    return act(policy, observations, noise(policy, key, rows(observations)))
