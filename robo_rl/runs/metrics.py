"""Metrics as JSON lines and TensorBoard. Only what a resumed run repeats exactly goes in here."""

import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Mapping

from robo_rl import files
from robo_rl.runs.tensorboard import EventFile

_log = logging.getLogger(__name__)


class MetricsLog:
    """`metrics.jsonl`, one flushed line a report; and the same numbers for TensorBoard."""

    def __init__(
        self, path: pathlib.Path, tensorboard: pathlib.Path, claim: Callable[[], None] | None = None
    ):
        """Opens nothing; the files are made by the first `write`. `claim` comes before any."""
        self._claim = claim if claim is not None else _nothing
        self._path = path
        self._tensorboard = tensorboard
        self._events: EventFile | None = None
        self._warned = False
        self._purge_step: int | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        self._claim()
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            raise ValueError(f"{self._path}: step {step}: not finite: {', '.join(sorted(wrong))}")
        line = files.dumps({"step": step, **values}) + "\n"
        files.append(self._path, line)
        try:
            if self._events is None:
                self._events = EventFile(self._tensorboard, self._purge_step)
            self._events.write(step, values)
        except OSError as error:  # the metrics themselves are written, and `resume` needs no more
            if not self._warned:
                _log.warning("TensorBoard will lack step %s and others: %s", step, error)
            self._warned = True

    def position(self) -> int:
        """Bytes on the disk by now, for a checkpoint to remember."""
        if not self._path.exists():
            return 0
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def rewind(self, position: int, step: int) -> None:
        """Drop what was written after a checkpoint: lines past `position`, steps past `step`."""
        self._claim()
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < position:
            raise ValueError(
                f"{self._path} has {size} bytes, the checkpoint was taken at {position}: lines are "
                "missing; restore the file from a copy or start a new run"
            )
        if size:
            with self._path.open("rb+") as file:
                file.truncate(position)
        self._purge_step = step + 1

    def close(self) -> None:
        """End the TensorBoard file: a later `write` begins another. Idempotent."""
        self._events = None


def _nothing() -> None:
    """Without a run directory there is nothing to claim."""


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """All whole lines; a last line that a kill cut short is left out."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(
                isinstance(value, int | float) for value in row.values()
            ):
                raise ValueError("it is not an object of numbers")
            rows.append(row)
        except ValueError as error:
            raise ValueError(
                f"{path}:{number} is damaged: {error}; restore the file from a copy"
            ) from error
    return rows
