"""IFQL (Park et al., 2025, arXiv:2502.02538): IQL's critics, a flow policy and best-of-N.

The flow counterpart of IDQL (Hansen-Estruch et al., 2023, arXiv:2304.10573). The policy is cloned,
not weighted: the critics enter only when they choose among N samples of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, flow, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_ensemble, init_params
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; defaults are those of the FQL paper."""

    flow: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu")
    )
    critic: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu", layer_norm="after")
    )
    """Of the critics and of V."""
    critics: int = 2
    expectile: float = 0.9
    samples: int = 32
    """N, the actions that the critics choose from."""
    flow_steps: int = 10
    """Euler steps from noise to an action."""
    discount: float = 0.99
    polyak: float = 0.005
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("ifql.Config.critics", self.critics)
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"ifql.Config.expectile must be in (0, 1), got {self.expectile}")
        checks.positive("ifql.Config.samples", self.samples)
        checks.positive("ifql.Config.flow_steps", self.flow_steps)
        checks.fraction("ifql.Config.discount", self.discount)
        checks.fraction("ifql.Config.polyak", self.polyak)
        checks.positive("ifql.Config.learning_rate", self.learning_rate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"flow", "critic", "value"}; critic leaves lead with the ensemble axis
    target_critic: Params
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks, moments and targets."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    flow_key, critic_key, value_key, state_key = jax.random.split(key, 4)
    scalar = Scalar(config.critic)
    critic = init_ensemble(scalar, critic_key, config.critics, obs, action)
    params: Params = {
        "flow": flow.init(config.flow, flow_key, obs, action),
        "critic": critic,
        "value": init_params(scalar, value_key, obs),
    }
    return State(
        params=params,
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _value_step(
    config: Config, state: State, obs: jax.Array, q: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        v: jax.Array = apply(Scalar(config.critic), params, obs)
        value_loss = jnp.mean(losses.expectile_loss(q - v, config.expectile))
        return value_loss, {"value_loss": value_loss, "v": jnp.mean(v)}

    return optimise.gradient_step(
        loss, state.params["value"], state.opt["value"], config.learning_rate
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of flow, V and critics; the critics' target is the V from before it."""
    key, flow_key = jax.random.split(state.key)
    actions, old, rate = batch["actions"], state.params, config.learning_rate
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    moved, flow_opt, flow_metrics = flow.bc_step(
        config.flow, old["flow"], state.opt["flow"], rate, flow_key, obs, actions
    )
    q = critics.q(config.critic, state.target_critic, "min", obs, actions)
    value, value_opt, value_metrics = _value_step(config, state, obs, q)

    next_v: jax.Array = apply(Scalar(config.critic), old["value"], next_obs)
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_v)
    critic, critic_opt, critic_metrics = critics.regress(
        config.critic, old["critic"], state.opt["critic"], rate, target, obs, actions
    )
    new = State(
        params={"flow": moved, "critic": critic, "value": value},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={"flow": flow_opt, "critic": critic_opt, "value": value_opt},
        normaliser=state.normaliser,
        key=key,
        step=state.step + 1,
    )
    return new, {**flow_metrics, **value_metrics, **critic_metrics}


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """The best of N samples by the critics' minimum; their noise is all the exploration."""
    return policies.sample(policy(config, state), observations, key)


def policy(config: Config, state: State) -> policies.BestOfNPolicy:
    """The best-of-N policy as data."""
    return policies.BestOfNPolicy(
        flow=policies.FlowPolicy(
            config.flow, state.params["flow"], state.normaliser, config.flow_steps
        ),
        critic_net=config.critic,
        critic=state.params["critic"],
        aggregate="min",
        samples=config.samples,
    )


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def state_values(config: Config, state: State, observations: jax.Array) -> jax.Array:
    """V (...), from which the critics' targets bootstrap."""
    obs = state.normaliser(observations)
    value: jax.Array = apply(Scalar(config.critic), state.params["value"], obs)
    return value


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values)
