"""Multi-layer perceptrons and the heads that all agents share.

An input that is not a plain vector is read by an encoder of the network's own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.nn.apply import ENCODER
from robo_rl.nn.encoder import IMPALA_SMALL, Encoder, EncoderConfig
from robo_rl.nn.observations import structured

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,  # the tanh approximation, as in Flax
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
}
LAYER_NORMS = ("none", "before", "after")
KERNEL_INITS = ("orthogonal", "fan_avg")
STDS = ("none", "shared", "state")
LAYER_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class NetConfig:
    """Shape of the hidden layers of one network."""

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: str = "none"
    """Where LayerNorm stands: "none", "before" or "after" the activation."""
    kernel_init: str = "fan_avg"
    """"fan_avg" (uniform, scale 1) or "orthogonal" (gain sqrt 2)."""
    encoder: EncoderConfig = IMPALA_SMALL
    """Of images, where inputs have any."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"NetConfig.hidden must be positive widths, got {self.hidden}")
        _one_of("NetConfig.activation", self.activation, tuple(ACTIVATIONS))
        _one_of("NetConfig.layer_norm", self.layer_norm, LAYER_NORMS)
        _one_of("NetConfig.kernel_init", self.kernel_init, KERNEL_INITS)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _kernel_init(name: str, gain: float) -> Callable[..., jax.Array]:
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


def _read(net: NetConfig, inputs: tuple[Any, ...]) -> list[jax.Array]:
    """Every input as a vector (..., I); called within a module, which then owns the encoder."""
    return [Encoder(net.encoder, name=ENCODER)(x) if structured(x) else x for x in inputs]


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
        if len({x.ndim for x in inputs}) > 1:
            raise ValueError(f"inputs need equally many axes, got {[x.shape for x in inputs]}")
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


class Trunk(linen.Module):
    """Hidden layers over all inputs (..., I_k) to (..., H)."""

    net: NetConfig

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Features after the last activation. Leading axes of the inputs may broadcast."""
        gain = math.sqrt(2.0) if self.net.kernel_init == "orthogonal" else 1.0
        init = _kernel_init(self.net.kernel_init, gain)
        first, *others = self.net.hidden
        x = Entry(first, init, name="Dense_0")(*inputs)
        leading = x.shape[:-1]
        x = self._activated(x.reshape(-1, first))  # XLA is slower at products of deeper arrays
        for number, width in enumerate(others, 1):
            x = self._activated(linen.Dense(width, kernel_init=init, name=f"Dense_{number}")(x))
        return x.reshape(*leading, x.shape[-1])

    def _activated(self, x: jax.Array) -> jax.Array:
        if self.net.layer_norm == "before":
            x = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        x = ACTIVATIONS[self.net.activation](x)
        if self.net.layer_norm == "after":
            x = linen.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        return x


class Scalar(linen.Module):
    """A value or one critic: inputs (..., I_k), taken together, to (...)."""

    net: NetConfig

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """One number a row."""
        features = Trunk(self.net, name="trunk")(*_read(self.net, inputs))
        out = linen.Dense(1, kernel_init=_kernel_init(self.net.kernel_init, 1.0), name="out")
        return jnp.squeeze(out(features), axis=-1)


class Actor(linen.Module):
    """Policy head. Every agent acts by tanh of `mean`; `log_std` is there for those that sample."""

    net: NetConfig
    action_dim: int
    std: str = "none"
    """"none" (deterministic), "shared" (one number an action dimension) or "state"."""
    initial_log_std: float = 0.0
    output_gain: float = 1.0
    """Scale of the last kernel at the start; 0 makes the first action exactly tanh(0) = 0."""

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean before tanh (..., A) and unclipped log std (..., A), zeros when there is none."""
        features = Trunk(self.net, name="trunk")(*_read(self.net, inputs))
        kernel = _kernel_init(self.net.kernel_init, self.output_gain)
        mean = linen.Dense(self.action_dim, kernel_init=kernel, name="mean")(features)
        constant = linen.initializers.constant(self.initial_log_std)
        if self.std == "state":
            head = linen.Dense(
                self.action_dim,
                kernel_init=linen.initializers.zeros_init(),  # the first std is the initial one
                bias_init=constant,
                name="log_std",
            )
            return mean, head(features)
        if self.std == "shared":
            log_std = self.param("log_std", constant, (self.action_dim,))
            return mean, jnp.broadcast_to(log_std, mean.shape)
        return mean, jnp.zeros_like(mean)
