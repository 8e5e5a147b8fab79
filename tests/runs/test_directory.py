import json
import os
import shutil

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from robo_rl import files
from robo_rl.runs.checkpoints import CheckpointError
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics


def test_a_run_is_created_whole_and_opened_again(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "run", {"agent": "bc", "seed": 3})
    again = RunDirectory.open(run.path)
    assert again.config == {"format": 1, "agent": "bc", "seed": 3}
    libraries = again.environment()["libraries"]
    assert libraries["numpy"] == np.__version__
    assert not (run.path / "config.json").stat().st_mode & 0o222
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_a_folder_with_content_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty; resume"):
        RunDirectory.create(tmp_path, {})
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_config_that_is_not_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        RunDirectory.create(tmp_path / "run", {"x": object()})
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_run_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99, this version reads 1"):
        RunDirectory.open(tmp_path)


def _records(path):
    """Every TensorBoard event: 8 bytes of length, 4 of CRC, the event, 4 of CRC."""
    out, data, at = [], path.read_bytes(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        out.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return out


def _events(folder):
    """(step, tag) of every value."""
    records = [event for path in sorted(folder.iterdir()) for event in _records(path)]
    return [(event.step, value.tag) for event in records for value in event.summary.value]


def test_metrics_are_on_the_disk_at_once_and_in_tensorboard(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.metrics.write(10, {"loss": 0.5})
    assert read_metrics(run.metrics_path) == [{"step": 10, "loss": 0.5}]
    run.metrics.close()
    assert _events(run.path / "tensorboard") == [(10, "loss")]


def test_tensorboard_reads_the_events_and_hides_what_a_resumed_run_takes_back(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.save(0, {"w": np.zeros(2)})
    run.metrics.write(10, {"loss": 0.5, "critic/q": 2.0})
    run.close()
    run.resume({"w": np.zeros(2)})
    run.metrics.write(5, {"loss": 0.25})
    run.close()
    first, second = sorted(
        (run.path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns
    )
    seen = [_records(path) for path in (first, second)]
    assert [event.file_version for event in seen[0]] == ["brain.Event:2", ""]
    scalars = {value.tag: value.simple_value for value in seen[0][1].summary.value}
    assert scalars == {"loss": 0.5, "critic/q": 2.0}
    assert (seen[1][1].step, seen[1][1].session_log.status) == (1, event_pb2.SessionLog.START)
    assert seen[1][2].step == 5
    # Lengths and checksums are those of a writer that TensorBoard is known to read.
    theirs = RecordWriter(str(tmp_path / "theirs"))
    for event in seen[1]:
        theirs.write(event.SerializeToString())
    theirs.close()
    assert second.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_disk_without_room_for_tensorboard_costs_that_only(tmp_path, caplog):
    run = RunDirectory.create(tmp_path / "run", {})
    (run.path / "tensorboard").write_text("", encoding="utf-8")  # where its folder should be
    for step in (10, 20):
        run.metrics.write(step, {"loss": 0.5})
    assert caplog.text.count("TensorBoard will lack step 10 and others") == 1
    assert [row["step"] for row in read_metrics(run.metrics_path)] == [10, 20]


def test_resuming_cuts_the_metrics_back_to_the_checkpoint(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.metrics.write(10, {"loss": 0.5})
    run.save(10, {"w": np.zeros(2)})
    run.metrics.write(20, {"loss": 0.4})
    run.metrics.close()
    with run.metrics_path.open("a") as file:
        file.write('{"step": 30, "lo')  # killed while writing
    assert [row["step"] for row in read_metrics(run.metrics_path)] == [10, 20]
    again = RunDirectory.open(run.path)
    step, _, meta = again.resume({"w": np.zeros(2)})
    assert (step, meta["metrics_bytes"]) == (10, again.metrics_path.stat().st_size)
    again.metrics.write(20, {"loss": 0.4})
    assert [row["step"] for row in read_metrics(run.metrics_path)] == [10, 20]
    again.metrics.close()


def test_looking_at_a_checkpoint_leaves_the_metrics_alone(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.save(10, {"w": np.zeros(2)})
    run.metrics.write(20, {"loss": 0.4})
    run.metrics.close()
    RunDirectory.open(run.path).restore({"w": np.zeros(2)})
    assert len(read_metrics(run.metrics_path)) == 1


def test_lost_metrics_are_not_papered_over(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.metrics.write(10, {"loss": 0.5})
    run.save(10, {"w": np.zeros(2)})
    run.metrics.close()
    run.metrics_path.write_text("")
    with pytest.raises(ValueError, match="lines are missing"):
        RunDirectory.open(run.path).resume({"w": np.zeros(2)})


def test_metrics_that_are_not_finite_are_refused(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(ValueError, match="step 1: not finite: a, b"):
        run.metrics.write(1, {"b": np.nan, "a": np.inf, "c": 1.0})
    assert not run.metrics_path.exists()


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
        run.metrics.write(1, {"loss": 0.5})


@pytest.mark.parametrize("line", [b'{"st', b'{"step\xff": 2}', b"2", b'{"step": "2"}', b"[]"])
def test_a_garbled_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl:2 is damaged"):
        read_metrics(path)


@pytest.mark.parametrize("name", ["caf\udce9", "\udcc3\udca9"])
def test_a_folder_that_checkpoints_could_not_be_written_to_is_refused_at_once(tmp_path, name):
    """As under LC_ALL=C: Python writes such names, the checkpoints' library does not."""
    with pytest.raises(ValueError, match=r"udc.*LC_ALL=C.UTF-8"):
        RunDirectory.create(tmp_path / name, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text('{"format": 1}')
    run = RunDirectory.open(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be given to all libraries"):
        run.claim()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run.checkpoints.read(1)


def test_a_source_that_cannot_be_copied_is_one_sentence(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in "ab":
        (source / name).symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=r"^cannot make .*run: \[Errno 2\] No such file") as raised:
        RunDirectory.create(
            tmp_path / "run", {}, fill=lambda folder: shutil.copytree(source, folder / "source")
        )
    assert "(" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_timings_are_kept_apart(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    run.note_timing({"step": 1, "steps_per_s": 2.0})
    assert json.loads((run.path / "timing.jsonl").read_text()) == {"step": 1, "steps_per_s": 2.0}
    assert not run.metrics_path.exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"cannot write .*a\.json: No space left"):
        files.write_json(path, {"x": 2})
    assert files.read_json(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]
