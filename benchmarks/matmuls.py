"""What the matrix products of a function would cost alone: the limit that an update is held to."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_REPEATS = 20


class Product(NamedTuple):
    """One `dot_general`."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimension_numbers: Any

    @property
    def flops(self) -> float:
        """Two a multiply-add."""
        (contracted, _), (batched, _) = self.dimension_numbers
        shared = np.prod([self.left[k] for k in (*contracted, *batched)], dtype=float)
        return float(2.0 * np.prod(self.left, dtype=float) * np.prod(self.right, dtype=float)) / (
            float(shared)
        )


def products(function: Callable[..., Any], *arguments: Any) -> Counter[Product]:
    """Every matrix product of a call and how often it runs, from shapes alone."""
    counts: Counter[Product] = Counter()
    _count(jax.make_jaxpr(function)(*arguments).jaxpr, 1, counts)
    return counts


def _count(jaxpr: Any, times: int, counts: Counter[Product]) -> None:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            counts[Product(left, right, equation.params["dimension_numbers"])] += times
        repeated = times * equation.params.get("length", 1)
        for inner in _inner(equation.params):
            _count(inner, repeated, counts)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def seconds_of(product: Product) -> float:
    """Time of one such product, the best of several rounds of many in one program."""
    key = jax.random.key(0)
    lefts = jax.random.normal(key, (2, *product.left))  # few, so that they stay in the cache
    right = jax.random.normal(key, product.right)

    @jax.jit
    def run(lefts: jax.Array, right: jax.Array) -> jax.Array:
        def one(number: int, total: jax.Array) -> jax.Array:
            out = jax.lax.dot_general(lefts[number % 2], right, product.dimension_numbers)
            return total + jnp.sum(out)  # all of it is read, or XLA computes a part

        return jax.lax.fori_loop(0, _REPEATS, one, jnp.zeros(()))

    run(lefts, right).block_until_ready()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        run(lefts, right).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best / _REPEATS
