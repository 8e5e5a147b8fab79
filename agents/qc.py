"""Best-of-N Q-learning on chunks of actions: QC (Li, Zhou and Levine, 2025, arXiv:2507.07969).

The policy is a flow cloned from the data, of whose N samples the critics choose one, both to act
and in the target: online critics choose, target critics value. Nothing is trained to exploit the
critics, so actions stay within the data. Chunks are in the data: a row's action holds h actions,
its reward their discounted sum (`robo_rl.data.chunks`). With h = 1 this is best-of-N (BFN).
As in the authors' code, the last h - 1 states of an episode are cloned as far as they go (`valid`)
and say nothing to the critics.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, flow, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, init_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; defaults are the paper's."""

    flow: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu")
    )
    critic: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu", layer_norm="after")
    )
    critics: int = 2
    samples: int = 32
    """N, the actions that the critics choose from."""
    aggregate: str = "mean"
    """Of the critics, when they choose and when they value: "mean" or "min"."""
    flow_steps: int = 10
    """Euler steps from noise to an action."""
    discount: float = 0.99
    polyak: float = 0.005
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("qc.Config.critics", self.critics)
        checks.positive("qc.Config.samples", self.samples)
        checks.one_of("qc.Config.aggregate", self.aggregate, critics.AGGREGATES)
        checks.positive("qc.Config.flow_steps", self.flow_steps)
        checks.fraction("qc.Config.discount", self.discount)
        checks.fraction("qc.Config.polyak", self.polyak)
        checks.positive("qc.Config.learning_rate", self.learning_rate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"flow", "critic"}; critic leaves lead with the ensemble axis
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
    flow_key, critic_key, state_key = jax.random.split(key, 3)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    params: Params = {"flow": flow.init(config.flow, flow_key, obs, action), "critic": critic}
    return State(
        params=params,
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _target(config: Config, state: State, batch: Batch, key: jax.Array) -> jax.Array:
    """r + discount * mask * target Q (B,) of the best of N samples at the next state."""
    chosen = policies.sample(policy(config, state), batch["next_observations"], key)
    next_obs = state.normaliser(batch["next_observations"])
    next_q = critics.q(config.critic, state.target_critic, config.aggregate, next_obs, chosen)
    discounts = batch.get("discounts", config.discount)
    return losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of flow and critics, both from the parameters before it."""
    key, flow_key, next_key = jax.random.split(state.key, 3)
    obs, actions = state.normaliser(batch["observations"]), batch["actions"]
    rate = config.learning_rate
    valid = batch.get("valid")  # the flow clones what there is of a chunk, critics whole ones
    moved, flow_opt, flow_metrics = flow.bc_step(
        config.flow, state.params["flow"], state.opt["flow"], rate, flow_key, obs, actions, valid
    )
    target = _target(config, state, batch, next_key)
    critic, critic_opt, critic_metrics = critics.regress(
        config.critic,
        state.params["critic"],
        state.opt["critic"],
        rate,
        target,
        obs,
        actions,
        weight=None if valid is None else valid[:, -1],
    )
    new = State(
        params={"flow": moved, "critic": critic},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={"flow": flow_opt, "critic": critic_opt},
        normaliser=state.normaliser,
        key=key,
        step=state.step + 1,
    )
    return new, {**flow_metrics, **critic_metrics}


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """The best of N samples; their noise is all the exploration there is."""
    return policies.sample(policy(config, state), observations, key)


def policy(config: Config, state: State) -> policies.BestOfNPolicy:
    """The best-of-N policy as data."""
    return policies.BestOfNPolicy(
        flow=policies.FlowPolicy(
            config.flow, state.params["flow"], state.normaliser, config.flow_steps
        ),
        critic_net=config.critic,
        critic=state.params["critic"],
        aggregate=config.aggregate,
        samples=config.samples,
    )


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


CAPABILITIES = Capabilities(short_chunks=True, q_values=q_values)
