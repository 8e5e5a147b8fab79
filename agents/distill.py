"""Distillation of any controller into a Gaussian policy: KL to the teacher in either direction.

The teacher, privileged in its means but not in what it sees, labels the rows of a dataset or the
states that the student visits (`robo_rl.learn.controllers`). On the student's own states, added to
those of before, this is DAgger (Ross et al., 2011, arXiv:1011.0686); the divergences on them are
those of on-policy distillation (Czarnecki et al., 2019, arXiv:1902.02186).

Forward, KL(teacher || student): the student's spread also covers what its mean cannot follow.
Reverse, KL(student || teacher): errors count in units of the teacher's spread, and the student's
spread becomes the teacher's. Both are between normals in action space before clipping, with the
student's mean tanh and its spread shared by all states.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks, handover
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import distributions, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig
from robo_rl.nn.normaliser import Normaliser, identity

_NEEDS = ("teacher_actions", "teacher_log_std")
DIVERGENCES = ("forward", "reverse")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    actor: NetConfig = dataclasses.field(
        default_factory=lambda: NetConfig(hidden=(512, 512, 512), activation="gelu")
    )
    divergence: str = "forward"
    teacher_std: float = 0.1
    """Spread of a deterministic teacher, and of the student at the start."""
    learning_rate: float = 3e-4
    decay_steps: int = 0
    """Cosine decay of the learning rate to zero over so many updates; 0 keeps it."""
    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        checks.kinds(self)
        checks.one_of("distill.Config.divergence", self.divergence, DIVERGENCES)
        checks.positive("distill.Config.learning_rate", self.learning_rate)
        checks.not_negative("distill.Config.decay_steps", self.decay_steps)
        if not self.log_std_min < self.log_std_max:
            raise ValueError(
                "distill.Config.log_std_min must be below log_std_max, got "
                f"{self.log_std_min} and {self.log_std_max}"
            )
        checks.positive("distill.Config.teacher_std", self.teacher_std)
        if not self.log_std_min <= math.log(self.teacher_std) <= self.log_std_max:
            raise ValueError(
                f"distill.Config.teacher_std must be in exp([{self.log_std_min}, "
                f"{self.log_std_max}]), got {self.teacher_std}"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    actor: Params
    opt: optax.OptState
    normaliser: Normaliser
    step: jax.Array


def divergence(
    kind: str,
    mean: jax.Array,
    log_std: jax.Array,
    teacher_mean: jax.Array,
    teacher_log_std: jax.Array,
) -> jax.Array:
    """KL (B,) between the student's normal and the teacher's, all (B, A), as `kind` directs it."""
    student, teacher = (mean, log_std), (teacher_mean, teacher_log_std)
    if kind == "forward":
        return distributions.normal_kl(*teacher, *student)
    return distributions.normal_kl(*student, *teacher)


def _actor(config: Config, action_dim: int) -> Actor:
    start = math.log(config.teacher_std)
    return Actor(config.actor, action_dim, std="shared", initial_log_std=start)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh student and moments."""
    checks.needed("distill", example_batch, _NEEDS)
    width, taught = (example_batch[k].shape[-1] for k in ("actions", "teacher_actions"))
    if width != taught:
        raise ValueError(
            f"distill.init: actions have {width} entries, the teacher's {taught}; it labels single "
            "actions, not chunks"
        )
    return _fresh(config, key, example_batch, normaliser)


def _fresh(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None
) -> State:
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    params = init_params(_actor(config, action.shape[-1]), key, obs)
    normaliser = identity(obs.shape[-1]) if normaliser is None else normaliser
    return State(params, optimise.adam_init(params), normaliser, jnp.zeros((), jnp.int32))


def adopt(config: Config, learned: policies.Learned) -> Config:
    """`config` with the network shape of what has been learned, so that `warm_start` fits."""
    return dataclasses.replace(config, actor=learned.policy.net)


def warm_start(
    config: Config,
    key: jax.Array,
    learned: policies.Learned,
    example_batch: Batch,
) -> State:
    """A student that starts as a learned policy, with its statistics; moments and spread are fresh.

    Only shapes are read from the example, which need not be labelled yet.
    """
    handover.check_net("distill", "policy", learned.policy.net, config.actor)
    old, normaliser = handover.copied((learned.policy.params, learned.policy.normaliser))
    state = _fresh(config, key, example_batch, normaliser)
    actor = {**state.actor, "trunk": old["trunk"], "mean": old["mean"]}
    return dataclasses.replace(state, actor=actor)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One gradient step."""
    obs = state.normaliser(batch["observations"])
    target, target_log_std = batch["teacher_actions"], batch["teacher_log_std"]
    module = _actor(config, target.shape[-1])

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        mean, log_std = apply(module, params, obs)
        mean, log_std = jnp.tanh(mean), jnp.clip(log_std, config.log_std_min, config.log_std_max)
        kl = jnp.mean(divergence(config.divergence, mean, log_std, target, target_log_std))
        return kl, {
            "actor_loss": kl,
            "action_mse": jnp.mean(jnp.square(mean - target)),
            "std": jnp.mean(jnp.exp(log_std)),
        }

    rate = optimise.cosine(config.learning_rate, state.step, config.decay_steps)
    actor, opt, metrics = optimise.gradient_step(loss, state.actor, state.opt, rate)
    return dataclasses.replace(state, actor=actor, opt=opt, step=state.step + 1), metrics


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """The mean; with `explore` a clipped sample around it."""
    action_dim = state.actor["mean"]["bias"].shape[-1]
    mean, log_std = apply(_actor(config, action_dim), state.actor, state.normaliser(observations))
    action = jnp.tanh(mean)
    if explore:
        std = jnp.exp(jnp.clip(log_std, config.log_std_min, config.log_std_max))
        action = jnp.clip(action + std * jax.random.normal(key, action.shape), -1.0, 1.0)
    return action


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, state.actor, state.normaliser)


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent."""
    return policies.Learned(policy(config, state), state.opt, state.actor.get("log_std"))


CAPABILITIES = Capabilities(needs=_NEEDS, learned=learned, adopt=adopt, warm_start=warm_start)
