"""PPO (Schulman et al., 2017, arXiv:1707.06347) with generalised advantages (arXiv:1506.02438).

One update consumes one rollout, in the order of time. Its log-probabilities and values are computed
here, before the first step, from the parameters that collected it. With `warm_start` from an
offline agent and the recipe "unio4_online" it is the online phase of Uni-O4 (Lei et al., 2023,
arXiv:2311.03351).

The actor is a normal around tanh(mean) with one spread for all states, cut at the box. What is
known afterwards is the executed action, so its probability is that of the cut sample.
"""

import dataclasses
from collections.abc import Collection

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks, handover
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import distributions, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity

_NEEDS = ("ends",)
RESETS = ("actor", "critic")


def small_net() -> NetConfig:
    """Two layers of 64, as on-policy methods use them."""
    return NetConfig(hidden=(64, 64), activation="tanh", kernel_init="orthogonal")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    actor: NetConfig = dataclasses.field(default_factory=small_net)
    value: NetConfig = dataclasses.field(default_factory=small_net)
    initial_log_std: float = -0.5
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    epochs: int = 10
    minibatch: int = 64
    """Rows of one step; a rollout is a multiple of it."""
    clip: float = 0.2
    value_clip: float = 0.0
    """How far V may move from that of the rollout before its loss is flat; 0: without bound."""
    entropy_weight: float = 0.0
    normalise_advantage: bool = True
    """Of the rollout as a whole."""
    clip_norm: float = 0.5
    """Largest norm of the actor's gradient, and of V's; 0 leaves them."""
    discount: float = 0.99
    gae_lambda: float = 0.95
    reward_scale: float = 1.0
    """Factor on the rewards, and on a V that was learned without it."""
    actor_lr: float = 3e-4
    value_lr: float = 1e-3
    decay_steps: int = 0
    """Linear decay of both learning rates to 0 over so many updates; 0 keeps them."""

    def __post_init__(self) -> None:
        checks.kinds(self)
        if not self.log_std_min <= self.initial_log_std <= self.log_std_max:
            raise ValueError(
                "ppo.Config.initial_log_std must be in [log_std_min, log_std_max], got "
                f"{self.initial_log_std} in [{self.log_std_min}, {self.log_std_max}]"
            )
        checks.positive("ppo.Config.epochs", self.epochs)
        checks.positive("ppo.Config.minibatch", self.minibatch)
        checks.positive("ppo.Config.clip", self.clip)
        checks.not_negative("ppo.Config.value_clip", self.value_clip)
        checks.not_negative("ppo.Config.entropy_weight", self.entropy_weight)
        checks.not_negative("ppo.Config.clip_norm", self.clip_norm)
        checks.fraction("ppo.Config.discount", self.discount)
        checks.unit("ppo.Config.gae_lambda", self.gae_lambda)
        checks.positive("ppo.Config.reward_scale", self.reward_scale)
        checks.positive("ppo.Config.actor_lr", self.actor_lr)
        checks.positive("ppo.Config.value_lr", self.value_lr)
        checks.not_negative("ppo.Config.decay_steps", self.decay_steps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params  # {"actor", "value"}
    opt: dict[str, optax.OptState]  # same keys as `params`
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def explained_variance(predicted: jax.Array, observed: jax.Array) -> jax.Array:
    """1 - Var(observed - predicted) / Var(observed); 0 where there is nothing to explain."""
    spread = jnp.var(observed)
    left = jnp.var(observed - predicted) / jnp.maximum(spread, 1e-8)
    return jnp.where(spread > 1e-8, 1.0 - left, 0.0)


def _actor(config: Config, action_dim: int) -> Actor:
    # A small last layer: the first policy hardly depends on the state.
    return Actor(config.actor, action_dim, "shared", config.initial_log_std, output_gain=0.01)


def distribution(config: Config, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean in the box, and log std (B, A)."""
    mean, log_std = apply(_actor(config, params["mean"]["bias"].shape[-1]), params, obs)
    return jnp.tanh(mean), jnp.clip(log_std, config.log_std_min, config.log_std_max)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks and moments."""
    checks.needed("ppo", example_batch, _NEEDS)
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    actor_key, value_key, state_key = jax.random.split(key, 3)
    params: Params = {
        "actor": init_params(_actor(config, action.shape[-1]), actor_key, obs),
        "value": init_params(Scalar(config.value), value_key, obs),
    }
    return State(
        params=params,
        opt={name: optimise.adam_init(tree) for name, tree in params.items()},
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def _rollout(config: Config, state: State, batch: Batch) -> Batch:
    """What the steps read of a rollout, all of it outside of every gradient; (B, ...)."""
    obs = state.normaliser(batch["observations"])
    scalar, params = Scalar(config.value), state.params["value"]
    v: jax.Array = apply(scalar, params, obs)
    next_v: jax.Array = apply(scalar, params, state.normaliser(batch["next_observations"]))
    advantage = losses.gae(
        config.reward_scale * batch["rewards"],
        v,
        next_v,
        batch["masks"],
        batch["ends"],
        config.discount,
        config.gae_lambda,
    )
    returns = advantage + v
    if config.normalise_advantage:
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    mean, log_std = distribution(config, state.params["actor"], obs)
    return {
        "obs": obs,
        "actions": batch["actions"],
        "log_prob": distributions.clipped_normal_log_prob(batch["actions"], mean, log_std),
        "v": v,
        "advantage": advantage,
        "returns": returns,
    }


def _actor_step(config: Config, state: State, rows: Batch) -> tuple[State, Metrics]:
    """One step of the actor. V does not move."""

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        mean, log_std = distribution(config, params, rows["obs"])
        log_prob = distributions.clipped_normal_log_prob(rows["actions"], mean, log_std)
        gain = losses.clipped_surrogate(log_prob, rows["log_prob"], rows["advantage"], config.clip)
        entropy = jnp.mean(distributions.normal_entropy(log_std))
        actor_loss = -jnp.mean(gain) - config.entropy_weight * entropy
        ratio = jnp.exp(log_prob - rows["log_prob"])
        return actor_loss, {
            "actor_loss": actor_loss,
            "entropy": entropy,
            "clip_fraction": jnp.mean((jnp.abs(ratio - 1.0) > config.clip).astype(jnp.float32)),
        }

    rate = optimise.linear(config.actor_lr, state.step, config.decay_steps)
    actor, opt, metrics = optimise.gradient_step(
        loss, state.params["actor"], state.opt["actor"], rate, config.clip_norm
    )
    return _with(state, "actor", actor, opt), metrics


def _value_step(config: Config, state: State, rows: Batch) -> tuple[State, Metrics]:
    """One step of V. The actor does not move."""

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        v: jax.Array = apply(Scalar(config.value), params, rows["obs"])
        mean = jnp.mean(losses.clipped_value_loss(v, rows["v"], rows["returns"], config.value_clip))
        return mean, {"value_loss": mean}

    rate = optimise.linear(config.value_lr, state.step, config.decay_steps)
    value, opt, metrics = optimise.gradient_step(
        loss, state.params["value"], state.opt["value"], rate, config.clip_norm
    )
    return _with(state, "value", value, opt), metrics


def _with(state: State, name: str, params: Params, opt: optax.OptState) -> State:
    return dataclasses.replace(
        state, params={**state.params, name: params}, opt={**state.opt, name: opt}
    )


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`epochs` passes over one rollout (B rows in the order of time), each in an order of its own.

    Losses and the clipped share are means over the steps; `approx_kl` is that of the whole rollout
    after the last one (the mean of rho - 1 - log rho, arXiv:1707.06347's estimate made positive).
    """
    size = batch["rewards"].shape[0]
    if size % config.minibatch:
        raise ValueError(
            f"ppo.update: a rollout of {size} rows does not divide into minibatches of "
            f"ppo.Config.minibatch = {config.minibatch}"
        )
    key, order_key = jax.random.split(state.key)
    rollout = _rollout(config, state, batch)
    keys = jax.random.split(order_key, config.epochs)
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(keys)

    def step(carry: State, chosen: jax.Array) -> tuple[State, Metrics]:
        rows = {name: jnp.take(x, chosen, axis=0) for name, x in rollout.items()}
        carry, actor_metrics = _actor_step(config, carry, rows)
        carry, value_metrics = _value_step(config, carry, rows)
        return carry, {**actor_metrics, **value_metrics}

    after, stacked = jax.lax.scan(step, state, orders.reshape(-1, config.minibatch))
    mean, log_std = distribution(config, after.params["actor"], rollout["obs"])
    moved = distributions.clipped_normal_log_prob(rollout["actions"], mean, log_std)
    log_ratio = moved - rollout["log_prob"]
    metrics: Metrics = {
        **jax.tree.map(jnp.mean, stacked),
        "approx_kl": jnp.mean(jnp.exp(log_ratio) - 1.0 - log_ratio),
        "explained_variance": explained_variance(rollout["v"], rollout["returns"]),
        "v": jnp.mean(rollout["v"]),
        "std": jnp.mean(jnp.exp(log_std)),
    }
    return dataclasses.replace(after, key=key, step=state.step + 1), metrics


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


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=state.opt["actor"],
        log_std=state.params["actor"]["log_std"],
        value_net=config.value,
        value=_scaled(state.params["value"], 1.0 / config.reward_scale),
    )


def adopt(config: Config, learned: policies.Learned) -> Config:
    """`config` with the network shapes of what has been learned, so that `warm_start` fits."""
    config = dataclasses.replace(config, actor=learned.policy.net)
    if learned.value_net is None:
        return config
    return dataclasses.replace(config, value=learned.value_net)


def warm_start(
    config: Config,
    key: jax.Array,
    learned: policies.Learned,
    example_batch: Batch,
    reset: Collection[str] = (),
) -> State:
    """A state whose actor, spread and V are those of an offline agent, V times `reward_scale`.

    What was not learned starts fresh, and so does what `reset` names: "actor", "critic" (V). So do
    all moments: those of an offline loss say nothing about this one.
    """
    handover.check_resets("ppo", reset, RESETS)
    state = init(config, key, example_batch, handover.copied(learned.policy.normaliser))
    params = dict(state.params)
    if "actor" not in reset:
        params["actor"] = _taken_actor(config, params["actor"], learned)
    if "critic" not in reset and learned.value is not None:
        handover.check_net("ppo", "value", learned.value_net, config.value)
        params["value"] = _scaled(learned.value, config.reward_scale)
    return dataclasses.replace(state, params=params)


def _taken_actor(config: Config, fresh: Params, learned: policies.Learned) -> Params:
    handover.check_net("ppo", "actor", learned.policy.net, config.actor)
    old = learned.policy.params
    actor = {**fresh, "trunk": old["trunk"], "mean": old["mean"]}
    if learned.log_std is not None:
        actor["log_std"] = jnp.clip(learned.log_std, config.log_std_min, config.log_std_max)
    return handover.copied(actor)


def _scaled(value: Params, factor: float) -> Params:
    """`factor` * V, exactly: its last layer is linear."""
    out: Params = jax.tree.map(lambda x: factor * x, value["out"])
    return {**handover.copied(value), "out": out}


CAPABILITIES = Capabilities(needs=_NEEDS, learned=learned, adopt=adopt, warm_start=warm_start)
