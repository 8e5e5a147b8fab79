"""TD3+BC (Fujimoto and Gu, 2021, arXiv:2106.06860): TD3 with one cloning term in the actor's loss.

An update is `utd` critic steps, then one step of the actor and of all targets: TD3's delayed actor
without computing what is not used. Half a million updates of utd 2 are the paper's million steps.
The authors standardise observations, as the offline loop does by default. Their critic loss is a
sum over the two critics, here it is a mean: a factor that Adam does not see.
"""

import dataclasses
import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies, slices
from robo_rl.nn.apply import (
    Batch,
    Metrics,
    Params,
    apply_ensemble,
    init_ensemble,
    init_params,
)
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first


@dataclasses.dataclass(frozen=True)
class Td3:
    """Hyperparameters of TD3, for the methods that stand on it."""

    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    critic: NetConfig = dataclasses.field(default_factory=NetConfig)
    critics: int = 2
    subset: int = 2
    """Target critics that the minimum is over, drawn anew each step when fewer than `critics`."""
    utd: int = 2
    """Critic steps an update, on consecutive slices of its batch; then one actor step."""
    target_noise: float = 0.2
    """Spread of the noise on the target actor's action."""
    noise_clip: float = 0.5
    discount: float = 0.99
    polyak: float = 0.005
    """Step of all targets, once an update."""
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4

    def __post_init__(self) -> None:
        checks.kinds(self)
        name = checks.owner(self)
        checks.positive(f"{name}.critics", self.critics)
        checks.subset(f"{name}.subset", self.subset, self.critics)
        checks.positive(f"{name}.utd", self.utd)
        checks.not_negative(f"{name}.target_noise", self.target_noise)
        checks.not_negative(f"{name}.noise_clip", self.noise_clip)
        checks.fraction(f"{name}.discount", self.discount)
        checks.fraction(f"{name}.polyak", self.polyak)
        checks.positive(f"{name}.actor_lr", self.actor_lr)
        checks.positive(f"{name}.critic_lr", self.critic_lr)


@dataclasses.dataclass(frozen=True)
class Config(Td3):
    """Hyperparameters."""

    alpha: float = 2.5
    """Weight of Q, after its division by its own size, against the cloning term."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative("td3bc.Config.alpha", self.alpha)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "critic"}; critic leaves lead with the ensemble axis N
    target: Params  # Polyak average of `params`
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


S = TypeVar("S", bound=State)
"""The state, or that of a method which adds to it."""


def actor_loss(
    alpha: float, q: jax.Array, predicted: jax.Array, actions: jax.Array
) -> tuple[jax.Array, Metrics]:
    """-alpha mean(Q) / mean |Q| + mean over rows and action dimensions of (pi - a)^2.

    q (B,) is that of `predicted` (B, A); `actions` (B, A) are the data's. The size of Q gets no
    gradient, or the actor could lower the loss by it.
    """
    error = jnp.mean(jnp.square(predicted - actions))
    loss = -alpha * losses.relative_q(q) + error
    return loss, {"actor_loss": loss, "action_mse": error}


@validated
def init(
    config: Td3, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh actor and critics, with their targets and moments."""
    obs, action = first(example_batch["observations"]), example_batch["actions"][:1]
    actor_key, critic_key, state_key = jax.random.split(key, 3)
    params: Params = {
        "actor": init_params(Actor(config.actor, action.shape[-1]), actor_key, obs),
        "critic": init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action),
    }
    return State(
        params=params,
        target=jax.tree.map(jnp.copy, params),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def target_action(
    config: Td3, target_actor: Params, key: jax.Array, next_obs: jax.Array
) -> jax.Array:
    """The target actor's action (B, A) at standardised observations, with noise on it."""
    action = policies.mean_action(config.actor, target_actor, next_obs)
    noise = distributions.clipped_noise(key, action.shape, config.target_noise, config.noise_clip)
    return jnp.clip(action + noise, -1.0, 1.0)


def _critic_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows. Neither actor nor targets move."""
    noise_key, subset_key = jax.random.split(key)
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    actions = target_action(config, state.target["actor"], noise_key, next_obs)
    next_q = critics.min_q(
        config.critic, state.target["critic"], subset_key, config.subset, next_obs, actions
    )
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)
    return fit(config, state, target, obs, batch["actions"])


def fit(
    config: Td3, state: S, target: jax.Array, obs: jax.Array, actions: jax.Array
) -> tuple[S, Metrics]:
    """One step of the critics towards `target` (B,)."""
    critic, opt, metrics = critics.regress(
        config.critic,
        state.params["critic"],
        state.opt["critic"],
        config.critic_lr,
        target,
        obs,
        actions,
    )
    new = dataclasses.replace(
        state, params={**state.params, "critic": critic}, opt={**state.opt, "critic": opt}
    )
    return new, metrics


def _actor_step(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the actor on B rows, then of all targets."""
    obs = state.normaliser(batch["observations"])
    # One critic is enough to climb: the minimum is against overestimation in the targets.
    first = jax.tree.map(lambda leaf: leaf[:1], state.params["critic"])

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        predicted = policies.mean_action(config.actor, params, obs)
        q = apply_ensemble(Scalar(config.critic), first, obs, predicted)[0]
        return actor_loss(config.alpha, q, predicted, batch["actions"])

    actor, opt, metrics = optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], config.actor_lr
    )
    return with_actor(config, state, actor, opt), metrics


def with_actor(config: Td3, state: S, actor: Params, opt: optax.OptState) -> S:
    """The state after an actor step, with which all targets move."""
    params = {**state.params, "actor": actor}
    return dataclasses.replace(
        state,
        params=params,
        target=optimise.polyak(params, state.target, config.polyak),
        opt={**state.opt, "actor": opt},
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor step on the last.

    The batch has utd * B rows. Critic metrics are means over the slices.
    """
    key, critic_key = jax.random.split(state.key)
    parts = slices.cut(batch, config.utd, "td3bc.update")
    step = functools.partial(_critic_step, config)
    state, metrics = slices.scan(step, state, parts, critic_key)
    state, actor_metrics = _actor_step(config, state, slices.last(parts))
    return dataclasses.replace(state, key=key, step=state.step + 1), {**metrics, **actor_metrics}


def act(
    config: Td3,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean), also with `explore`: noise is a recipe's."""
    obs = state.normaliser(observations)
    return policies.mean_action(config.actor, state.params["actor"], obs)


def policy(config: Td3, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


def q_values(config: Td3, state: State, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def learned(config: Td3, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target["critic"],
        critic_opt=state.opt["critic"],
    )


CAPABILITIES = Capabilities(q_values=q_values, learned=learned)
