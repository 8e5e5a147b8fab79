"""SIGTERM unwinds like Ctrl-C, and no worker outlives its parent."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from robo_rl import ends

_CLEANS_UP = """
import signal, sys, tempfile, time
from robo_rl import ends
try:
    with ends.unwind_on_signals(), tempfile.TemporaryDirectory(dir=sys.argv[1]):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep(float(sys.argv[2]))
except KeyboardInterrupt as error:
    print(error, flush=True)
    sys.exit(ends.exit_code(error))
"""

_DROPS = """
import os, signal, sys, time
from robo_rl import ends
class Dropping:
    def __del__(self):
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
            for _ in range(100_000):  # it is raised somewhere here, and dropped at the end
                pass
        finally:
            os.write(1, b"raised\\n")
try:
    with ends.unwind_on_signals():
        Dropping()
        time.sleep(60)
except KeyboardInterrupt as error:
    sys.exit(ends.exit_code(error))
"""

_LEAVES = """
import atexit, sys, threading, time
from robo_rl import ends
atexit.register(print, "torn down")
threading.Thread(target=time.sleep, args=(60,)).start()
print("said")
ends.leave(143)
"""

_POOL = """
import concurrent.futures, multiprocessing, os, signal, time
from robo_rl import ends
if __name__ == "__main__":
    pool = concurrent.futures.ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), initializer=ends.begin_worker
    )
    pids = {pool.submit(os.getpid).result() for _ in range(20)}
    pool.submit(time.sleep, 100), pool.submit(time.sleep, 100)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    signal.pause()
"""


def _start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_and_leaves_nothing(tmp_path, number):
    process = _start(_CLEANS_UP, tmp_path, 0)
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    said = process.communicate(timeout=10)[0]
    assert said == f"cleaning\nended by {number.name}\n"
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_the_same_request_twice_does_not_cut_the_cleaning_short(tmp_path):
    process = _start(_CLEANS_UP, tmp_path, 0.5)
    process.stdout.readline()
    process.terminate()
    assert process.stdout.readline() == "cleaning\n"
    process.terminate()
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 128 + signal.SIGTERM
    process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_second_request_ends_the_process_at_once(tmp_path):
    process = _start(_CLEANS_UP, tmp_path, 60)
    process.stdout.readline()
    process.terminate()
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(ends._ONE_REQUEST_S + 0.2)
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_request_that_python_drops_is_made_again(number):
    """What is raised in a destructor, or in a callback of the collector's, goes nowhere."""
    process = _start(_DROPS, int(number))
    said = process.communicate(timeout=10)[0]
    assert (said, process.returncode) == ("raised\n", 128 + number)


def test_a_command_leaves_without_the_interpreters_teardown():
    """Neither threads nor what was registered for the end hold it up, and all it said is there."""
    process = _start(_LEAVES)
    said = process.communicate(timeout=10)[0]
    assert (said, process.returncode) == ("said\n", 143)


def test_what_others_handle_is_left_to_them_and_put_back():
    handler = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with ends.unwind_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(ends.Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_in_a_thread_nothing_is_changed():
    seen = []

    def work():
        with ends.unwind_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert seen == [before]


def test_ctrl_c_has_its_own_exit_code():
    assert ends.exit_code(KeyboardInterrupt()) == 130
    assert ends.exit_code(ends.Terminated(signal.SIGTERM)) == 143


def _lives(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_workers_of_a_killed_process_end(tmp_path):
    script = tmp_path / "pool.py"  # a spawned worker imports it again
    script.write_text(_POOL, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5.0
    while any(map(_lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, workers))


def test_neither_jax_nor_a_simulator_comes_with_it():
    code = "import sys, robo_rl.ends; print({'jax', 'mujoco', 'numpy'} & set(sys.modules))"
    process = _start(code)
    assert process.communicate()[0] == "set()\n"
