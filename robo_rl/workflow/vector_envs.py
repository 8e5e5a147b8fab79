"""The environments that an online run collects from: one here, or several in processes."""

import contextlib
import functools
import multiprocessing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from robo_rl import ends, workers
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.workflow.environment import learner_env

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.learn.online.vector import AnyEnv


@contextlib.contextmanager
def environments(
    setting: EnvSetting,
    spaces: Spaces,
    count: int,
    *,
    reward: tuple[float, float] = (1.0, 0.0),
    frames: int = 1,
) -> "Iterator[AnyEnv]":
    """One environment as learners see it, or `count` side by side; closed at any exit."""
    make = functools.partial(_make, spaces=spaces, reward=reward, frames=frames)
    if count == 1:
        with contextlib.closing(make(setting)) as one:
            yield one
        return
    if registry.only_here(setting):
        raise EnvError(
            f"environment {setting.id} is defined in the running script itself, which no other "
            f"process runs: {count} side by side need it in a module that can be imported"
        )
    with registry.prepared(setting) as ready:
        with workers.without_script():
            many = AsyncVectorEnv(
                [functools.partial(make, ready)] * count,
                context="spawn",  # JAX has threads, which a fork would not survive
                autoreset_mode=AutoresetMode.DISABLED,
            )
        try:
            yield many
        finally:
            # Not asked to close: one that failed or is within a step would not answer.
            many.close(terminate=True)


def _make(
    setting: EnvSetting, spaces: Spaces, reward: tuple[float, float], frames: int
) -> gymnasium.Env[Any, Any]:
    if multiprocessing.parent_process() is not None:
        ends.begin_worker()
    scale, shift = reward
    return learner_env(setting, spaces, reward_scale=scale, reward_shift=shift, frames=frames)
