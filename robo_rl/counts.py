"""Counts and seeds that people give: looked at before anything is made."""

from typing import Any

from robo_rl.fields import check_count

_LEAST = {"seed": 0, "evaluate_every": 0, "workers": 0}
_SEEDS = 2**32
"""JAX takes 32 bits of a seed: beyond, one that differs would draw the same."""


def check(**given: Any) -> None:
    """Raise ValueError for a count that is not whole or too small, named as argument and flag.

    A count is 1 at least; a seed, `evaluate_every` and `workers` may be 0.
    """
    for name, value in given.items():
        told = f"{name} (--{name.replace('_', '-')})"
        check_count(told, value, _LEAST.get(name, 1))
        if name == "seed" and value >= _SEEDS:
            raise ValueError(f"{told} must be < {_SEEDS}, got {value}")
