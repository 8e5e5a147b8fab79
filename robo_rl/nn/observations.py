"""What a policy sees: a vector, an image, or a flat dict of named vectors and images.

An image is an array of bytes (..., H, W, C), and stays one until a network reads it; everything
else is a vector (..., O) of floats. Only this module and those that import it look inside: an agent
passes observations on.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Observations: TypeAlias = jax.Array | Mapping[str, jax.Array]


def is_image(leaf: Any) -> bool:
    """Whether this is an image: bytes."""
    return bool(leaf.dtype == jnp.uint8)


def structured(observations: Any) -> bool:
    """Whether a network needs an encoder to read these: all but a plain vector."""
    return isinstance(observations, Mapping) or is_image(observations)


def named(observations: Observations) -> dict[str, jax.Array]:
    """Every part by its name, in order; the part of a plain array is called "observation"."""
    if isinstance(observations, Mapping):
        return {name: observations[name] for name in sorted(observations)}
    return {"observation": observations}


def images(observations: Observations) -> list[str]:
    """Names of the images, of `named`."""
    return [name for name, leaf in named(observations).items() if is_image(leaf)]


def first(observations: Any) -> Any:
    """The first row of every part, (1, ...): an example for `init`."""
    return jax.tree.map(lambda leaf: leaf[:1], observations)


def rows(observations: Observations) -> tuple[int, ...]:
    """The leading axes (...): those before (O,), or before (H, W, C)."""
    leaf = next(iter(named(observations).values()))
    return tuple(leaf.shape[: -3 if is_image(leaf) else -1])
