"""An exported policy: a folder of plain arrays and a description, run with NumPy alone.

The folder holds `policy.json` (what to compute, on what, at which rate) and `arrays.npz` (without
pickle). The digest in the description covers the arrays; a folder that does not match is refused.
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
    """tanh(last layer of a perceptron), (..., I) to (..., A)."""

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
        out: np.ndarray = np.tanh(x @ self.layers[-1].kernel + self.layers[-1].bias)
        return out

    def _normalise(self, x: np.ndarray, layer: _Layer) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + self.epsilon)
        out: np.ndarray = centred / spread * layer.scale + layer.shift
        return out


class NumpyPolicy:
    """A policy that acts with NumPy alone. The goal, where there is one, is in the observation."""

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """From parts that `load` has read, or export is about to write."""
        self.description = description
        self.observation_size = int(description["observation"]["size"])
        self.action_size = int(description["action"]["size"])
        self.rate_hz = float(description["rate_hz"])
        self._mean = _float32(arrays, "normaliser/mean", (self.observation_size,))
        self._std = _float32(arrays, "normaliser/std", (self.observation_size,))
        if not (self._std > 0.0).all():
            raise PolicyError("normaliser/std must be > 0")
        self._policy = _network(description, arrays, "policy", self.observation_size)
        self._correction = None
        if description["kind"] == "residual":
            width = self.observation_size + self.action_size
            self._correction = _network(description, arrays, "correction", width)
            self._scale = np.float32(description["correction"]["scale"])

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

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (..., A) in [-1, 1], float32, for observations (..., O)."""
        if observation.shape[-1:] != (self.observation_size,):
            raise ValueError(
                f"NumpyPolicy.act: observation must be (..., {self.observation_size}), "
                f"got {observation.shape}"
            )
        x = (np.asarray(observation, np.float32) - self._mean) / self._std
        action = self._policy(x)
        if self._correction is None:
            return action
        offset = self._scale * self._correction(np.concatenate([x, action], axis=-1))
        return np.clip(action + offset, np.float32(-1.0), np.float32(1.0))


def _network(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str, inputs: int
) -> _Network:
    about = description[name]
    if about["activation"] not in ACTIVATIONS:
        raise PolicyError(f"unknown activation {about['activation']!r}")
    widths = [inputs, *about["hidden"], description["action"]["size"]]
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
