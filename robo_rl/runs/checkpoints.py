"""Checkpoints: one Orbax folder of flat arrays and one JSON file each, atomic, digest-checked.

A checkpoint is written under a name that starts with a dot and renamed when it is whole. Orbax
itself does not notice a flipped byte, so the digest of the arrays is kept and compared.
"""

import concurrent.futures
import contextlib
import logging
import os
import pathlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from robo_rl import files
from robo_rl.runs import trees

_log = logging.getLogger(__name__)
_ARRAYS, _META = "arrays", "meta.json"
_WRITING = ".writing-"
_LOOKS, _LOOKS_GONE, _LOOK_EVERY_S = 60, 10, 0.05


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or found."""


class CorruptCheckpoint(CheckpointError):
    """A checkpoint is there, and damaged or not what was expected."""


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by score."""

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        if keep < 1:
            raise ValueError(f"Checkpoints: keep must be >= 1, got {keep}")
        self._folder = folder
        self._keep = keep

    def steps(self) -> list[int]:
        """Steps that have a whole checkpoint, in order."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def latest(self) -> int:
        """The newest step."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"{self._folder}: there is no checkpoint yet")
        return steps[-1]

    def best(self) -> int:
        """The step of the highest score, the newest of equals; the newest if none was scored."""
        scored = [(meta["score"], step) for step, meta in self._scored()]
        return max(scored)[1] if scored else self.latest()

    def path(self, step: int) -> pathlib.Path:
        """Folder of a step."""
        return self._folder / f"{step:012d}"

    def save(
        self,
        step: int,
        tree: Any,
        *,
        meta: Mapping[str, Any] | None = None,
        score: float | None = None,
    ) -> None:
        """Write a pytree and JSON metadata, then drop what is neither new nor best."""
        arrays = trees.flatten(tree)
        empty = {k: [v.dtype.str, v.shape] for k, v in arrays.items() if v.size == 0}
        full = {k: v for k, v in arrays.items() if v.size}  # Orbax refuses empty arrays
        about = {
            "step": step,
            "score": score,
            "sha256": trees.digest(full),
            "empty": empty,
            "meta": dict(meta or {}),
        }
        aside = self._aside()
        try:
            aside.mkdir(parents=True)
            with _quiet():
                _write_to_the_end(aside / _ARRAYS, full)
            files.write_json(aside / _META, about)
            self._publish(aside, self.path(step))
        # Orbax passes on what its storage library raises: a full disk is a ValueError there.
        except (OSError, ValueError, RuntimeError) as error:
            size = sum(value.nbytes for value in full.values())
            room = "make room on the disk" if _errno(error) in files.NO_ROOM else "put that right"
            raise CheckpointError(
                f"could not write checkpoint {self.path(step)} ({size / 1e6:.1f} MB before "
                f"compression): {_reason(error)}. Earlier checkpoints are untouched; {room} and "
                "resume."
            ) from error
        finally:
            if aside.exists():
                _discard(aside)
        self._drop_old()

    def clear_leftovers(self) -> None:
        """Remove what a killed writer left. For the only writer, before it begins."""
        if self._folder.is_dir():
            for path in list(self._folder.iterdir()):
                if path.name.startswith(_WRITING):
                    shutil.rmtree(path, ignore_errors=True)

    def read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Flat arrays and metadata of a step, checked against the digest."""
        path = self.path(step)
        if not path.is_dir():
            raise CheckpointError(f"no checkpoint {path}; there are {self.steps()}")
        files.check_encodable(path)
        try:
            about = files.read_json(path / _META)
            with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                arrays = dict(reader.restore((path / _ARRAYS).resolve()))
            if trees.digest(arrays) != about["sha256"]:
                raise ValueError("the arrays do not have the digest that was recorded")
            for name, (dtype, shape) in about["empty"].items():
                arrays[name] = np.zeros(shape, np.dtype(dtype))
            return arrays, dict(about["meta"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CorruptCheckpoint(
                f"checkpoint {path} is damaged: {_reason(error)}. Resume with --fallback "
                "(fallback=True) to use the one before it, or restore the folder from a copy."
            ) from error

    def restore(
        self, template: Any, step: int | None = None, *, fallback: bool = False
    ) -> tuple[int, Any, dict[str, Any]]:
        """(step, tree, metadata) of `step`, the newest by default.

        With `fallback`, a damaged newest checkpoint gives way to the ones before it.
        """
        wanted = [self.latest() if step is None else step]
        if fallback:
            wanted += [older for older in reversed(self.steps()) if older < wanted[0]]
        for number in wanted:
            try:
                arrays, meta = self.read(number)
                break
            except CorruptCheckpoint as error:
                if number == wanted[-1]:
                    raise
                _log.warning("%s", error)
        try:
            return number, trees.unflatten(template, arrays), meta
        except ValueError as error:
            raise CorruptCheckpoint(
                f"checkpoint {self.path(number)} does not fit the configuration: {error}"
            ) from error

    def _aside(self) -> pathlib.Path:
        """A name that is not a checkpoint's, and no other writer's."""
        return self._folder / f"{_WRITING}{files.token()}"

    def _publish(self, aside: pathlib.Path, final: pathlib.Path) -> None:
        if final.exists():  # left from before a resume at an earlier step
            self._remove(final)
        aside.replace(final)
        files.sync(self._folder)

    def _remove(self, path: pathlib.Path) -> None:
        # Renamed first: a kill half-way leaves no folder that looks whole.
        doomed = self._aside()
        path.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _scored(self) -> list[tuple[int, dict[str, Any]]]:
        out = []
        for step in self.steps():
            try:
                meta = files.read_json(self.path(step) / _META)
            except (OSError, ValueError) as error:
                _log.warning("checkpoint %s is skipped: %s", self.path(step), error)
                continue
            if meta.get("score") is not None:
                out.append((step, meta))
        return out

    def _drop_old(self) -> None:
        kept = {*self.steps()[-self._keep :], self.best()}
        for step in self.steps():
            if step not in kept:
                self._remove(self.path(step))


def _write_to_the_end(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An interrupt is raised when all is written: Orbax's own threads would go on in any case."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def write() -> None:
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
                writer.save(folder.resolve(), arrays)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 it is raised below
            done.set_exception(error)

    thread = threading.Thread(target=write)
    try:
        thread.start()
        done.result()
    except KeyboardInterrupt:
        time.sleep(_LOOK_EVERY_S)  # it may be about to start
        if thread.is_alive():
            concurrent.futures.wait([done])
        raise


def _discard(folder: pathlib.Path) -> None:
    """Remove what a failed write left, which Orbax's last writers may be making anew."""
    gone = 0
    for _ in range(_LOOKS):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_LOOK_EVERY_S)
        gone = 0 if folder.exists() else gone + 1
        if gone == _LOOKS_GONE:
            return


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax from printing pages of tracebacks about a failure that it raises, and we report.

    It logs them, and gives up the event loop that its other writes then report to, one by one and
    some a little later: after a failure those stay unsaid.
    """
    logger = logging.getLogger("absl")
    level, hook = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL)

    def unless_late(about: Any) -> None:
        if str(about.exc_value) != "Event loop is closed":
            hook(about)

    sys.unraisablehook = unless_late
    logging.getLogger("asyncio").addFilter(_unless_storage)
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.setLevel(level)


def _unless_storage(record: logging.LogRecord) -> bool:
    """Not what Orbax's other reads of a damaged checkpoint say of it, whenever they are collected.

    `restore` raises the first one's error.
    """
    error = record.exc_info[1] if record.exc_info else None
    return "never retrieved" not in record.getMessage() or "tensorstore" not in str(error)


def _errno(error: Exception) -> int | None:
    """The system's number of an error, which the storage library gives within its text."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number is not None:
        return int(number[1])
    return error.errno if isinstance(error, OSError) else None


def _reason(error: Exception) -> str:
    """One line. The storage library's chain of paths and its settings as JSON are left out."""
    text = str(error).strip() or type(error).__name__
    number = _errno(error)
    if number is not None and not isinstance(error, OSError):
        return os.strerror(number)
    line = text.splitlines()[0].partition(" [tensorstore_spec=")[0].partition(" [source loc")[0]
    *_, last = line.rpartition('local file "')
    path, named, what = last.partition('"')
    if named and len(line) > len(last):
        state = line.partition(":")[0].replace("_", " ").lower()  # such as NOT_FOUND
        return f"{pathlib.Path(path).name}: {what.strip(': ') or state}"
    return line if len(line) <= 300 else f"{line[:100]} ... {line[-190:]}"
