"""SAC with a LayerNorm critic ensemble: the learner of REDQ, RLPD and WSRL.

Haarnoja et al. 2018 (arXiv:1812.05905), Chen et al. 2021 (REDQ, arXiv:2101.05982), Ball et al.
2023 (RLPD, arXiv:2302.02948), Zhou et al. 2024 (WSRL, arXiv:2412.07762). They differ in their
data and their start, which a recipe describes; `warm_start` is the start that WSRL needs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks, handover
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise, policies, slices
from robo_rl.nn.apply import (
    ENCODER,
    Batch,
    Metrics,
    Params,
    apply,
    apply_ensemble,
    init_ensemble,
    init_params,
)
from robo_rl.nn.encoder import features
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity_for
from robo_rl.nn.observations import first
from robo_rl.nn.shift import DRQ, Shift, shifted

ACTOR_ROWS = ("last", "all")
ACTOR_QS = ("mean", "min")
STDS = ("state", "shared")
RESETS = ("actor", "critic", "optimiser")


@dataclasses.dataclass(frozen=True)
class Common:
    """Hyperparameters of every method that stands on `stepped`."""

    actor: NetConfig = dataclasses.field(default_factory=NetConfig)
    critic: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(layer_norm="before"))
    critics: int = 10
    subset: int = 2
    """Target critics that the minimum is over, drawn anew for every critic step."""
    utd: int = 1
    """Critic steps an update, on consecutive slices of its batch; then one actor step."""
    actor_q: str = "mean"
    """What the actor climbs: "mean" (RLPD) or "min" (WSRL) over the ensemble."""
    actor_rows: str = "last"
    """Rows of the actor's step: the "last" slice of the batch (RLPD), or "all" of it (WSRL)."""
    backup_entropy: bool = False
    """Whether the target has the entropy bonus of the next action: SAC, and RLPD but for its mazes
    and its hands."""
    std: str = "state"
    """Spread of the actor: "state" dependent, or one "shared" by all states."""
    initial_log_std: float = 0.0
    log_std_min: float = -5.0
    """-20 in SAC's and RLPD's code."""
    log_std_max: float = 2.0
    initial_temperature: float = 1.0
    target_entropy_per_dim: float = -0.5
    """RLPD -0.5, WSRL and SAC -1."""
    bc_weight: float = 0.0
    """Weight of the squared distance to the batch's actions in the actor's loss (as in TD3+BC)."""
    discount: float = 0.99
    polyak: float = 0.005
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    temperature_lr: float = 3e-4
    train_actor: bool = True
    """False: critic steps only, as a recipe does right after its warm-up."""

    def __post_init__(self) -> None:
        checks.kinds(self)
        name = checks.owner(self)
        checks.positive(f"{name}.critics", self.critics)
        checks.subset(f"{name}.subset", self.subset, self.critics)
        checks.positive(f"{name}.utd", self.utd)
        checks.one_of(f"{name}.actor_q", self.actor_q, ACTOR_QS)
        checks.one_of(f"{name}.actor_rows", self.actor_rows, ACTOR_ROWS)
        checks.one_of(f"{name}.std", self.std, STDS)
        if not self.log_std_min <= self.initial_log_std <= self.log_std_max:
            raise ValueError(
                f"{name}.initial_log_std must be in [log_std_min, log_std_max], got "
                f"{self.initial_log_std} in [{self.log_std_min}, {self.log_std_max}]"
            )
        checks.positive(f"{name}.initial_temperature", self.initial_temperature)
        if not math.isfinite(self.target_entropy_per_dim):
            raise ValueError(f"{name}.target_entropy_per_dim must be finite")
        checks.not_negative(f"{name}.bc_weight", self.bc_weight)
        checks.fraction(f"{name}.discount", self.discount)
        checks.fraction(f"{name}.polyak", self.polyak)
        checks.positive(f"{name}.actor_lr", self.actor_lr)
        checks.positive(f"{name}.critic_lr", self.critic_lr)
        checks.not_negative(f"{name}.temperature_lr", self.temperature_lr)


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Hyperparameters; defaults are RLPD's on sparse rewards, but for `log_std_min`, there -20.

    The recipe "rlpd" sets that, and the entropy bonus of the target as RLPD has it by default.
    """

    shift: Shift = DRQ
    """Of the images, where observations have any."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "critic", "temperature"}; critic leaves lead with the ensemble axis
    target_critic: Params
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


S = TypeVar("S", bound=State)
"""The state, or that of a method which adds to it."""


def _actor(config: Common, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, config.std, config.initial_log_std)


