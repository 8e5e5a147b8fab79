"""A run knows its data: by content, wherever they lie, and never others under the same name."""

import json
import os
import shutil
import time

import pytest

from robo_rl import files
from robo_rl.data import identity
from robo_rl.data.check import check, store_report
from robo_rl.data.errors import DatasetChangedError, DatasetNotFoundError
from robo_rl.data.identity import Identity, check_same, identify, reopen
from robo_rl.data.minari_io import open_dataset


@pytest.fixture
def dataset(write, clean):
    return write(clean)


def test_an_identity_says_what_there_is_and_survives_json(dataset):
    found = identify(dataset)
    assert (found.name, found.path) == ("test/point-v0", str(dataset.folder))
    assert (found.episodes, found.steps, len(found.sha256)) == (6, 180, 64)
    assert Identity.from_json(json.loads(files.dumps(found.to_json()))) == found
    with pytest.raises(ValueError, match="must have"):
        Identity.from_json({"name": "x"})


def test_data_replaced_under_the_same_name_are_refused(write, clean, episode, dataset):
    recorded = identify(dataset)
    check_same(recorded, dataset)
    other = write([episode(seed) for seed in range(10, 16)], overwrite=True)
    with pytest.raises(
        DatasetChangedError,
        match=r"'test/point-v0' is not the one .* began with: then 6 episodes, 180 steps, sha256 "
        r"[0-9a-f]{16}; now .*point-v0/data has 6 episodes.*Put the old data back, or start a new",
    ):
        check_same(recorded, other)
    with pytest.raises(DatasetChangedError):
        reopen(recorded)


def test_one_changed_number_is_another_dataset(dataset):
    recorded = identify(dataset)
    file = dataset.folder / "main_data.hdf5"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DatasetChangedError):
        check_same(recorded, dataset)


@pytest.mark.parametrize("name", ["total_steps", "total_episodes"])
def test_other_totals_in_the_metadata_are_another_dataset(dataset, name):
    recorded = identify(dataset)
    path = dataset.folder / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**metadata, name: metadata[name] + 1}), encoding="utf-8")
    with pytest.raises(DatasetChangedError):
        check_same(recorded, open_dataset(dataset.folder))


def test_what_is_noted_beside_the_data_does_not_change_them(dataset):
    recorded = identify(dataset)
    store_report(dataset, check(dataset))
    metadata = json.loads((dataset.folder / "metadata.json").read_text(encoding="utf-8"))
    text = json.dumps({**metadata, "description": "better said"})
    (dataset.folder / "metadata.json").write_text(text, encoding="utf-8")
    check_same(recorded, open_dataset(dataset.folder))


def test_data_that_moved_are_found_by_name_and_by_content(
    dataset, tmp_path, monkeypatch, datasets_root
):
    recorded = identify(dataset)
    shutil.move(datasets_root, tmp_path / "larger disk")
    with pytest.raises(DatasetNotFoundError):
        reopen(recorded)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "larger disk"))
    assert reopen(recorded).folder == tmp_path / "larger disk" / "test" / "point-v0" / "data"


def test_a_dataset_opened_by_a_relative_path_is_found_from_elsewhere(
    dataset, monkeypatch, datasets_root
):
    monkeypatch.chdir(datasets_root)
    recorded = identify(open_dataset("test/point-v0"))
    monkeypatch.chdir("/")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "/nowhere")
    assert reopen(recorded).folder == dataset.folder


def _settle(folder):
    """As if written long ago."""
    for path in folder.iterdir():
        os.utime(path, (0, 0))


def test_what_was_read_once_is_not_read_again_until_it_changes(dataset, monkeypatch):
    read = []
    real = identity._sha256
    monkeypatch.setattr(identity, "_sha256", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr(time, "time_ns", lambda: 1 << 62)
    first = identify(dataset)
    assert identify(dataset) == first
    assert read == ["main_data.hdf5"]
    assert (dataset.folder / ".sha256.json").exists()
    _settle(dataset.folder)
    assert identify(dataset) == first
    assert read == ["main_data.hdf5"] * 2


def test_a_file_that_was_changed_just_now_is_not_taken_for_settled(dataset, monkeypatch):
    """It may change again within one tick of the file system's clock."""
    read = []
    real = identity._sha256
    monkeypatch.setattr(identity, "_sha256", lambda path: read.append(path.name) or real(path))
    identify(dataset)
    identify(dataset)
    assert read == ["main_data.hdf5"] * 2


@pytest.mark.parametrize("text", ["{", "[]", '{"main_data.hdf5": 3}', "\xff"])
def test_a_garbled_note_of_digests_counts_for_nothing(dataset, text):
    expected = identify(dataset)
    (dataset.folder / ".sha256.json").write_text(text, encoding="latin-1")
    assert identify(dataset) == expected


def test_a_folder_that_may_not_be_written_to_has_an_identity_too(dataset, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_bytes", refuse)
    assert identify(dataset).episodes == 6
    assert not (dataset.folder / ".sha256.json").exists()
