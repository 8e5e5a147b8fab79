"""Hidden layers of a network, each kind a Flax module: a perceptron, SimBa and BRO.

A trunk turns inputs (..., I_k) to features (..., H); the heads of `robo_rl.nn.networks` stand on
it. Those here also say how they are written down for NumPy (`about`, `arrays`, `head`); what is
computed from that is in `robo_rl.hardware.runtime.networks`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.nn.apply import Params

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,  # the tanh approximation, as in Flax
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
}
LAYER_NORMS = ("none", "before", "after")
KERNEL_INITS = ("orthogonal", "fan_avg")
LAYER_NORM_EPSILON = 1e-6


@runtime_checkable
class Portable(Protocol):
    """A trunk that has a twin in NumPy."""

    @property
    def head(self) -> str:
        """Name, among the arrays, of the layer that stands on it."""

    def about(self) -> dict[str, Any]:
        """What the twin is built from, beside the arrays; JSON."""

    def arrays(self, params: Params) -> dict[str, np.ndarray]:
        """Its parameters by the names that the twin reads."""


def kernel_init(name: str, gain: float) -> Callable[..., jax.Array]:
    """Initialiser whose outputs scale with `gain`; 0 gives zeros."""
    if gain == 0.0:
        zeros: Callable[..., jax.Array] = linen.initializers.zeros_init()
        return zeros
    if name == "orthogonal":
        orthogonal: Callable[..., jax.Array] = linen.initializers.orthogonal(gain)
        return orthogonal
    scaled: Callable[..., jax.Array] = linen.initializers.variance_scaling(
        gain**2, "fan_avg", "uniform"
    )
    return scaled


class Entry(linen.Module):
    """A dense layer over inputs (..., I_k) taken together, whose leading axes may broadcast.

    What many rows have in common, as a state of which many actions are judged, is multiplied once.
    """

    width: int
    kernel_init: Callable[..., jax.Array]

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Sums (..., `width`)."""
        sizes = [x.shape[-1] for x in inputs]
        kernel = self.param("kernel", self.kernel_init, (sum(sizes), self.width))
        bias = self.param("bias", linen.initializers.zeros_init(), (self.width,))
        check_axes(inputs)
        if len({x.shape[:-1] for x in inputs}) == 1:
            out = jnp.concatenate(inputs, axis=-1) @ kernel
        else:
            parts = jnp.split(kernel, np.cumsum(sizes)[:-1])
            shares = [self._share(x, part) for x, part in zip(inputs, parts, strict=True)]
            out = functools.reduce(jnp.add, shares)
        return out + bias.reshape((1,) * (out.ndim - 1) + (-1,))

    def _share(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """x @ kernel, in two axes: XLA is slow at products of arrays with an axis of length 1."""
        return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], self.width)


def check_axes(inputs: tuple[jax.Array, ...]) -> None:
    """Raise ValueError unless the inputs have equally many axes: which belong together is clear."""
    if len({x.ndim for x in inputs}) > 1:
        raise ValueError(f"inputs need equally many axes, got {[x.shape for x in inputs]}")