def distribution(config: Common, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log std (B, A) before tanh."""
    mean, log_std = apply(_actor(config, params["mean"]["bias"].shape[-1]), params, obs)
    return mean, jnp.clip(log_std, config.log_std_min, config.log_std_max)


def seen(config: Common, params: Params, obs: jax.Array) -> jax.Array:
    """What the actor reads (B, I): by the critics' encoder, which the actor must not move."""
    return jax.lax.stop_gradient(features(config.critic.encoder, params["critic"], obs))


@validated
def init(
    config: Common, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks, moments, targets and temperature."""
    obs, action = first(example_batch["observations"]), example_batch["actions"][:1]
    actor_key, critic_key, state_key = jax.random.split(key, 3)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    read = features(config.critic.encoder, critic, obs)
    params: Params = {
        "actor": init_params(_actor(config, action.shape[-1]), actor_key, read),
        "critic": critic,
        "temperature": jnp.asarray(math.log(config.initial_temperature), jnp.float32),
    }
    return State(
        params=params,
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity_for(obs) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _critic_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows, then its target. The actor does not move."""
    subset_key, action_key = jax.random.split(key)
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    read = seen(config, state.params, next_obs)
    mean, log_std = distribution(config, state.params["actor"], read)
    next_actions, log_prob = distributions.tanh_normal_sample(action_key, mean, log_std)
    chosen = critics.draw(state.target_critic, subset_key, config.subset)
    next_q = apply_ensemble(Scalar(config.critic), chosen, next_obs, next_actions)  # (Z, B)
    if config.backup_entropy:
        next_q = next_q - jnp.exp(state.params["temperature"]) * log_prob[None]
    discounts = batch.get("discounts", config.discount)
    # Outside of the loss: neither the target critics nor the actor get a gradient from it.
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], jnp.min(next_q, axis=0))

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        q = apply_ensemble(Scalar(config.critic), params, obs, batch["actions"])  # (N, B)
        critic_loss = jnp.mean(jnp.square(q - target[None]))
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(q)}

    critic, opt, metrics = optimise.gradient_step(
        loss, state.params["critic"], state.opt["critic"], config.critic_lr
    )
    new = dataclasses.replace(
        state,
        params={**state.params, "critic": critic},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={**state.opt, "critic": opt},
    )
    return new, metrics


def _actor_step(config: Common, state: S, batch: Batch, key: jax.Array) -> tuple[S, Metrics]:
    """One step of the actor and of the temperature. The critics do not move."""
    obs = seen(config, state.params, state.normaliser(batch["observations"]))
    actions = batch["actions"]
    temperature = jnp.exp(state.params["temperature"])  # not moved by the actor's loss

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        mean, log_std = distribution(config, params, obs)
        sampled, log_prob = distributions.tanh_normal_sample(key, mean, log_std)
        q = apply_ensemble(Scalar(config.critic), state.params["critic"], obs, sampled)
        climbed = jnp.mean(q, axis=0) if config.actor_q == "mean" else jnp.min(q, axis=0)
        distance = jnp.mean(jnp.sum(jnp.square(jnp.tanh(mean) - actions), axis=-1))
        actor_loss = jnp.mean(temperature * log_prob - climbed) + config.bc_weight * distance
        return actor_loss, {
            "actor_loss": actor_loss,
            "entropy": -jnp.mean(log_prob),
            "bc_distance": distance,
        }

    actor, actor_opt, metrics = optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], config.actor_lr
    )
    target_entropy = config.target_entropy_per_dim * actions.shape[-1]
    slope = jax.grad(losses.temperature_loss)(
        state.params["temperature"], metrics["entropy"], target_entropy
    )
    log_temperature, temperature_opt = optimise.adam_step(
        state.params["temperature"], slope, state.opt["temperature"], config.temperature_lr
    )
    new = dataclasses.replace(
        state,
        params={**state.params, "actor": actor, "temperature": log_temperature},
        opt={**state.opt, "actor": actor_opt, "temperature": temperature_opt},
    )
    return new, {**metrics, "temperature": temperature}


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one step of actor and temperature.

    The batch has utd * B rows. Critic metrics are means over the slices.
    """
    batch = shifted(config.shift, state.key, batch)
    return stepped(config, state, batch, functools.partial(_critic_step, config))


def stepped(
    config: Common,
    state: S,
    batch: Batch,
    critic_step: Callable[[S, Batch, jax.Array], tuple[S, Metrics]],
) -> tuple[S, Metrics]:
    """`update` with another critic step, for the methods that stand on this one."""
    key, critic_key, actor_key = jax.random.split(state.key, 3)
    parts = slices.cut(batch, config.utd, f"{checks.owner(config)[:-7]}.update")
    state, metrics = slices.scan(critic_step, state, parts, critic_key)
    if config.train_actor:
        rows = slices.last(parts) if config.actor_rows == "last" else batch
        state, actor_metrics = _actor_step(config, state, rows, actor_key)
        metrics = {**metrics, **actor_metrics}
    return dataclasses.replace(state, key=key, step=state.step + 1), metrics


def act(
    config: Common,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean), or with `explore` a sample."""
    read = seen(config, state.params, state.normaliser(observations))
    mean, log_std = distribution(config, state.params["actor"], read)
    if not explore:
        return jnp.tanh(mean)
    return distributions.tanh_normal_sample(key, mean, log_std)[0]


