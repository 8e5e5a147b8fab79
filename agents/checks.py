"""Range checks that the configs share."""

import math


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


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """`value` must be one of `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def subset(name: str, value: int, size: int) -> None:
    """`value` members are drawn out of `size`."""
    if not 1 <= value <= size:
        raise ValueError(f"{name} must be in [1, {size}], got {value}")
