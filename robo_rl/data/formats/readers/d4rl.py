"""D4RL's HDF5 files: flat arrays of N steps with `terminals` and `timeouts`."""

import pathlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import h5py
import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.errors import DatasetCorruptError, DatasetError
from robo_rl.data.formats.contract import Recording
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import Provenance, RewardLabel

_STEPS = ("observations", "actions", "rewards", "terminals")
_NEXT = "next_observations"
_UNIT = 1.0 + 1e-6
_BLOCK = 100_000


class D4rlReader:
    """Actions and rewards as they are in the file; its infos are left out.

    An episode ends where `terminals` says so (terminated) or `timeouts` (truncated), at the last
    row, and where `next_observations` does not lead to the row that follows. Many files have no
    `next_observations`: then the state after a time-out is not known, so that the last step before
    it is dropped, and the state after a termination, which no value depends on, is the last one
    again.
    """

    name = "d4rl"

    def sniff(self, path: pathlib.Path) -> bool:
        """An HDF5 file with the four arrays that all of them have at its root."""
        try:
            if not path.is_file() or not h5py.is_hdf5(path):
                return False
            with h5py.File(path) as file:
                return all(isinstance(file.get(name), h5py.Dataset) for name in _STEPS)
        except OSError:
            return False

    def read(
        self,
        path: pathlib.Path,
        env: str | None = None,
        episode_steps: int | None = None,
        action_bound: float | None = None,
        control_hz: float | None = None,
    ) -> Recording:
        """The episodes.

        Args:
            path: A file of D4RL.
            env: Gymnasium id of the environment; a registered one gives the bounds of the actions.
            episode_steps: Time limit of the recording, for a file without `timeouts`.
            action_bound: Actions are in [-this, this]; None: the environment's, or 1 where all are.
            control_hz: Steps a second, where it is known.
        """
        with _open(path) as file:
            steps = _check(path, file)
            bounds = _action_space(path, file["actions"], env, action_bound)
            observation = file["observations"]
            shape, dtype = observation.shape[1:], observation.dtype
            ends = _ends(path, file, episode_steps)
        image = dtype == np.uint8
        space = gymnasium.spaces.Box(
            0 if image else -np.inf, 255 if image else np.inf, shape, dtype.type
        )
        return Recording(
            _episodes(path, ends),
            space,
            bounds,
            Provenance(
                control_hz=control_hz,
                reward=RewardLabel(source="d4rl", version="1", detail={"file": path.name}),
                collector={"importer": "d4rl", "file": path.name, "rows": steps},
            ),
            env=env,
            card=Card(description=f"Imported from D4RL's {path.name}."),
        )


D4RL = D4rlReader()


def _open(path: pathlib.Path) -> h5py.File:
    try:
        return h5py.File(path)
    except OSError as error:
        raise DatasetCorruptError(f"{path} cannot be read: {error}; fetch it again") from error


def _check(path: pathlib.Path, file: h5py.File) -> int:
    """The number of rows, N, of all arrays alike. Raises DatasetCorruptError."""
    missing = [name for name in _STEPS if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise DatasetCorruptError(f"{path} lacks {', '.join(missing)}: not one of D4RL's files")
    names = (*_STEPS, *(name for name in ("timeouts", _NEXT) if name in file))
    lengths = {name: len(file[name]) for name in names}
    rows = lengths["terminals"]
    if not rows or set(lengths.values()) != {rows}:
        raise DatasetCorruptError(f"{path}: all arrays must have as many rows, got {lengths}")
    if file["actions"].ndim != 2:
        raise DatasetError(
            f"{path}: actions must be vectors, (N, A), got shape {file['actions'].shape}"
        )
    return rows


def _action_space(
    path: pathlib.Path, actions: h5py.Dataset, env: str | None, bound: float | None
) -> gymnasium.spaces.Box:
    size, dtype = actions.shape[1:], actions.dtype.type
    space = _registered(env)
    starts = range(0, len(actions), _BLOCK)
    largest = max(float(np.abs(actions[i : i + _BLOCK]).max()) for i in starts)
    if bound is None and space is not None:
        if space.shape != size:
            raise DatasetError(f"{path}: actions have {size} numbers, {env} takes {space.shape}")
        return gymnasium.spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype)
    if bound is None and largest <= _UNIT:
        bound = 1.0
    if bound is None or largest > bound * _UNIT:
        raise DatasetError(
            f"{path}: actions reach {largest:g}"
            + (", and nothing says their bounds" if bound is None else f", beyond {bound:g}")
            + "; give action_bound, or env with the id of a registered environment"
        )
    return gymnasium.spaces.Box(-bound, bound, size, dtype)


def _registered(env: str | None) -> gymnasium.spaces.Box | None:
    """The action space of a registered environment with a Box of them."""
    if env is None or env not in gymnasium.registry:
        return None
    made = gymnasium.make(env)
    space: Any = made.action_space
    made.close()
    return space if isinstance(space, gymnasium.spaces.Box) else None


def _ends(path: pathlib.Path, file: h5py.File, episode_steps: int | None) -> np.ndarray:
    """(N,) bool: the recording was cut after this row, the task being at its end or not."""
    terminals = np.asarray(file["terminals"]).ravel() != 0
    ends = terminals.copy()
    if "timeouts" in file:
        ends |= np.asarray(file["timeouts"]).ravel() != 0
    elif episode_steps is not None:
        if episode_steps < 1:
            raise ValueError(f"d4rl: episode_steps must be >= 1, got {episode_steps}")
        run = 0
        for row, terminal in enumerate(terminals.tolist()):
            run += 1
            if run == episode_steps:
                ends[row] = True
            if terminal or run == episode_steps:
                run = 0
    elif _NEXT not in file:
        raise DatasetError(
            f"{path} has neither timeouts nor next_observations, so that nothing says where an "
            "episode was cut; give episode_steps, the time limit it was recorded with"
        )
    ends[-1] = True
    return np.asarray(ends)


def _episodes(path: pathlib.Path, ends: np.ndarray) -> Iterator[Episode]:
    with _open(path) as file:
        start = 0
        for last in np.flatnonzero(ends).tolist():
            yield from _stretch(file, start, last + 1)
            start = last + 1


def _stretch(file: h5py.File, start: int, stop: int) -> Iterator[Episode]:
    """The episodes of some rows in which no array says that one ends before the last."""
    rows = slice(start, stop)
    observations, actions = file["observations"][rows], file["actions"][rows]
    rewards = np.asarray(file["rewards"][rows]).ravel()
    terminated = np.asarray(file["terminals"][rows]).ravel() != 0
    if _NEXT not in file:
        if terminated[-1]:
            states = np.concatenate((observations, observations[-1:]))
        else:
            states, actions = observations, actions[:-1]
            rewards, terminated = rewards[:-1], terminated[:-1]
        if len(rewards):
            yield _episode(states, actions, rewards, terminated)
        return
    following = file[_NEXT][rows]
    axes = tuple(range(1, observations.ndim))
    goes_on = np.all(following[:-1] == observations[1:], axis=axes)
    begin = 0
    for end in (*(np.flatnonzero(~goes_on) + 1).tolist(), stop - start):
        part = slice(begin, end)
        states = np.concatenate((observations[part], following[end - 1 : end]))
        yield _episode(states, actions[part], rewards[part], terminated[part])
        begin = end


def _episode(
    states: np.ndarray, actions: np.ndarray, rewards: np.ndarray, terminated: np.ndarray
) -> Episode:
    truncated = np.zeros(len(rewards), bool)
    truncated[-1] = not terminated[-1]
    return Episode(states, actions, rewards, terminated, truncated)
