"""What turns images to features: a small IMPALA network, or a Flax module of one's own.

The network (Espeholt et al., 2018, arXiv:1802.01561) is as OGBench's `impala_small`, with a
LayerNorm behind its last layer.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as linen
import jax
import jax.numpy as jnp

from robo_rl.fields import check_fields
from robo_rl.nn import modules
from robo_rl.nn.apply import ENCODER, Params, apply
from robo_rl.nn.observations import Observations, is_image, named, structured


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder of one image. It is used only where observations have images."""

    channels: tuple[int, ...] = (16, 32, 32)
    """Of each stage; a stage halves height and width."""
    blocks: int = 1
    """Residual blocks a stage; 0 leaves its first convolution."""
    features: int = 512
    """F, what is left of an image."""
    arch: str | type[linen.Module] | linen.Module = "impala"
    """"impala", or a Flax module of one's own that turns images (B, H, W, C) of bytes to features
    (B, F); given as in `NetConfig.arch`. Channels, blocks and features are of "impala"."""

    def __post_init__(self) -> None:
        check_fields(self, "EncoderConfig")
        if self.arch != "impala":
            object.__setattr__(self, "arch", modules.pin(self.arch, "EncoderConfig.arch"))
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"EncoderConfig.channels must be positive, got {self.channels}")
        for name, least in (("blocks", 0), ("features", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"EncoderConfig.{name} must be >= {least}, got {getattr(self, name)}"
                )


IMPALA_SMALL = EncoderConfig()


class Impala(linen.Module):
    """One image (..., H, W, C) of bytes to features (..., F)."""

    config: EncoderConfig

    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Bytes are divided by 255; nothing else is known about them."""
        if image.ndim < 3:
            raise ValueError(f"Encoder: an image must be (..., H, W, C), got {image.shape}")
        x = image.astype(jnp.float32) / 255.0
        for width in self.config.channels:
            x = _pooled(_conv(width)(x))
            for _ in range(self.config.blocks):
                inner = _conv(width)(jax.nn.relu(x))
                x = x + _conv(width)(jax.nn.relu(inner))
        flat = jax.nn.relu(x).reshape(*x.shape[:-3], -1)
        out = linen.Dense(self.config.features, kernel_init=linen.initializers.xavier_uniform())
        return jax.nn.relu(linen.LayerNorm()(out(flat)))


def _conv(width: int) -> linen.Conv:
    return linen.Conv(width, (3, 3), kernel_init=linen.initializers.xavier_uniform())


def _pooled(x: jax.Array) -> jax.Array:
    out: jax.Array = linen.max_pool(x, (3, 3), (2, 2), "SAME")  # type: ignore[no-untyped-call]
    return out


class Encoder(linen.Module):
    """Observations to one vector: every image by a module of its own, vectors as they are."""

    config: EncoderConfig

    @linen.compact
    def __call__(self, observations: Observations) -> jax.Array:
        """Parts in the order of their names (..., F + O)."""
        parts = [
            _read(self.config, name, leaf) if is_image(leaf) else leaf
            for name, leaf in named(observations).items()
        ]
        return jnp.concatenate(parts, axis=-1)


def _read(config: EncoderConfig, name: str, image: jax.Array) -> jax.Array:
    """Features (..., F) of images, by a module called `name` of the module under way."""
    if config.arch == "impala":
        out: jax.Array = Impala(config, name=name)(image)
        return out
    module = modules.build(str(config.arch), "EncoderConfig.arch", name)
    rows = image.reshape(-1, *image.shape[-3:])  # one's own need not know of more axes
    own: jax.Array = module(rows)
    if own.ndim != 2 or own.shape[0] != rows.shape[0]:
        raise ValueError(
            f"EncoderConfig.arch: {config.arch} must turn images (B, H, W, C) to features (B, F); "
            f"of {rows.shape} it made {own.shape}"
        )
    return own.reshape(*image.shape[:-3], -1)


def features(config: EncoderConfig, params: Params, observations: Observations) -> jax.Array:
    """What a network with these `params` makes of observations by its encoder; a vector as it is.

    The network reads either: features that are needed several times are made once.
    """
    if not structured(observations):
        assert not isinstance(observations, Mapping)
        return observations
    out: jax.Array = apply(Encoder(config), params.get(ENCODER, {}), observations)
    return out
