"""Where datasets are written: by paths as people give them, by two at once, and by the killed."""

import os
import pathlib
import signal
import subprocess
import sys

import minari
import pytest

from robo_rl import locks
from robo_rl.data import flat_copy, minari_write
from robo_rl.data.errors import DatasetExistsError, DatasetWriteError
from robo_rl.data.minari_io import datasets_root as root
from robo_rl.data.minari_io import list_datasets, open_dataset


def test_a_relative_root_keeps_a_collection_when_the_folder_changes_meanwhile(
    write, clean, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "sets")

    def collected():
        yield clean[0]
        monkeypatch.chdir("/")
        yield from clean[1:]
        monkeypatch.chdir(tmp_path)

    dataset = write(collected())
    assert dataset.folder == tmp_path / "sets" / "test" / "point-v0" / "data"
    monkeypatch.chdir("/")
    assert len(dataset.transitions()["rewards"]) == 180
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["test"]


def test_a_tilde_in_the_root_is_the_home_folder(write, clean, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", "~/sets")
    write(clean)
    assert [summary.id for summary in list_datasets()] == ["test/point-v0"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_minari_downloads_to_where_we_look(write, clean, tmp_path, monkeypatch, online):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", "~/sets")
    seen = []

    def download(name):
        seen.append(os.environ["MINARI_DATASETS_PATH"])
        write(clean, name)

    monkeypatch.setattr(minari, "download_dataset", download)
    open_dataset("far-v0", download=True)
    assert seen == [str(tmp_path / "home" / "sets")]
    assert os.environ["MINARI_DATASETS_PATH"] == "~/sets"


def test_of_two_writers_of_one_name_the_second_is_told(write, clean):
    def collected():
        yield from clean
        write(clean[:2])  # another was faster

    with pytest.raises(DatasetExistsError, match="already there"):
        write(collected())
    assert open_dataset("test/point-v0").total_episodes == 2
    assert [path.name for path in root().iterdir()] == ["test"]


def test_of_two_that_overwrite_the_last_wins(write, clean):
    def collected():
        yield from clean
        write(clean[:2], overwrite=True)

    write(clean[:1])
    assert write(collected(), overwrite=True).total_episodes == 6
    assert sorted(path.name for path in (root() / "test").iterdir()) == [
        "namespace_metadata.json",
        "point-v0",
    ]


def test_an_overwrite_that_is_interrupted_puts_the_old_data_back(write, clean, monkeypatch):
    write(clean)
    publish, calls = locks.Aside.publish, []

    def interrupted(aside, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        publish(aside, target)

    monkeypatch.setattr(minari_write.Aside, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(clean[:2], overwrite=True)
    assert open_dataset("test/point-v0").total_episodes == 6


_KILLED = """
import gymnasium, numpy as np, os, signal
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Provenance, RewardLabel, write_dataset
ends = np.arange(5) == 4
def episodes():
    yield Episode(np.zeros((6, 2)), np.zeros((5, 1)), np.zeros(5), np.zeros(5, bool), ends)
    print("writing", flush=True)
    signal.pause()
write_dataset(
    "killed-v0", episodes(),
    observation_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
    provenance=Provenance(control_hz=None, reward=RewardLabel("none", "1")),
)
"""


def test_what_a_killed_writer_left_goes_and_what_a_living_one_makes_stays(write, clean):
    command = [sys.executable, "-c", _KILLED]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    try:
        assert [process.stdout.readline() for process in processes] == ["writing\n"] * 2
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert len(list(root().glob(".staging-*"))) == 2
        assert list_datasets() == []
        write(clean)
        (left,) = root().glob(".staging-*")
        assert f"-{processes[1].pid}-" in left.name
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_copy_that_a_killed_process_left_half_written_goes(write, clean, monkeypatch):
    monkeypatch.setattr(flat_copy, "WORTH_IT", 1)
    dataset = write(clean)
    (dataset.folder / ".flat-abc.part").write_bytes(b"half")
    dataset.transitions()
    assert sorted(path.name for path in dataset.folder.glob(".*")) == [".main_data.flat.npz"]


def test_numbers_that_metadata_cannot_hold_are_refused_before_a_folder_is_made(
    clean, write, provenance
):
    with pytest.raises(ValueError, match=r"collector\.noise is nan"):
        write(clean, provenance=_with_noise(provenance, float("nan")))
    assert not root().exists()


def _with_noise(provenance, value):
    return type(provenance)(**{**vars(provenance), "collector": {"noise": value}})


def test_a_root_that_cannot_be_made_is_said_with_its_true_reason(
    write, clean, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(DatasetWriteError, match=r"failed: .*File exists\. Nothing was kept"):
        write(clean)


def test_metadata_in_any_language_are_read_under_an_ascii_locale(write, clean):
    dataset = write(clean)
    path = dataset.folder / "metadata.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-1] + ', "description": "Würfel"}', encoding="utf-8")
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code = (
        "from robo_rl.data.minari_io import *; print(ascii(open_dataset('test/point-v0').metadata"
        "['description']), len(open_dataset('test/point-v0').transitions()['rewards']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **plain, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.stdout == "'W\\xfcrfel' 180\n", done.stderr
