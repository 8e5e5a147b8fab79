"""Stored rewards against those that the recovered environment gives to the stored states."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.import_ogbench import quiet
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import SHOWN, Finding, Severity

_ATOL = 1e-4


class ReplaySkippedError(Exception):
    """Rewards cannot be replayed; the text says why."""


def replay_rewards(
    dataset: Dataset,
    whole: list[tuple[int, Episode]],
    env: Any,
    *,
    samples: int,
    seed: int,
) -> list[Finding]:
    """Compare a sample of rewards, half of it where the reward changes, the rest anywhere.

    Raises ReplaySkippedError when the rewards do not come from an environment, it cannot be
    recovered, or it cannot be put into a state.
    """
    provenance = dataset.provenance
    if not samples:
        raise ReplaySkippedError("switched off")
    if provenance is not None and provenance.reward.source == "none":
        raise ReplaySkippedError("the dataset is reward-free")
    if not any("qpos" in episode.infos and "qvel" in episode.infos for _, episode in whole):
        raise ReplaySkippedError("no infos['qpos'] and infos['qvel'] to put the state from")
    after = 0 if provenance is not None and provenance.reward.timing == "pre" else 1
    with quiet():
        recovered = env if env is not None else _recover(dataset)
        try:
            return _compare(recovered, whole, after, samples, np.random.default_rng(seed))
        finally:
            if env is None:
                recovered.close()


def _recover(dataset: Dataset) -> Any:
    spec = dataset.env_spec
    if spec is None:
        raise ReplaySkippedError("the dataset names no environment")
    try:
        if spec.entry_point is None:
            return gymnasium.make(spec.id, disable_env_checker=True, **spec.kwargs)
        return gymnasium.make(spec, disable_env_checker=True)
    except Exception as error:
        raise ReplaySkippedError(f"environment {spec.id} cannot be made: {error}") from error


def _compare(
    env: Any,
    whole: list[tuple[int, Episode]],
    after: int,
    samples: int,
    rng: np.random.Generator,
) -> list[Finding]:
    env.reset(seed=0)
    reward_of_state = _reward_hook(env.unwrapped)
    wrong: list[tuple[int, int, float, float]] = []
    picked = _pick(whole, samples, rng)
    for position, step in picked:
        index, episode = whole[position]
        _set_state(env.unwrapped, episode, step + after)
        again = float(reward_of_state())
        stored = float(episode.rewards[step])
        if not abs(again - stored) <= _ATOL:
            wrong.append((index, step, stored, again))
    if not wrong:
        return []
    index, step, stored, again = wrong[0]
    return [
        Finding(
            Severity.ERROR,
            "reward_differs",
            f"stored rewards are not the environment's: {stored:g} stored, {again:g} computed "
            f"at {index}:{step}",
            len(wrong),
            len(picked),
            tuple((index, step) for index, step, _, _ in wrong[:SHOWN]),
            "relabel the rewards with the environment that will be learned, or fix the "
            "environment named in the dataset",
        )
    ]


def _reward_hook(unwrapped: Any) -> Callable[[], float]:
    hook = getattr(unwrapped, "reward_of_state", None)
    # OGBench's single-task manipulation environments compute it from the simulator's state.
    if hook is None and getattr(unwrapped, "_reward_task_id", None) is not None:
        hook = getattr(unwrapped, "compute_reward", None)
    if hook is None or not hasattr(unwrapped, "set_state"):
        raise ReplaySkippedError(
            f"{type(unwrapped).__name__} has no set_state(qpos, qvel) and reward_of_state()"
        )
    return hook  # type: ignore[no-any-return]


def _set_state(unwrapped: Any, episode: Episode, row: int) -> None:
    """`set_state` gets the infos that its parameters name."""
    parameters = inspect.signature(unwrapped.set_state).parameters.values()
    arguments = {}
    for parameter in parameters:
        if parameter.name in episode.infos:
            arguments[parameter.name] = episode.infos[parameter.name][row]
        elif parameter.default is inspect.Parameter.empty:
            raise ReplaySkippedError(
                f"{type(unwrapped).__name__}.set_state needs infos[{parameter.name!r}]"
            )
    unwrapped.set_state(**arguments)


def _pick(
    whole: list[tuple[int, Episode]], samples: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    usable = [
        (position, step)
        for position, (_, episode) in enumerate(whole)
        if "qpos" in episode.infos and "qvel" in episode.infos
        for step in range(len(episode))
    ]
    changes = [
        number
        for number, (position, step) in enumerate(usable)
        if step and whole[position][1].rewards[step] != whole[position][1].rewards[step - 1]
    ]
    near = rng.permutation(np.asarray(changes, np.int64))[: samples // 2]
    far = rng.permutation(len(usable))[: samples - len(near)]
    return [usable[number] for number in np.union1d(near, far).astype(np.int64).tolist()]
