"""Episodes into Minari's HDF5 layout, on disks that may fill up."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from robo_rl.data.episodes import Arrays, Episode


class _Sink:
    """A file for HDF5 that keeps the first failure to itself.

    HDF5 crashes the process (1.14: a segmentation fault at exit) when it cannot flush what it
    holds. So after a failed write this pretends that all goes well until HDF5 has closed the file;
    the writer then raises `error` and throws the file away.
    """

    def __init__(self, path: pathlib.Path):
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while self.error is None and len(left):
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        if self.error is None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self.error = error

    def close(self) -> None:
        self._file.close()


def write_hdf5(path: pathlib.Path, episodes: Iterable[Episode]) -> tuple[int, int]:
    """Write valid episodes and return how many episodes and steps. Raises OSError."""
    sink = _Sink(path)
    count = steps = 0
    try:
        with h5py.File(sink, "w", track_order=True) as main:
            for episode in episodes:
                _write_episode(main.create_group(f"episode_{count}"), count, episode)
                count += 1
                steps += len(episode)
                if sink.error is not None:
                    break
    # What HDF5 reads back after a failed write may be anything; the failure is the reason.
    except (OSError, RuntimeError, KeyError, ValueError):
        if sink.error is None:
            raise
    finally:
        sink.close()
    if sink.error is not None:
        raise sink.error
    return count, steps


def _write_episode(group: Any, index: int, episode: Episode) -> None:
    group.attrs["id"] = index
    group.attrs["total_steps"] = len(episode)
    if episode.seed is not None:
        group.attrs["seed"] = episode.seed
    group.attrs.update(episode.metadata)
    _write(group, "observations", episode.observations)
    _write(group, "actions", episode.actions)
    _write(group, "rewards", np.asarray(episode.rewards, np.float64))
    _write(group, "terminations", episode.terminations)
    _write(group, "truncations", episode.truncations)
    if episode.infos:
        _write(group, "infos", episode.infos)


def _write(group: Any, name: str, arrays: Arrays) -> None:
    if isinstance(arrays, np.ndarray):
        group.create_dataset(name, data=arrays)
        return
    inner = group.create_group(name)
    for key, array in arrays.items():
        inner.create_dataset(key, data=np.asarray(array))
