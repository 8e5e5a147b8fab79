"""HNPG (Zhou et al., 2023, arXiv:2311.08384): on-policy natural gradients, offline-enhanced critic.

One update consumes one rollout and, behind it, offline rows. Q is fitted to both at once: to the
Monte-Carlo returns of the rollout, and by TD to the offline rows, whose next actions the policy
draws. Then the policy takes one TRPO step on the states of both: with generalised advantages on
the rollout, and with Q - V of an action of its own at offline states. If the offline data mislead,
the weight of their rows is what can be turned down: at 0 this is TRPO with a Monte-Carlo critic.

The authors' finite horizon with one network a time step has become a discount with one network for
all: fitted backwards in time there, here by `iterations` regressions, each on the Q before it. The
last Q is used; the paper's theory averages several. The policy is PPO's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import distributions, losses, natural, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity

_NEEDS = ("ends", "offline")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters; sizes and steps are the authors'."""

    actor: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(16, 16), activation="tanh")
    )
    critic: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(64, 64), activation="tanh")
    )
    initial_log_std: float = -0.5
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    offline_weight: float = 1.0
    """Of the TD loss against the Monte-Carlo loss, and of an offline state against one of the
    rollout in the policy's step. 0: TRPO."""
    iterations: int = 10
    """Regressions of Q an update, each with targets from the one before."""
    critic_steps: int = 30
    """Adam steps of one regression, on all rows."""
    critic_lr: float = 3e-4
    samples: int = 10
    """Actions whose mean Q is V."""
    discount: float = 0.99
    gae_lambda: float = 0.97
    max_kl: float = 0.01
    damping: float = 0.1
    cg_iterations: int = 10
    backtracks: int = 10

    def __post_init__(self) -> None:
        checks.kinds(self)
        if not self.log_std_min <= self.initial_log_std <= self.log_std_max:
            raise ValueError(
                "hnpg.Config.initial_log_std must be in [log_std_min, log_std_max], got "
                f"{self.initial_log_std} in [{self.log_std_min}, {self.log_std_max}]"
            )
        checks.not_negative("hnpg.Config.offline_weight", self.offline_weight)
        for name in ("iterations", "critic_steps", "critic_lr", "samples", "max_kl"):
            checks.positive(f"hnpg.Config.{name}", getattr(self, name))
        checks.fraction("hnpg.Config.discount", self.discount)
        checks.unit("hnpg.Config.gae_lambda", self.gae_lambda)
        checks.not_negative("hnpg.Config.damping", self.damping)
        checks.positive("hnpg.Config.cg_iterations", self.cg_iterations)
        checks.positive("hnpg.Config.backtracks", self.backtracks)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "critic"}
    critic_opt: optax.OptState  # the actor's steps have no memory
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def returns(
    rewards: jax.Array, next_v: jax.Array, masks: jax.Array, ends: jax.Array, discount: float
) -> jax.Array:
    """Monte-Carlo returns (B,): the rewards up to a row that ends, and V behind it if unmasked."""
    return losses.gae(rewards, jnp.zeros_like(rewards), ends * next_v, masks, ends, discount, 1.0)


def critic_loss(
    q: jax.Array, target: jax.Array, offline: jax.Array, offline_weight: float
) -> tuple[jax.Array, Metrics]:
    """Mean (Q - target)^2 of the rollout's rows, plus the weight times that of the offline rows.

    All (B,). `offline` is 1 at offline rows; where there are none, theirs is 0.
    """
    error = jnp.square(q - target)
    rollout = jnp.sum((1.0 - offline) * error) / jnp.maximum(jnp.sum(1.0 - offline), 1.0)
    td = jnp.sum(offline * error) / jnp.maximum(jnp.sum(offline), 1.0)
    loss = rollout + offline_weight * td
    return loss, {"critic_loss": rollout, "offline_critic_loss": td, "q": jnp.mean(q)}


def _actor(config: Config, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, "shared", config.initial_log_std, output_gain=0.01)


