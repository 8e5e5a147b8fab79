"""AWAC (Nair et al., 2020, arXiv:2006.09359): an actor that only ever imitates weighted data.

The weights are exp(A / lambda), bounded as in CORL, with one action of the policy standing for the
value of the state. The policy is a normal around tanh(mean), cut at the bounds when it is sampled:
under a squashed normal, imitating data at a bound would pull the mean to infinity. The same update
runs offline and online.
"""

import dataclasses

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, sac
from robo_rl.nn import critics, distributions, losses, optimise
from robo_rl.nn.apply import Batch, Metrics, Params
from robo_rl.nn.networks import NetConfig

State = sac.State  # the temperature stays as it is
init = sac.init
policy = sac.policy
learned = sac.learned
q_values = sac.q_values


@dataclasses.dataclass(frozen=True)
class Config(sac.Config):
    """Hyperparameters. Of SAC's, those about entropy and its temperature are not used."""

    actor: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(256,) * 3))
    critic: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(256,) * 3))
    critics: int = 2
    std: str = "shared"
    inverse_temperature: float = 3.0
    """1 / lambda: 3 on locomotion, 10 in mazes and with hands."""
    weight_clip: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = checks.owner(self)
        if self.utd != 1:
            raise ValueError(f"{name}.utd must be 1, got {self.utd}")
        checks.not_negative(f"{name}.inverse_temperature", self.inverse_temperature)
        checks.positive(f"{name}.weight_clip", self.weight_clip)


def distribution(config: Config, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean, within the box, and log std (B, A) of the normal."""
    mean, log_std = sac.distribution(config, params, obs)
    return jnp.tanh(mean), log_std


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
