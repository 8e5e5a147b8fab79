"""Parts of an update that run at some steps only, in one program for all steps."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


@jax.custom_batching.custom_vmap
def anywhere(predicate: jax.Array) -> jax.Array:
    """The predicate (); below a `vmap`, whether it holds for any of the mapped ones."""
    return predicate


@anywhere.def_vmap
def _reduced(axis_size: int, in_batched: list[bool], predicate: jax.Array) -> tuple[Any, bool]:
    """One predicate for all, which is not mapped any more: the branch on it stays a branch."""
    return anywhere(jnp.any(predicate) if in_batched[0] else predicate), False


def when(predicate: jax.Array, stage: Callable[[], T], otherwise: T) -> T:
    """`stage()` where the predicate () holds, else `otherwise`, a pytree of the same structure.

    `vmap` makes a select of a `lax.cond` on a mapped predicate: seeds side by side would pay for
    every stage at every step. Here the stage is skipped unless one of them needs it; it then runs
    for all, and each keeps what is its own, be their steps equal or not.
    """

    def run() -> T:
        chosen: T = jax.tree.map(
            lambda new, old: jnp.where(predicate, new, old), stage(), otherwise
        )
        return chosen

    result: T = jax.lax.cond(anywhere(predicate), run, lambda: otherwise)
    return result
