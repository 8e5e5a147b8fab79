"""Counts and seeds that people give: looked at before anything is made."""

import operator
from typing import Any

_LEAST = {"seed": 0, "evaluate_every": 0, "workers": 0}
_SEEDS = 2**32
"""JAX takes 32 bits of a seed: beyond, one that differs would draw the same."""


def check(**given: Any) -> None:
    """Raise ValueError for a count that is not whole or too small, named as its flag is.

    A count is 1 at least; a seed, `evaluate_every` and `workers` may be 0.
    """
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        whole(flag, value, _LEAST.get(name, 1))
        if name == "seed" and value >= _SEEDS:
            raise ValueError(f"{flag} must be < {_SEEDS}, got {value}")


def whole(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless a number is whole, of Python's or NumPy's, and `least` or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be >= {least}, got {number}")
