"""How processes end: SIGTERM unwinds like Ctrl-C, and workers do not outlive their parent.

Nothing heavy is imported here, so that every room and every worker may use it.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_ONE_REQUEST_S = 1.0
"""Signals this close together are one request: `timeout`, for one, sends each twice."""
_INTERRUPTED = 130
"""Exit code of Ctrl-C."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal: what holds for Ctrl-C holds for this."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"ended by {signal.Signals(number).name}")


@contextlib.contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP raise `Terminated` in the main thread, once.

    So `finally` blocks and context managers run: temporary folders go, children are ended, files
    are closed. A second SIGTERM, a second or more later, ends the process at once. Signals that
    somebody else handles, or that `nohup` ignores, are left alone, and so are all in a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unwinding = _Unwinding()
    mine = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, unwinding.handle)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that ended so: 128 and the signal's number."""
    return 128 + error.number if isinstance(error, Terminated) else _INTERRUPTED


def begin_worker() -> None:
    """To be called first in a process that `multiprocessing` started.

    Ctrl-C, which reaches all processes of a terminal, is left to the parent, which ends its workers
    itself. If the parent dies, killed for example, this process ends at once.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        watch = threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True)
        watch.start()


class _Unwinding:
    def __init__(self) -> None:
        self._since_s: float | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
            raise Terminated(number)
        if number == signal.SIGTERM and now_s - self._since_s >= _ONE_REQUEST_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _end_after(sentinel: int) -> None:
    # Not a signal from the system at the parent's death: that one comes when the *thread* that
    # started this process ends.
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
