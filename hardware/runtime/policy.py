"""An exported policy: a folder of plain arrays and a description, run with NumPy alone.

The folder holds `policy.json` (what to compute, on what, at which rate) and `arrays.npz` (without
pickle). The digest in the description covers the arrays; a folder that does not match is refused.

`kind` says how an action comes about, x being the standardised observation and z standard normal:

- "tanh_mlp": tanh(policy(x)).
- "residual": clip(base + scale * tanh(correction(x, base))), the base being that tanh.
- "correction": clip(base + scale * tanh(policy(x))), the base being the end of the observation:
  whoever computes it appends it.
- "family": tanh(policy(x, code)), the sinusoidal code of a coefficient between `balance.low` and
  `balance.high`, of which tanh(balance(x)) says where.
- "one_step": clip(policy(x, z)).
- "flow": z, moved by policy(x, z, t) / steps for t = 0, 1 / steps, ..., then clipped.
- "best_of_n": that one of `samples` flow actions for which the critics' aggregate is highest.

Where `action.chunk` is H > 1, the network's action is H actions of the robot, to be played in
order.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FORMAT = 1
KINDS = ("tanh_mlp", "residual", "correction", "family", "one_step", "flow", "best_of_n")
AGGREGATES = ("mean", "min")
DESCRIPTION, ARRAYS = "policy.json", "arrays.npz"


class PolicyError(ValueError):
    """A policy folder is missing, damaged or of another kind."""


def _gelu(x: np.ndarray) -> np.ndarray:
    """The tanh approximation, as the training code uses."""
    inner = np.float32(np.sqrt(2.0 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    out: np.ndarray = (np.float32(0.5) * x) * (np.float32(1.0) + np.tanh(inner))
    return out


def _silu(x: np.ndarray) -> np.ndarray:
    # x * sigmoid(x), without the overflow of exp(-x).
    out: np.ndarray = x * (np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1.0)))
    return out


def _relu(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.maximum(x, np.float32(0.0))
    return out


ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": _relu,
    "gelu": _gelu,
    "tanh": np.tanh,
    "silu": _silu,
}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Layer:
    kernel: np.ndarray  # (I, H)
    bias: np.ndarray  # (H,)
    scale: np.ndarray | None  # (H,) of LayerNorm
    shift: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class _Network:
    """A perceptron, (..., I) to (..., A), linear at the end."""

    layers: tuple[_Layer, ...]
    activation: str
    layer_norm: str  # "none", "before" or "after" the activation
    epsilon: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        activation = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = x @ layer.kernel + layer.bias
            if self.layer_norm == "before":
                x = self._normalise(x, layer)
            x = activation(x)
            if self.layer_norm == "after":
                x = self._normalise(x, layer)
        out: np.ndarray = x @ self.layers[-1].kernel + self.layers[-1].bias
        return out

    def _normalise(self, x: np.ndarray, layer: _Layer) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + self.epsilon)
        out: np.ndarray = centred / spread * layer.scale + layer.shift
        return out


@dataclasses.dataclass(frozen=True)
class _Family:
    """Appends the code of the balance coefficient that a network chooses to an observation."""

    balance: _Network
    low: np.float32
    high: np.float32
    code_size: int

    @classmethod
    def of(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "_Family | None":
        """None for a policy of another kind."""
        if description["kind"] != "family":
            return None
        about = description["balance"]
        balance = _network(about, arrays, "balance", int(description["observation"]["size"]), 1)
        return cls(
            balance, np.float32(about["low"]), np.float32(about["high"]), int(about["code_size"])
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Standardised observations (..., O) to (..., O + code_size)."""
        half = np.float32(0.5) * (np.tanh(self.balance(x)) + np.float32(1.0))  # (..., 1)
        powers = np.arange(0, self.code_size, 2, dtype=np.float32) / np.float32(self.code_size)
        angles = (self.low + (self.high - self.low) * half) / np.float32(10_000.0) ** powers
        code = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        return np.concatenate([x, code.reshape(*x.shape[:-1], self.code_size)], axis=-1)


