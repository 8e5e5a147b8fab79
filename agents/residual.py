"""TD3 on top of a frozen policy: a bounded correction to it, or the whole of it, anchored to it.

`trains="correction"` (after ResFiT, 2025): action = clip(base(s) + scale * tanh(actor(s, base(s))),
-1, 1). The last layer of the actor starts at zero, so the first policy is the base exactly.
With `base_in_observation` the base is any controller outside: the last A entries of the observation
are its action (`robo_rl.learn.bases`), and all networks see them.
`trains="whole"`: the actor starts as a copy of the base, action = tanh(actor(s)).

Deterministic actor, target actor with clipped noise, critic ensemble with LayerNorm, n-step targets
through the batch's `discounts`. Critics see the executed action, as datasets and buffers hold it.
"""

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.nn import critics, distributions, losses, optimise, policies, slices
from robo_rl.nn.apply import (
    ENCODER,
    Batch,
    Metrics,
    Params,
    apply_ensemble,
    init_ensemble,
    init_params,
    subset,
)
from robo_rl.nn.encoder import features
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first
from robo_rl.nn.shift import DRQ, Shift, shifted

TRAINS = ("correction", "whole")
RESETS = ("critic", "optimiser")
IMAGES = True
"""The critics' loss trains the encoder, which the correction reads too; the base keeps its own."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    trains: str = "correction"
    base: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the frozen policy, and of the actor where the whole policy is trained."""
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
    anchor_weight: float = 0.0
    """Weight of the mean squared distance to the base's action in the actor's loss."""
    success_weight: float = 0.0
    """Above 0, rows whose episode reached the goal (`succeeded`) are drawn to their own action with
    this weight instead: what worked once is imitated."""
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
        checks.one_of("residual.Config.trains", self.trains, TRAINS)
        if self.base_in_observation and self.trains != "correction":
            raise ValueError(
                "residual.Config.base_in_observation needs trains = correction: of a base outside "
                "there are no parameters to train"
            )
        checks.positive("residual.Config.critics", self.critics)
        checks.subset("residual.Config.subset", self.subset, self.critics)
        checks.positive("residual.Config.utd", self.utd)
        checks.fraction("residual.Config.scale", self.scale)
        checks.not_negative("residual.Config.anchor_weight", self.anchor_weight)
        checks.not_negative("residual.Config.success_weight", self.success_weight)
        checks.not_negative("residual.Config.exploration_std", self.exploration_std)
        checks.not_negative("residual.Config.noise_clip", self.noise_clip)
        low, high = self.target_low, self.target_high
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"residual.Config.target_low must be below target_high, got {low} and {high}"
            )
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


def _reader(config: Config, params: Params, base: Params) -> tuple[NetConfig, Params]:
    """Whose encoder the actor reads: the critics', or the frozen base's if it is a copy of it."""
    if config.trains == "whole":
        return config.base, base
    return config.critic, params["critic"]


def _seen(config: Config, state: State, obs: jax.Array) -> jax.Array:
    """What the actor reads (B, I) of standardised observations; its loss moves no encoder."""
    net, params = _reader(config, state.params, state.base)
    return jax.lax.stop_gradient(features(net.encoder, params, obs))


def _action(config: Config, actor: Params, read: jax.Array, base: jax.Array) -> jax.Array:
    """The policy's action (..., A) from what it reads, where the base does `base`."""
    if config.trains == "whole":
        return policies.mean_action(config.base, actor, read)
    inputs = (read,) if config.base_in_observation else (read, base)
    correction = policies.mean_action(config.actor, actor, *inputs)
    return jnp.clip(base + config.scale * correction, -1.0, 1.0)


