"""TD3 from a learned policy, all of it trained and anchored to where it began.

The actor starts as a copy of the policy, action = tanh(actor(s)). Its loss climbs the critics and
keeps it near the action of the frozen policy, or, in episodes that reached the goal, near its own:
what worked once is imitated. The critics are `residual`'s: an ensemble with LayerNorm, a target
actor with clipped noise, n-step targets through the batch's `discounts`.
"""

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, handover, residual
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies, slices
from robo_rl.nn.apply import (
    ENCODER,
    Batch,
    Metrics,
    Params,
    apply_ensemble,
    init_ensemble,
    init_params,
)
from robo_rl.nn.encoder import features
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first
from robo_rl.nn.shift import DRQ, Shift, shifted

RESETS = ("critic", "optimiser")

State = residual.State  # `base` is the frozen policy


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the policy and of the frozen one."""
    critic: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(layer_norm="before"))
    critics: int = 10
    subset: int = 2
    utd: int = 4
    """Critic steps an update, on consecutive slices of its batch; then one actor step."""
    anchor_weight: float = 0.0
    """Of the mean squared distance to the frozen policy's action, in the actor's loss."""
    success_weight: float = 0.0
    """Above 0, rows whose episode reached the goal (`succeeded`) are drawn to their own action with
    this weight instead."""
    exploration_std: float = 0.05
    """Of the noise on the executed action, and on the target actor's."""
    noise_clip: float = 0.3
    target_low: float | None = None
    """Bounds on the critics' targets, where the task's returns are known to lie between them."""
    target_high: float | None = None
    discount: float = 0.99
    polyak: float = 0.005
    actor_lr: float = 1e-4
    critic_lr: float = 3e-4
    clip_norm: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    weight_decay: float = 0.0
    train_actor: bool = True
    """False: critic steps only, as a recipe does right after its warm-up."""
    shift: Shift = DRQ
    """Of the images, where observations have any."""

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.positive("anchored.Config.critics", self.critics)
        checks.subset("anchored.Config.subset", self.subset, self.critics)
        checks.positive("anchored.Config.utd", self.utd)
        checks.not_negative("anchored.Config.anchor_weight", self.anchor_weight)
        checks.not_negative("anchored.Config.success_weight", self.success_weight)
        checks.not_negative("anchored.Config.exploration_std", self.exploration_std)
        checks.not_negative("anchored.Config.noise_clip", self.noise_clip)
        low, high = self.target_low, self.target_high
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"anchored.Config.target_low must be below target_high, got {low} and {high}"
            )
        checks.fraction("anchored.Config.discount", self.discount)
        checks.fraction("anchored.Config.polyak", self.polyak)
        checks.positive("anchored.Config.actor_lr", self.actor_lr)
        checks.positive("anchored.Config.critic_lr", self.critic_lr)
        checks.not_negative("anchored.Config.clip_norm", self.clip_norm)
        checks.not_negative("anchored.Config.weight_decay", self.weight_decay)


def _read(config: Config, state: State, obs: jax.Array) -> jax.Array:
    """What the actor reads (B, I) of standardised observations; no loss moves this encoder."""
    return jax.lax.stop_gradient(features(config.actor.encoder, state.base, obs))


def _noise(config: Config, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return distributions.clipped_noise(key, shape, config.exploration_std, config.noise_clip)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """A copy of a random policy, and fresh critics; `warm_start` puts a learned policy there."""
    obs, action = first(example_batch["observations"]), example_batch["actions"][:1]
    base_key, _, critic_key, state_key = jax.random.split(key, 4)  # as `residual`
    base = init_params(Actor(config.actor, action.shape[-1]), base_key, obs)
    params: Params = {
        "actor": handover.copied(_trained(base)),
        "critic": init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action),
    }
    return State(
        params=params,
        target=jax.tree.map(jnp.copy, params),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        base=base,
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _trained(base: Params) -> Params:
    """All of the frozen policy's parameters but its encoder's."""
    return {name: tree for name, tree in base.items() if name != ENCODER}


def adopt(config: Config, learned: policies.Learned) -> Config:
    """`config` with the network shapes of what has been learned, so that `warm_start` fits."""
    config = dataclasses.replace(config, actor=learned.policy.net)
    return handover.with_critics(config, learned)


def warm_start(
    config: Config,
    key: jax.Array,
    learned: policies.Learned,
    example_batch: Batch,
    reset: Collection[str] = (),
) -> State:
    """A state on a learned policy, whose statistics it shares; and on its critics, if it has any.

    `reset` names what starts fresh all the same: "critic", or the critics' "optimiser" state.
    """
    handover.check_resets("anchored", reset, RESETS)
    handover.check_net("anchored", "policy", learned.policy.net, config.actor)
    base, normaliser = handover.copied(
        (policies.deterministic(learned.policy.params), learned.policy.normaliser)
    )
    state = init(config, key, example_batch, normaliser)
    state = dataclasses.replace(
        state,
        base=base,
        params={**state.params, "actor": handover.copied(_trained(base))},
        target={**state.target, "actor": handover.copied(_trained(base))},
    )
    if "critic" in reset or learned.critic is None:
        return state
    return residual.with_critic(
        state,
        *handover.critics("anchored", learned, config.critic, config.critics),
        keep_moments="optimiser" not in reset,
    )


def _target(config: Config, state: State, batch: Batch, key: jax.Array) -> jax.Array:
    """The critics' target (B,), at the target actor's action with noise on it."""
    subset_key, noise_key = jax.random.split(key)
    next_obs = state.normaliser(batch["next_observations"])
    read = _read(config, state, next_obs)
    actions = policies.mean_action(config.actor, state.target["actor"], read)
    actions = jnp.clip(actions + _noise(config, noise_key, actions.shape), -1.0, 1.0)
    drawn = critics.draw(state.target["critic"], subset_key, config.subset)
    next_q = critics.q(config.critic, drawn, "min", next_obs, actions)
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)
    return jnp.clip(target, config.target_low, config.target_high)


