"""Random shifts of images, the augmentation of DrQ (Kostrikov et al., 2020, arXiv:2004.13649)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from robo_rl.fields import check_fields
from robo_rl.nn.apply import Batch
from robo_rl.nn.observations import is_image, structured

# `update` splits the same key, whose children have small numbers.
_STREAM = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Shift:
    """How far the images of a batch are shifted; it is used only where there are images."""

    pad: int = 4
    """Pixels to either side, at most; what comes in at the border repeats it. 0 does not shift."""
    probability: float = 1.0
    """With which a batch is shifted at all, by one coin a batch (OGBench 0.5)."""
    paired: bool = False
    """Shift a row's next observation as its observation (OGBench), not by a draw of its own."""

    def __post_init__(self) -> None:
        check_fields(self, "Shift")
        if self.pad < 0:
            raise ValueError(f"Shift.pad must be >= 0, got {self.pad}")
        if not 0.0 < self.probability <= 1.0:
            raise ValueError(f"Shift.probability must be in (0, 1], got {self.probability}")


DRQ = Shift()
OGBENCH = Shift(pad=3, probability=0.5, paired=True)


def crop(image: jax.Array, offset: jax.Array, pad: int) -> jax.Array:
    """The part of a padded image (H, W, C) that begins at `offset` (2,) in [0, 2 * pad].

    An offset of `pad` is the image itself.
    """
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)


def shifted(config: Shift, key: jax.Array, batch: Batch) -> Batch:
    """The batch with its observations' images shifted, each row by its own offset.

    `key` may be split elsewhere too. A batch without images is returned as it is.
    """
    if config.pad == 0 or not structured(batch["observations"]):
        return batch
    coin_key, now_key, next_key = jax.random.split(jax.random.fold_in(key, _STREAM), 3)
    coin = jax.random.bernoulli(coin_key, config.probability)
    keys = {"observations": now_key, "next_observations": now_key if config.paired else next_key}
    moved = {name: _shift(config.pad, coin, k, batch[name]) for name, k in keys.items()}
    return {**batch, **moved}


def _shift(pad: int, coin: jax.Array, key: jax.Array, observations: Any) -> Any:
    """Observations of B rows with every image shifted where the `coin` says so."""

    def one(leaf: jax.Array, key: jax.Array) -> jax.Array:
        if not is_image(leaf):
            return leaf
        offsets = jax.random.randint(key, (len(leaf), 2), 0, 2 * pad + 1)
        offsets = jnp.where(coin, offsets, jnp.full_like(offsets, pad))
        return jax.vmap(lambda image, offset: crop(image, offset, pad))(leaf, offsets)

    leaves, structure = jax.tree.flatten(observations)
    split = jax.random.split(key, len(leaves))
    moved = [one(leaf, k) for leaf, k in zip(leaves, split, strict=True)]
    return jax.tree.unflatten(structure, moved)
