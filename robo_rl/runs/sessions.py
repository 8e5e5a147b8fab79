"""A loop in a run directory: fresh, or resumed from its newest checkpoint."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from robo_rl.learn.contract import State
from robo_rl.runs import trees
from robo_rl.runs.checkpoints import CheckpointError
from robo_rl.runs.directory import RunDirectory

Progress = Callable[[int, Mapping[str, float]], None]

_SCORE = "success"
"""The metric by which the best checkpoint is kept, where it was measured."""


class Session:
    """The monitor of one loop: its metrics and checkpoints go to a run directory.

    Nobody else writes there from `with` to its end, which lets others have the run again.

        with Session(run, progress=bar) as session:
            start = session.newest(template) if resume else None
            offline.train(agent, config, rows, loop, monitor=session, start=start)
    """

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress | None = None,
        data_ids: tuple[str, ...] = (),
    ):
        """`progress` hears the metrics too; `data_ids` name the data behind the normaliser."""
        self._run, self._progress, self._data_ids = run, progress, data_ids
        self._scores: dict[int, float] = {}
        self._last = (0, time.monotonic())

    def __enter__(self) -> Self:
        self._run.claim()
        return self

    def __exit__(self, *_: object) -> None:
        self._run.close()

    def newest(self, template: Any, *, fallback: bool = False) -> tuple[int, Any] | None:
        """(step, tree) of the newest checkpoint, from which the metrics go on.

        None where the run was killed before its first: it starts again, with no metrics. With
        `fallback`, a damaged checkpoint gives way to the one before it.
        """
        if not self._run.checkpoints.steps():
            self._run.metrics.rewind(0, -1)
            return None
        step, tree, _ = self._run.resume(template, fallback=fallback)
        self._last = (step, time.monotonic())
        return step, tree

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log, time and pass on."""
        self._run.metrics.write(step, values)
        if _SCORE in values:
            self._scores = {step: values[_SCORE]}
        now = time.monotonic()
        rate = (step - self._last[0]) / max(now - self._last[1], 1e-9)
        self._last = (step, now)
        self._run.note_timing({"step": step, "steps_per_s": rate})
        if self._progress is not None:
            self._progress(step, values)

    def checkpoint(self, step: int, snapshot: Any) -> None:
        """Save."""
        meta = {"normaliser_data": list(self._data_ids)}
        self._run.save(step, snapshot, self._scores.get(step), **meta)


def online_template(state: State) -> dict[str, Any]:
    """What an online checkpoint looks like, for `RunDirectory.restore`."""
    return {"agent": state, "buffer": trees.Rest(), "counters": np.zeros(3, np.int64)}


def load_agent(run: RunDirectory, template: State, step: int | None = None) -> State:
    """The agent's state out of an offline or an online checkpoint; newest by default."""
    number = run.checkpoints.latest() if step is None else step
    arrays, _ = run.checkpoints.read(number)
    if "counters" in arrays:  # an online snapshot
        arrays = {
            name.removeprefix("agent/"): value
            for name, value in arrays.items()
            if name.startswith("agent/")
        }
    try:
        return trees.unflatten(template, arrays)
    except ValueError as error:
        raise CheckpointError(
            f"{run.checkpoints.path(number)} does not hold the state that its config describes: "
            f"{error}"
        ) from error
