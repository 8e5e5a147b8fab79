"""The environments that an online run collects from: one here, or several in processes."""

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from robo_rl.workflow import evaluate

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.learn.online.vector import AnyEnv


@contextlib.contextmanager
def environments(env: Mapping[str, Any], count: int) -> "Iterator[AnyEnv]":
    """`evaluation.time_limited(env)`, or `count` > 1 of them side by side; closed at any exit."""
    if count == 1:
        with contextlib.closing(evaluate.time_limited(env)) as one:
            yield one
        return
    with evaluate.compiled(env) as ready:
        many = AsyncVectorEnv(
            [functools.partial(_make, ready)] * count,
            context="spawn",  # JAX has threads, which a fork would not survive
            autoreset_mode=AutoresetMode.DISABLED,
        )
        try:
            yield many
        finally:
            # Not asked to close: one that failed or is within a step would not answer.
            many.close(terminate=True)


def _make(env: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    if multiprocessing.parent_process() is not None:
        # Ctrl-C reaches all processes; the one that learns decides, and ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return evaluate.time_limited(env)
