"""AWAC (Nair et al., 2020, arXiv:2006.09359): an actor that only ever imitates weighted data.

The weights are exp(A / lambda), bounded as in CORL, with one action of the policy standing for the
value of the state. The policy is a normal around tanh(mean), cut at the bounds when it is sampled:
under a squashed normal, imitating data at a bound would pull the mean to infinity. The same update
runs offline and online.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_ensemble, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    actor: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(256,) * 3))
    critic: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(256,) * 3))
    critics: int = 2
    subset: int = 2
    """Target critics that the minimum is over, drawn anew each update when fewer than `critics`."""
    inverse_temperature: float = 3.0
    """1 / lambda: 3 on locomotion, 10 in mazes and with hands."""
    weight_clip: float = 100.0
    initial_log_std: float = 0.0
    """Of the spread, which is one number an action dimension in all states."""
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    discount: float = 0.99
    polyak: float = 0.005
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("awac.Config.critics", self.critics)
        checks.subset("awac.Config.subset", self.subset, self.critics)
        checks.not_negative("awac.Config.inverse_temperature", self.inverse_temperature)
        checks.positive("awac.Config.weight_clip", self.weight_clip)
        if not self.log_std_min <= self.initial_log_std <= self.log_std_max:
            raise ValueError(
                "awac.Config.initial_log_std must be in [log_std_min, log_std_max], got "
                f"{self.initial_log_std} in [{self.log_std_min}, {self.log_std_max}]"
            )
        checks.fraction("awac.Config.discount", self.discount)
        checks.fraction("awac.Config.polyak", self.polyak)
        checks.positive("awac.Config.actor_lr", self.actor_lr)
        checks.positive("awac.Config.critic_lr", self.critic_lr)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "critic"}; critic leaves lead with the ensemble axis N
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
    actor_key, critic_key, state_key = jax.random.split(key, 3)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    params: Params = {
        "actor": init_params(_actor(config, action.shape[-1]), actor_key, obs),
        "critic": critic,
    }
    return State(
        params=params,
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _actor(config: Config, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, "shared", config.initial_log_std)


def distribution(config: Config, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean, within the box, and log std (B, A) of the normal."""
    mean, log_std = apply(_actor(config, params["mean"]["bias"].shape[-1]), params, obs)
    return jnp.tanh(mean), jnp.clip(log_std, config.log_std_min, config.log_std_max)


def sample(config: Config, params: Params, obs: jax.Array, key: jax.Array) -> jax.Array:
    """An action (B, A), cut at the bounds."""
    mean, log_std = distribution(config, params, obs)
    return jnp.clip(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape), -1.0, 1.0)


def log_prob(config: Config, params: Params, obs: jax.Array, actions: jax.Array) -> jax.Array:
    """Log-density (B,) of given actions (B, A)."""
    return distributions.normal_log_prob(actions, *distribution(config, params, obs))


def _actor_step(
    config: Config, state: State, obs: jax.Array, actions: jax.Array, key: jax.Array
) -> tuple[State, Metrics]:
    own = sample(config, state.params["actor"], obs, key)
    q, value = (
        critics.q(config.critic, state.params["critic"], "min", obs, some)
        for some in (actions, own)
    )
    weight = losses.advantage_weight(q - value, config.inverse_temperature, config.weight_clip)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        actor_loss = -jnp.mean(weight * log_prob(config, params, obs, actions))
        return actor_loss, {"actor_loss": actor_loss}

    actor, opt, metrics = optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], config.actor_lr
    )
    new = dataclasses.replace(
        state, params={**state.params, "actor": actor}, opt={**state.opt, "actor": opt}
    )
    return new, {**metrics, "advantage": jnp.mean(q - value), "weight": jnp.mean(weight)}


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the critics and their targets, then of the actor with the new critics."""
    key, actor_key, subset_key, next_key = jax.random.split(state.key, 4)
    actions = batch["actions"]
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    next_actions = sample(config, state.params["actor"], next_obs, next_key)
    next_q = critics.min_q(
        config.critic, state.target_critic, subset_key, config.subset, next_obs, next_actions
    )
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)
    critic, opt, metrics = critics.regress(
        config.critic,
        state.params["critic"],
        state.opt["critic"],
        config.critic_lr,
        target,
        obs,
        actions,
    )
    state = dataclasses.replace(
        state,
        params={**state.params, "critic": critic},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={**state.opt, "critic": opt},
    )
    state, actor_metrics = _actor_step(config, state, obs, actions, actor_key)
    return dataclasses.replace(state, key=key, step=state.step + 1), {**metrics, **actor_metrics}


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """The mean, or with `explore` a sample."""
    obs = state.normaliser(observations)
    if explore:
        return sample(config, state.params["actor"], obs, key)
    return distribution(config, state.params["actor"], obs)[0]


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        log_std=state.params["actor"]["log_std"],
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target_critic,
        critic_opt=state.opt["critic"],
    )


CAPABILITIES = Capabilities(q_values=q_values, learned=learned)
