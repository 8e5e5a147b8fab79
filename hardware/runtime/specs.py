"""What a policy reads and what it does, in the terms of its environment."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rl.hardware.runtime.files import PolicyError


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """A vector of `size` entries, which may be the parts of a Dict observation in a row."""

    size: int
    """O"""
    names: tuple[str, ...] = ()
    """Of every entry, if known."""
    parts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Key and shape of every part of a Dict observation, in order; empty where it is a vector.
    Nested keys are joined by "/"."""

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> "ObservationSpec":
        """Of `policy.json`'s "observation"; of format 1 too."""
        parts = tuple((str(p["key"]), tuple(map(int, p["shape"]))) for p in about.get("parts", ()))
        size = int(about["size"])
        if parts and sum(math.prod(shape) for _, shape in parts) != size:
            raise PolicyError(f"the parts of an observation do not add up to its {size} entries")
        return cls(size, _names(about, size), parts)

    def flatten(self, observation: Mapping[str, Any]) -> np.ndarray:
        """A Dict observation, whose parts may have leading axes (..., *shape), as (..., O)."""
        if not self.parts:
            raise ValueError(
                f"NumpyPolicy: it reads a vector (..., {self.size}), got a Dict of "
                f"{', '.join(map(str, observation)) or 'nothing'}"
            )
        rows = [self._part(observation, key, shape) for key, shape in self.parts]
        return np.concatenate(rows, axis=-1)

    def _part(self, observation: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
        found: Any = observation
        for name in key.split("/") if key not in observation else (key,):
            if not isinstance(found, Mapping) or name not in found:
                raise ValueError(
                    f"NumpyPolicy: the observation lacks {key!r}; it must have "
                    f"{', '.join(k for k, _ in self.parts)}"
                )
            found = found[name]
        value = np.asarray(found)
        leading = value.shape[: value.ndim - len(shape)]
        if value.shape != (*leading, *shape):
            raise ValueError(
                f"NumpyPolicy: observation[{key!r}] must be (..., {', '.join(map(str, shape))}), "
                f"got {value.shape}"
            )
        return value.reshape(*leading, -1)


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """An action of `size` numbers, and the bounds that -1 and 1 stand for."""

    size: int
    """A"""
    low: np.ndarray  # (A,) float64
    high: np.ndarray
    names: tuple[str, ...] = ()
    dtype: str = "float32"
    """Of what the environment takes."""
    chunk: int = 1
    """H, the actions that are computed at once."""

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> "ActionSpec":
        """Of `policy.json`'s "action"; of format 1 too, whose bounds are two numbers."""
        size, chunk = int(about["size"]), int(about.get("chunk", 1))
        if size < 1 or chunk < 1:
            raise PolicyError(f"action: size {size} and chunk {chunk}, both must be >= 1")
        bounds = []
        for name, default in (("low", -1.0), ("high", 1.0)):
            bound = np.asarray(about.get(name, default), np.float64)
            if bound.shape not in ((), (size,)) or not np.isfinite(bound).all():
                raise PolicyError(f"action: {name} must be {size} finite numbers, got {bound}")
            bounds.append(np.broadcast_to(bound, (size,)).copy())
        low, high = bounds
        if not (low <= high).all():
            raise PolicyError(f"action: low must not be above high, got {low} and {high}")
        dtype = np.dtype(str(about.get("dtype", "float32")))
        if dtype.kind != "f":
            raise PolicyError(f"action: dtype must be one of floats, got {dtype}")
        return cls(size, low, high, _names(about, size), dtype.name, chunk)

    def scaled(self, action: np.ndarray) -> np.ndarray:
        """Actions (..., A) in [-1, 1] as the environment takes them: -1 is low and 1 is high.

        In float64, exact at both ends, and then of the environment's type.
        """
        if (self.low == -1.0).all() and (self.high == 1.0).all():
            return np.asarray(action, self.dtype)
        share = (np.asarray(action, np.float64) + 1.0) / 2.0
        # Not low + share * span: at the ends the bounds come out exactly.
        between = self.low * (1.0 - share) + self.high * share
        out: np.ndarray = np.clip(between, self.low, self.high).astype(self.dtype)
        return out


def _names(about: Mapping[str, Any], size: int) -> tuple[str, ...]:
    names = tuple(map(str, about.get("names", ())))
    if names and len(names) != size:
        raise PolicyError(f"{len(names)} names for {size} entries")
    return names
