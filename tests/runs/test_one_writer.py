"""One process writes to a run; how it begins, and how it is killed, harms nobody."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from robo_rl.locks import Locked
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
PAIRS = 60

_WRITER = """
import pathlib, sys, time
from robo_rl.locks import Lock
lock = Lock(pathlib.Path(sys.argv[1]) / ".lock")
print("claimed", flush=True)
time.sleep(120)
"""


def _python(*arguments):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _end(process):
    process.kill()
    process.communicate()


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path / "run", {})
    made.metrics.write(10, {"loss": 0.5})
    made.save(10, {"w": np.zeros(2)})
    made.metrics.write(20, {"loss": 0.4})
    made.close()
    return made


@pytest.fixture
def writer(run):
    process = _python("-c", _WRITER, run.path)
    assert process.stdout.readline() == "claimed\n"
    yield process
    _end(process)


WAYS = [
    lambda run: run.resume({"w": np.zeros(2)}),
    lambda run: run.metrics.rewind(0, -1),
    lambda run: run.metrics.write(30, {"loss": 0.3}),
    lambda run: run.save(30, {"w": np.zeros(2)}),
    lambda run: run.note_timing({"step": 1}),
]


def test_the_second_writer_is_told_who_the_first_is_and_changes_nothing(run, writer):
    before = sorted((p, p.stat().st_mtime_ns) for p in run.path.rglob("*"))
    who = rf"another process is writing to .*run: process {writer.pid} on .* since 20"
    for write in WAYS:
        with pytest.raises(Locked, match=who):
            write(RunDirectory.open(run.path))
    assert sorted((p, p.stat().st_mtime_ns) for p in run.path.rglob("*")) == before
    assert [row["step"] for row in read_metrics(run.metrics_path)] == [10, 20]


def test_who_only_reads_needs_no_lock(run, writer):
    reader = RunDirectory.open(run.path)
    assert reader.restore({"w": np.zeros(2)})[0] == 10
    assert len(read_metrics(reader.metrics_path)) == 2


def test_a_killed_writer_leaves_no_lock(run, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert RunDirectory.open(run.path).resume({"w": np.zeros(2)})[0] == 10


def test_a_child_of_a_killed_writer_does_not_hold_the_lock(run):
    code = (
        "import os, sys, time\nfrom robo_rl.locks import Lock\nimport pathlib\n"
        "lock = Lock(pathlib.Path(sys.argv[1]) / '.lock')\n"
        "child = os.fork()\n"
        "if not child:\n    print(os.getpid(), flush=True)\n    time.sleep(120)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = _python("-c", code, run.path)
    child = int(process.stdout.readline())
    process.wait()
    try:
        RunDirectory.open(run.path).claim()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_closing_lets_the_next_process_write(run):
    run.claim()
    run.close()
    writer = _python("-c", _WRITER, run.path)
    assert writer.stdout.readline() == "claimed\n"
    _end(writer)


def test_one_process_may_open_its_run_twice(run):
    run.claim()
    again = RunDirectory.open(run.path)
    assert again.resume({"w": np.zeros(2)})[0] == 10
    again.close()


def test_a_run_of_an_earlier_version_which_has_no_lock_file_resumes(run):
    (run.path / ".lock").unlink()
    assert RunDirectory.open(run.path).resume({"w": np.zeros(2)})[0] == 10


def test_leftovers_of_a_killed_checkpoint_go_when_the_run_is_claimed(run):
    (run.path / "checkpoints" / ".writing-000000000020").mkdir()
    RunDirectory.open(run.path).claim()
    assert os.listdir(run.path / "checkpoints") == ["000000000010"]


def test_of_two_that_make_one_folder_at_once_exactly_one_gets_it(tmp_path):
    probe = ["-m", "tests.runs.create_probe", "race", tmp_path]
    pair = [_python(*probe), _python(*probe)]
    assert [process.stdout.readline() for process in pair] == ["ready\n", "ready\n"]
    for number in range(PAIRS):
        for process in pair:
            process.stdin.write(f"run-{number}\n")
        for process in pair:
            process.stdin.flush()
        winner, loser = sorted((process.stdout.readline() for process in pair), reverse=True)
        path = tmp_path / f"run-{number}"
        assert winner.startswith("got it")
        assert loser == f"FileExistsError: {path} is not empty; resume the run in it or choose " + (
            "another path\n"
        )
        pid = json.loads((path / "config.json").read_text(encoding="utf-8"))["pid"]
        assert winner == f"got it {pid}\n"
    for process in pair:
        process.communicate()
    assert sorted(os.listdir(tmp_path)) == sorted(f"run-{number}" for number in range(PAIRS))


def test_a_run_killed_at_any_moment_of_its_start_is_whole_or_not_there(tmp_path):
    process = _python("-W", "ignore", "-m", "tests.runs.create_probe", "kill", tmp_path, 40)
    said = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    assert len(said) == 40
    python = sys.version.split()[0]
    assert set(said) <= {"nothing", f"resumes True 2 {python}"}
    # What the killed left is hidden, and goes when its name is asked for again.
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    for name in {hidden[1:].rpartition(".creating-")[0] for hidden in left} - {"first"}:
        RunDirectory.create(tmp_path / name, {})
    held = [path for path in tmp_path.glob(".*") if (path / ".lock").exists()]
    assert held == []


def test_a_folder_that_may_not_be_made_is_refused_for_the_true_reason(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"cannot make a folder in .*file: File exists"):
        RunDirectory.create(tmp_path / "file" / "run", {})


def test_what_fills_a_run_and_fails_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "half").write_text("", encoding="utf-8")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        RunDirectory.create(tmp_path / "run", {}, fill=fill)
    assert os.listdir(tmp_path) == []


def test_a_run_given_by_a_relative_path_or_a_tilde_is_the_same_from_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = RunDirectory.create("runs/a", {})
    home = RunDirectory.create("~/b", {})
    monkeypatch.chdir("/")
    run.metrics.write(1, {"loss": 0.5})
    run.close()
    home.close()
    assert run.path == tmp_path / "runs" / "a"
    assert home.path == tmp_path / "home" / "b"
    assert len(read_metrics(tmp_path / "runs" / "a" / "metrics.jsonl")) == 1


def test_a_link_to_an_empty_folder_elsewhere_is_followed(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large")
    assert RunDirectory.create(tmp_path / "run", {}).path == tmp_path / "large"
    assert (tmp_path / "run" / "config.json").is_file()
