"""Episodes as flat arrays with one row per step: what learners and replay buffers eat."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.frames import FrameStack, history

Transitions = dict[str, Arrays]
"""Batch keys of the design plus `terminated`, `truncated` and `episode_id`; all share N rows."""

_CHECKED_AT_ONCE = 1024


def flatten_episodes(
    episodes: Sequence[Episode], *, next_actions: bool = False, infos: Sequence[str] = ()
) -> Transitions:
    """N transitions of all episodes in order.

    Numbers become float32 (images stay uint8, discrete actions int32). `masks` is 1 - terminated: a
    truncated step keeps its bootstrap. `next_actions` holds the action that followed; the last
    step of an episode repeats its own, which counts only where that step was truncated. Each name
    in `infos` adds `<name>` and `next_<name>`, the rows before and after the step, as recorded.
    """
    if not episodes:
        raise ValueError("flatten_episodes: needs at least one episode, got none")
    for index, episode in enumerate(episodes):
        episode.validate(f"episode {index}")
        missing = [name for name in infos if name not in episode.infos]
        if missing:
            raise ValueError(
                f"episode {index}: no infos {missing}; it has {sorted(episode.infos) or 'none'}"
            )
    actions = [as_numbers(episode.actions) for episode in episodes]
    terminated = np.concatenate([episode.terminations for episode in episodes])
    lengths = [len(episode) for episode in episodes]
    out: Transitions = {
        "observations": _states(episodes, slice(None, -1)),
        "actions": np.concatenate(actions),
        "rewards": np.concatenate([e.rewards for e in episodes]).astype(np.float32),
        "next_observations": _states(episodes, slice(1, None)),
        "terminated": terminated,
        "truncated": np.concatenate([episode.truncations for episode in episodes]),
        "masks": 1.0 - terminated.astype(np.float32),
        "episode_id": np.repeat(np.arange(len(episodes), dtype=np.int32), lengths),
    }
    if next_actions:
        out["next_actions"] = following_actions(out)
    for name in infos:
        out[name] = np.concatenate([episode.infos[name][:-1] for episode in episodes])
        out[f"next_{name}"] = np.concatenate([episode.infos[name][1:] for episode in episodes])
    return out


def as_numbers(array: np.ndarray) -> np.ndarray:
    """float32 for reals, int32 for wider integers; uint8 and bool as they are."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        return array.astype(np.int32, copy=False)
    return array


def stack_frames(transitions: Mapping[str, Arrays], length: int) -> Transitions:
    """Transitions whose images are the last `length` = k frames of their episode, (H, W, k * C).

    Images are arrays of bytes (N, H, W, C) among observations and next observations; they become
    `FrameStack`s on one copy of every frame, so that memory does not grow with k. Rows must follow
    each other within an episode: raises ValueError where one does not begin as the last one ended.
    """
    ends = episode_ends(transitions)
    before, after = history(ends, length)
    now, later = (
        parts if isinstance(parts, Mapping) else {"observations": parts}
        for parts in (transitions["observations"], transitions["next_observations"])
    )
    pairs: dict[str, tuple[Any, Any]] = {name: (now[name], later[name]) for name in now}
    stacks: dict[str, tuple[Any, Any]] = {}
    for name, (first, second) in pairs.items():
        if first.dtype == np.uint8 and first.ndim == 4:
            _check_follows(name, first, second, ends)
            frames = np.concatenate([first, second[ends]])
            stacks[name] = FrameStack(frames, before), FrameStack(frames, after)
    if not stacks:
        raise ValueError(f"stack_frames: no images (N, H, W, C) of bytes in {sorted(pairs)}")
    both = {name: stacks.get(name, pair) for name, pair in pairs.items()}
    out = dict(transitions)
    for index, key in enumerate(("observations", "next_observations")):
        parts = {name: pair[index] for name, pair in both.items()}
        out[key] = parts if isinstance(transitions[key], Mapping) else parts["observations"]
    return out


def _check_follows(name: str, now: np.ndarray, later: np.ndarray, ends: np.ndarray) -> None:
    for start in range(0, len(ends) - 1, _CHECKED_AT_ONCE):
        rows = slice(start, min(start + _CHECKED_AT_ONCE, len(ends) - 1))
        following = now[rows.start + 1 : rows.stop + 1]
        wrong = (following != later[rows]).any(axis=(1, 2, 3)) & ~ends[rows]
        if wrong.any():
            row = start + int(np.argmax(wrong))
            raise ValueError(
                f"stack_frames: {name} of row {row + 1} is not what row {row} led to; rows must be "
                "whole episodes in order"
            )


def take(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """The given rows of an array or of every array in a dict."""
    if isinstance(arrays, Mapping):
        return {key: _taken(array, rows) for key, array in arrays.items()}
    taken: np.ndarray = _taken(arrays, rows)
    return taken


def _taken(array: Any, rows: np.ndarray) -> Any:
    return array.select(rows) if isinstance(array, FrameStack) else np.asarray(array[rows])


def recording_ends(transitions: Mapping[str, Arrays]) -> np.ndarray:
    """(N,) bool, true at the rows that the next row does not follow in time."""
    episode_id = np.asarray(transitions["episode_id"])
    ends = np.empty(len(episode_id), bool)
    ends[:-1] = episode_id[1:] != episode_id[:-1]
    ends[-1:] = True
    ends |= np.asarray(transitions["truncated"], bool)
    return ends


def leaves(data: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
    """Every array by name; one in a dict is called KEY/NAME."""
    out: dict[str, np.ndarray] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            out |= {f"{key}/{inner}": array for inner, array in value.items()}
        else:
            out[key] = value
    return out


def episode_ends(transitions: Mapping[str, Arrays]) -> np.ndarray:
    """(N,) bool, `recording_ends`, and wherever the task terminated: no value reaches across."""
    ends = recording_ends(transitions)
    ends |= np.asarray(transitions["terminated"], bool)
    return ends


def following_actions(transitions: Mapping[str, Arrays]) -> np.ndarray:
    """(N, ...) the action of the next row; its own where the episode ends, see `episode_ends`."""
    rows = np.arange(len(np.asarray(transitions["actions"])))
    following = np.where(episode_ends(transitions), rows, rows + 1)
    return np.asarray(transitions["actions"])[following]


def _states(episodes: Sequence[Episode], rows: slice) -> Arrays:
    first = episodes[0].observations
    if not isinstance(first, Mapping):
        return np.concatenate([as_numbers(np.asarray(e.observations)[rows]) for e in episodes])
    return {
        key: np.concatenate([as_numbers(e.observations[key][rows]) for e in episodes])
        for key in first
    }
