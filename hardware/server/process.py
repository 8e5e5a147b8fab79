"""Child processes of one robot: started fresh (never forked), ready by a deadline, always ended."""

import contextlib
import dataclasses
import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, Self

from robo_rl.hardware.errors import HardwareError

log = logging.getLogger(__name__)

_READY = "ready "
_TAIL_BYTES = 2000


class Child:
    """`python -m module CONFIG` as a child process; CONFIG is a dataclass sent as JSON.

    The child says that it is ready with one line on its standard output (`announce_ready`). Its
    standard error is kept and quoted when something goes wrong.
    """

    def __init__(self, module: str, config: Any, ready_timeout_s: float = 20.0) -> None:
        self.module = module
        self.config = config
        self.ready: dict[str, Any] = {}
        """What the child said about itself when it became ready."""
        self.ready_after_s = float("nan")
        self._timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            return self.start().wait_ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the process without waiting for it."""
        if self._process is not None:
            raise HardwareError(f"{self.module}: already started")
        text = json.dumps(dataclasses.asdict(self.config))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 closed in stop()
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        return self

    def wait_ready(self) -> Self:
        """Return once the child is ready; raise with its last words when it is not in time."""
        process = self._running()
        assert process.stdout is not None
        line = b""
        deadline_s = self._started_s + self._timeout_s
        while not line.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                self._fail(f"not ready within {self._timeout_s} s")
            got = os.read(process.stdout.fileno(), 4096)
            if not got:
                process.wait(timeout=5.0)
                self._fail(f"ended with code {process.returncode} before it was ready")
            line += got
        text = line.decode(errors="replace")
        if not text.startswith(_READY):
            self._fail(f"expected a ready line, got {text[:200]!r}")
        self.ready = json.loads(text.removeprefix(_READY))
        self.ready_after_s = time.monotonic() - self._started_s
        return self

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process has started and not ended."""
        return self._process is not None and self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        self._running().send_signal(number)

    def stop(self, timeout_s: float = 5.0) -> int | None:
        """End the process: SIGTERM, then SIGKILL. Idempotent. Returns its exit code."""
        if self._process is None:
            return None
        process = self._process
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %s s, killing it", self.module, timeout_s)
            process.kill()
            process.wait()
        self._close()
        return process.returncode

    def kill(self) -> None:
        """End the process at once, without a chance to clean up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def stderr_tail(self) -> str:
        """The last of what the process wrote to its standard error."""
        if self._stderr is None or self._stderr.closed:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        return self._stderr.read().decode(errors="replace").strip()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise HardwareError(f"{self.module}: not started")
        return self._process

    def _fail(self, what: str) -> None:
        tail = self.stderr_tail()
        self.kill()
        raise HardwareError(f"{self.module}: {what}. Its last words: {tail or '(none)'}")

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()


def announce_ready(**facts: Any) -> None:
    """Tell the parent that this process is ready."""
    sys.stdout.write(_READY + json.dumps(facts) + "\n")
    sys.stdout.flush()


def raise_priority() -> None:
    """Ask the system to schedule this process ahead of others, where it lets us.

    To be called first: threads, such as those that DDS receives in, inherit it when they start.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def settle_interpreter() -> None:
    """Keep Python's own pauses short; to be called when everything is set up."""
    gc.collect()
    gc.freeze()  # what lives now lives on: later collections need not look at it
    # A writer thread may keep the interpreter this long; the default is longer than a tick.
    sys.setswitchinterval(0.0005)


class Termination:
    """Turns SIGTERM, SIGINT and the death of the parent into a flag that a loop can look at."""

    def __init__(self, parent_pid: int = 0) -> None:
        self._parent_pid = parent_pid
        self._asked = False
        self._next_look_s = 0.0

    def install(self) -> None:
        """Handle the signals from here on (main thread only)."""
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def asked(self, now_s: float) -> bool:
        """Whether to end. Looks for the parent a few times a second, when there is one to watch."""
        if self._parent_pid and now_s >= self._next_look_s:
            self._next_look_s = now_s + 0.2
            self._asked = self._asked or os.getppid() != self._parent_pid
        return self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True


class Cadence:
    """Absolute deadlines on the monotonic clock; what is missed is counted, never caught up."""

    def __init__(self, period_s: float, start_s: float) -> None:
        self.period_s = period_s
        self.next_s = start_s + period_s
        self.ticks = 0
        self.misses = 0
        self.worst_late_s = 0.0

    def reached(self, now_s: float) -> float:
        """Count the tick whose deadline has come and set the next. Returns the lateness in s.

        A tick is missed when it is a whole period late; the schedule then goes on from the next
        deadline that still lies ahead.
        """
        late_s = now_s - self.next_s
        self.ticks += 1
        self.worst_late_s = max(self.worst_late_s, late_s)
        self.next_s += self.period_s
        if late_s >= self.period_s:
            skipped = int(late_s / self.period_s)
            self.misses += skipped
            self.next_s += skipped * self.period_s
        return late_s
