"""Worker processes: each makes its work once, then does it for one item after another.

    with pool(2, functools.partial(make_env_and_policy, setting)) as workers:
        results = list(workers.map(range(20)))

They end with their parent, and at once where it wants no results any more. Nothing heavy is
imported here: a worker imports what it needs itself.
"""

import concurrent.futures
import contextlib
import multiprocessing.connection
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from robo_rl import ends

Work = Callable[[Any], Any]
"""Item -> result, both of which can be pickled."""

_starting = threading.Lock()
_between_items = threading.Lock()
"""Held outside of work, where a result may be half sent: its reader would wait for the rest."""
_work: Work | None = None
_failure: Exception | None = None


class Pool:
    """Workers that are running. What fails in one is raised where its result is read."""

    def __init__(self, executor: concurrent.futures.Executor):
        self._executor = executor

    def submit(self, item: Any) -> "Future[Any]":
        """One item, for the next worker that is free."""
        return self._executor.submit(_do, item)

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """The results, in the order of the items."""
        return self._executor.map(_do, items)


@contextlib.contextmanager
def pool(count: int, begin: Callable[[], Work]) -> Iterator[Pool]:
    """`count` processes, in each of which `begin` makes the work; they end with the block.

    Leaving it by an exception, Ctrl-C included, ends them in the midst of their work. They do not
    run the caller's script again, so that it needs no `if __name__ == "__main__"`: `begin` and what
    it holds must come from modules that can be imported.
    """
    context = _Context()
    leash, held = context.Pipe(duplex=False)
    # As bytes: a worker that is still importing what is in them can be ended too.
    executor = concurrent.futures.ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin, initargs=(leash, pickle.dumps(begin))
    )
    try:
        yield Pool(executor)
    except BaseException:
        held.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        leash.close()


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Processes that are spawned meanwhile do not run the script again that runs here."""
    main = sys.modules["__main__"]
    with _starting:
        kept: dict[str, Any] = {
            name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)
        }
        main.__spec__ = None
        try:
            yield
        finally:
            vars(main).update(kept)


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's hook
        with without_script():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    """Spawned, not forked: JAX has threads, which a fork would not survive."""

    Process = _Process


def _begin(leash: multiprocessing.connection.Connection, beginning: bytes) -> None:
    global _work, _failure
    ends.begin_worker()
    threading.Thread(target=_end_without, args=(leash,), daemon=True).start()
    try:
        _work = pickle.loads(beginning)()
    except Exception as error:  # noqa: BLE001 - the first item tells; here none would hear it
        _failure = error
    _between_items.acquire()


def _do(item: Any) -> Any:
    _between_items.release()
    try:
        if _failure is not None:
            raise _failure
        assert _work is not None
        return _work(item)
    finally:
        _between_items.acquire()


def _end_without(leash: multiprocessing.connection.Connection) -> None:
    multiprocessing.connection.wait([leash])
    with _between_items:
        os._exit(1)
