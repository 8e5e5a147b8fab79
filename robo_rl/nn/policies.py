"""What an agent hands to others: its policy as data, and the rest of what it has learned.

A kind of policy is one class here, which computes, describes itself and gives its arrays, and one
in `robo_rl.hardware.runtime.kinds`, which computes the same from those with NumPy alone. A
stochastic one is a function of the observation and of standard normal noise, which `noise` draws
for all agents alike. So two programs that are given the same noise take the same action.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robo_rl.nn import flow
from robo_rl.nn.apply import ENCODER, Params, apply, members
from robo_rl.nn.networks import Actor, NetConfig
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.observations import rows
from robo_rl.nn.portable import about, layers


class NotExportable(ValueError):
    """A policy that NumPy's runtime cannot compute."""


class Policy(abc.ABC):
    """A policy as data. `kind` is what an exported one is called."""

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def reader(self) -> "Single":
        """The network that the first action comes from; its normaliser is that of the policy."""

    @abc.abstractmethod
    def compute(self, observations: jax.Array, noise: jax.Array | None) -> jax.Array:
        """Action (..., A) for observations (..., O) and noise of `noise_shape`."""

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the noise for `shape` observations; None where the policy is deterministic."""
        return None

    @property
    def width(self) -> int:
        """A"""
        return self.reader.width

    def describe(self) -> dict[str, Any]:
        """What the NumPy twin is built from, beside the arrays: JSON."""
        return {"policy": about(self.reader.net)}

    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters by the names that the twin reads."""
        return self.reader.named_layers("policy")

    def distance(
        self,
        observations: np.ndarray,
        noise: np.ndarray | None,
        expected: np.ndarray,
        others: Sequence[np.ndarray],
    ) -> float:
        """How far `others` are from the `expected` actions (B, A) at most; export's check."""
        return float(np.max([np.abs(actions - expected) for actions in others]))


class Stochastic(Policy):
    """A policy that needs noise."""

    @abc.abstractmethod
    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise for `shape` observations."""


@dataclasses.dataclass(frozen=True)
class Single(Policy):
    """One network."""

    net: NetConfig
    params: Params  # of `Actor`; see `deterministic`
    normaliser: Normaliser

    @property
    def reader(self) -> "Single":
        """Itself."""
        return self

    @property
    def width(self) -> int:
        """A"""
        return int(self.params["mean"]["bias"].shape[-1])

    def named_layers(self, name: str) -> dict[str, np.ndarray]:
        """Trunk and mean as arrays below `name`."""
        return layers(name, self.net, self.params, "mean")


@dataclasses.dataclass(frozen=True)
class TanhPolicy(Single):
    """action = tanh(mean of `Actor` at the standardised observation)."""

    kind: ClassVar[str] = "tanh_mlp"

    def compute(self, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """See `Policy.compute`."""
        return mean_action(self.net, self.params, self.normaliser(observations))


@dataclasses.dataclass(frozen=True)
class ResidualPolicy(Policy):
    """action = clip(base + scale * tanh(mean at (standardised observation, base)), -1, 1)."""

    kind: ClassVar[str] = "residual"
    base: TanhPolicy
    correction: TanhPolicy
    scale: float

    @property
    def reader(self) -> Single:
        """The base."""
        return self.base

    def compute(self, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """See `Policy.compute`."""
        base = self.base.compute(observations)
        net, params = self.correction.net, self.correction.params
        push = mean_action(net, params, self.correction.normaliser(observations), base)
        return jnp.clip(base + self.scale * push, -1.0, 1.0)

    def describe(self) -> dict[str, Any]:
        """See `Policy.describe`."""
        correction = {**about(self.correction.net), "scale": self.scale}
        return {**super().describe(), "correction": correction}

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Policy.arrays`."""
        return super().arrays() | self.correction.named_layers("correction")


