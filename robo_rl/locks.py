"""One writer at a time: locks that end with their process, and folders that are filled aside.

The system releases a lock when its process ends in whatever way, so none is ever left behind; the
file that it lies on stays, with the name of its last holder.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import pathlib
import shutil
import socket
import threading
import weakref
from typing import Any, Self

from robo_rl import files

LOCK_FILE = ".lock"
"""In a folder that one process at a time may write to."""

_log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class Locked(RuntimeError):
    """Another process holds the lock."""


class Occupied(FileExistsError):
    """Where a folder was to be put there is something already."""


class Lock:
    """An exclusive lock on a file: held until `release`, or until this object or its process ends.

    It belongs to the process: there it can be taken again, and its children do not inherit it.
    """

    def __init__(self, path: pathlib.Path):
        """Take it. Raises Locked, or OSError where the file cannot be written."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        about = os.fstat(descriptor)
        key = (about.st_dev, about.st_ino)
        with _registry:
            if key in _held:
                os.close(descriptor)
                _held[key][1] += 1
            else:
                try:
                    _take(descriptor, path)
                except BaseException:
                    os.close(descriptor)
                    raise
                _forget_in_children()
                _held[key] = [descriptor, 1]
        self._release = weakref.finalize(self, _let_go, key, os.getpid())

    def release(self) -> None:
        """Let others have it. Idempotent."""
        self._release()


class Aside:
    """A new hidden folder beside `target`, to be filled and then put in its place in one step.

    Nobody ever sees `target` half made: after `publish` it is whole, otherwise it is not there.
    """

    def __init__(self, parent: pathlib.Path, prefix: str):
        """Make it in `parent`, with the parents that lack; `prefix` starts with a dot.

        Raises OSError with the system's reason.
        """
        self.folder = parent / f"{prefix}{files.token()}"
        self._prefix = prefix
        try:
            parent.mkdir(parents=True, exist_ok=True)
            sweep(parent, prefix)
            self.folder.mkdir()
            # Renamed once it is held: what has a lock file that nobody holds has no living owner.
            new = self.folder / f"{LOCK_FILE}.new"
            self.lock = Lock(new)
            new.replace(self.folder / LOCK_FILE)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise files.refused(f"cannot make a folder in {parent}", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Throw away what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, target: pathlib.Path, *, locked: bool = False) -> None:
        """Put the folder where `target` says. Raises Occupied if something is there.

        An empty folder is nothing. With `locked` the lock file goes along, still held.
        """
        if not locked:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            self.lock.release()
        try:
            os.rename(self.folder, target)
        except OSError as error:
            if error.errno in _TAKEN:
                raise Occupied(error.errno, os.strerror(error.errno), str(target)) from error
            raise
        files.sync(target.parent)

    def replace(self, target: pathlib.Path) -> None:
        """As `publish`, in place of what is there; the last of several writers wins."""
        while True:
            try:
                self.publish(target)
                return
            except Occupied:
                pass
            old = target.parent / f"{self._prefix}{files.token()}-old"
            try:
                os.rename(target, old)
            except FileNotFoundError:  # another writer is doing the same
                continue
            try:
                self.publish(target)
            except Occupied:
                shutil.rmtree(old, ignore_errors=True)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.rename(old, target)
                raise
            else:
                shutil.rmtree(old, ignore_errors=True)
                return


def sweep(parent: pathlib.Path, prefix: str) -> None:
    """Remove the asides of processes of this machine that were killed while they filled them."""
    with contextlib.suppress(OSError):
        for folder in list(parent.iterdir()):
            if folder.name.startswith(prefix) and _abandoned(folder / LOCK_FILE):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(lock: pathlib.Path) -> bool:
    """Whether the holder is known to be dead. Some shares keep a lock from other machines."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _holder(descriptor).get("host") == socket.gethostname()
    except OSError:
        return False
    finally:
        os.close(descriptor)


_held: dict[tuple[int, int], list[int]] = {}
"""Descriptor and number of users of every lock that this process holds, by device and inode."""
_registry = threading.RLock()


def _take(descriptor: int, path: pathlib.Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(_sentence(path, _holder(descriptor))) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning(
            "%s: this file system has no locks (%s); see to it that one process at a time writes",
            path.parent,
            error.strerror,
        )
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    with contextlib.suppress(OSError):  # a full disk costs the holder's name, not the lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, files.dumps(about).encode(), 0)


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):  # it has only just taken the lock
        return {}
    return about if isinstance(about, dict) else {}


def _sentence(path: pathlib.Path, holder: dict[str, Any]) -> str:
    who = "".join(
        f" {word} {holder[name]}"
        for name, word in (("pid", "process"), ("host", "on"), ("since", "since"))
        if name in holder
    )
    return (
        f"another process is writing to {path.parent}{':' if who else ''}{who}. Wait until it is "
        "done, or end it, and try again"
    )


def _let_go(key: tuple[int, int], pid: int) -> None:
    with _registry:
        if key not in _held or os.getpid() != pid:  # a forked child holds nothing
            return
        _held[key][1] -= 1
        if not _held[key][1]:
            os.close(_held.pop(key)[0])


_forgets = False


def _forget_in_children() -> None:
    """Have forked children close the descriptors, which would keep the locks of a dead parent."""
    global _forgets
    if not _forgets:
        _forgets = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for descriptor, _ in _held.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()