def distribution(config: Config, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean in the box, and log std (B, A)."""
    mean, log_std = apply(_actor(config, params["mean"]["bias"].shape[-1]), params, obs)
    return jnp.tanh(mean), jnp.clip(log_std, config.log_std_min, config.log_std_max)


def _draw(
    config: Config, params: Params, obs: jax.Array, key: jax.Array, samples: int
) -> jax.Array:
    """Actions (samples, B, A). A row's do not depend on how many rows come after it."""
    mean, log_std = distribution(config, params, obs)

    def row(number: jax.Array) -> jax.Array:
        noise_key = jax.random.fold_in(key, number)
        return jax.random.normal(noise_key, (samples, mean.shape[-1]))

    noise = jnp.swapaxes(jax.vmap(row)(jnp.arange(len(mean))), 0, 1)
    return jnp.clip(mean[None] + jnp.exp(log_std)[None] * noise, -1.0, 1.0)


def _q(config: Config, critic: Params, obs: jax.Array, actions: jax.Array) -> jax.Array:
    q: jax.Array = apply(Scalar(config.critic), critic, obs, actions)
    return q


def _v(config: Config, params: Params, obs: jax.Array, key: jax.Array) -> jax.Array:
    """Mean Q (B,) of the policy's actions."""
    actions = _draw(config, params["actor"], obs, key, config.samples)
    return jnp.mean(jax.vmap(lambda a: _q(config, params["critic"], obs, a))(actions), axis=0)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks and moments."""
    checks.needed("hnpg", example_batch, _NEEDS)
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    actor_key, critic_key, state_key = jax.random.split(key, 3)
    critic = init_params(Scalar(config.critic), critic_key, obs, action)
    return State(
        params={
            "actor": init_params(_actor(config, action.shape[-1]), actor_key, obs),
            "critic": critic,
        },
        critic_opt=optimise.adam_init(critic),
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _fit(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """Q by `iterations` regressions. The policy does not move."""
    return_key, key = jax.random.split(key)
    obs, next_obs = batch["observations"], batch["next_observations"]
    observed = returns(
        batch["rewards"],
        _v(config, state.params, next_obs, return_key),
        batch["masks"],
        batch["ends"],
        config.discount,
    )

    def iteration(carry: State, action_key: jax.Array) -> tuple[State, Metrics]:
        actions = _draw(config, state.params["actor"], next_obs, action_key, 1)[0]
        next_q = _q(config, carry.params["critic"], next_obs, actions)
        td = losses.td_target(batch["rewards"], config.discount, batch["masks"], next_q)
        target = jnp.where(batch["offline"] > 0.0, td, observed)  # of Q before: no gradient

        def loss(params: Params) -> tuple[jax.Array, Metrics]:
            q = _q(config, params, obs, batch["actions"])
            return critic_loss(q, target, batch["offline"], config.offline_weight)

        def step(inner: State, _: None) -> tuple[State, Metrics]:
            critic, opt, metrics = optimise.gradient_step(
                loss, inner.params["critic"], inner.critic_opt, config.critic_lr
            )
            params = {**inner.params, "critic": critic}
            return dataclasses.replace(inner, params=params, critic_opt=opt), metrics

        return jax.lax.scan(step, carry, None, length=config.critic_steps)

    state, stacked = jax.lax.scan(iteration, state, jax.random.split(key, config.iterations))
    return state, jax.tree.map(lambda values: values[-1, -1], stacked)


def _advantages(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Actions (B, A) to judge, their standardised advantages and the weights of the rows (B,)."""
    v_key, next_key, action_key = jax.random.split(key, 3)
    obs, offline = batch["observations"], batch["offline"]
    v = _v(config, state.params, obs, v_key)
    next_v = _v(config, state.params, batch["next_observations"], next_key)
    rollout = losses.gae(
        batch["rewards"],
        v,
        next_v,
        batch["masks"],
        batch["ends"],
        config.discount,
        config.gae_lambda,
    )
    own = _draw(config, state.params["actor"], obs, action_key, 1)[0]
    advantage = jnp.where(offline > 0.0, _q(config, state.params["critic"], obs, own) - v, rollout)
    actions = jnp.where(offline[:, None] > 0.0, own, batch["actions"])
    weight = 1.0 - offline + config.offline_weight * offline
    weight = weight / jnp.sum(weight)
    centred = advantage - jnp.sum(weight * advantage)
    spread = jnp.sqrt(jnp.sum(weight * jnp.square(centred)))
    return actions, centred / (spread + 1e-8), weight


def _policy_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """One step within `max_kl`. Q does not move."""
    obs = batch["observations"]
    actions, advantage, weight = _advantages(config, state, batch, key)
    start, rebuild = ravel_pytree(state.params["actor"])
    old_mean, old_log_std = distribution(config, state.params["actor"], obs)
    old_log_prob = distributions.clipped_normal_log_prob(actions, old_mean, old_log_std)

    def surrogate(flat: jax.Array) -> jax.Array:
        mean, log_std = distribution(config, rebuild(flat), obs)
        log_prob = distributions.clipped_normal_log_prob(actions, mean, log_std)
        return jnp.sum(weight * advantage * jnp.exp(log_prob - old_log_prob))

    def divergence(flat: jax.Array) -> jax.Array:
        # Of the normals before they are cut: that of the executed actions is never larger.
        new = distribution(config, rebuild(flat), obs)
        return jnp.sum(weight * distributions.normal_kl(old_mean, old_log_std, *new))

    flat, metrics = natural.trust_region_step(
        surrogate,
        divergence,
        start,
        config.max_kl,
        config.damping,
        config.cg_iterations,
        config.backtracks,
    )
    params = {**state.params, "actor": rebuild(flat)}
    return dataclasses.replace(state, params=params), metrics


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """Fit Q to a rollout and the offline rows behind it (B rows in all), then move the policy."""
    key, fit_key, policy_key = jax.random.split(state.key, 3)
    rows = {
        **batch,
        "observations": state.normaliser(batch["observations"]),
        "next_observations": state.normaliser(batch["next_observations"]),
    }
    state, metrics = _fit(config, state, rows, fit_key)
    state, policy_metrics = _policy_step(config, state, rows, policy_key)
    std = jnp.mean(jnp.exp(state.params["actor"]["log_std"]))
    new = dataclasses.replace(state, key=key, step=state.step + 1)
    return new, {**metrics, **policy_metrics, "std": std}


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean), or with `explore` a sample around it, cut at the box."""
    mean, log_std = distribution(config, state.params["actor"], state.normaliser(observations))
    if not explore:
        return mean
    return jnp.clip(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape), -1.0, 1.0)


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


CAPABILITIES = Capabilities(needs=_NEEDS)
