import errno
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

from robo_rl.runs.checkpoints import CheckpointError, Checkpoints, CorruptCheckpoint

TREE = {"w": np.arange(1000, dtype=np.float32), "empty": np.zeros((0, 3), np.float32)}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def _names(checkpoints, step=0):
    return sorted(path.name for path in checkpoints.path(step).parent.iterdir())


def test_a_checkpoint_comes_back_as_it_was(checkpoints):
    checkpoints.save(5, TREE, meta={"note": "x"})
    step, tree, meta = checkpoints.restore(TREE)
    assert (step, meta) == (5, {"note": "x"})
    for name, value in TREE.items():
        np.testing.assert_array_equal(tree[name], value)
        assert tree[name].dtype == value.dtype


def test_the_newest_and_the_best_are_kept(checkpoints):
    for step, score in [(1, 0.5), (2, 0.9), (3, 0.1), (4, None), (5, None)]:
        checkpoints.save(step, TREE, score=score)
    assert checkpoints.steps() == [2, 4, 5]
    assert (checkpoints.latest(), checkpoints.best()) == (5, 2)
    assert _names(checkpoints) == [f"{step:012d}" for step in (2, 4, 5)]


def test_of_equal_scores_the_newest_is_best(checkpoints):
    for step in (1, 2, 3):
        checkpoints.save(step, TREE, score=1.0)
    assert checkpoints.best() == 3


def test_without_scores_the_newest_is_best(checkpoints):
    checkpoints.save(1, TREE)
    checkpoints.save(2, TREE)
    assert checkpoints.best() == 2


def test_saving_a_step_again_replaces_it(checkpoints):
    checkpoints.save(1, TREE)
    checkpoints.save(1, {**TREE, "w": TREE["w"] + 1.0})
    np.testing.assert_array_equal(checkpoints.restore(TREE)[1]["w"], TREE["w"] + 1.0)


def test_nothing_there_is_said(checkpoints):
    with pytest.raises(CheckpointError, match="there is no checkpoint yet"):
        checkpoints.restore(TREE)
    checkpoints.save(1, TREE)
    with pytest.raises(CheckpointError, match=r"no checkpoint .*000000000009; there are \[1\]"):
        checkpoints.read(9)


def _flip_a_byte(folder):
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(bytes(data))


def _truncate_a_file(folder):
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _lose_the_meta(folder):
    (folder / "meta.json").unlink()


def _garble_the_meta(folder):
    (folder / "meta.json").write_text("{")


@pytest.mark.parametrize(
    "damage", [_flip_a_byte, _truncate_a_file, _lose_the_meta, _garble_the_meta]
)
def test_a_damaged_checkpoint_is_named_and_only_left_out_when_asked(checkpoints, damage):
    rng = np.random.default_rng(0)
    tree = {"w": rng.normal(size=(200, 200)).astype(np.float32)}  # does not compress
    checkpoints.save(1, tree)
    checkpoints.save(2, tree)
    damage(checkpoints.path(2))
    with pytest.raises(CorruptCheckpoint, match=r"000000000002 is damaged.*fallback") as raised:
        checkpoints.restore(tree)
    said = str(raised.value).replace(str(checkpoints.path(2)), "")
    assert len(said) < 250
    assert "tensorstore" not in said
    assert checkpoints.restore(tree, fallback=True)[0] == 1
    damage(checkpoints.path(1))
    with pytest.raises(CorruptCheckpoint, match="000000000001 is damaged"):
        checkpoints.restore(tree, fallback=True)


def test_a_checkpoint_of_another_configuration_is_refused(checkpoints):
    checkpoints.save(1, {"w": np.zeros(3)})
    with pytest.raises(CorruptCheckpoint, match=r"does not fit .*: w is float64 \(3,\)"):
        checkpoints.restore({"w": np.zeros(4)})


def test_a_failing_disk_leaves_the_old_checkpoint_and_no_half_new_one(checkpoints, monkeypatch):
    checkpoints.save(1, TREE)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(CheckpointError, match=r"could not write.*No space left.*make room"):
        checkpoints.save(2, TREE)
    assert _names(checkpoints) == ["000000000001"]
    monkeypatch.undo()
    assert checkpoints.restore(TREE)[0] == 1


def test_no_room_is_asked_for_where_there_is_some(checkpoints, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ocp.Checkpointer, "save", broken)
    with pytest.raises(CheckpointError, match="Input/output error") as raised:
        checkpoints.save(1, TREE)
    assert "make room" not in str(raised.value)


def test_an_interrupt_waits_for_the_write_and_leaves_nothing_of_it(checkpoints, monkeypatch):
    checkpoints.save(1, TREE)
    written = []

    def slow(_, folder, *_args):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)
        folder.mkdir()
        written.append(folder)

    monkeypatch.setattr(ocp.Checkpointer, "save", slow)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(2, TREE)
    assert len(written) == 1
    assert _names(checkpoints) == ["000000000001"]


_FULL_DISK = """
import resource, signal, sys, pathlib, time
import numpy as np
from robo_rl.runs.checkpoints import Checkpoints, CheckpointError
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(1, {"w": np.zeros(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    rng = np.random.default_rng(0)
    checkpoints.save(2, {f"w{i}": rng.normal(size=20_000) for i in range(40)})
except CheckpointError as error:
    print(error)
    time.sleep(1.0)
"""


def test_writes_that_the_system_refuses_are_reported_and_cleaned_up(tmp_path):
    """The real storage library against a real limit, in a process of its own."""
    folder = tmp_path / "checkpoints"
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "could not write checkpoint" in done.stdout
    assert "compression): File too large. Earlier checkpoints are untouched" in done.stdout
    assert done.stderr == ""  # one sentence, no page of the storage library's tracebacks
    assert [path.name for path in folder.iterdir()] == ["000000000001"]


def test_leftovers_of_a_killed_write_are_not_checkpoints(checkpoints):
    checkpoints.save(1, TREE)
    (checkpoints.path(1).parent / ".writing-000000000002").mkdir()
    assert checkpoints.steps() == [1]
    checkpoints.clear_leftovers()
    assert checkpoints.steps() == [1]
    assert not [name for name in _names(checkpoints) if name.startswith(".")]


def test_the_digest_of_the_weights_is_recorded(checkpoints):
    checkpoints.save(1, TREE)
    about = json.loads((checkpoints.path(1) / "meta.json").read_text())
    assert len(about["sha256"]) == 64


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep must be >= 1"):
        Checkpoints(pathlib.Path(tmp_path), keep=0)
