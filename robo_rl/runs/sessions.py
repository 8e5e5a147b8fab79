"""A loop in a run directory: fresh, or resumed from its newest checkpoint."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robo_rl.learn import offline as offline_loop
from robo_rl.learn import online as online_loop
from robo_rl.learn.batches import Transitions
from robo_rl.learn.contract import Agent, State
from robo_rl.learn.controllers import Controller
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.online.vector import AnyEnv
from robo_rl.learn.recipes import Recipe
from robo_rl.runs import trees
from robo_rl.runs.checkpoints import CheckpointError
from robo_rl.runs.directory import RunDirectory

Evaluate = Callable[[State], Mapping[str, float]]
Progress = Callable[[int, Mapping[str, float]], None]


class DirectoryMonitor:
    """Metrics and checkpoints of a loop go to a run directory; `progress` hears the metrics too."""

    def __init__(
        self, run: RunDirectory, first_step: int, score: str, progress: Progress | None, **meta: Any
    ):
        """`score` is the metric by which the best checkpoint is kept, where it was measured."""
        self._run, self._score, self._progress, self._meta = run, score, progress, meta
        self._scores: dict[int, float] = {}
        self._last = (first_step, time.monotonic())

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log, time and pass on."""
        self._run.metrics.write(step, values)
        if self._score in values:
            self._scores = {step: values[self._score]}
        now = time.monotonic()
        rate = (step - self._last[0]) / max(now - self._last[1], 1e-9)
        self._last = (step, now)
        self._run.note_timing({"step": step, "steps_per_s": rate})
        if self._progress is not None:
            self._progress(step, values)

    def checkpoint(self, step: int, snapshot: Any) -> None:
        """Save."""
        self._run.save(step, snapshot, self._scores.get(step), **self._meta)


def train(
    run: RunDirectory,
    agent: Agent,
    config: Any,
    transitions: Transitions,
    loop: OfflineLoop,
    *,
    teacher: Controller | None = None,
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    data_ids: tuple[str, ...] = (),
    resume: bool = False,
    fallback: bool = False,
) -> State:
    """Offline training in a run directory. `data_ids` name the data behind the normaliser."""
    start = None
    if resume and run.checkpoints.steps():
        template = offline_loop.initial_state(agent, config, transitions, loop)
        step, state, _ = run.resume(template, fallback=fallback)
        start = (step, state)
    elif resume:
        run.metrics.rewind(0, -1)  # killed before the first checkpoint: start again
    monitor = DirectoryMonitor(
        run, start[0] if start else 0, "success", progress, normaliser_data=list(data_ids)
    )
    try:
        return offline_loop.train(
            agent,
            config,
            transitions,
            loop,
            teacher=teacher,
            monitor=monitor,
            evaluate=evaluate,
            start=start,
        )
    finally:
        run.metrics.close()


def finetune(
    run: RunDirectory,
    agent: Agent,
    config: Any,
    env: AnyEnv,
    recipe: Recipe,
    loop: OnlineLoop,
    state: State,
    *,
    offline: Transitions | None = None,
    teacher: Controller | None = None,
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    data_ids: tuple[str, ...] = (),
    resume: bool = False,
    fallback: bool = False,
) -> State:
    """Online finetuning in a run directory. `state` is that of step 0, also when resuming."""
    snapshot = None
    first = 0
    if resume and run.checkpoints.steps():
        first, snapshot, _ = run.resume(online_template(state), fallback=fallback)
    elif resume:
        run.metrics.rewind(0, -1)
    monitor = DirectoryMonitor(run, first, "success", progress, normaliser_data=list(data_ids))
    try:
        return online_loop.finetune(
            agent,
            config,
            env,
            recipe,
            loop,
            state,
            offline=offline,
            teacher=teacher,
            monitor=monitor,
            evaluate=evaluate,
            snapshot=snapshot,
        )
    finally:
        run.metrics.close()


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
