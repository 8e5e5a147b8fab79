"""Kinds of policies in NumPy: how an action comes about. Each is one class here and one in
`robo_rl.nn.policies`, by the same name.

x is the standardised observation (..., O), W the width of what is computed: H actions of the robot
in one row, where the policy plays chunks.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from robo_rl.hardware.runtime.files import PolicyError
from robo_rl.hardware.runtime.networks import Arrays, Network, build

AGGREGATES = ("mean", "min")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a kind is built from."""

    description: Mapping[str, Any]
    arrays: Arrays
    observation: int
    """O"""
    width: int
    """W"""

    def network(self, name: str, inputs: int, outputs: int) -> Network:
        """The network that the description has under `name`."""
        return build(self.description[name], self.arrays, name, inputs, outputs)


class Kind(abc.ABC):
    """A way to come to an action. `name` is what the description calls it."""

    name: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def build(cls, parts: Parts) -> "Kind":
        """From a description and arrays; KeyError or PolicyError where they do not fit."""

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the noise for `rows` of observations; None for a deterministic policy."""
        return None

    @abc.abstractmethod
    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """(..., W) in [-1, 1], from x, the observation as it came and noise of `noise_shape`."""


KINDS: dict[str, type[Kind]] = {}


def _register(kind: type[Kind]) -> type[Kind]:
    KINDS[kind.name] = kind
    return kind


def build_kind(parts: Parts) -> Kind:
    """The kind that a description is of."""
    name = str(parts.description["kind"])
    if name not in KINDS:
        raise PolicyError(f"unknown kind {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name].build(parts)


def _clip(action: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(action, np.float32(-1.0), np.float32(1.0))
    return clipped


@_register
@dataclasses.dataclass(frozen=True)
class TanhMlp(Kind):
    """tanh(policy(x))."""

    name: ClassVar[str] = "tanh_mlp"
    policy: Network

    @classmethod
    def build(cls, parts: Parts) -> "TanhMlp":
        """See `Kind.build`."""
        return cls(parts.network("policy", parts.observation, parts.width))

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        action: np.ndarray = np.tanh(self.policy(x))
        return action


@_register
@dataclasses.dataclass(frozen=True)
class Residual(Kind):
    """clip(base + scale * tanh(correction(x, base))), the base being tanh(policy(x))."""

    name: ClassVar[str] = "residual"
    policy: Network
    correction: Network
    scale: np.float32

    @classmethod
    def build(cls, parts: Parts) -> "Residual":
        """See `Kind.build`."""
        read, width = parts.observation, parts.width
        return cls(
            parts.network("policy", read, width),
            parts.network("correction", read + width, width),
            np.float32(parts.description["correction"]["scale"]),
        )

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        base: np.ndarray = np.tanh(self.policy(x))
        push = self.scale * np.tanh(self.correction(np.concatenate([x, base], axis=-1)))
        return _clip(base + push)


@_register
@dataclasses.dataclass(frozen=True)
class Correction(Kind):
    """clip(base + scale * tanh(policy(x))), the base being the end of the observation.

    Whoever computes the base appends it.
    """

    name: ClassVar[str] = "correction"
    policy: Network
    scale: np.float32

    @classmethod
    def build(cls, parts: Parts) -> "Correction":
        """See `Kind.build`."""
        policy = parts.network("policy", parts.observation, parts.width)
        return cls(policy, np.float32(parts.description["scale"]))

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        push: np.ndarray = np.tanh(self.policy(x))
        base = np.asarray(observation[..., -push.shape[-1] :], np.float32)
        return _clip(base + self.scale * push)


@_register
@dataclasses.dataclass(frozen=True)
class Family(Kind):
    """tanh(policy(x, code)), the sinusoidal code of a coefficient between `low` and `high`.

    tanh(balance(x)) says where between them.
    """

    name: ClassVar[str] = "family"
    policy: Network
    balance: Network
    low: np.float32
    high: np.float32
    code_size: int

    @classmethod
    def build(cls, parts: Parts) -> "Family":
        """See `Kind.build`."""
        about = parts.description["balance"]
        code_size = int(about["code_size"])
        return cls(
            parts.network("policy", parts.observation + code_size, parts.width),
            parts.network("balance", parts.observation, 1),
            np.float32(about["low"]),
            np.float32(about["high"]),
            code_size,
        )

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        action: np.ndarray = np.tanh(self.policy(np.concatenate([x, self._code(x)], axis=-1)))
        return action

    def _code(self, x: np.ndarray) -> np.ndarray:
        """The code (..., code_size) of the coefficient at x."""
        half = np.float32(0.5) * (np.tanh(self.balance(x)) + np.float32(1.0))  # (..., 1)
        powers = np.arange(0, self.code_size, 2, dtype=np.float32) / np.float32(self.code_size)
        angles = (self.low + (self.high - self.low) * half) / np.float32(10_000.0) ** powers
        code = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        return code.reshape(*x.shape[:-1], self.code_size)


@_register
@dataclasses.dataclass(frozen=True)
class OneStep(Kind):
    """clip(policy(x, z)), z being standard normal noise (..., W)."""

    name: ClassVar[str] = "one_step"
    policy: Network
    width: int

    @classmethod
    def build(cls, parts: Parts) -> "OneStep":
        """See `Kind.build`."""
        read, width = parts.observation, parts.width
        return cls(parts.network("policy", read + width, width), width)

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """(..., W)"""
        return (*rows, self.width)

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        assert noise is not None
        return _clip(self.policy(np.concatenate([x, noise], axis=-1)))


@_register
@dataclasses.dataclass(frozen=True)
class Flow(Kind):
    """z, moved by policy(x, z, t) / steps for t = 0, 1 / steps, ..., then clipped."""

    name: ClassVar[str] = "flow"
    policy: Network
    width: int
    steps: int

    @classmethod
    def build(cls, parts: Parts) -> "Flow":
        """See `Kind.build`."""
        read, width = parts.observation, parts.width
        steps = int(parts.description["policy"]["steps"])
        if steps < 1:
            raise PolicyError(f"policy: steps must be >= 1, got {steps}")
        return cls(parts.network("policy", read + width + 1, width), width, steps)

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """(..., W)"""
        return (*rows, self.width)

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        assert noise is not None
        point, steps = noise, np.float32(self.steps)
        for index in range(self.steps):
            time = np.full_like(point[..., :1], index / self.steps)
            point = point + self.policy(np.concatenate([x, point, time], axis=-1)) / steps
        return _clip(point)


@_register
@dataclasses.dataclass(frozen=True)
class BestOfN(Kind):
    """That one of N = `samples` flow actions for which the critics' aggregate is highest."""

    name: ClassVar[str] = "best_of_n"
    flow: Flow
    critics: tuple[Network, ...]
    aggregate: str
    samples: int

    @classmethod
    def build(cls, parts: Parts) -> "BestOfN":
        """See `Kind.build`."""
        about, inputs = parts.description["critic"], parts.observation + parts.width
        aggregate, samples = str(about["aggregate"]), int(parts.description["samples"])
        if aggregate not in AGGREGATES:
            raise PolicyError(f"unknown aggregate {aggregate!r}; known: {', '.join(AGGREGATES)}")
        members = range(int(about["members"]))
        if not members or samples < 1:
            raise PolicyError(f"critic: {len(members)} members and {samples} samples; both >= 1")
        critics = tuple(build(about, parts.arrays, f"critic/{k}", inputs, 1) for k in members)
        return cls(Flow.build(parts), critics, aggregate, samples)

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """(..., N, W)"""
        return (*rows, self.samples, self.flow.width)

    def compute(
        self, x: np.ndarray, observation: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """See `Kind.compute`."""
        assert noise is not None
        many = np.broadcast_to(x[..., None, :], (*noise.shape[:-1], x.shape[-1]))
        actions = self.flow.compute(many, observation, noise)
        inputs = np.concatenate([many, actions], axis=-1)
        each = np.stack([critic(inputs)[..., 0] for critic in self.critics])
        scores = each.mean(axis=0) if self.aggregate == "mean" else each.min(axis=0)
        best = scores.argmax(axis=-1)[..., None, None]
        chosen: np.ndarray = np.take_along_axis(actions, best, axis=-2)[..., 0, :]
        return chosen
