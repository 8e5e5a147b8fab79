"""CQL (Kumar et al., 2020, arXiv:2006.04779) on SAC: Q is pushed down where the data do not go.

The regulariser is a soft maximum of Q over sampled actions less Q of the data's action. Actions are
drawn from the box, from the policy at s and from the policy at s', all judged at s. With importance
sampling each is corrected by its log-density; without, the data's action is in the maximum too, and
the logarithm of their number comes off. Losses are means over the critics, in the papers sums: a
factor that Adam does not see.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, sac
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, losses, optimise
from robo_rl.nn.apply import Batch, Metrics, Params, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser

_BLOCK = 768
"""Sampled actions that a CPU's caches hold the activations of (docs/performance.md)."""

State = sac.State  # `params` and `opt` have "multiplier" as well: the logarithm of alpha'
act = sac.act
policy = sac.policy
learned = sac.learned
q_values = sac.q_values


@dataclasses.dataclass(frozen=True)
class Common(sac.Common):
    """Hyperparameters of the methods that share `critic_step`.

    The best ones differ by domain, see the paper's tables and JaxCQL's.
    """

    critic: NetConfig = dataclasses.field(default_factory=NetConfig)
    critics: int = 2
    actor_q: str = "min"
    initial_log_std: float = -1.0
    target_entropy_per_dim: float = -1.0
    actor_lr: float = 1e-4
    weight: float = 5.0
    """Of the regulariser: 10 on dense locomotion, 5 in mazes, 1 in Adroit, 0.01 on OGBench's."""
    samples: int = 10
    """Actions of each of the three kinds."""
    importance: bool = True
    """Correct each sampled action by its log-density."""
    max_target_backup: bool = False
    """Bootstrap from the best of `samples` next actions (mazes need it)."""
    clip_low: float = -1e9
    """Bounds of the regulariser, row by row: -200 in mazes. These bind nothing."""
    clip_high: float = 1e9
    lagrange: bool = False
    """Learn a factor on `weight` that holds the regulariser at `gap`."""
    gap: float = 0.8
    multiplier_lr: float = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        name = checks.owner(self)
        checks.not_negative(f"{name}.weight", self.weight)
        checks.positive(f"{name}.samples", self.samples)
        if not self.clip_low < self.clip_high:
            raise ValueError(f"{name}.clip_low must be below clip_high")
        if not math.isfinite(self.gap):
            raise ValueError(f"{name}.gap must be finite, got {self.gap}")
        checks.positive(f"{name}.multiplier_lr", self.multiplier_lr)


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Hyperparameters."""


@validated
def init(
    config: Common, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """SAC's state, and the multiplier at 1."""
    state = sac.init(config, key, example_batch, normaliser)
    multiplier: Params = {"multiplier": jnp.zeros((), jnp.float32)}
    return dataclasses.replace(
        state,
        params={**state.params, **multiplier},
        opt={**state.opt, "multiplier": optimise.adam_init(multiplier["multiplier"])},
    )


