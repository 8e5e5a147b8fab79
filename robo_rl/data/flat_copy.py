"""A copy of a dataset's arrays in one piece beside the HDF5 file, so that it opens at once later.

HDF5 keeps five objects an episode, and opening them is what reading many episodes costs. The copy
carries the size and time of the file that it was made from, and the number of its episodes: where
they differ, or the copy is damaged, it counts for nothing and is made again. Deleting it loses
nothing.
"""

import contextlib
import fcntl
import os
import pathlib
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.transitions import leaves

WORTH_IT = 500
"""Episodes from which on a copy is kept: fewer are read in a fraction of a second."""
LARGEST = 4 << 30
"""Bytes up to which a copy is kept."""

_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_PREFIX, _SUFFIX = ".flat-", ".part"
_STEPS = ("actions", "rewards", "terminations", "truncations")
_SOURCE, _LENGTHS, _OBSERVATIONS = "source", "lengths", "observations"


def stamp_of(file: pathlib.Path, episodes: int) -> np.ndarray:
    """(3,) what tells one state of a file, of which so many episodes count, from another."""
    about = file.stat()
    return np.array([about.st_size, about.st_mtime_ns, episodes], np.int64)


def load(file: pathlib.Path, stamp: np.ndarray) -> list[Episode] | None:
    """The episodes of an HDF5 file in that state, without their infos; None without a copy."""
    try:
        with _beside(file).open("rb") as raw, np.load(raw, allow_pickle=False) as stored:
            # First whether all is as it was written: what describes an array may be damaged too.
            if stored.zip.testzip() or not np.array_equal(stored[_SOURCE], stamp):
                return None
            return _cut({name: stored[name] for name in stored.files})
    except _DAMAGED:
        return None


def keep(file: pathlib.Path, stamp: np.ndarray, episodes: Sequence[Episode]) -> None:
    """Put a copy of what `file` held beside it; `stamp` was taken before it was read.

    Nothing happens where it is not worth it, or the folder may not be written to.
    """
    if len(episodes) < WORTH_IT or any(episode.problems() for episode in episodes):
        return
    with contextlib.suppress(OSError, MemoryError):
        arrays = _joined(episodes)
        if arrays is None or sum(array.nbytes for array in arrays.values()) > LARGEST:
            return
        _sweep(file.parent)
        descriptor, aside = tempfile.mkstemp(_SUFFIX, _PREFIX, file.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                with contextlib.suppress(OSError):
                    fcntl.flock(out, fcntl.LOCK_EX)  # until it is written, or this process ends
                os.fchmod(descriptor, stat.S_IMODE(file.stat().st_mode))  # whoever reads the data
                np.savez(out, allow_pickle=False, **{_SOURCE: stamp, **arrays})
            os.replace(aside, _beside(file))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise


def _sweep(folder: pathlib.Path) -> None:
    """Remove copies that nobody writes any longer: their writers were killed."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("r+b") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _beside(file: pathlib.Path) -> pathlib.Path:
    return file.with_name(f".{file.stem}.flat.npz")


def _joined(episodes: Sequence[Episode]) -> dict[str, np.ndarray] | None:
    """None where the episodes are not of one kind: then each has to stay as it is."""
    names = (*_STEPS, _OBSERVATIONS)
    every = [leaves({name: getattr(episode, name) for name in names}) for episode in episodes]
    kinds = {
        tuple((name, array.dtype, array.shape[1:]) for name, array in parts.items())
        for parts in every
    }
    if len(kinds) > 1:
        return None
    arrays = {name: np.concatenate([parts[name] for parts in every]) for name in every[0]}
    return {**arrays, _LENGTHS: np.array([len(episode) for episode in episodes], np.int64)}


def _cut(arrays: Mapping[str, np.ndarray]) -> list[Episode]:
    lengths = arrays[_LENGTHS]
    ends = np.cumsum(lengths)
    steps = {name: arrays[name] for name in _STEPS}
    states = {
        name.removeprefix(f"{_OBSERVATIONS}/"): array
        for name, array in arrays.items()
        if name.startswith(_OBSERVATIONS)
    }
    episodes = []
    for index, (start, stop) in enumerate(zip(ends - lengths, ends, strict=True)):
        rows = slice(start + index, stop + index + 1)  # one state more than steps, each time
        seen: Arrays = {name: array[rows] for name, array in states.items()}
        episodes.append(
            Episode(
                observations=states[_OBSERVATIONS][rows] if _OBSERVATIONS in arrays else seen,
                actions=steps["actions"][start:stop],
                rewards=steps["rewards"][start:stop],
                terminations=steps["terminations"][start:stop],
                truncations=steps["truncations"][start:stop],
            )
        )
    return episodes
