"""IQL (Kostrikov et al., 2021, arXiv:2110.06169), in the order of the authors' code: V, actor, Q.

Differences that can be configured: the size of the critic ensemble and the random subset that the
minimum is over (2 of 2 in the paper; 10 critics warm-start a REDQ ensemble), LayerNorm, and a fixed
unit spread of the actor (as OGBench and FQL use).
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.nn import critics, distributions, optimise, policies
from robo_rl.nn.apply import (
    Batch,
    Metrics,
    Params,
    apply,
    apply_ensemble,
    init_ensemble,
    init_params,
    subset,
)
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity

STDS = ("learned", "unit")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; names in the paper's letters where it has one."""

    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    critic: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the critics and of V."""
    critics: int = 2
    subset: int = 2
    """Critics that the minimum is over, drawn anew each update when fewer than `critics`."""
    expectile: float = 0.7
    temperature: float = 3.0
    """Inverse temperature beta of the advantage weights."""
    weight_clip: float = 100.0
    """Upper bound on exp(beta * advantage)."""
    std: str = "learned"
    """"learned": one per action dimension, in all states. "unit": 1."""
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    discount: float = 0.99
    polyak: float = 0.005
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    decay_steps: int = 0
    """Cosine decay of the actor's learning rate over so many updates; 0 keeps it."""

    def __post_init__(self) -> None:
        checks.positive("iql.Config.critics", self.critics)
        checks.subset("iql.Config.subset", self.subset, self.critics)
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"iql.Config.expectile must be in (0, 1), got {self.expectile}")
        checks.not_negative("iql.Config.temperature", self.temperature)
        checks.positive("iql.Config.weight_clip", self.weight_clip)
        checks.one_of("iql.Config.std", self.std, STDS)
        if not self.log_std_min < self.log_std_max:
            raise ValueError("iql.Config.log_std_min must be below log_std_max")
        checks.fraction("iql.Config.discount", self.discount)
        checks.fraction("iql.Config.polyak", self.polyak)
        checks.positive("iql.Config.actor_lr", self.actor_lr)
        checks.positive("iql.Config.critic_lr", self.critic_lr)
        checks.not_negative("iql.Config.decay_steps", self.decay_steps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "critic", "value"}; critic leaves lead with the ensemble axis N
    target_critic: Params
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def expectile_loss(difference: jax.Array, expectile: float) -> jax.Array:
    """|tau - 1[u < 0]| u^2, element by element, for u = q - v."""
    weight = jnp.where(difference < 0.0, 1.0 - expectile, expectile)
    return weight * jnp.square(difference)


def advantage_weight(advantage: jax.Array, temperature: float, clip: float) -> jax.Array:
    """min(exp(beta * A), clip): the bound is on the weight, not on the advantage."""
    return jnp.minimum(jnp.exp(temperature * advantage), clip)


def td_target(
    rewards: jax.Array, discounts: jax.Array | float, masks: jax.Array, next_v: jax.Array
) -> jax.Array:
    """r + discount * mask * V(s') (B,); the mask is 0 where the episode terminated."""
    return rewards + discounts * masks * next_v


def _actor(config: Config, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, std="shared" if config.std == "learned" else "none")


def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks, moments and targets."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    actor_key, critic_key, value_key, state_key = jax.random.split(key, 4)
    scalar = Scalar(config.critic)
    critic = init_ensemble(scalar, critic_key, config.critics, obs, action)
    params = {
        "actor": init_params(_actor(config, action.shape[-1]), actor_key, obs),
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
        value_loss = jnp.mean(expectile_loss(q - v, config.expectile))
        return value_loss, {"value_loss": value_loss}

    return optimise.gradient_step(loss, state.params["value"], state.opt["value"], config.critic_lr)


def _actor_step(
    config: Config, state: State, obs: jax.Array, actions: jax.Array, weight: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        mean, log_std = apply(_actor(config, actions.shape[-1]), params, obs)
        log_std = jnp.clip(log_std, config.log_std_min, config.log_std_max)
        log_prob = distributions.normal_log_prob(actions, jnp.tanh(mean), log_std)
        actor_loss = -jnp.mean(weight * log_prob)
        return actor_loss, {
            "actor_loss": actor_loss,
            "action_mse": jnp.mean(jnp.square(jnp.tanh(mean) - actions)),
            "std": jnp.mean(jnp.exp(log_std)),
        }

    rate = optimise.cosine(config.actor_lr, state.step, config.decay_steps)
    return optimise.gradient_step(loss, state.params["actor"], state.opt["actor"], rate)


def _critic_step(
    config: Config, state: State, obs: jax.Array, actions: jax.Array, target: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        q = apply_ensemble(Scalar(config.critic), params, obs, actions)  # (N, B)
        critic_loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(q)}

    return optimise.gradient_step(
        loss, state.params["critic"], state.opt["critic"], config.critic_lr
    )


def _target_q(config: Config, state: State, key: jax.Array, *inputs: jax.Array) -> jax.Array:
    """Minimum (B,) over the subset of target critics."""
    target = state.target_critic
    if config.subset < config.critics:
        target = subset(target, jax.random.permutation(key, config.critics)[: config.subset])
    return jnp.min(apply_ensemble(Scalar(config.critic), target, *inputs), axis=0)


def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of V, actor and critics, in that order, then of the target critics."""
    key, subset_key = jax.random.split(state.key)
    actions = batch["actions"]
    rows = actions.shape[0]
    both = state.normaliser(jnp.concatenate([batch["observations"], batch["next_observations"]]))
    obs = both[:rows]

    q = _target_q(config, state, subset_key, obs, actions)
    value, value_opt, value_metrics = _value_step(config, state, obs, q)

    # The new V, outside of every gradient: it weighs the actor's loss and is the critics' target.
    v_both: jax.Array = apply(Scalar(config.critic), value, both)
    v, next_v = v_both[:rows], v_both[rows:]
    weight = advantage_weight(q - v, config.temperature, config.weight_clip)
    actor, actor_opt, actor_metrics = _actor_step(config, state, obs, actions, weight)

    discounts = batch.get("discounts", config.discount)
    target = td_target(batch["rewards"], discounts, batch["masks"], next_v)
    critic, critic_opt, critic_metrics = _critic_step(config, state, obs, actions, target)

    metrics = {
        **value_metrics,
        **actor_metrics,
        **critic_metrics,
        "v": jnp.mean(v),
        "advantage": jnp.mean(q - v),
        "weight": jnp.mean(weight),
    }
    new = State(
        params={"actor": actor, "critic": critic, "value": value},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={"actor": actor_opt, "critic": critic_opt, "value": value_opt},
        normaliser=state.normaliser,
        key=key,
        step=state.step + 1,
    )
    return new, metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean), or with `explore` a clipped sample around it."""
    params = state.params["actor"]
    module = _actor(config, params["mean"]["bias"].shape[-1])
    mean, log_std = apply(module, params, state.normaliser(observations))
    action = jnp.tanh(mean)
    if explore:
        std = jnp.exp(jnp.clip(log_std, config.log_std_min, config.log_std_max))
        action = jnp.clip(action + std * jax.random.normal(key, action.shape), -1.0, 1.0)
    return action


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


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


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        log_std=state.params["actor"].get("log_std"),
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target_critic,
        critic_opt=state.opt["critic"],
    )