class NumpyPolicy:
    """A policy that acts with NumPy alone. The goal, where there is one, is in the observation.

    `compute` is a pure function. `act` is for control: it plays chunks of actions open loop and
    draws the noise of a stochastic policy, both from the last `reset` on.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """From parts that `load` has read, or export is about to write."""
        self.description = description
        self.kind = str(description["kind"])
        if self.kind not in KINDS:
            raise PolicyError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        self.observation_size = int(description["observation"]["size"])
        self.action_size = int(description["action"]["size"])
        self.chunk = int(description["action"].get("chunk", 1))
        """H, the actions that are computed at once."""
        rate_hz = description["rate_hz"]
        self.rate_hz = None if rate_hz is None else float(rate_hz)
        """None where nobody knows at which rate it acts."""
        self._mean = _float32(arrays, "normaliser/mean", (self.observation_size,))
        self._std = _float32(arrays, "normaliser/std", (self.observation_size,))
        if not (self._std > 0.0).all():
            raise PolicyError("normaliser/std must be > 0")
        size, width = self.observation_size, self.chunk * self.action_size
        self._family = _Family.of(description, arrays)
        code = 0 if self._family is None else self._family.code_size
        known = {"tanh_mlp": 0, "residual": 0, "correction": 0, "family": code, "one_step": width}
        extra = known.get(self.kind, width + 1)
        self._policy = _network(description["policy"], arrays, "policy", size + extra, width)
        self._critics: list[_Network] = []
        if self.kind == "residual":
            about = description["correction"]
            self._correction = _network(about, arrays, "correction", size + width, width)
            self._scale = np.float32(about["scale"])
        if self.kind == "correction":
            self._scale = np.float32(description["scale"])
        if self.kind in ("flow", "best_of_n"):
            self._steps = int(description["policy"]["steps"])
        if self.kind == "best_of_n":
            about = description["critic"]
            self._critics = [
                _network(about, arrays, f"critic/{member}", size + width, 1)
                for member in range(int(about["members"]))
            ]
            self._aggregate = str(about["aggregate"])
            if self._aggregate not in AGGREGATES:
                raise PolicyError(f"unknown aggregate {self._aggregate!r}")
        self.reset()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "NumpyPolicy":
        """Read and verify an exported policy."""
        path = pathlib.Path(folder)
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            if not isinstance(description, dict) or description.get("format") != FORMAT:
                raise PolicyError(f"{DESCRIPTION} is not of format {FORMAT}")
            # Opened here: np.load leaves a damaged file open.
            with (path / ARRAYS).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if digest(arrays) != description["sha256"]:
                raise PolicyError(f"{ARRAYS} does not have the digest that {DESCRIPTION} records")
            return cls(description, arrays)
        except FileNotFoundError as error:
            raise PolicyError(
                f"{path} is not an exported policy: {error.filename} is missing; "
                "make one with `robo-rl export RUN`"
            ) from error
        except KeyError as error:
            raise PolicyError(f"policy in {path} is damaged: it lacks {error}") from error
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise PolicyError(f"policy in {path} is damaged: {error}; export it again") from error

    def reset(self, seed: int = 0) -> None:
        """An episode begins: drop what is left of a chunk, draw noise from `seed` on."""
        self._queue: list[np.ndarray] = []
        self._rng = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action (..., A), float32: of the chunk under way, or else of a new one.

        Noise is NumPy's `default_rng(seed).standard_normal` in float32, seeded by `reset`.
        """
        if not self._queue:
            rows = observation.shape[:-1]
            shape = self.noise_shape(rows)
            noise = None if shape is None else self._rng.standard_normal(shape, np.float32)
            actions = self.compute(observation, noise).reshape(*rows, self.chunk, self.action_size)
            self._queue = list(np.moveaxis(actions, -2, 0))
        return self._queue.pop(0)

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the noise for `rows` of observations; None for a deterministic policy."""
        width = self.chunk * self.action_size
        if self.kind == "best_of_n":
            return (*rows, int(self.description["samples"]), width)
        return (*rows, width) if self.kind in ("one_step", "flow") else None

    def compute(self, observation: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Chunks (..., H * A) in [-1, 1], float32, for observations (..., O) and their noise."""
        if observation.shape[-1:] != (self.observation_size,):
            raise ValueError(
                f"NumpyPolicy.act: observation must be (..., {self.observation_size}), "
                f"got {observation.shape}"
            )
        expected = self.noise_shape(observation.shape[:-1])
        if (None if noise is None else noise.shape) != expected:
            raise ValueError(
                f"NumpyPolicy.compute: noise of a {self.kind} policy must be {expected}, "
                f"got {None if noise is None else noise.shape}"
            )
        x = (np.asarray(observation, np.float32) - self._mean) / self._std
        if noise is not None:
            return self._sample(x, np.asarray(noise, np.float32))
        action: np.ndarray = np.tanh(self._policy(x if self._family is None else self._family(x)))
        if self.kind in ("tanh_mlp", "family"):
            return action
        if self.kind == "correction":
            base = np.asarray(observation[..., -action.shape[-1] :], np.float32)
            return _clip(base + self._scale * action)
        offset = self._scale * np.tanh(self._correction(np.concatenate([x, action], axis=-1)))
        return _clip(action + offset)

    def _sample(self, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        if self.kind == "one_step":
            return _clip(self._policy(np.concatenate([x, noise], axis=-1)))
        if self.kind == "flow":
            return self._integrate(x, noise)
        many = np.broadcast_to(x[..., None, :], (*noise.shape[:-1], x.shape[-1]))
        actions = self._integrate(many, noise)
        inputs = np.concatenate([many, actions], axis=-1)
        each = np.stack([critic(inputs)[..., 0] for critic in self._critics])
        scores = each.mean(axis=0) if self._aggregate == "mean" else each.min(axis=0)
        best = scores.argmax(axis=-1)[..., None, None]
        chosen: np.ndarray = np.take_along_axis(actions, best, axis=-2)[..., 0, :]
        return chosen

    def _integrate(self, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        point, steps = noise, np.float32(self._steps)
        for index in range(self._steps):
            time = np.full_like(point[..., :1], index / self._steps)
            point = point + self._policy(np.concatenate([x, point, time], axis=-1)) / steps
        return _clip(point)


def _clip(action: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(action, np.float32(-1.0), np.float32(1.0))
    return clipped


def _network(
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    name: str,
    inputs: int,
    outputs: int,
) -> _Network:
    if about["activation"] not in ACTIVATIONS:
        raise PolicyError(f"unknown activation {about['activation']!r}")
    widths = [inputs, *about["hidden"], outputs]
    layers = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        prefix = f"{name}/{index}"
        normed = about["layer_norm"] != "none" and index < len(widths) - 2
        vector = (width_out,)
        layers.append(
            _Layer(
                _float32(arrays, f"{prefix}/kernel", (width_in, width_out)),
                _float32(arrays, f"{prefix}/bias", vector),
                _float32(arrays, f"{prefix}/norm_scale", vector) if normed else None,
                _float32(arrays, f"{prefix}/norm_shift", vector) if normed else None,
            )
        )
    return _Network(
        tuple(layers), about["activation"], about["layer_norm"], float(about["epsilon"])
    )


def _float32(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = arrays[name]
    if array.shape != shape or array.dtype != np.float32:
        raise PolicyError(f"{name} must be float32 {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise PolicyError(f"{name} is not finite")
    return array
