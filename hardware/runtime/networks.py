"""Networks in NumPy, built from a description and arrays: the twins of `robo_rl.nn.trunks`.

Each is a function of inputs (..., I), linear at its end. An architecture is one class here and one
there, by the same name.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from robo_rl.hardware.runtime.files import PolicyError

Arrays = Mapping[str, np.ndarray]


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


Activation = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": _relu,
    "gelu": _gelu,
    "tanh": np.tanh,
    "silu": _silu,
}


class Network(Protocol):
    """A network, (..., I) to (..., A)."""

    arch: ClassVar[str]

    @classmethod
    def build(
        cls, about: Mapping[str, Any], arrays: Arrays, name: str, inputs: int, outputs: int
    ) -> "Network":
        """From its description and the arrays below `name`."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs (..., `outputs`)."""


ARCHITECTURES: dict[str, type[Network]] = {}


def _register(kind: type[Network]) -> type[Network]:
    ARCHITECTURES[kind.arch] = kind
    return kind


def build(
    about: Mapping[str, Any], arrays: Arrays, name: str, inputs: int, outputs: int
) -> Network:
    """The network that a description is of."""
    arch = str(about.get("arch", "mlp"))  # format 1 knew no other
    if arch not in ARCHITECTURES:
        raise PolicyError(
            f"{name} is of the unknown architecture {arch!r}; known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[arch].build(about, arrays, name, inputs, outputs)


def float32(arrays: Arrays, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of this name, which must be finite and of this shape."""
    array = arrays[name]
    if array.shape != shape or array.dtype != np.float32:
        raise PolicyError(f"{name} must be float32 {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise PolicyError(f"{name} is not finite")
    return array


def _activation(about: Mapping[str, Any]) -> Activation:
    name = about["activation"]
    if name not in ACTIVATIONS:
        raise PolicyError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@dataclasses.dataclass(frozen=True)
class _Dense:
    kernel: np.ndarray  # (I, H)
    bias: np.ndarray  # (H,)

    @classmethod
    def build(cls, arrays: Arrays, name: str, inputs: int, outputs: int) -> "_Dense":
        kernel = float32(arrays, f"{name}/kernel", (inputs, outputs))
        return cls(kernel, float32(arrays, f"{name}/bias", (outputs,)))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        out: np.ndarray = x @ self.kernel + self.bias
        return out


@dataclasses.dataclass(frozen=True)
class _LayerNorm:
    scale: np.ndarray  # (H,)
    shift: np.ndarray
    epsilon: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + self.epsilon)
        out: np.ndarray = centred / spread * self.scale + self.shift
        return out


@_register
@dataclasses.dataclass(frozen=True)
class Mlp:
    """A perceptron: numbered layers, all but the last with an activation."""

    arch: ClassVar[str] = "mlp"
    layers: tuple[tuple[_Dense, _LayerNorm | None], ...]
    out: _Dense
    activation: Activation
    layer_norm: str  # "none", "before" or "after" the activation

    @classmethod
    def build(
        cls, about: Mapping[str, Any], arrays: Arrays, name: str, inputs: int, outputs: int
    ) -> "Mlp":
        """See `Network.build`."""
        position = about["layer_norm"]
        if position not in ("none", "before", "after"):
            raise PolicyError(f"{name}: unknown layer_norm {position!r}")
        layers = []
        for index, (read, width) in enumerate(itertools.pairwise([inputs, *about["hidden"]])):
            prefix = f"{name}/{index}"
            norm = None
            if position != "none":
                scale, shift = (
                    float32(arrays, f"{prefix}/{part}", (width,))
                    for part in ("norm_scale", "norm_shift")
                )
                norm = _LayerNorm(scale, shift, float(about["epsilon"]))
            layers.append((_Dense.build(arrays, prefix, read, width), norm))
        width = [inputs, *about["hidden"]][-1]
        out = _Dense.build(arrays, f"{name}/{len(layers)}", width, outputs)
        return cls(tuple(layers), out, _activation(about), position)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """See `Network.__call__`."""
        for dense, norm in self.layers:
            x = dense(x)
            if norm is not None and self.layer_norm == "before":
                x = norm(x)
            x = self.activation(x)
            if norm is not None and self.layer_norm == "after":
                x = norm(x)
        return self.out(x)


@dataclasses.dataclass(frozen=True)
class _Named:
    """Layers as they are called in Flax, below a name."""

    arrays: Arrays
    name: str
    epsilon: float

    def dense(self, name: str, inputs: int, outputs: int) -> _Dense:
        return _Dense.build(self.arrays, f"{self.name}/{name}", inputs, outputs)

    def norm(self, name: str, width: int) -> _LayerNorm:
        scale, shift = (
            float32(self.arrays, f"{self.name}/{name}/{part}", (width,))
            for part in ("scale", "bias")
        )
        return _LayerNorm(scale, shift, self.epsilon)


def _equal_width(about: Mapping[str, Any], name: str) -> int:
    """The one width of all residual blocks."""
    if len(set(about["hidden"])) != 1:
        raise PolicyError(f"{name}: residual blocks must be of one width, got {about['hidden']}")
    return int(about["hidden"][0])


@_register
@dataclasses.dataclass(frozen=True)
class Simba:
    """A dense layer, blocks x + narrow(activation(wide(norm(x)))), a norm, and the head."""

    arch: ClassVar[str] = "simba"
    entry: _Dense
    blocks: tuple[tuple[_LayerNorm, _Dense, _Dense], ...]
    norm: _LayerNorm
    out: _Dense
    activation: Activation

    @classmethod
    def build(
        cls, about: Mapping[str, Any], arrays: Arrays, name: str, inputs: int, outputs: int
    ) -> "Simba":
        """See `Network.build`."""
        width = _equal_width(about, name)
        layers = _Named(arrays, name, float(about["epsilon"]))
        inner = width * int(about["expansion"])
        blocks = tuple(
            (
                layers.norm(f"block_{k}/norm", width),
                layers.dense(f"block_{k}/wide", width, inner),
                layers.dense(f"block_{k}/narrow", inner, width),
            )
            for k in range(len(about["hidden"]))
        )
        entry, out = layers.dense("entry", inputs, width), layers.dense("out", width, outputs)
        return cls(entry, blocks, layers.norm("norm", width), out, _activation(about))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """See `Network.__call__`."""
        x = self.entry(x)
        for norm, wide, narrow in self.blocks:
            x = x + narrow(self.activation(wide(norm(x))))
        return self.out(self.norm(x))


@_register
@dataclasses.dataclass(frozen=True)
class Bro:
    """A dense layer, norm and activation, blocks x + norm(dense(activation(norm(dense(x)))))."""

    arch: ClassVar[str] = "bro"
    entry: _Dense
    norm: _LayerNorm
    blocks: tuple[tuple[_Dense, _LayerNorm, _Dense, _LayerNorm], ...]
    out: _Dense
    activation: Activation

    @classmethod
    def build(
        cls, about: Mapping[str, Any], arrays: Arrays, name: str, inputs: int, outputs: int
    ) -> "Bro":
        """See `Network.build`."""
        width = _equal_width(about, name)
        layers = _Named(arrays, name, float(about["epsilon"]))
        blocks = tuple(
            (
                layers.dense(f"block_{k}/first", width, width),
                layers.norm(f"block_{k}/first_norm", width),
                layers.dense(f"block_{k}/second", width, width),
                layers.norm(f"block_{k}/second_norm", width),
            )
            for k in range(len(about["hidden"]))
        )
        entry, out = layers.dense("entry", inputs, width), layers.dense("out", width, outputs)
        return cls(entry, layers.norm("norm", width), blocks, out, _activation(about))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """See `Network.__call__`."""
        x = self.activation(self.norm(self.entry(x)))
        for first, first_norm, second, second_norm in self.blocks:
            x = x + second_norm(second(self.activation(first_norm(first(x)))))
        return self.out(x)
