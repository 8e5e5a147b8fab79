"""FQL (Park et al., 2025, arXiv:2502.02538): a one-step policy between a flow and the critics.

A flow policy is cloned from the data; a policy of one forward pass is distilled from it and pushed
up the critics; only the latter acts, by a sample. All losses see the parameters from before the
update: the authors take one Adam step on their sum, and no two of them move the same network.
On chunked data this is QC-FQL (Li et al., 2025, arXiv:2507.07969). As in the authors' code, the
last layers of both policies start like all others; that of its Gaussian baselines starts small.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, flow, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, init_ensemble, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first
from robo_rl.nn.shift import OGBENCH, Shift, shifted


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; defaults are the paper's."""

    flow: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu")
    )
    actor: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu")
    )
    """Of the one-step policy."""
    critic: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512,) * 4, activation="gelu", layer_norm="after")
    )
    critics: int = 2
    aggregate: str = "mean"
    """Of the target critics at the next state: "mean", or "min" where values run away."""
    alpha: float = 10.0
    """Weight of the distillation. It scales with rewards and action dimensions: 3 to 30000 in the
    paper, or 0.03 to 10 with `normalise_q`."""
    normalise_q: bool = False
    """Divide what the actor climbs by the batch's mean |Q|."""
    flow_steps: int = 10
    """Euler steps from noise to an action of the flow."""
    discount: float = 0.99
    polyak: float = 0.005
    learning_rate: float = 3e-4
    shift: Shift = OGBENCH
    """Of the images, where observations have any; the authors' is OGBench's."""

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("fql.Config.critics", self.critics)
        checks.one_of("fql.Config.aggregate", self.aggregate, critics.AGGREGATES)
        checks.not_negative("fql.Config.alpha", self.alpha)
        checks.positive("fql.Config.flow_steps", self.flow_steps)
        checks.fraction("fql.Config.discount", self.discount)
        checks.fraction("fql.Config.polyak", self.polyak)
        checks.positive("fql.Config.learning_rate", self.learning_rate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"flow", "actor", "critic"}; critic leaves lead with the ensemble axis N
    target_critic: Params
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def distillation_loss(actions: jax.Array, flow_actions: jax.Array) -> jax.Array:
    """Mean over rows and dimensions of the squared distance to the flow's actions; both (B, A)."""
    return jnp.mean(jnp.square(actions - flow_actions))


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks, moments and targets."""
    obs, action = first(example_batch["observations"]), example_batch["actions"][:1]
    flow_key, actor_key, critic_key, state_key = jax.random.split(key, 4)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    one_step = Actor(config.actor, action.shape[-1])
    params: Params = {
        "flow": flow.init(config.flow, flow_key, obs, action),
        "actor": init_params(one_step, actor_key, obs, action),
        "critic": critic,
    }
    return State(
        params=params,
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _one_step(config: Config, params: Params, obs: jax.Array, noise: jax.Array) -> jax.Array:
    """The one-step policy's action (B, A) before it is clipped."""
    return flow.head(config.actor, params, obs, noise)


def _actor_step(
    config: Config, state: State, obs: jax.Array, noise: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    # Outside of the loss: neither distillation nor Q moves the flow.
    target = flow.integrate(config.flow, state.params["flow"], obs, noise, config.flow_steps)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        actions = _one_step(config, params, obs, noise)
        distance = distillation_loss(actions, target)
        clipped = jnp.clip(actions, -1.0, 1.0)
        q = critics.q(config.critic, state.params["critic"], "mean", obs, clipped)
        climbed = -losses.relative_q(q) if config.normalise_q else -jnp.mean(q)
        actor_loss = config.alpha * distance + climbed
        return actor_loss, {
            "actor_loss": actor_loss,
            "distillation_loss": distance,
            "q_loss": climbed,
        }

    return optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], config.learning_rate
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of flow, one-step policy and critics, all from the parameters before it."""
    batch = shifted(config.shift, state.key, batch)
    key, flow_key, noise_key, next_key = jax.random.split(state.key, 4)
    actions, old = batch["actions"], state.params
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    noise = jax.random.normal(noise_key, actions.shape)
    next_noise = jax.random.normal(next_key, actions.shape)

    rate = config.learning_rate
    valid = batch.get("valid")  # the flow clones what there is of a chunk, critics whole ones
    moved, flow_opt, flow_metrics = flow.bc_step(
        config.flow, old["flow"], state.opt["flow"], rate, flow_key, obs, actions, valid
    )
    actor, actor_opt, actor_metrics = _actor_step(config, state, obs, noise)

    next_actions = jnp.clip(_one_step(config, old["actor"], next_obs, next_noise), -1.0, 1.0)
    next_q = critics.q(config.critic, state.target_critic, config.aggregate, next_obs, next_actions)
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)
    critic, critic_opt, critic_metrics = critics.regress(
        config.critic,
        old["critic"],
        state.opt["critic"],
        rate,
        target,
        obs,
        actions,
        weight=None if valid is None else valid[:, -1],
    )
    new = State(
        params={"flow": moved, "actor": actor, "critic": critic},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={"flow": flow_opt, "actor": actor_opt, "critic": critic_opt},
        normaliser=state.normaliser,
        key=key,
        step=state.step + 1,
    )
    return new, {**flow_metrics, **actor_metrics, **critic_metrics}


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """A sample of the one-step policy; its noise is all the exploration there is."""
    return policies.sample(policy(config, state), observations, key)


def policy(config: Config, state: State) -> policies.OneStepPolicy:
    """The one-step policy as data."""
    return policies.OneStepPolicy(config.actor, state.params["actor"], state.normaliser)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


CAPABILITIES = Capabilities(images=True, short_chunks=True, q_values=q_values)
"""Images: each network has an encoder, which its own loss trains; the critics share theirs."""