@dataclasses.dataclass(frozen=True)
class CorrectionPolicy(Policy):
    """action = clip(base + scale * tanh(mean at the standardised observation), -1, 1).

    The base is not part of it: its action (A,) is the end of the observation.
    """

    kind: ClassVar[str] = "correction"
    correction: TanhPolicy
    scale: float

    @property
    def reader(self) -> Single:
        """The correction."""
        return self.correction

    def compute(self, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """See `Policy.compute`."""
        push = self.correction.compute(observations)
        return jnp.clip(observations[..., -push.shape[-1] :] + self.scale * push, -1.0, 1.0)

    def describe(self) -> dict[str, Any]:
        """See `Policy.describe`."""
        return {**super().describe(), "scale": self.scale}


@dataclasses.dataclass(frozen=True)
class FamilyPolicy(Policy):
    """tanh of the mean of `Actor` at (standardised observation, code of a balance coefficient).

    The coefficient is `coefficient(balance, low, high)` of what `balance`, a policy of one action,
    does at the observation; see `sinusoidal_code` for its code.
    """

    kind: ClassVar[str] = "family"
    policy: TanhPolicy
    balance: TanhPolicy
    low: float
    high: float
    code_size: int

    @property
    def reader(self) -> Single:
        """The family."""
        return self.policy

    def compute(self, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """See `Policy.compute`."""
        obs = self.policy.normaliser(observations)
        balance = mean_action(self.balance.net, self.balance.params, obs)
        chosen = coefficient(balance, self.low, self.high)
        inputs = jnp.concatenate([obs, sinusoidal_code(chosen, self.code_size)], axis=-1)
        return mean_action(self.policy.net, self.policy.params, inputs)

    def describe(self) -> dict[str, Any]:
        """See `Policy.describe`."""
        balance = {
            **about(self.balance.net),
            "low": self.low,
            "high": self.high,
            "code_size": self.code_size,
        }
        return {**super().describe(), "balance": balance}

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Policy.arrays`."""
        return super().arrays() | self.balance.named_layers("balance")


@dataclasses.dataclass(frozen=True)
class OneStepPolicy(Single, Stochastic):
    """action = clip(mean of `Actor` at (standardised observation, noise), -1, 1); noise (A,)."""

    kind: ClassVar[str] = "one_step"

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(..., A)"""
        return (*shape, self.width)

    def compute(self, observations: jax.Array, noise: jax.Array | None) -> jax.Array:
        """See `Policy.compute`."""
        assert noise is not None
        obs = self.normaliser(observations)
        return jnp.clip(flow.head(self.net, self.params, obs, noise), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class FlowPolicy(Single, Stochastic):
    """action = `flow.integrate` from noise (A,) at the standardised observation."""

    kind: ClassVar[str] = "flow"
    steps: int

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(..., A)"""
        return (*shape, self.width)

    def compute(self, observations: jax.Array, noise: jax.Array | None) -> jax.Array:
        """See `Policy.compute`."""
        assert noise is not None
        obs = self.normaliser(observations)
        return flow.integrate(self.net, self.params, obs, noise, self.steps)

    def describe(self) -> dict[str, Any]:
        """See `Policy.describe`."""
        return {"policy": {**about(self.net), "steps": self.steps}}


@dataclasses.dataclass(frozen=True)
class BestOfNPolicy(Stochastic):
    """Of N = `samples` actions of a flow, from noise (N, A), the one that critics value most."""

    kind: ClassVar[str] = "best_of_n"
    flow: FlowPolicy
    critic_net: NetConfig
    critic: Params
    """Of `Scalar`; leaves lead with the ensemble axis."""
    aggregate: str
    samples: int

    @property
    def reader(self) -> Single:
        """The flow."""
        return self.flow

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(..., N, A)"""
        return (*shape, self.samples, self.width)

    def compute(self, observations: jax.Array, noise: jax.Array | None) -> jax.Array:
        """See `Policy.compute`."""
        assert noise is not None
        return flow.best(*self.candidates(observations, noise))

    def candidates(self, observations: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The actions (..., N, A) and their scores (..., N)."""
        base = self.flow
        return flow.candidates(
            base.net,
            base.params,
            self.critic_net,
            self.critic,
            self.aggregate,
            base.normaliser(observations),
            noise,
            base.steps,
        )

    def describe(self) -> dict[str, Any]:
        """See `Policy.describe`."""
        critic = {
            **about(self.critic_net),
            "members": members(self.critic),
            "aggregate": self.aggregate,
        }
        return {**self.flow.describe(), "samples": self.samples, "critic": critic}

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Policy.arrays`."""
        out = super().arrays()
        for member in range(members(self.critic)):
            params = jax.tree.map(lambda leaf, m=member: leaf[m], self.critic)
            out |= layers(f"critic/{member}", self.critic_net, params, "out")
        return out

    def distance(
        self,
        observations: np.ndarray,
        noise: np.ndarray | None,
        expected: np.ndarray,
        others: Sequence[np.ndarray],
    ) -> float:
        """How far actions (B, A) are from the best candidate, those expected too.

        Rounding decides between candidates with nearly the same score. So an action may be any of
        them; its distance to it counts, and by how much that one scores below the best, relative
        to scores above 1.
        """
        assert noise is not None
        found = self.candidates(jnp.asarray(observations), jnp.asarray(noise))
        actions, scores = map(np.asarray, found)  # (B, N, A), (B, N)
        top = scores.max(axis=-1)

        def off(chosen: np.ndarray) -> float:
            away = np.abs(actions - chosen[:, None]).max(axis=-1)
            nearest = away.argmin(axis=-1)[:, None]
            missed = top - np.take_along_axis(scores, nearest, axis=-1)[:, 0]
            return float(np.maximum(away.min(axis=-1), missed / np.maximum(1.0, np.abs(top))).max())

        return float(np.max([off(chosen) for chosen in (expected, *others)]))


KINDS: dict[str, type[Policy]] = {
    kind.kind: kind
    for kind in (
        TanhPolicy,
        ResidualPolicy,
        CorrectionPolicy,
        FamilyPolicy,
        OneStepPolicy,
        FlowPolicy,
        BestOfNPolicy,
    )
}


@dataclasses.dataclass(frozen=True)
class Learned:
    """The parts of an agent that can start another one. None where the agent has no such part."""

    policy: TanhPolicy
    actor_opt: optax.OptState
    log_std: jax.Array | None = None
    """(A,) one spread for all states, before tanh."""
    log_std_head: Params | None = None
    """Of a spread that depends on the state: one layer on the actor's trunk."""
    log_temperature: jax.Array | None = None
    temperature_opt: optax.OptState | None = None
    critic_net: NetConfig | None = None
    critic: Params | None = None
    """Leaves lead with the ensemble axis N."""
    target_critic: Params | None = None
    critic_opt: optax.OptState | None = None
    value_net: NetConfig | None = None
    value: Params | None = None
    """Of `Scalar`: V of the standardised observation."""

    @property
    def critics(self) -> int:
        """N, the number of ensemble members; 0 without critics."""
        return 0 if self.critic is None else members(self.critic)


def deterministic(params: Params) -> Params:
    """What of an actor's parameters its mean depends on."""
    return {name: params[name] for name in (ENCODER, "trunk", "mean") if name in params}


def lent(net: NetConfig, params: Params, lender: NetConfig, of: Params) -> tuple[NetConfig, Params]:
    """An actor that reads what another network's encoder makes, as one with an encoder of its own.

    `of` are the lender's parameters; one that reads plain vectors has no encoder to lend.
    """
    if ENCODER not in of:
        return net, params
    return dataclasses.replace(net, encoder=lender.encoder), {**params, ENCODER: of[ENCODER]}


def mean_action(net: NetConfig, params: Params, *inputs: jax.Array) -> jax.Array:
    """tanh of the actor's mean (..., A). `inputs` are standardised already."""
    action_dim = params["mean"]["bias"].shape[-1]
    bare = deterministic(params)
    mean: jax.Array = apply(Actor(net, action_dim), bare, *inputs)[0]
    return jnp.tanh(mean)


def coefficient(balance: jax.Array, low: float, high: float) -> jax.Array:
    """low at -1 and high at 1, and in a straight line between them."""
    return low + (high - low) * 0.5 * (balance + 1.0)


def sinusoidal_code(x: jax.Array, size: int) -> jax.Array:
    """sin and cos of x (..., 1) over 10000^(2 i / size), in turn, (..., size); `size` is even."""
    divisors = 10_000.0 ** (jnp.arange(0, size, 2) / size)
    shape = (*x.shape[:-1], size // 2)
    angles = jnp.broadcast_to(x, shape) / jnp.broadcast_to(divisors, shape)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*x.shape[:-1], size)


def noise(policy: Policy, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
    """Noise for `shape` observations; None where the policy is deterministic."""
    drawn = policy.noise_shape(shape)
    return None if drawn is None else jax.random.normal(key, drawn)


def act(policy: Policy, observations: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """Action (..., A) for observations (..., O), a function of the noise where it is stochastic."""
    if noise is None and isinstance(policy, Stochastic):
        raise ValueError(f"policies.act: a {type(policy).__name__} needs noise")
    return policy.compute(observations, noise)


def sample(policy: Policy, observations: jax.Array, key: jax.Array) -> jax.Array:
    """`act` (..., A) with noise drawn from `key`."""
    return act(policy, observations, noise(policy, key, rows(observations)))