def _noise(config: Config, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return distributions.clipped_noise(key, shape, config.exploration_std, config.noise_clip)


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
    if config.trains == "whole":
        actor = jax.tree.map(jnp.copy, _without_encoder(base))
    else:
        head = Actor(config.actor, action.shape[-1], output_gain=0.0)
        read = features(config.critic.encoder, critic, obs)
        inputs = (read,) if config.base_in_observation else (read, action)
        actor = init_params(head, actor_key, *inputs)
    params: Params = {"actor": actor, "critic": critic}
    return State(
        params=params,
        target=jax.tree.map(jnp.copy, params),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        base=base,
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _without_encoder(base: Params) -> Params:
    """Of the base's parameters, those that an actor which starts as its copy trains."""
    return {name: tree for name, tree in base.items() if name != ENCODER}


def adopt(config: Config, learned: policies.Learned) -> Config:
    """`config` with the network shapes of what has been learned, so that `warm_start` fits."""
    config = dataclasses.replace(config, base=learned.policy.net)
    if learned.critic_net is None:
        return config
    return dataclasses.replace(
        config,
        critic=learned.critic_net,
        critics=learned.critics,
        subset=min(config.subset, learned.critics),
    )


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
    for name in reset:
        checks.one_of("residual.warm_start reset", name, RESETS)
    if learned.policy.net != config.base:
        raise ValueError(
            f"residual.warm_start: the learned policy is {learned.policy.net}, the config asks for "
            f"{config.base}; use residual.adopt"
        )
    # The learned arrays stay with their owner: a loop may donate ours.
    base, normaliser = jax.tree.map(
        jnp.copy, (policies.deterministic(learned.policy.params), learned.policy.normaliser)
    )
    state = dataclasses.replace(init(config, key, example_batch, normaliser), base=base)
    if config.trains == "whole":
        copied = _without_encoder(base)
        state = _replaced(state, "actor", copied, copied)
    if "critic" in reset or learned.critic is None:
        return state
    return _take_critic(config, state, learned, "optimiser" not in reset)


def _replaced(state: State, name: str, params: Params, target: Params) -> State:
    return dataclasses.replace(
        state,
        params={**state.params, name: jax.tree.map(jnp.copy, params)},
        target={**state.target, name: jax.tree.map(jnp.copy, target)},
    )


def _take_critic(
    config: Config, state: State, learned: policies.Learned, keep_moments: bool
) -> State:
    if learned.critic_net != config.critic or learned.critics != config.critics:
        raise ValueError(
            f"residual.warm_start: {learned.critics} critics {learned.critic_net} were learned, "
            f"the config asks for {config.critics} critics {config.critic}; use residual.adopt"
        )
    assert learned.critic is not None
    assert learned.target_critic is not None
    state = _replaced(state, "critic", learned.critic, learned.target_critic)
    if not keep_moments:
        return state
    moments = jax.tree.map(jnp.copy, learned.critic_opt)
    return dataclasses.replace(state, opt={**state.opt, "critic": moments})


def _critic_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows, then its target. The actor does not move."""
    subset_key, noise_key = jax.random.split(key)
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    next_base = _base_action(config, state, batch["next_observations"])
    next_seen = _seen(config, state, next_obs)
    next_actions = _action(config, state.target["actor"], next_seen, next_base)
    next_actions = next_actions + _noise(config, noise_key, next_actions.shape)
    members = jax.random.permutation(subset_key, config.critics)[: config.subset]
    next_q = apply_ensemble(
        Scalar(config.critic),
        subset(state.target["critic"], members),
        next_obs,
        jnp.clip(next_actions, -1.0, 1.0),
    )
    discounts = batch.get("discounts", config.discount)
    # Outside of the loss: targets get no gradient.
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], jnp.min(next_q, axis=0))
    target = jnp.clip(target, config.target_low, config.target_high)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        q = apply_ensemble(Scalar(config.critic), params, obs, batch["actions"])  # (N, B)
        critic_loss = jnp.mean(jnp.square(q - target[None]))
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(q)}

    critic, opt, metrics = optimise.gradient_step(
        loss,
        state.params["critic"],
        state.opt["critic"],
        config.critic_lr,
        config.clip_norm,
        config.weight_decay,
    )
    moved = optimise.polyak(critic, state.target["critic"], config.polyak)
    new = dataclasses.replace(
        state,
        params={**state.params, "critic": critic},
        target={**state.target, "critic": moved},
        opt={**state.opt, "critic": opt},
    )
    return new, metrics


def _anchor(config: Config, batch: Batch, base: jax.Array) -> tuple[jax.Array, jax.Array | float]:
    """The action (B, A) that the actor's loss keeps it near to, and with which weight (B, 1)."""
    if config.success_weight == 0.0:
        return base, config.anchor_weight
    won = batch["succeeded"][:, None] > 0.0
    weight = jnp.where(won, config.success_weight, config.anchor_weight)
    return jnp.where(won, batch["actions"], base), weight


def _actor_step(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the actor and of its target. Neither critics nor base move."""
    obs = state.normaliser(batch["observations"])
    base = _base_action(config, state, batch["observations"])
    anchor, weight = _anchor(config, batch, base)
    read = _seen(config, state, obs)
    judged = features(config.critic.encoder, state.params["critic"], obs)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        actions = _action(config, params, read, base)
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
    # The actor moves once in `utd` critic steps: its target catches up in one go.
    rate = 1.0 - (1.0 - config.polyak) ** config.utd
    target = optimise.polyak(actor, state.target["actor"], rate)
    new = dataclasses.replace(
        state,
        params={**state.params, "actor": actor},
        target={**state.target, "actor": target},
        opt={**state.opt, "actor": opt},
    )
    return new, metrics


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
    own = config.base if config.trains == "whole" else config.actor
    lender = _reader(config, state.params, state.base)
    net, params = policies.lent(own, state.params["actor"], *lender)
    actor = policies.TanhPolicy(net, params, state.normaliser)
    if config.trains == "whole":
        return actor
    if config.base_in_observation:
        return policies.CorrectionPolicy(actor, config.scale)
    base = policies.TanhPolicy(config.base, state.base, state.normaliser)
    return policies.ResidualPolicy(base, actor, config.scale)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)
