"""What a policy reads and does, in the terms of its environment: kept by runs and by exports."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """An observation: a vector, or the parts of a Dict in a row."""

    names: tuple[str, ...] = ()
    """Of every entry, if known."""
    parts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Key and shape of every part of a Dict, in the order in which they are put in a row; nested
    keys are joined by "/". Empty where the environment gives a vector."""
    dtype: str = "float32"
    """Of what the environment gives."""
    frames: int = 1
    """How many of the newest observations stand in the vector, the oldest first."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"ObservationSpec.frames must be >= 1, got {self.frames}")

    @classmethod
    def of_parts(
        cls, parts: Mapping[str, Sequence[int]], dtype: str = "float32"
    ) -> "ObservationSpec":
        """Of a Dict's keys and shapes, in their order."""
        shapes = tuple((key, tuple(map(int, shape))) for key, shape in parts.items())
        return cls(parts=shapes, dtype=dtype)

    def describe(self, size: int) -> dict[str, Any]:
        """As `policy.json` has it, of a policy that reads `size` entries; ValueError if not so."""
        _fits("observation names", self.names, size)
        held = sum(math.prod(shape) for _, shape in self.parts) * self.frames
        if self.parts and held != size:
            raise ValueError(
                f"export: the parts of the observation hold {held} entries and the policy reads "
                f"{size}: {', '.join(f'{key} {shape}' for key, shape in self.parts)}"
            )
        return {
            "size": size,
            "names": list(self.names),
            "parts": [{"key": key, "shape": list(shape)} for key, shape in self.parts],
            "dtype": self.dtype,
            "frames": self.frames,
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

    def describe(self, size: int) -> dict[str, Any]:
        """As `policy.json` has it, of a policy that gives `size` numbers; ValueError if not so."""
        for name, values in (("names", self.names), ("low", self.low), ("high", self.high)):
            _fits(f"action {name}", values, size)
        low, high = (list(self.low) or [-1.0] * size), (list(self.high) or [1.0] * size)
        if not all(map(math.isfinite, [*low, *high])) or any(
            a >= b for a, b in zip(low, high, strict=True)
        ):
            raise ValueError(
                f"export: actions need finite bounds with low below high, got {low} and {high}"
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
