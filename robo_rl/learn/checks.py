"""What the loops refuse before anything is compiled, one sentence each: configs and arrays.

For a loop of one's own: `check_batch` says of one batch, outside of `jit`, what the loops here say
of all data.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import flax.errors
import jax
import numpy as np

from robo_rl.data.frames import FrameStack
from robo_rl.learn.batches import BATCH_KEYS, ROLLOUT_KEYS, Transitions
from robo_rl.learn.contract import Agent, State, name_of, needs
from robo_rl.nn.observations import is_image, named, structured

F = TypeVar("F", bound=Callable[..., Any])

COMMON = ("observations", "actions", "rewards", "next_observations", "masks")
"""What every batch has."""
EPISODES = ("episode_id", "terminated", "truncated")
"""What tells which rows are an episode, for whatever spans several steps."""
ONLINE = ("observations", "actions", "rewards", "next_observations", *EPISODES)
"""What the online loop keeps of offline rows."""

_ACTIONS = ("actions", "next_actions", "teacher_actions")
_SCALARS = ("rewards", "masks", "discounts", "returns", *EPISODES)
_SHARES = ("masks", "discounts", "valid", "expert", "succeeded", "ends", "offline")
"""What is a yes or no, or a factor on what comes later."""
_SLACK = 1e-4
"""Rounding of actions that were scaled."""
_BLOCK = 100_000
"""Rows looked at together: no copy of all data is made."""
_LARGEST = float(np.finfo(np.float32).max)
"""Agents read float32; what is larger becomes infinite."""


def check_observations(agent: Agent, observations: Any) -> None:
    """ValueError where an agent that reads vectors only is given `readable` images or a dict."""
    if agent.CAPABILITIES.images or not structured(observations):
        return
    parts = ", ".join(
        f"{name} {'(an image)' if is_image(part) else '(a vector)'}"
        for name, part in named(observations).items()
    )
    able = sorted(name for name, other in _siblings(agent).items() if other.CAPABILITIES.images)
    raise ValueError(
        f"{name_of(agent)} reads one vector (O,), the observations are {parts}; "
        f"give it a vector, or use an agent that reads images: {', '.join(able) or 'none here'}"
    )


def _siblings(agent: Agent) -> Mapping[str, Agent]:
    """The agents of the package that this one is in; this room imports none of them."""
    package = sys.modules.get(agent.__name__.rpartition(".")[0])
    found: Mapping[str, Agent] = vars(package).get("AGENTS", {}) if package else {}
    return found


def check_offline(agent: Agent) -> None:
    """Raise ValueError for an agent that cannot learn without the online loop."""
    rollout = [key for key in needs(agent) if key in ROLLOUT_KEYS]
    if rollout:
        raise ValueError(
            f"{name_of(agent)} learns from rollouts of its own policy, and a "
            f"dataset has no {', '.join(rollout)}; train another agent on it and finetune that "
            "with a recipe that has a rollout"
        )


def check_config(agent: Agent, config: Any) -> None:
    """Raise ValueError for the config of another agent, and for a name in an agent's place."""
    needs(agent)  # a name has none
    if not isinstance(config, agent.Config):
        kind = type(config)
        owner = kind.__module__.rpartition(".")[2]
        raise ValueError(
            f"{name_of(agent)} takes a {name_of(agent)}.Config, "
            f"got {'None' if config is None else f'a {owner}.{kind.__qualname__}'}"
        )


def check_batch(agent: Agent, config: Any, batch: Transitions) -> None:
    """Raise ValueError where `agent.update` cannot learn from a batch, or would learn nonsense."""
    check_transitions(agent, config, batch, (*COMMON, *needs(agent)))


def check_transitions(
    agent: Agent, config: Any, transitions: Transitions, keys: Iterable[str] = COMMON
) -> None:
    """Raise ValueError for another agent's config, and for arrays that cannot be learned from.

    Those are missing `keys`, lengths that differ, shapes, numbers that are not finite, actions
    outside [-1, 1], and masks and the like outside [0, 1].
    """
    check_config(agent, config)
    name = name_of(agent)
    missing = [key for key in keys if key not in transitions]
    if missing:
        raise ValueError(
            f"{name} learns from transitions with {', '.join(keys)}: these lack "
            f"{_listed(missing)}; they have {', '.join(transitions) or 'none'}"
        )
    parts = dict(_parts(transitions))
    _check_lengths(name, parts)
    _check_shapes(name, transitions, parts)
    _check_values(name, parts)


