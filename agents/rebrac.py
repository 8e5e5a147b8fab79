"""ReBRAC (Tarasov et al., 2023, arXiv:2305.09836): TD3+BC with modern parts and two penalties.

Three hidden layers, LayerNorm behind the critics' activations, and the distance to the data not
only in the actor's loss but also in the critics' target, each with a weight of its own. Distances
are sums over action dimensions here, means in TD3+BC.

Online the authors continue the same update on batches that are half offline, with
`critic_bc_weight` 0 and the actor's weight falling to its half: the recipe "rebrac".

The target of the actor follows the actor after its step; in the authors' code, that before it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, td3bc
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, losses, optimise, policies, slices
from robo_rl.nn.apply import Batch, Metrics, Params, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.shift import OGBENCH, Shift, shifted

_NEEDS = ("next_actions",)


@dataclasses.dataclass(frozen=True)
class Config(td3bc.Td3):
    """Hyperparameters. The best pair of weights varies by task over [0.001, 1] and [0, 0.5]."""

    actor: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(256,) * 3))
    critic: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(256,) * 3, layer_norm="after")
    )
    actor_bc_weight: float = 0.01
    """Of the squared distance to the batch's actions, in the actor's loss."""
    critic_bc_weight: float = 0.01
    """Of the squared distance to the batch's next actions, taken off the critics' target."""
    decay_steps: int = 0
    """Updates over which `actor_bc_weight` would fall linearly to nothing; it stays at `decay_to`
    of it (CORL). 0 keeps it. They count from the first update with this setting, so a continued
    run starts at the full weight."""
    decay_to: float = 0.5
    shift: Shift = OGBENCH
    """Of the images, where observations have any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative("rebrac.Config.actor_bc_weight", self.actor_bc_weight)
        checks.not_negative("rebrac.Config.critic_bc_weight", self.critic_bc_weight)
        checks.not_negative("rebrac.Config.decay_steps", self.decay_steps)
        if not 0.0 <= self.decay_to <= 1.0:
            raise ValueError(f"rebrac.Config.decay_to must be in [0, 1], got {self.decay_to}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State(td3bc.State):
    """TD3's, and how far the actor's weight has decayed."""

    decayed: jax.Array  # updates with decay_steps > 0


def distance(actions: jax.Array, others: jax.Array) -> jax.Array:
    """Squared distance (B,), summed over action dimensions."""
    return jnp.sum(jnp.square(actions - others), axis=-1)


def bc_weight(config: Config, decayed: jax.Array) -> jax.Array | float:
    """The actor's weight after `decayed` updates of its decay."""
    if config.decay_steps == 0:
        return config.actor_bc_weight
    return config.actor_bc_weight * jnp.maximum(1.0 - decayed / config.decay_steps, config.decay_to)


def actor_loss(
    weight: jax.Array | float, q: jax.Array, predicted: jax.Array, actions: jax.Array
) -> tuple[jax.Array, Metrics]:
    """weight * mean distance - mean(Q) / mean |Q|; q (B,) is the minimum over the critics."""
    far = jnp.mean(distance(predicted, actions))
    loss = weight * far - losses.relative_q(q)
    return loss, {"actor_loss": loss, "bc_distance": far}


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh actor and critics, with their targets and moments."""
    checks.needed("rebrac", example_batch, _NEEDS)
    fresh = td3bc.init(config, key, example_batch, normaliser)
    return State(**vars(fresh), decayed=jnp.zeros((), jnp.int32))


def _critic_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows. Neither actor nor targets move."""
    noise_key, subset_key = jax.random.split(key)
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    actions = td3bc.target_action(config, state.target["actor"], noise_key, next_obs)
    next_q = critics.min_q(
        config.critic, state.target["critic"], subset_key, config.subset, next_obs, actions
    )
    penalty = distance(actions, batch["next_actions"])
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(
        batch["rewards"], discounts, batch["masks"], next_q - config.critic_bc_weight * penalty
    )
    state, metrics = td3bc.fit(config, state, target, obs, batch["actions"])
    return state, {**metrics, "next_distance": jnp.mean(penalty)}


def _actor_step(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of the actor on B rows, then of all targets."""
    obs = state.normaliser(batch["observations"])
    weight = bc_weight(config, state.decayed)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        predicted = policies.mean_action(config.actor, params, obs)
        q = apply_ensemble(Scalar(config.critic), state.params["critic"], obs, predicted)
        return actor_loss(weight, jnp.min(q, axis=0), predicted, batch["actions"])

    actor, opt, metrics = optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], config.actor_lr
    )
    state = td3bc.with_actor(config, state, actor, opt)
    return state, {**metrics, "bc_weight": jnp.asarray(weight)}


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor step on the last.

    The batch has utd * B rows. Critic metrics are means over the slices.
    """
    batch = shifted(config.shift, state.key, batch)
    key, critic_key = jax.random.split(state.key)
    parts = slices.cut(batch, config.utd, "rebrac.update")
    step = functools.partial(_critic_step, config)
    state, metrics = slices.scan(step, state, parts, critic_key)
    state, actor_metrics = _actor_step(config, state, slices.last(parts))
    decayed = state.decayed + 1 if config.decay_steps else state.decayed
    new = dataclasses.replace(state, key=key, step=state.step + 1, decayed=decayed)
    return new, {**metrics, **actor_metrics}


act, policy, learned = td3bc.act, td3bc.policy, td3bc.learned
q_values = td3bc.q_values


CAPABILITIES = Capabilities(needs=_NEEDS, images=True, q_values=q_values, learned=learned)
"""Images: actor and critics have an encoder each, trained by its own loss, as in OGBench."""
