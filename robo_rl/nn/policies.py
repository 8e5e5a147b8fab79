"""What an agent hands to others: its deterministic policy, and the rest of what it has learned."""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from robo_rl.nn.apply import Params, apply
from robo_rl.nn.networks import Actor, NetConfig
from robo_rl.nn.normaliser import Normaliser


@dataclasses.dataclass(frozen=True)
class TanhPolicy:
    """action = tanh(mean of `Actor` at the standardised observation)."""

    net: NetConfig
    params: Params  # of `Actor`; only "trunk" and "mean" are read
    normaliser: Normaliser


@dataclasses.dataclass(frozen=True)
class ResidualPolicy:
    """action = clip(base + scale * tanh(mean at (standardised observation, base)), -1, 1)."""

    base: TanhPolicy
    correction: TanhPolicy
    scale: float


Policy: TypeAlias = TanhPolicy | ResidualPolicy


@dataclasses.dataclass(frozen=True)
class Learned:
    """The parts of an agent that can start another one. None where the agent has no such part."""

    policy: TanhPolicy
    actor_opt: optax.OptState
    log_std: jax.Array | None = None
    """(A,) one spread for all states, before tanh."""
    critic_net: NetConfig | None = None
    critic: Params | None = None
    """Leaves lead with the ensemble axis N."""
    target_critic: Params | None = None
    critic_opt: optax.OptState | None = None

    @property
    def critics(self) -> int:
        """N, the number of ensemble members; 0 without critics."""
        return 0 if self.critic is None else int(jax.tree.leaves(self.critic)[0].shape[0])


def mean_action(net: NetConfig, params: Params, *inputs: jax.Array) -> jax.Array:
    """tanh of the actor's mean (..., A). `inputs` are standardised already."""
    action_dim = params["mean"]["bias"].shape[-1]
    bare = {"trunk": params["trunk"], "mean": params["mean"]}
    mean: jax.Array = apply(Actor(net, action_dim), bare, *inputs)[0]
    return jnp.tanh(mean)


def act(policy: TanhPolicy, observations: jax.Array) -> jax.Array:
    """Deterministic action (..., A) of a policy without a base."""
    return mean_action(policy.net, policy.params, policy.normaliser(observations))
