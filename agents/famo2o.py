"""FamO2O (Wang et al., 2023, arXiv:2310.17966), on IQL: a family of policies and its balance.

The coefficient of the advantage weights decides how far a policy leaves the data. Here it is an
input of the actor, so that one network holds the policies of all coefficients, and a second small
policy, the balance model, chooses it state by state: it is trained like SAC, with the coefficient
as its action, to raise Q of what the family then does. V and Q are IQL's.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, iql
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import distributions, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser

COEFFICIENTS = ("uniform", "balance")

State = iql.State  # `params` and `opt` have "balance" and "temperature" as well
q_values = iql.q_values
state_values = iql.state_values


@dataclasses.dataclass(frozen=True)
class Config(iql.Common):
    """Hyperparameters; `actor` is the net of the family."""

    balance: NetConfig = dataclasses.field(default_factory=NetConfig)
    """Of the balance model."""
    low: float = 8.0
    """Smallest coefficient, an inverse temperature as in IQL: it imitates most."""
    high: float = 14.0
    """Largest coefficient: it improves most."""
    code_size: int = 6
    """Numbers that a coefficient is shown to the actor by, an even count of sines and cosines."""
    coefficients: str = "uniform"
    """Under which the actor learns: "uniform" ones, offline, so that it knows the whole family;
    or those of the "balance" model, online."""
    expectile: float = 0.7
    initial_temperature: float = 1.0
    """Of the balance model's entropy."""
    temperature_lr: float = 3e-4
    target_entropy: float = -0.5
    """Of the balance model, whose action lies in (-1, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative("famo2o.Config.low", self.low)
        if not (math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(
                f"famo2o.Config.high must be finite and >= low = {self.low}, got {self.high}"
            )
        if self.code_size < 2 or self.code_size % 2:
            raise ValueError(f"famo2o.Config.code_size must be even and >= 2, got {self.code_size}")
        checks.one_of("famo2o.Config.coefficients", self.coefficients, COEFFICIENTS)
        checks.inside("famo2o.Config.expectile", self.expectile)
        checks.positive("famo2o.Config.initial_temperature", self.initial_temperature)
        checks.not_negative("famo2o.Config.temperature_lr", self.temperature_lr)
        if not math.isfinite(self.target_entropy):
            raise ValueError("famo2o.Config.target_entropy must be finite")


def _balance(config: Config) -> Actor:
    return Actor(config.balance, 1, std="shared")


def _family_input(config: Config, obs: jax.Array, coefficient: jax.Array) -> jax.Array:
    """What the actor reads (..., O + code_size): standardised obs and a coefficient (..., 1)."""
    code = policies.sinusoidal_code(coefficient, config.code_size)
    return jnp.concatenate([obs, code], axis=-1)


def _coefficient(config: Config, balance: jax.Array) -> jax.Array:
    return policies.coefficient(balance, config.low, config.high)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """IQL's state with the family as its actor, a balance model and its temperature."""
    key, actor_key, balance_key = jax.random.split(key, 3)
    state = iql.init(config, key, example_batch, normaliser)
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    std = "shared" if config.std == "learned" else "none"
    family = Actor(config.actor, action.shape[-1], std=std)
    new: Params = {
        "actor": init_params(family, actor_key, _family_input(config, obs, jnp.zeros((1, 1)))),
        "balance": init_params(_balance(config), balance_key, obs),
        "temperature": jnp.asarray(math.log(config.initial_temperature), jnp.float32),
    }
    opt = {name: optimise.adam_init(tree) for name, tree in new.items()}
    return dataclasses.replace(state, params={**state.params, **new}, opt={**state.opt, **opt})


