"""How processes end: signals unwind like Ctrl-C, and workers do not outlive their parent.

Nothing heavy is imported here, so that every room and every worker may use it.
"""

import contextlib
import gc
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import queue
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

_ENDING: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""What is handled, where nobody has changed the handler that Python starts with."""
_ONE_REQUEST_S = 1.0
"""Signals this close together are one request: `timeout`, for one, sends each twice."""
_LOOK_EVERY_S = 0.05
_INTERRUPTED = 130
"""Exit code of Ctrl-C."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal: what holds for Ctrl-C holds for this."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(
            "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        )


@contextlib.contextmanager
def unwind_on_signals() -> Iterator[None]:
    """Meanwhile SIGTERM, SIGHUP and Ctrl-C raise `Terminated` in the main thread, once.

    So `finally` blocks and context managers run: temporary folders go, children are ended, files
    are closed. A second SIGTERM, a second or more later, ends the process at once. Signals that
    somebody else handles, or that `nohup` ignores, are left alone, and so are all in a thread.

    Python drops what is raised within a callback of the collector's or a destructor, such as JAX
    has; it is raised again then, until it gets through.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unwinding = _Unwinding()
    mine = {n: before for n, before in _ENDING.items() if signal.getsignal(n) is before}
    hook = sys.unraisablehook
    sys.unraisablehook = _unless_raised_again(hook)
    for number in mine:
        signal.signal(number, unwinding.handle)
    try:
        yield
    finally:
        unwinding.close()  # before the handlers go: what it sends must find them
        for number, before in mine.items():
            signal.signal(number, before)
        sys.unraisablehook = hook


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that ended so: 128 and the signal's number."""
    return 128 + error.number if isinstance(error, Terminated) else _INTERRUPTED


def leave(code: int) -> NoReturn:
    """End this process, when all of a program has unwound; never for a library's caller.

    Not as Python ends. An interrupt does not reach a compilation of XLA's, which goes on in a
    thread of its own: to take its client away under it crashes, and to wait takes long.
    """
    for step in (
        gc.collect,  # generators that the interrupt left hanging end their workers
        multiprocessing.util._exit_function,  # type: ignore[attr-defined]  # of `atexit`, only this
        logging.shutdown,
        sys.stdout.flush,
        sys.stderr.flush,
    ):
        with contextlib.suppress(Exception):
            step()
    os._exit(code)


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


_Raised = tuple[int, "weakref.ref[Terminated]"]


class _Unwinding:
    def __init__(self) -> None:
        self._since_s: float | None = None
        self._dropped = False
        self._closed = threading.Event()
        self._raised: queue.SimpleQueue[_Raised | None] = queue.SimpleQueue()
        self._watch = threading.Thread(target=self._repeat, daemon=True)
        self._watch.start()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._since_s is None or self._dropped:
            self._since_s, self._dropped = self._since_s or now_s, False
            raise self._watched(number)
        if now_s - self._since_s < _ONE_REQUEST_S:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def close(self) -> None:
        self._closed.set()
        self._raised.put(None)
        self._watch.join()

    def _watched(self, number: int) -> Terminated:
        # Not in `handle`, whose frame the exception holds: one that holds itself stays.
        error = Terminated(number)
        self._raised.put((number, weakref.ref(error)))
        return error

    def _repeat(self) -> None:
        """Send again what was dropped: what nobody holds, and has not come to the end."""
        while (raised := self._raised.get()) is not None:
            number, error = raised
            while error() is not None:
                if self._closed.wait(_LOOK_EVERY_S):
                    return
            self._dropped = not self._closed.is_set()
            if self._dropped:
                os.kill(os.getpid(), number)


def _unless_raised_again(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def tell(about: Any) -> None:
        if not isinstance(about.exc_value, Terminated):
            hook(about)

    return tell


def _end_after(sentinel: int) -> None:
    # Not a signal from the system at the parent's death: that one comes when the *thread* that
    # started this process ends.
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