def _critic_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows, then its target. The actor does not move."""
    critic, opt, metrics = critics.regress(
        config.critic,
        state.params["critic"],
        state.opt["critic"],
        config.critic_lr,
        _target(config, state, batch, key),
        state.normaliser(batch["observations"]),
        batch["actions"],
        clip_norm=config.clip_norm,
        weight_decay=config.weight_decay,
    )
    moved = optimise.polyak(critic, state.target["critic"], config.polyak)
    return residual.with_critic(state, critic, moved, opt, keep_moments=True), metrics


def _anchor(config: Config, batch: Batch, base: jax.Array) -> tuple[jax.Array, jax.Array | float]:
    """The action (B, A) that the actor's loss keeps it near to, and with which weight (B, 1)."""
    if config.success_weight == 0.0:
        return base, config.anchor_weight
    won = batch["succeeded"][:, None] > 0.0
    weight = jnp.where(won, config.success_weight, config.anchor_weight)
    return jnp.where(won, batch["actions"], base), weight


def _actor_step(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the actor and of its target. Neither critics nor the frozen policy move."""
    obs = state.normaliser(batch["observations"])
    base = policies.mean_action(config.actor, state.base, obs)
    anchor, weight = _anchor(config, batch, base)
    read = _read(config, state, obs)
    judged = features(config.critic.encoder, state.params["critic"], obs)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        actions = policies.mean_action(config.actor, params, read)
        q = apply_ensemble(Scalar(config.critic), state.params["critic"], judged, actions)
        actor_loss = jnp.mean(weight * jnp.square(actions - anchor)) - jnp.mean(q)
        return actor_loss, {
            "actor_loss": actor_loss,
            "correction": jnp.mean(jnp.abs(actions - base)),
        }

    actor, opt, metrics = optimise.gradient_step(
        loss,
        state.params["actor"],
        state.opt["actor"],
        config.actor_lr,
        config.clip_norm,
        config.weight_decay,
    )
    rate = residual.actor_rate(config.polyak, config.utd)
    return residual.with_actor(state, actor, opt, rate), metrics


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor step on the last."""
    batch = shifted(config.shift, state.key, batch)
    key, critic_key = jax.random.split(state.key)
    parts = slices.cut(batch, config.utd, "anchored.update")
    state, metrics = slices.scan(functools.partial(_critic_step, config), state, parts, critic_key)
    if config.train_actor:
        state, actor_metrics = _actor_step(config, state, slices.last(parts))
        metrics = {**metrics, **actor_metrics}
    return dataclasses.replace(state, key=key, step=state.step + 1), metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean); with `explore`, noise on top."""
    read = _read(config, state, state.normaliser(observations))
    action = policies.mean_action(config.actor, state.params["actor"], read)
    if explore:
        action = jnp.clip(action + _noise(config, key, action.shape), -1.0, 1.0)
    return action


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    net, own = policies.lent(config.actor, state.params["actor"], config.actor, state.base)
    return policies.TanhPolicy(net, own, state.normaliser)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


CAPABILITIES = Capabilities(images=True, q_values=q_values, adopt=adopt, warm_start=warm_start)
"""Images: the actor reads by the frozen policy's encoder, the critics by one of their own."""