class Mlp(linen.Module):
    """Dense layers of the widths `hidden`, each with its activation and, if asked, LayerNorm."""

    hidden: tuple[int, ...]
    activation: str = "relu"
    layer_norm: str = "none"
    kernel_init: str = "fan_avg"

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Features after the last activation. Leading axes of the inputs may broadcast."""
        gain = math.sqrt(2.0) if self.kernel_init == "orthogonal" else 1.0
        init = kernel_init(self.kernel_init, gain)
        first, *others = self.hidden
        x = Entry(first, init, name="Dense_0")(*inputs)
        leading = x.shape[:-1]
        x = self._activated(x.reshape(-1, first))  # XLA is slower at products of deeper arrays
        for number, width in enumerate(others, 1):
            x = self._activated(linen.Dense(width, kernel_init=init, name=f"Dense_{number}")(x))
        return x.reshape(*leading, x.shape[-1])

    def _activated(self, x: jax.Array) -> jax.Array:
        if self.layer_norm == "before":
            x = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        x = ACTIVATIONS[self.activation](x)
        if self.layer_norm == "after":
            x = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        return x

    @property
    def head(self) -> str:
        """The layers are numbered; the head is the next."""
        return str(len(self.hidden))

    def about(self) -> dict[str, Any]:
        """Widths, activation and LayerNorm."""
        return {
            "arch": "mlp",
            "hidden": list(self.hidden),
            "activation": self.activation,
            "layer_norm": self.layer_norm,
            "epsilon": LAYER_NORM_EPSILON,
        }

    def arrays(self, params: Params) -> dict[str, np.ndarray]:
        """`kernel`, `bias`, `norm_scale` and `norm_shift` of each numbered layer."""
        out: dict[str, Any] = {}
        for index in range(len(self.hidden)):
            dense = params[f"Dense_{index}"]
            out |= {f"{index}/kernel": dense["kernel"], f"{index}/bias": dense["bias"]}
            if self.layer_norm != "none":
                norm = params[f"LayerNorm_{index}"]
                out |= {f"{index}/norm_scale": norm["scale"], f"{index}/norm_shift": norm["bias"]}
        return _float32(out)


class Simba(linen.Module):
    """SimBa's residual network (Lee et al., 2024, arXiv:2410.09754), a block an entry of `hidden`.

    A dense layer; blocks x + narrow(relu(wide(LayerNorm(x)))), `expansion` times as wide inside;
    LayerNorm at the end. He-initialised blocks and an orthogonal entry, as in the authors' code.
    Its normalisation of observations is that of every agent here.
    """

    hidden: tuple[int, ...]
    activation: str = "relu"
    expansion: int = 4

    def __post_init__(self) -> None:
        check_equal_widths("simba", self.hidden)
        if self.expansion < 1:
            raise ValueError(f"simba: expansion must be >= 1, got {self.expansion}")
        super().__post_init__()

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Features (..., H). Leading axes of the inputs may broadcast."""
        width = self.hidden[0]
        x = Entry(width, linen.initializers.orthogonal(1.0), name="entry")(*inputs)
        leading = x.shape[:-1]
        x = x.reshape(-1, width)  # as in `Mlp`
        for number in range(len(self.hidden)):
            block = _SimbaBlock(width, self.expansion, self.activation, name=f"block_{number}")
            x = block(x)
        out: jax.Array = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="norm")(x)
        return out.reshape(*leading, width)

    @property
    def head(self) -> str:
        """The layer on it."""
        return "out"

    def about(self) -> dict[str, Any]:
        """Widths, activation and expansion."""
        return {
            "arch": "simba",
            "hidden": list(self.hidden),
            "activation": self.activation,
            "expansion": self.expansion,
            "epsilon": LAYER_NORM_EPSILON,
        }

    def arrays(self, params: Params) -> dict[str, np.ndarray]:
        """As they are called in Flax."""
        return _float32(_by_path(params))


class _SimbaBlock(linen.Module):
    width: int
    expansion: int
    activation: str

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = linen.initializers.he_normal()
        inner = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="norm")(x)
        inner = linen.Dense(self.expansion * self.width, kernel_init=init, name="wide")(inner)
        inner = ACTIVATIONS[self.activation](inner)
        out: jax.Array = x + linen.Dense(self.width, kernel_init=init, name="narrow")(inner)
        return out


class Bro(linen.Module):
    """BRO's residual network (Nauman et al., 2024, arXiv:2405.16158), a block an entry of `hidden`.

    A dense layer, LayerNorm and activation; blocks x + LayerNorm(dense(relu(LayerNorm(dense(x))))).
    Orthogonal kernels of gain sqrt 2, as in the authors' code.
    """

    hidden: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_equal_widths("bro", self.hidden)
        super().__post_init__()

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Features (..., H). Leading axes of the inputs may broadcast."""
        width, init = self.hidden[0], linen.initializers.orthogonal(math.sqrt(2.0))
        x = Entry(width, init, name="entry")(*inputs)
        leading = x.shape[:-1]
        x = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="norm")(x.reshape(-1, width))
        x = ACTIVATIONS[self.activation](x)
        for number in range(len(self.hidden)):
            x = _BroBlock(width, self.activation, name=f"block_{number}")(x)
        return x.reshape(*leading, width)

    @property
    def head(self) -> str:
        """The layer on it."""
        return "out"

    def about(self) -> dict[str, Any]:
        """Widths and activation."""
        return {
            "arch": "bro",
            "hidden": list(self.hidden),
            "activation": self.activation,
            "epsilon": LAYER_NORM_EPSILON,
        }

    def arrays(self, params: Params) -> dict[str, np.ndarray]:
        """As they are called in Flax."""
        return _float32(_by_path(params))


class _BroBlock(linen.Module):
    width: int
    activation: str

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = linen.initializers.orthogonal(math.sqrt(2.0))
        inner = linen.Dense(self.width, kernel_init=init, name="first")(x)
        inner = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="first_norm")(inner)
        inner = ACTIVATIONS[self.activation](inner)
        inner = linen.Dense(self.width, kernel_init=init, name="second")(inner)
        norm = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="second_norm")
        out: jax.Array = x + norm(inner)
        return out


def check_equal_widths(name: str, hidden: tuple[int, ...]) -> None:
    """Raise ValueError unless all widths are one: blocks are added to what they read."""
    if len(set(hidden)) != 1:
        raise ValueError(
            f"{name}: hidden gives the width of each residual block, and all must be equal, such "
            f"as 256,256 for two blocks; got {hidden}"
        )


def _by_path(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in params.items():
        below = f"{prefix}{name}"
        out |= _by_path(value, f"{below}/") if isinstance(value, Mapping) else {below: value}
    return out


def _float32(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}