def _chosen(
    config: Config, balance: Params, obs: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A sample of the balance model in (-1, 1) (B, 1), and its log-density (B,)."""
    mean, log_std = apply(_balance(config), balance, obs)
    log_std = jnp.clip(log_std, config.log_std_min, config.log_std_max)
    return distributions.tanh_normal_sample(key, mean, log_std)


def _balance_step(
    config: Config, state: State, obs: jax.Array, key: jax.Array
) -> tuple[State, Metrics]:
    """One step of the balance model and of its temperature. Neither family nor critics move."""
    sample_key, action_key, subset_key = jax.random.split(key, 3)
    temperature = jnp.exp(state.params["temperature"])  # not moved by the balance model's loss

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        chosen, log_prob = _chosen(config, params, obs, sample_key)
        coefficient = _coefficient(config, chosen)
        inputs = _family_input(config, obs, coefficient)
        actions = iql.action(config, state.params["actor"], inputs, action_key, explore=True)
        q = iql.target_q(config, state, subset_key, obs, actions)
        balance_loss = jnp.mean(temperature * log_prob - q)
        return balance_loss, {
            "balance_loss": balance_loss,
            "coefficient": jnp.mean(coefficient),
            "balance_entropy": -jnp.mean(log_prob),
        }

    balance, balance_opt, metrics = optimise.gradient_step(
        loss, state.params["balance"], state.opt["balance"], config.actor_lr
    )
    slope = jax.grad(losses.temperature_loss)(
        state.params["temperature"], metrics["balance_entropy"], config.target_entropy
    )
    log_temperature, temperature_opt = optimise.adam_step(
        state.params["temperature"], slope, state.opt["temperature"], config.temperature_lr
    )
    new = dataclasses.replace(
        state,
        params={**state.params, "balance": balance, "temperature": log_temperature},
        opt={**state.opt, "balance": balance_opt, "temperature": temperature_opt},
    )
    return new, {**metrics, "temperature": temperature}


def _coefficients(config: Config, state: State, obs: jax.Array, key: jax.Array) -> jax.Array:
    """Coefficients (B, 1) that the actor learns under."""
    if config.coefficients == "uniform":
        return jax.random.uniform(key, (obs.shape[0], 1), minval=config.low, maxval=config.high)
    return _coefficient(config, _chosen(config, state.params["balance"], obs, key)[0])


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of V, balance model, temperature, family and critics, then of the targets."""
    key, subset_key, balance_key, coefficient_key = jax.random.split(state.key, 4)
    actions = batch["actions"]
    rows = actions.shape[0]
    both = state.normaliser(jnp.concatenate([batch["observations"], batch["next_observations"]]))
    obs = both[:rows]

    q = iql.target_q(config, state, subset_key, obs, actions)
    value, value_opt, value_metrics = iql.value_step(
        config, state, obs, q, lambda u: losses.expectile_loss(u, config.expectile)
    )
    v_both: jax.Array = apply(Scalar(config.critic), value, both)
    v, next_v = v_both[:rows], v_both[rows:]
    state, balance_metrics = _balance_step(config, state, obs, balance_key)

    coefficient = _coefficients(config, state, obs, coefficient_key)
    exponent = jnp.squeeze(coefficient, axis=-1) * (q - v)
    weight = losses.advantage_weight(exponent, 1.0, config.weight_clip)
    inputs = _family_input(config, obs, coefficient)
    actor, actor_opt, actor_metrics = iql.actor_step(config, state, inputs, actions, weight)

    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_v)
    critic, critic_opt, critic_metrics = iql.critic_step(config, state, obs, actions, target)

    metrics = {
        **value_metrics,
        **balance_metrics,
        **actor_metrics,
        **critic_metrics,
        "v": jnp.mean(v),
        "advantage": jnp.mean(q - v),
        "weight": jnp.mean(weight),
    }
    new = dataclasses.replace(
        state,
        params={**state.params, "actor": actor, "critic": critic, "value": value},
        target_critic=optimise.polyak(critic, state.target_critic, config.polyak),
        opt={**state.opt, "actor": actor_opt, "critic": critic_opt, "value": value_opt},
        key=key,
        step=state.step + 1,
    )
    return new, metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """What the family does under the balance model's mean choice; with `explore`, a sample."""
    obs = state.normaliser(observations)
    balance = policies.mean_action(config.balance, state.params["balance"], obs)
    inputs = _family_input(config, obs, _coefficient(config, balance))
    return iql.action(config, state.params["actor"], inputs, key, explore)


def policy(config: Config, state: State) -> policies.FamilyPolicy:
    """The deterministic policy as data."""
    return policies.FamilyPolicy(
        policy=policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser),
        balance=policies.TanhPolicy(config.balance, state.params["balance"], state.normaliser),
        low=config.low,
        high=config.high,
        code_size=config.code_size,
    )


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values)