def policy(config: Common, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    params = state.params
    net, actor = policies.lent(config.actor, params["actor"], config.critic, params["critic"])
    return policies.TanhPolicy(net, actor, state.normaliser)


def q_values(
    config: Common, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def learned(config: Common, state: State) -> policies.Learned:
    """What can start another agent."""
    shared = config.std == "shared"
    spread = state.params["actor"]["log_std"]
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        log_std=spread if shared else None,
        log_std_head=None if shared else spread,
        log_temperature=state.params["temperature"],
        temperature_opt=state.opt["temperature"],
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target_critic,
        critic_opt=state.opt["critic"],
    )


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
    """A state whose networks, targets, temperature and Adam moments are those of an offline agent.

    What was not learned (critics after behaviour cloning, the temperature after IQL) starts fresh,
    and so does what `reset` names: "actor" and its temperature, "critic", "optimiser". The spread
    of the actor starts at the learned one, or at `initial_log_std` where there is none.
    """
    handover.check_resets("sac", reset, RESETS)
    state = init(config, key, example_batch, learned.policy.normaliser)
    keep_moments = "optimiser" not in reset
    if "actor" not in reset:
        state = _take_actor(config, state, learned, keep_moments)
        state = _take_temperature(state, learned, keep_moments)
    if "critic" not in reset and learned.critic is not None:
        state = _take_critic(config, state, learned, keep_moments)
    return state


def _take_actor(
    config: Config, state: State, learned: policies.Learned, keep_moments: bool
) -> State:
    if ENCODER in learned.policy.params:
        raise ValueError(
            "sac.warm_start: the learned actor has an encoder of its own, this one reads the "
            "critics'; start fresh (as the recipe rlpd) or correct it (as the recipe residual)"
        )
    handover.check_net("sac", "actor", learned.policy.net, config.actor)
    fresh, old = state.params["actor"], learned.policy.params
    actor = {**fresh, "trunk": old["trunk"], "mean": old["mean"]}
    same: tuple[str, ...] = ("trunk", "mean")
    if learned.log_std_head is not None and config.std == "state":
        actor["log_std"], same = learned.log_std_head, (*same, "log_std")
    elif learned.log_std is not None:
        spread = jnp.clip(learned.log_std, config.log_std_min, config.log_std_max)
        # The head of a state-dependent spread starts with a zero kernel: its bias is the spread.
        actor["log_std"] = (
            spread if config.std == "shared" else {**fresh["log_std"], "bias": spread}
        )
    params = {**state.params, "actor": handover.copied(actor)}
    opt = state.opt
    if keep_moments:
        opt = {**opt, "actor": _merge_moments(opt["actor"], learned.actor_opt, same)}
    return dataclasses.replace(
        state, params=params, opt=opt, normaliser=handover.copied(learned.policy.normaliser)
    )


def _take_temperature(state: State, learned: policies.Learned, keep_moments: bool) -> State:
    if learned.log_temperature is None:
        return state
    opt = state.opt
    if keep_moments:
        opt = {**opt, "temperature": handover.copied(learned.temperature_opt)}
    params = {**state.params, "temperature": jnp.copy(learned.log_temperature)}
    return dataclasses.replace(state, params=params, opt=opt)


def _take_critic(
    config: Config, state: State, learned: policies.Learned, keep_moments: bool
) -> State:
    critic, target, moments = handover.critics("sac", learned, config.critic, config.critics)
    opt = {**state.opt, "critic": moments} if keep_moments else state.opt
    params = {**state.params, "critic": critic}
    return dataclasses.replace(state, params=params, target_critic=target, opt=opt)


def _merge_moments(
    fresh: optax.OptState, old: optax.OptState, same: tuple[str, ...]
) -> optax.OptState:
    """The old moments of the parts that are the `same`, and the count; others start at zero."""

    def merged(new: Params, seen: Params) -> Params:
        return {**new, **{part: seen[part] for part in same}}

    mu, nu = merged(fresh.mu, old.mu), merged(fresh.nu, old.nu)
    return handover.copied(fresh._replace(count=old.count, mu=mu, nu=nu))


CAPABILITIES = Capabilities(
    images=True, q_values=q_values, learned=learned, adopt=adopt, warm_start=warm_start
)
"""Images: the critics' loss trains the one encoder; the actor reads what it makes, as in DrQ."""
