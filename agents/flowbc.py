"""Behaviour cloning by flow matching (Lipman et al., 2023, arXiv:2210.02747): the policy under FQL.

Unlike a regression it keeps the modes of the data apart: an action is a sample, drawn by
integrating the velocity from noise. On chunked data it is the flow policy of Q-chunking.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import flow, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.normaliser import Normaliser, identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; defaults are FQL's."""

    flow: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu")
    )
    flow_steps: int = 10
    """Euler steps from noise to an action."""
    learning_rate: float = 3e-4
    decay_steps: int = 0
    """Cosine decay of the learning rate to zero over so many updates; 0 keeps it."""

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("flowbc.Config.flow_steps", self.flow_steps)
        checks.positive("flowbc.Config.learning_rate", self.learning_rate)
        checks.not_negative("flowbc.Config.decay_steps", self.decay_steps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    flow: Params
    opt: optax.OptState
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh velocity network and moments."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    flow_key, state_key = jax.random.split(key)
    params = flow.init(config.flow, flow_key, obs, action)
    return State(
        flow=params,
        opt=optimise.adam_init(params),
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One gradient step of the flow-matching loss."""
    key, flow_key = jax.random.split(state.key)
    rate = optimise.cosine(config.learning_rate, state.step, config.decay_steps)
    obs = state.normaliser(batch["observations"])
    params, opt, metrics = flow.bc_step(
        config.flow,
        state.flow,
        state.opt,
        rate,
        flow_key,
        obs,
        batch["actions"],
        batch.get("valid"),
    )
    return State(params, opt, state.normaliser, key, state.step + 1), metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """A sample of the policy; exploring adds nothing to it."""
    return policies.sample(policy(config, state), observations, key)


def policy(config: Config, state: State) -> policies.FlowPolicy:
    """The policy as data."""
    return policies.FlowPolicy(config.flow, state.flow, state.normaliser, config.flow_steps)


CAPABILITIES = Capabilities(short_chunks=True)
