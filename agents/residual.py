"""Residual RL on TD3 (after ResFiT, 2025): a bounded correction to a frozen policy.

action = clip(base(s) + scale * tanh(actor(s, base(s))), -1, 1). The last layer of the actor starts
at zero, so the first policy is the base exactly. With `base_in_observation` the base is any
controller outside: the last A entries of the observation are its action (`robo_rl.learn.bases`),
and all networks see them.

Deterministic actor, target actor with clipped noise, critic ensemble with LayerNorm, n-step targets
through the batch's `discounts`. Critics see the executed action, as datasets and buffers hold it.
"""

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks, handover
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies, slices
from robo_rl.nn.apply import Batch, Metrics, Params, apply_ensemble, init_ensemble, init_params
from robo_rl.nn.encoder import features
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first
from robo_rl.nn.shift import DRQ, Shift, shifted

RESETS = ("critic", "optimiser")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters. The authors' `critic_lr` is 1e-4, their actor's 1e-6 (see the recipe).

    They use AdamW as it comes, which is a `weight_decay` of 0.01.
    """

    base: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the frozen policy."""
    base_in_observation: bool = False
    """The observation ends with the action (A,) of a base that is not ours: `base` is not used."""
    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the correction."""
    critic: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(layer_norm="before"))
    critics: int = 10
    subset: int = 2
    utd: int = 4
    """Critic steps an update, on consecutive slices of its batch; then one actor step."""
    scale: float = 0.2
    """Largest correction, in units of the action."""
    exploration_std: float = 0.05
    """Of the noise on the executed action, and on the target actor's."""
    noise_clip: float = 0.3
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
        checks.positive("residual.Config.critics", self.critics)
        checks.subset("residual.Config.subset", self.subset, self.critics)
        checks.positive("residual.Config.utd", self.utd)
        checks.fraction("residual.Config.scale", self.scale)
        checks.not_negative("residual.Config.exploration_std", self.exploration_std)
        checks.not_negative("residual.Config.noise_clip", self.noise_clip)
        checks.fraction("residual.Config.discount", self.discount)
        checks.fraction("residual.Config.polyak", self.polyak)
        checks.positive("residual.Config.actor_lr", self.actor_lr)
        checks.positive("residual.Config.critic_lr", self.critic_lr)
        checks.not_negative("residual.Config.clip_norm", self.clip_norm)
        checks.not_negative("residual.Config.weight_decay", self.weight_decay)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the frozen base that it stands on."""

    params: Params  # {"actor", "critic"}; critic leaves lead with the ensemble axis N
    target: Params  # Polyak average of `params`
    opt: dict[str, optax.OptState]  # same keys as `params`
    base: Params  # of `Actor`; never updated; empty where the base is outside
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def _base_action(config: Config, state: State, observations: jax.Array) -> jax.Array:
    """What the base does (..., A) at observations as they come."""
    if not config.base_in_observation:
        return policies.mean_action(config.base, state.base, state.normaliser(observations))
    return observations[..., -state.params["actor"]["mean"]["bias"].shape[-1] :]


def _seen(config: Config, state: State, obs: jax.Array) -> jax.Array:
    """What the actor reads (B, I): by the critics' encoder, which the actor must not move."""
    return jax.lax.stop_gradient(features(config.critic.encoder, state.params["critic"], obs))


def _action(config: Config, actor: Params, read: jax.Array, base: jax.Array) -> jax.Array:
    """The policy's action (..., A) from what it reads, where the base does `base`."""
    inputs = (read,) if config.base_in_observation else (read, base)
    correction = policies.mean_action(config.actor, actor, *inputs)
    return jnp.clip(base + config.scale * correction, -1.0, 1.0)