def validated(function: F) -> F:
    """`init` or `update` of an agent, which answers what it cannot work on in a sentence.

    ValueError for the config of another agent, a missing key, and arrays whose lengths or shapes do
    not fit; from `init` outside of `jit` also for the numbers that `check_batch` refuses. Shapes
    are looked at while the function is traced: a compiled one loses no time.
    """
    signature = inspect.signature(function)
    config_name, _, batch_name = list(signature.parameters)[:3]
    kind = signature.parameters[config_name].annotation
    home = function.__module__.rpartition(".")[2]

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs).arguments
        config, batch = bound[config_name], bound[batch_name]
        if dataclasses.is_dataclass(kind) and not isinstance(config, kind):  # type: ignore[arg-type]
            given = type(config)
            owner = given.__module__.rpartition(".")[2]
            raise ValueError(
                f"{home}.{function.__name__} takes the Config of {home}, "
                f"got {'None' if config is None else f'{owner}.{given.__qualname__}'}"
            )
        _check_arrays(home, batch, values=function.__name__ == "init")
        try:
            return function(*args, **kwargs)
        except KeyError as error:
            key = error.args[0]
            if key not in BATCH_KEYS or key in batch:
                raise
            raise ValueError(f"{home}: {_lacks(batch, (key,))}") from error

    return checking  # type: ignore[return-value]


def _check_arrays(name: str, batch: Any, values: bool) -> None:
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"{name} learns from a dict of arrays (robo_rl.learn.batches), got {type(batch)}"
        )
    lacking = [key for key in ("observations", "actions") if key not in batch]
    if lacking:
        raise ValueError(f"{name}: {_lacks(batch, lacking)}")
    parts = dict(_parts(batch))
    _check_lengths(name, parts)
    _check_shapes(name, batch, parts)
    if not values or any(isinstance(part, jax.core.Tracer) for part in parts.values()):
        return
    # NumPy's: within another function's trace, a slice of JAX's would be traced too.
    _check_values(name, {part: np.asarray(value) for part, value in parts.items()})


def _check_values(name: str, parts: Mapping[str, Any]) -> None:
    for part, value in parts.items():
        _check_numbers(name, part, value)
        if part in _SHARES:
            _check_share(name, part, value)
    for key in _ACTIONS:
        if key in parts:
            _check_bounds(name, key, parts[key])


def _listed(missing: Sequence[str]) -> str:
    hint = " (masks are 1 - terminated)" if "masks" in missing else ""
    return f"{', '.join(missing)}{hint}"


def _lacks(transitions: Transitions, missing: Sequence[str]) -> str:
    return f"the batch lacks {_listed(missing)}; it has {', '.join(transitions) or 'nothing'}"


def _check_lengths(name: str, parts: Mapping[str, Any]) -> None:
    lengths = {part: _rows(value) for part, value in parts.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise ValueError(
            f"{name}: all arrays of the transitions must have the same length > 0, got {lengths}"
        )


def check_widths(agent: Agent, transitions: Transitions, zeros: Any, action_width: int) -> None:
    """Raise ValueError where offline rows do not fit an environment's observation and actions."""
    here, there = _shapes(transitions["observations"], 1), _shapes(zeros, 0)
    if here != there:
        raise ValueError(
            f"{name_of(agent)}: the offline observations are {_shown(here)}, those of the "
            f"environment {_shown(there)}"
        )
    width = np.shape(transitions["actions"])[-1]
    if width != action_width:
        raise ValueError(
            f"{name_of(agent)}: the offline actions have {width} numbers, the environment "
            f"takes {action_width}"
        )


def check_reads(agent: Agent, config: Any, state: State, zeros: Any) -> None:
    """Raise ValueError where a state cannot act on an observation such as `zeros`.

    Only shapes are traced, nothing is computed.
    """
    check_config(agent, config)
    key = jax.random.key(0)
    try:
        jax.eval_shape(lambda state, obs: agent.act(config, state, obs, key), state, zeros)
    except (TypeError, ValueError, KeyError, flax.errors.FlaxError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{name_of(agent)}: this state does not read observations "
            f"{_shown(_shapes(zeros, 0))}, as the environment shows them: {why}"
        ) from error


def _parts(transitions: Transitions) -> Iterator[tuple[str, Any]]:
    """Every array that a loop reads, by a name for messages."""
    for key in dict.fromkeys((*COMMON, *BATCH_KEYS, *EPISODES)):
        value = transitions.get(key)
        if isinstance(value, Mapping):
            for name, part in value.items():
                yield f"{key}/{name}", part
        elif value is not None:
            yield key, value


def _rows(value: Any) -> int:
    shape = np.shape(value) if not isinstance(value, FrameStack) else value.shape
    return int(shape[0]) if shape else 0


def _shapes(observations: Any, lead: int) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(part.shape if isinstance(part, FrameStack) else np.shape(part))[lead:]
        for name, part in named(observations).items()
    }


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if list(shapes) == ["observation"]:
        return f"of shape {shapes['observation']}"
    return ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())


