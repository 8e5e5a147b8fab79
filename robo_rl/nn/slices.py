"""Several critic steps an update: a batch of utd * B rows, cut into utd slices."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from robo_rl.nn.apply import Batch, Metrics

S = TypeVar("S")


def cut(batch: Batch, utd: int, where: str) -> Batch:
    """Rows (utd * B, ...) as consecutive slices (utd, B, ...); ValueError if they do not divide."""
    rows = batch["rewards"].shape[0]
    if rows % utd:
        raise ValueError(f"{where}: {rows} rows do not divide into utd = {utd} slices")
    slices: Batch = jax.tree.map(lambda x: x.reshape(utd, rows // utd, *x.shape[1:]), dict(batch))
    return slices


def last(slices: Batch) -> Batch:
    """The last slice (B, ...)."""
    final: Batch = jax.tree.map(lambda x: x[-1], slices)
    return final


def scan(
    step: Callable[[S, Batch, jax.Array], tuple[S, Metrics]],
    state: S,
    slices: Batch,
    key: jax.Array,
) -> tuple[S, Metrics]:
    """One `step(state, slice, key)` a slice, in order; metrics are means over the slices."""

    def body(carry: S, inputs: tuple[Batch, jax.Array]) -> tuple[S, Metrics]:
        return step(carry, *inputs)

    utd = slices["rewards"].shape[0]
    state, stacked = jax.lax.scan(body, state, (slices, jax.random.split(key, utd)))
    means: Metrics = jax.tree.map(jnp.mean, stacked)
    return state, means