def _from_policy(
    config: Common, actor: Params, obs: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`samples` actions (B, M, A) at every observation (B, O), and their log-densities (B, M)."""
    mean, log_std = sac.distribution(config, actor, obs)
    shape = (mean.shape[0], config.samples, mean.shape[-1])
    return distributions.tanh_normal_sample(
        key,
        jnp.broadcast_to(mean[:, None], shape),
        jnp.broadcast_to(log_std[:, None], shape),
    )


def _next_q(config: Common, state: State, next_obs: jax.Array, key: jax.Array) -> jax.Array:
    """Minimum (B,) over drawn target critics, at one next action or at the best of several."""
    subset_key, action_key = jax.random.split(key)
    chosen = critics.draw(state.target_critic, subset_key, config.subset)
    if not config.max_target_backup:
        mean, log_std = sac.distribution(config, state.params["actor"], next_obs)
        actions, log_prob = distributions.tanh_normal_sample(action_key, mean, log_std)
        next_q = critics.q(config.critic, chosen, "min", next_obs, actions)
        if config.backup_entropy:
            next_q = next_q - jnp.exp(state.params["temperature"]) * log_prob
        return next_q
    actions, _ = _from_policy(config, state.params["actor"], next_obs, action_key)
    each = critics.q(config.critic, chosen, "min", next_obs[:, None], actions)  # (B, M)
    return jnp.max(each, axis=-1)


def critic_step(
    config: Common, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One critic step on B rows, then its target and the multiplier.

    Where the batch has `returns` (B,), the policy's actions count at least that: Cal-QL.
    """
    multiplier = jnp.exp(state.params["multiplier"]) if config.lagrange else jnp.ones(())
    factor = config.weight * jnp.clip(multiplier, 0.0, losses.MAX_MULTIPLIER)
    rows = _rows(config, state, batch, key)
    blocks = _blocks(*rows["log_density"].shape)
    loss = functools.partial(_critic_loss, config, factor)
    grads, metrics = optimise.gradient_in_blocks(loss, state.params["critic"], rows, blocks)
    critic, opt = optimise.adam_step(
        state.params["critic"], grads, state.opt["critic"], config.critic_lr
    )
    new = dataclasses.replace(
        state,
        params={**state.params, "critic": critic},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={**state.opt, "critic": opt},
    )
    if config.lagrange:
        new = _multiplier_step(config, new, metrics["regulariser"])
        metrics = {**metrics, "multiplier": multiplier}
    return new, metrics


def _rows(config: Common, state: State, batch: Batch, key: jax.Array) -> dict[str, Any]:
    """What the loss reads: of B rows, their target and 3 M actions with their log-densities.

    Those are of the policy here and at the next observation, and uniform in the box. They are drawn
    outside of the loss: the actor gets no gradient from the regulariser.
    """
    backup_key, uniform_key, here_key, next_key = jax.random.split(key, 4)
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    actions, actor = batch["actions"], state.params["actor"]
    discounts = batch.get("discounts", config.discount)
    next_q = _next_q(config, state, next_obs, backup_key)
    shape = (actions.shape[0], config.samples, actions.shape[-1])
    anywhere = jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
    here, here_density = _from_policy(config, actor, obs, here_key)
    ahead, ahead_density = _from_policy(config, actor, next_obs, next_key)
    box = jnp.full(shape[:2], -actions.shape[-1] * math.log(2.0))
    return {
        "observations": obs,
        "actions": actions,
        "target": losses.td_target(batch["rewards"], discounts, batch["masks"], next_q),
        "sampled": jnp.concatenate([here, ahead, anywhere], axis=1),
        "log_density": jnp.concatenate([here_density, ahead_density, box], axis=1),
        **{name: batch[name] for name in ("returns",) if name in batch},
    }


def _critic_loss(
    config: Common, factor: jax.Array, params: Params, rows: Batch
) -> tuple[jax.Array, Metrics]:
    """The error to the targets, and `factor` times by how much sampled actions seem better."""
    obs, net = rows["observations"], Scalar(config.critic)
    q = apply_ensemble(net, params, obs, rows["actions"])  # (N, B)
    q_sampled = apply_ensemble(net, params, obs[:, None], rows["sampled"])  # (N, B, 3 M)
    bound: Metrics = {}
    if "returns" in rows:
        q_sampled, bound = _calibrated(q_sampled, rows["returns"], 2 * config.samples)
    excess = losses.soft_maximum(q_sampled, rows["log_density"], q, config.importance) - q
    regulariser = jnp.mean(jnp.clip(excess, config.clip_low, config.clip_high))
    td_loss = jnp.mean(jnp.square(q - rows["target"][None]))
    critic_loss = td_loss + factor * regulariser
    return critic_loss, {
        "critic_loss": critic_loss,
        "td_loss": td_loss,
        "regulariser": regulariser,
        "q": jnp.mean(q),
        "policy_q": jnp.mean(q_sampled[..., : config.samples]),
        **bound,
    }


def _blocks(rows: int, samples: int) -> int:
    """Into how many equal blocks `rows` of so many sampled actions are cut on a CPU."""
    if jax.default_backend() != "cpu":
        return 1  # a GPU is best asked once
    most = max(1, rows * samples // _BLOCK)
    return max(count for count in range(1, most + 1) if rows % count == 0)


def _calibrated(
    sampled: jax.Array, returns: jax.Array, of_policy: int
) -> tuple[jax.Array, Metrics]:
    """The first `of_policy` of Q (N, B, M) raised to `returns` (B,), and how often that was so."""
    bound = returns[None, :, None]
    rate = jnp.mean(sampled[..., :of_policy] < bound)
    raised = jnp.maximum(sampled[..., :of_policy], bound)
    return jnp.concatenate([raised, sampled[..., of_policy:]], axis=-1), {"bound_rate": rate}


def _multiplier_step(config: Common, state: State, regulariser: jax.Array) -> State:
    excess = config.weight * (regulariser - config.gap)
    slope = jax.grad(losses.multiplier_loss)(state.params["multiplier"], excess)
    multiplier, opt = optimise.adam_step(
        state.params["multiplier"], slope, state.opt["multiplier"], config.multiplier_lr
    )
    return dataclasses.replace(
        state,
        params={**state.params, "multiplier": multiplier},
        opt={**state.opt, "multiplier": opt},
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor and temperature step on the last."""
    plain = {name: value for name, value in batch.items() if name != "returns"}
    return sac.stepped(config, state, plain, functools.partial(critic_step, config))


CAPABILITIES = Capabilities(q_values=q_values, learned=learned)
