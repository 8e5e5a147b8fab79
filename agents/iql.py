"""IQL (Kostrikov et al., 2021, arXiv:2110.06169), in the order of the authors' code: V, actor, Q.

Differences that can be configured: the size of the critic ensemble and the random subset that the
minimum is over (2 of 2 in the paper; 10 critics warm-start a REDQ ensemble), LayerNorm, and a fixed
unit spread of the actor (as OGBench and FQL use).

Methods that learn V, actor and Q in this order from the data's actions alone, and differ in a loss,
share `Common`, `State`, `init`, `step` and what comes after it.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies
from robo_rl.nn.apply import (
    Batch,
    Metrics,
    Params,
    apply,
    apply_ensemble,
    init_ensemble,
    init_params,
)
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity

STDS = ("learned", "unit")
Loss: TypeAlias = Callable[[jax.Array], jax.Array]
"""Losses of differences, entry by entry."""


@dataclasses.dataclass(frozen=True)
class Common:
    """Hyperparameters of every method that shares `step`."""

    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    critic: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the critics and of V."""
    critics: int = 2
    subset: int = 2
    """Critics that the minimum is over, drawn anew each update when fewer than `critics`."""
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
        checks.kinds(self)
        name = checks.owner(self)
        checks.positive(f"{name}.critics", self.critics)
        checks.subset(f"{name}.subset", self.subset, self.critics)
        checks.positive(f"{name}.weight_clip", self.weight_clip)
        checks.one_of(f"{name}.std", self.std, STDS)
        if not self.log_std_min < self.log_std_max:
            raise ValueError(f"{name}.log_std_min must be below log_std_max")
        checks.fraction(f"{name}.discount", self.discount)
        checks.fraction(f"{name}.polyak", self.polyak)
        checks.positive(f"{name}.actor_lr", self.actor_lr)
        checks.positive(f"{name}.critic_lr", self.critic_lr)
        checks.not_negative(f"{name}.decay_steps", self.decay_steps)


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Hyperparameters; names in the paper's letters where it has one."""

    expectile: float = 0.7
    temperature: float = 3.0
    """Inverse temperature beta of the advantage weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.inside("iql.Config.expectile", self.expectile)
        checks.not_negative("iql.Config.temperature", self.temperature)


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


def _actor(config: Common, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, std="shared" if config.std == "learned" else "none")


@validated
def init(
    config: Common, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
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


def value_step(
    config: Common, state: State, obs: jax.Array, q: jax.Array, loss: Loss
) -> tuple[Params, optax.OptState, Metrics]:
    """V, its moments and metrics after a step on the mean of `loss` (B,) of q - V(s)."""

    def mean_loss(params: Params) -> tuple[jax.Array, Metrics]:
        v: jax.Array = apply(Scalar(config.critic), params, obs)
        value_loss = jnp.mean(loss(q - v))
        return value_loss, {"value_loss": value_loss}

    return optimise.gradient_step(
        mean_loss, state.params["value"], state.opt["value"], config.critic_lr
    )


def actor_step(
    config: Common, state: State, obs: jax.Array, actions: jax.Array, weight: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    """The actor after a step on -weight * log pi(a | s), weight (B,)."""

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


def critic_step(
    config: Common,
    state: State,
    obs: jax.Array,
    actions: jax.Array,
    target: jax.Array,
    loss: Loss = jnp.square,
) -> tuple[Params, optax.OptState, Metrics]:
    """The critics after a step on the sum over them of the mean `loss` of q - target, (N, B)."""

    def sum_loss(params: Params) -> tuple[jax.Array, Metrics]:
        q = apply_ensemble(Scalar(config.critic), params, obs, actions)  # (N, B)
        critic_loss = jnp.sum(jnp.mean(loss(q - target[None]), axis=1))
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(q)}

    return optimise.gradient_step(
        sum_loss, state.params["critic"], state.opt["critic"], config.critic_lr
    )


def target_q(config: Common, state: State, key: jax.Array, *inputs: jax.Array) -> jax.Array:
    """Minimum (B,) over the subset of target critics."""
    target = state.target_critic
    if config.subset < config.critics:
        target = critics.draw(target, key, config.subset)
    return jnp.min(apply_ensemble(Scalar(config.critic), target, *inputs), axis=0)


def step(
    config: Common,
    state: State,
    batch: Batch,
    *,
    temperature: float,
    value_loss: Loss,
    critic_loss: Loss = jnp.square,
) -> tuple[State, Metrics]:
    """One step of V, actor and critics, in that order, then of the target critics.

    `value_loss` maps q - v (B,) to losses (B,), `critic_loss` q - target (N, B) to (N, B).
    """
    key, subset_key = jax.random.split(state.key)
    actions = batch["actions"]
    rows = actions.shape[0]
    both = state.normaliser(jnp.concatenate([batch["observations"], batch["next_observations"]]))
    obs = both[:rows]

    q = target_q(config, state, subset_key, obs, actions)
    value, value_opt, value_metrics = value_step(config, state, obs, q, value_loss)

    # The new V, outside of every gradient: it weighs the actor's loss and is the critics' target.
    v_both: jax.Array = apply(Scalar(config.critic), value, both)
    v, next_v = v_both[:rows], v_both[rows:]
    weight = losses.advantage_weight(q - v, temperature, config.weight_clip)
    actor, actor_opt, actor_metrics = actor_step(config, state, obs, actions, weight)

    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_v)
    critic, critic_opt, critic_metrics = critic_step(
        config, state, obs, actions, target, critic_loss
    )

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


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`step` with the expectile loss of V."""
    return step(
        config,
        state,
        batch,
        temperature=config.temperature,
        value_loss=lambda u: losses.expectile_loss(u, config.expectile),
    )


def action(
    config: Common, actor: Params, obs: jax.Array, key: jax.Array, explore: bool
) -> jax.Array:
    """tanh(mean) (..., A) at what the actor reads, or with `explore` a clipped sample around it."""
    mean, log_std = apply(_actor(config, actor["mean"]["bias"].shape[-1]), actor, obs)
    out = jnp.tanh(mean)
    if explore:
        std = jnp.exp(jnp.clip(log_std, config.log_std_min, config.log_std_max))
        out = jnp.clip(out + std * jax.random.normal(key, out.shape), -1.0, 1.0)
    return out


def act(
    config: Common,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean), or with `explore` a clipped sample around it."""
    return action(config, state.params["actor"], state.normaliser(observations), key, explore)


def policy(config: Common, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


def q_values(
    config: Common, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def state_values(config: Common, state: State, observations: jax.Array) -> jax.Array:
    """V (...), from which the critics' targets bootstrap."""
    obs = state.normaliser(observations)
    value: jax.Array = apply(Scalar(config.critic), state.params["value"], obs)
    return value


def learned(config: Common, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        log_std=state.params["actor"].get("log_std"),
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target_critic,
        critic_opt=state.opt["critic"],
        value_net=config.critic,
        value=state.params["value"],
    )


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values, learned=learned)
