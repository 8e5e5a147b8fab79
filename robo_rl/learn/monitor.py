"""Where the loops report to, and how they stop when a loss is no longer finite."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

_SHOWN = 8


class Monitor(Protocol):
    """Receives what a loop produces. `step` counts updates offline and env steps online."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers that belong to everything since the last call; also the sign of progress."""

    def checkpoint(self, step: int, snapshot: Any) -> None:
        """A pytree from which the loop can go on. Its arrays are valid only during the call."""


class Silent:
    """A monitor that keeps nothing."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Drop them."""

    def checkpoint(self, step: int, snapshot: Any) -> None:
        """Drop it."""


class NonFiniteLoss(FloatingPointError):
    """Training made a number that is not finite. Checkpoints before `step` are untouched."""

    def __init__(
        self, step: int, terms: Sequence[str], rows: np.ndarray, batch: Mapping[str, np.ndarray]
    ):
        """`rows` are the numbers of the batch's rows in the data, `batch` the rows themselves."""
        self.step = step
        self.terms = tuple(terms)
        self.rows = rows
        super().__init__(
            f"update {step}: {', '.join(terms)} not finite. {_describe(rows, batch)} "
            "The last checkpoint is from before this update."
        )


def _describe(rows: np.ndarray, batch: Mapping[str, np.ndarray]) -> str:
    """Which rows of which array brought the number in, if the data did."""
    for key, value in _parts(batch).items():
        bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
        if bad.any():
            return f"The batch's {key} are not finite in rows {_first(rows[bad])} of the data."
    return f"Its batch was finite: rows {_first(rows)} of the data; lower the learning rate."


def _parts(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    parts: dict[str, np.ndarray] = {}
    for key, value in batch.items():
        if isinstance(value, Mapping):
            parts |= {f"{key}/{name}": part for name, part in _parts(value).items()}
        else:
            parts[key] = np.asarray(value)
    return parts


def _first(rows: np.ndarray) -> str:
    text = ", ".join(str(row) for row in rows[:_SHOWN].tolist())
    return f"[{text}{', ...' if len(rows) > _SHOWN else ''}] ({len(rows)})"
