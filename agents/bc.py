"""Behaviour cloning: the deterministic tanh regression and the Gaussian likelihood."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import distributions, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig
from robo_rl.nn.normaliser import Normaliser, identity

LIKELIHOODS = ("mse", "gaussian")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters. The Gaussian is not squashed: its mean is tanh, its spread is shared."""

    actor: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512, 512, 512), activation="gelu")
    )
    likelihood: str = "mse"
    learning_rate: float = 3e-4
    decay_steps: int = 0
    """Cosine decay of the learning rate to zero over so many updates; 0 keeps it."""
    weight_decay: float = 0.0
    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.one_of("bc.Config.likelihood", self.likelihood, LIKELIHOODS)
        checks.positive("bc.Config.learning_rate", self.learning_rate)
        checks.not_negative("bc.Config.decay_steps", self.decay_steps)
        checks.not_negative("bc.Config.weight_decay", self.weight_decay)
        if not self.log_std_min < self.log_std_max:
            raise ValueError(
                "bc.Config.log_std_min must be below log_std_max, got "
                f"{self.log_std_min} and {self.log_std_max}"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    actor: Params
    opt: optax.OptState
    normaliser: Normaliser
    step: jax.Array


def squared_error(actions: jax.Array, predicted: jax.Array) -> jax.Array:
    """Mean over the batch and over action dimensions; both (B, A)."""
    return jnp.mean(jnp.square(predicted - actions))


def negative_log_likelihood(actions: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Mean over the batch of -log N(action; tanh(mean), std); all (B, A)."""
    return -jnp.mean(distributions.normal_log_prob(actions, jnp.tanh(mean), log_std))


def _actor(config: Config, action_dim: int) -> Actor:
    std = "shared" if config.likelihood == "gaussian" else "none"
    return Actor(config.actor, action_dim, std=std)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh actor and moments."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    params = init_params(_actor(config, action.shape[-1]), key, obs)
    normaliser = identity(obs.shape[-1]) if normaliser is None else normaliser
    return State(params, optimise.adam_init(params), normaliser, jnp.zeros((), jnp.int32))


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One gradient step."""
    obs, actions = state.normaliser(batch["observations"]), batch["actions"]
    module = _actor(config, actions.shape[-1])

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        mean, log_std = apply(module, params, obs)
        error = squared_error(actions, jnp.tanh(mean))
        if config.likelihood == "mse":
            return error, {"actor_loss": error, "action_mse": error}
        log_std = jnp.clip(log_std, config.log_std_min, config.log_std_max)
        nll = negative_log_likelihood(actions, mean, log_std)
        return nll, {"actor_loss": nll, "action_mse": error, "std": jnp.mean(jnp.exp(log_std))}

    rate = optimise.cosine(config.learning_rate, state.step, config.decay_steps)
    actor, opt, metrics = optimise.gradient_step(
        loss, state.actor, state.opt, rate, weight_decay=config.weight_decay
    )
    return dataclasses.replace(state, actor=actor, opt=opt, step=state.step + 1), metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """tanh(mean); with `explore` a sample of the Gaussian, of which the regression has none."""
    action_dim = state.actor["mean"]["bias"].shape[-1]
    mean, log_std = apply(_actor(config, action_dim), state.actor, state.normaliser(observations))
    action = jnp.tanh(mean)
    if explore and config.likelihood == "gaussian":
        std = jnp.exp(jnp.clip(log_std, config.log_std_min, config.log_std_max))
        action = jnp.clip(action + std * jax.random.normal(key, action.shape), -1.0, 1.0)
    return action


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.actor, state.normaliser)


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(policy(config, state), state.opt, state.actor.get("log_std"))


CAPABILITIES = Capabilities(learned=learned)
