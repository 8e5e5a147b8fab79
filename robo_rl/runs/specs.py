"""What a policy reads and does, in the terms of its environment, as an export says it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from robo_rl.data.spaces import Spaces


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """An observation: a vector, or the parts of a Dict in a row."""

    names: tuple[str, ...] = ()
    """Of every entry, if known."""
    parts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Key and shape of every part of a Dict, in the order in which they are put in a row; nested
    keys are joined by "/". Empty where the environment gives a vector."""

    @classmethod
    def of(cls, spaces: Spaces) -> "ObservationSpec":
        """Of the spaces that a run has learned from."""
        return cls(parts=spaces.observation if spaces.flattened else ())

    def describe(self, size: int) -> dict[str, Any]:
        """As `policy.json` has it, of a policy that reads `size` entries; ValueError if not so."""
        _fits("observation names", self.names, size)
        held = sum(math.prod(shape) for _, shape in self.parts)
        if self.parts and held != size:
            raise ValueError(
                f"export: the parts of the observation hold {held} entries and the policy reads "
                f"{size}: {', '.join(f'{key} {shape}' for key, shape in self.parts)}"
            )
        return {
            "size": size,
            "names": list(self.names),
            "parts": [{"key": key, "shape": list(shape)} for key, shape in self.parts],
        }


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """An action, and the bounds of the environment that -1 and 1 stand for."""

    low: tuple[float, ...] = ()
    """Of every entry; empty where it is -1."""
    high: tuple[float, ...] = ()
    """Of every entry; empty where it is 1."""
    names: tuple[str, ...] = ()
    """Of every entry, if known."""
    dtype: str = "float32"
    """Of what the environment takes."""

    @classmethod
    def of(cls, spaces: Spaces) -> "ActionSpec":
        """Of the spaces that a run has learned from."""
        return cls(spaces.low, spaces.high, dtype=spaces.action_dtype)

    def describe(self, size: int) -> dict[str, Any]:
        """As `policy.json` has it, of a policy that gives `size` numbers; ValueError if not so."""
        for name, values in (("names", self.names), ("low", self.low), ("high", self.high)):
            _fits(f"action {name}", values, size)
        low, high = (list(self.low) or [-1.0] * size), (list(self.high) or [1.0] * size)
        if not all(map(math.isfinite, [*low, *high])) or any(
            a > b for a, b in zip(low, high, strict=True)
        ):
            raise ValueError(
                f"export: actions need finite bounds, none low above high, got {low} and {high}"
            )
        return {
            "size": size,
            "names": list(self.names),
            "low": [float(value) for value in low],
            "high": [float(value) for value in high],
            "dtype": self.dtype,
        }


def _fits(what: str, values: Sequence[Any], size: int) -> None:
    if values and len(values) != size:
        raise ValueError(f"export: {len(values)} {what} for {size} entries")
