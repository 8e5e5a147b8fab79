"""Shapes of networks, and the heads that all agents share.

An input that is not a plain vector is read by an encoder of the network's own.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from robo_rl.fields import check_fields
from robo_rl.nn import modules
from robo_rl.nn.apply import ENCODER
from robo_rl.nn.encoder import IMPALA_SMALL, Encoder, EncoderConfig
from robo_rl.nn.observations import structured
from robo_rl.nn.trunks import (
    ACTIVATIONS,
    KERNEL_INITS,
    LAYER_NORMS,
    Bro,
    Mlp,
    Simba,
    check_axes,
    kernel_init,
)

ARCHITECTURES: Mapping[str, type[linen.Module]] = {"mlp": Mlp, "simba": Simba, "bro": Bro}
"""Of these, fields that `NetConfig` has too are set by it, the others in brackets."""
STDS = ("none", "shared", "state")


@dataclasses.dataclass(frozen=True)
class NetConfig:
    """Shape of the hidden layers of one network."""

    hidden: tuple[int, ...] = (256, 256)
    """Width of each layer; of "simba" and "bro", of each residual block."""
    activation: str = "relu"
    layer_norm: str = "none"
    """Where LayerNorm stands in an "mlp": "none", "before" or "after" the activation."""
    kernel_init: str = "fan_avg"
    """"fan_avg" (uniform, scale 1) or "orthogonal" (gain sqrt 2) layers of an "mlp"; heads too."""
    encoder: EncoderConfig = IMPALA_SMALL
    """Of images, where inputs have any."""
    arch: str | type[linen.Module] | linen.Module = "mlp"
    """"mlp", "simba", "simba(expansion=2)", "bro", or a Flax module of one's own, as
    "path/to/mine.py:Module(width=64)" or "package.module:Module"; see `robo_rl.nn.modules`. From
    Python the class may be given itself, or a module of it. It turns rows (B, I) to features
    (B, H), on which the head stands; one whose `__call__` takes `*inputs` gets them one by one,
    and hidden, activation and layer_norm are not for it."""

    def __post_init__(self) -> None:
        check_fields(self, "NetConfig")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"NetConfig.hidden must be positive widths, got {self.hidden}")
        _one_of("NetConfig.activation", self.activation, tuple(ACTIVATIONS))
        _one_of("NetConfig.layer_norm", self.layer_norm, LAYER_NORMS)
        _one_of("NetConfig.kernel_init", self.kernel_init, KERNEL_INITS)
        if not isinstance(self.arch, str) or modules.is_reference(self.arch):
            object.__setattr__(self, "arch", modules.pin(self.arch, "NetConfig.arch"))
        else:
            self.trunk()

    def trunk(self, name: str | None = None) -> linen.Module:
        """The module of the hidden layers, called `name` in Flax."""
        arch = str(self.arch)
        if modules.is_reference(arch):
            return modules.build(arch, "NetConfig.arch", name)
        kind, settings = modules.split_settings(arch, "NetConfig.arch")
        if kind not in ARCHITECTURES:
            raise ValueError(
                f"NetConfig.arch must be one of {', '.join(ARCHITECTURES)}, or a module of your "
                f"own as path/to/mine.py:Module, got {arch!r}"
            )
        module = ARCHITECTURES[kind]
        fields = modules.fields(module)
        own = {field: getattr(self, field) for field in fields if hasattr(self, field)}
        unknown = sorted(settings.keys() - (fields - own.keys()))
        if unknown:
            raise ValueError(
                f"NetConfig.arch: {kind} takes no {', '.join(unknown)} in brackets; it takes: "
                f"{', '.join(sorted(fields - own.keys())) or 'nothing'}"
            )
        built: linen.Module = module(**own, **settings, name=name)
        return built


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _read(net: NetConfig, inputs: tuple[Any, ...]) -> list[jax.Array]:
    """Every input as a vector (..., I); called within a module, which then owns the encoder."""
    return [Encoder(net.encoder, name=ENCODER)(x) if structured(x) else x for x in inputs]


def hidden_layers(net: NetConfig, inputs: tuple[jax.Array, ...]) -> jax.Array:
    """What the trunk of the module under way makes of vectors (..., I_k): (..., H).

    A module of one's own sees rows: it need not know of other axes, nor that they may broadcast.
    """
    trunk = net.trunk("trunk")
    if not modules.is_reference(str(net.arch)):
        out: jax.Array = trunk(*inputs)
        return out
    check_axes(inputs)
    leading = jnp.broadcast_shapes(*[x.shape[:-1] for x in inputs])
    rows = [jnp.broadcast_to(x, (*leading, x.shape[-1])).reshape(-1, x.shape[-1]) for x in inputs]
    kinds = {p.kind for p in inspect.signature(type(trunk).__call__).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        rows = [jnp.concatenate(rows, axis=-1)]
    own: jax.Array = trunk(*rows)
    if own.ndim != 2 or own.shape[0] != rows[0].shape[0]:
        raise ValueError(
            f"NetConfig.arch: {net.arch} must turn rows (B, I) to features (B, H); of "
            f"{[x.shape for x in rows]} it made {own.shape}"
        )
    return own.reshape(*leading, own.shape[-1])


class Scalar(linen.Module):
    """A value or one critic: inputs (..., I_k), taken together, to (...)."""

    net: NetConfig

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """One number a row."""
        hidden = hidden_layers(self.net, tuple(_read(self.net, inputs)))
        out = linen.Dense(1, kernel_init=kernel_init(self.net.kernel_init, 1.0), name="out")
        return jnp.squeeze(out(hidden), axis=-1)


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
        hidden = hidden_layers(self.net, tuple(_read(self.net, inputs)))
        kernel = kernel_init(self.net.kernel_init, self.output_gain)
        mean = linen.Dense(self.action_dim, kernel_init=kernel, name="mean")(hidden)
        constant = linen.initializers.constant(self.initial_log_std)
        if self.std == "state":
            head = linen.Dense(
                self.action_dim,
                kernel_init=linen.initializers.zeros_init(),  # the first std is the initial one
                bias_init=constant,
                name="log_std",
            )
            return mean, head(hidden)
        if self.std == "shared":
            log_std = self.param("log_std", constant, (self.action_dim,))
            return mean, jnp.broadcast_to(log_std, mean.shape)
        return mean, jnp.zeros_like(mean)