def _noise(config: Config, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return distributions.clipped_noise(key, shape, config.exploration_std, config.noise_clip)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh actor and critics on a random base; `warm_start` puts a learned base there."""
    obs, action = first(example_batch["observations"]), example_batch["actions"][:1]
    base_key, actor_key, critic_key, state_key = jax.random.split(key, 4)
    base: Params = {}
    if not config.base_in_observation:
        base = init_params(Actor(config.base, action.shape[-1]), base_key, obs)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    head = Actor(config.actor, action.shape[-1], output_gain=0.0)
    read = features(config.critic.encoder, critic, obs)
    inputs = (read,) if config.base_in_observation else (read, action)
    params: Params = {"actor": init_params(head, actor_key, *inputs), "critic": critic}
    return State(
        params=params,
        target=jax.tree.map(jnp.copy, params),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        base=base,
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def adopt(config: Config, learned: policies.Learned) -> Config:
    """`config` with the network shapes of what has been learned, so that `warm_start` fits."""
    config = dataclasses.replace(config, base=learned.policy.net)
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
    if config.base_in_observation:
        raise ValueError(
            "residual.warm_start: with base_in_observation the base is the environment's; "
            'start "fresh", from residual.init'
        )
    handover.check_resets("residual", reset, RESETS)
    handover.check_net("residual", "policy", learned.policy.net, config.base)
    base, normaliser = handover.copied(
        (policies.deterministic(learned.policy.params), learned.policy.normaliser)
    )
    state = dataclasses.replace(init(config, key, example_batch, normaliser), base=base)
    if "critic" in reset or learned.critic is None:
        return state
    return with_critic(
        state,
        *handover.critics("residual", learned, config.critic, config.critics),
        keep_moments="optimiser" not in reset,
    )


def with_critic(
    state: State, critic: Params, target: Params, moments: optax.OptState, keep_moments: bool
) -> State:
    """The state with other critics, their targets and, if asked for, their moments."""
    return dataclasses.replace(
        state,
        params={**state.params, "critic": critic},
        target={**state.target, "critic": target},
        opt={**state.opt, "critic": moments} if keep_moments else state.opt,
    )


def _target(config: Config, state: State, batch: Batch, key: jax.Array) -> jax.Array:
    """The critics' target (B,), at the target actor's action with noise on it."""
    subset_key, noise_key = jax.random.split(key)
    next_obs = state.normaliser(batch["next_observations"])
    base = _base_action(config, state, batch["next_observations"])
    actions = _action(config, state.target["actor"], _seen(config, state, next_obs), base)
    actions = jnp.clip(actions + _noise(config, noise_key, actions.shape), -1.0, 1.0)
    drawn = critics.draw(state.target["critic"], subset_key, config.subset)
    next_q = critics.q(config.critic, drawn, "min", next_obs, actions)
    discounts = batch.get("discounts", config.discount)
    return losses.td_target(batch["rewards"], discounts, batch["masks"], next_q)


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
    return with_critic(state, critic, moved, opt, keep_moments=True), metrics


def _actor_step(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the actor and of its target. Neither critics nor base move."""
    obs = state.normaliser(batch["observations"])
    base = _base_action(config, state, batch["observations"])
    read = _seen(config, state, obs)
    judged = features(config.critic.encoder, state.params["critic"], obs)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        actions = _action(config, params, read, base)
        q = apply_ensemble(Scalar(config.critic), state.params["critic"], judged, actions)
        actor_loss = -jnp.mean(q)
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
    return with_actor(state, actor, opt, actor_rate(config.polyak, config.utd)), metrics


def actor_rate(polyak: float, utd: int) -> float:
    """The actor moves once in `utd` critic steps: its target catches up in one go."""
    return 1.0 - (1.0 - polyak) ** utd


def with_actor(state: State, actor: Params, opt: optax.OptState, rate: float) -> State:
    """The state after a step of the actor, which its target follows at `rate`."""
    return dataclasses.replace(
        state,
        params={**state.params, "actor": actor},
        target={**state.target, "actor": optimise.polyak(actor, state.target["actor"], rate)},
        opt={**state.opt, "actor": opt},
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor step on the last."""
    batch = shifted(config.shift, state.key, batch)
    key, critic_key = jax.random.split(state.key)
    parts = slices.cut(batch, config.utd, "residual.update")
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
    """The policy's action; with `explore`, noise on top."""
    base = _base_action(config, state, observations)
    seen = _seen(config, state, state.normaliser(observations))
    action = _action(config, state.params["actor"], seen, base)
    if explore:
        action = jnp.clip(action + _noise(config, key, action.shape), -1.0, 1.0)
    return action


def policy(config: Config, state: State) -> policies.Policy:
    """The deterministic policy as data."""
    params = state.params
    net, own = policies.lent(config.actor, params["actor"], config.critic, params["critic"])
    correction = policies.TanhPolicy(net, own, state.normaliser)
    if config.base_in_observation:
        return policies.CorrectionPolicy(correction, config.scale)
    base = policies.TanhPolicy(config.base, state.base, state.normaliser)
    return policies.ResidualPolicy(base, correction, config.scale)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


CAPABILITIES = Capabilities(images=True, q_values=q_values, adopt=adopt, warm_start=warm_start)
"""Images: the critics' loss trains the encoder that the correction reads, not the base's."""
