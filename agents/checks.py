"""Checks that the configs share: of kinds, then of ranges."""

import math
from collections.abc import Collection

from robo_rl.fields import check_fields


def owner(config: object) -> str:
    """How messages call the class of a config: the agent it is of, also where it is inherited."""
    return f"{type(config).__module__.rpartition('.')[2]}.Config"


def kinds(config: object) -> None:
    """Every field must hold what its type says: counts and steps are whole, switches are bools."""
    check_fields(config, owner(config))


def positive(name: str, value: float) -> None:
    """`value` must be finite and > 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and > 0, got {value}")


def not_negative(name: str, value: float) -> None:
    """`value` must be finite and >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value}")


def fraction(name: str, value: float) -> None:
    """`value` must be in (0, 1]."""
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{name} must be in (0, 1], got {value}")


def inside(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """`value` must be in (low, high)."""
    if not low < value < high:
        raise ValueError(f"{name} must be in ({low:g}, {high:g}), got {value}")


def unit(name: str, value: float) -> None:
    """`value` must be in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """`value` must be one of `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def subset(name: str, value: int, size: int) -> None:
    """`value` members are drawn out of `size`."""
    if not 1 <= value <= size:
        raise ValueError(f"{name} must be in [1, {size}], got {value}")


def needed(
    name: str,
    keys: Collection[str],
    needs: tuple[str, ...],
    way_out: str = "`robo_rl.learn.batches` says which loop supplies that from what",
) -> None:
    """A batch must have the keys that the agent `name` needs beyond the common ones."""
    lacking = [key for key in needs if key not in keys]
    if lacking:
        raise ValueError(f"{name}.init: the batch lacks {', '.join(lacking)}; {way_out}")