def _check_shapes(name: str, transitions: Transitions, parts: Mapping[str, Any]) -> None:
    for part, value in parts.items():
        shape = np.shape(value) if not isinstance(value, FrameStack) else value.shape
        if part in _SCALARS and len(shape) != 1:
            raise ValueError(f"{name}: {part} must be one number a row, (N,), got shape {shape}")
        if part in _ACTIONS and len(shape) != 2:
            raise ValueError(f"{name}: {part} must be vectors, (N, A), got shape {shape}")
        if "observations" in part and len(shape) not in (2, 4):
            raise ValueError(
                f"{name}: {part} must be vectors, (N, O), or images of bytes, (N, H, W, C), got "
                f"shape {shape}"
            )
    if "next_observations" in transitions:
        now, later = (_shapes(transitions[f"{k}observations"], 1) for k in ("", "next_"))
        if now != later:
            raise ValueError(
                f"{name}: observations are {_shown(now)}, next_observations {_shown(later)}"
            )
    if "next_actions" in parts and np.shape(parts["actions"]) != np.shape(parts["next_actions"]):
        raise ValueError(
            f"{name}: actions are {np.shape(parts['actions'])}, "
            f"next_actions {np.shape(parts['next_actions'])}"
        )


def _blocks(value: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, (B, ...)) of an array, a block at a time."""
    for start in range(0, _rows(value), _BLOCK):
        yield start, np.asarray(value[start : start + _BLOCK])


def _check_numbers(name: str, part: str, value: Any) -> None:
    if isinstance(value, FrameStack):
        return
    kind = np.asarray(value[:1]).dtype.kind
    if kind not in "fiub":
        raise ValueError(f"{name}: {part} must be numbers, got {np.asarray(value[:1]).dtype}")
    if kind != "f":
        return
    bad = 0
    first = -1
    for start, block in _blocks(value):
        wrong = ~(np.abs(block.reshape(len(block), -1)) <= _LARGEST).all(axis=1)
        if wrong.any():
            first = start + int(wrong.argmax()) if not bad else first
            bad += int(wrong.sum())
    if bad:
        raise ValueError(
            f"{name}: {part} must be finite as float32: {bad} of {_rows(value)} rows are not, the "
            f"first is row {first}; mend them or leave their episodes out"
        )


def _check_share(name: str, part: str, value: Any) -> None:
    bad, first = 0, -1
    for start, block in _blocks(value):
        wrong = ((block < 0.0) | (block > 1.0)).reshape(len(block), -1).any(axis=1)
        if wrong.any():
            first = start + int(wrong.argmax()) if not bad else first
            bad += int(wrong.sum())
    if bad:
        hint = " (masks are 1 - terminated)" if part == "masks" else ""
        raise ValueError(
            f"{name}: {part} must be in [0, 1]{hint}: {bad} of {_rows(value)} rows are not, the "
            f"first is row {first}: {np.asarray(value[first]).tolist()}"
        )


def _check_bounds(name: str, part: str, value: Any) -> None:
    bad, first, largest = 0, -1, 0.0
    for start, block in _blocks(value):
        reach = np.abs(block).max(axis=1, initial=0.0)
        wrong = reach > 1.0 + _SLACK
        if wrong.any():
            first = start + int(wrong.argmax()) if not bad else first
            bad += int(wrong.sum())
            largest = max(largest, float(reach.max()))
    if bad:
        raise ValueError(
            f"{name}: {part} must be in [-1, 1]: {bad} of {_rows(value)} rows are not, the first "
            f"is row {first}, the largest number {largest:g}; scale them by their bounds "
            "(robo_rl.data.spaces)"
        )
