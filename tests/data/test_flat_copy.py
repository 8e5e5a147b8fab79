"""The copy of a dataset in one piece: the same rows, and never those of another file."""

import dataclasses
import json
import os

import gymnasium
import h5py
import numpy as np
import pytest

from robo_rl.data import flat_copy
from robo_rl.data.errors import DatasetCorruptError
from robo_rl.data.minari_io import open_dataset
from robo_rl.data.transitions import flatten_episodes


@pytest.fixture(autouse=True)
def _always_worth_it(monkeypatch):
    monkeypatch.setattr(flat_copy, "WORTH_IT", 1)


@pytest.fixture
def dataset(write, clean):
    return write(clean)


def copies(dataset):
    return [name for name in os.listdir(dataset.folder) if "flat" in name]


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_the_second_reading_is_that_of_the_copy_and_equals_the_first(dataset, monkeypatch):
    first = dataset.transitions(next_actions=True, mc_discount=0.9)
    assert copies(dataset) == [".main_data.flat.npz"]
    monkeypatch.delattr(h5py, "File")
    assert_same(dataset.transitions(next_actions=True, mc_discount=0.9), first)


def test_observations_of_several_parts_come_back_by_name(write, episode):
    one = episode(0)
    parts = {"arm": np.asarray(one.observations), "clock": np.ones((len(one) + 1, 2), np.float32)}
    boxes = {name: gymnasium.spaces.Box(-np.inf, np.inf, v.shape[1:]) for name, v in parts.items()}
    dataset = write(
        [dataclasses.replace(one, observations=parts)],
        observation_space=gymnasium.spaces.Dict(boxes),
    )
    first, second = (dataset.transitions()["observations"] for _ in range(2))
    assert copies(dataset)
    assert_same(second, first)


def test_another_file_in_its_place_is_read_anew(dataset):
    dataset.transitions()
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        file["episode_0/rewards"][0] = 7.0
    assert dataset.transitions()["rewards"][0] == 7.0
    assert dataset.transitions()["rewards"][0] == 7.0


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_damaged_copy_counts_for_nothing_and_is_made_again(dataset, kept):
    expected = dataset.transitions()
    copy = dataset.folder / ".main_data.flat.npz"
    whole = copy.read_bytes()
    copy.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert_same(dataset.transitions(), expected)
    assert len(copy.read_bytes()) == len(whole)


def test_every_flipped_bit_is_noticed(dataset):
    """In the first kilobyte, which names and describes the arrays, and in some of the rest."""
    expected = dataset.transitions()
    copy = dataset.folder / ".main_data.flat.npz"
    whole = bytearray(copy.read_bytes())
    stamp = flat_copy.stamp_of(dataset.folder / "main_data.hdf5", dataset.total_episodes)
    for place in [*range(1024), *range(1024, len(whole), 97)]:
        whole[place] ^= 1 << place % 8
        copy.write_bytes(whole)
        whole[place] ^= 1 << place % 8
        read = flat_copy.load(dataset.folder / "main_data.hdf5", stamp)
        if read is not None:  # what the archive says of time and system counts for nothing
            assert_same(flatten_episodes(read), expected)


def test_a_copy_of_fewer_episodes_than_now_count_is_made_again(dataset):
    about = dataset.folder / "metadata.json"
    text = about.read_text()
    about.write_text(json.dumps({**json.loads(text), "total_episodes": 2}))
    few = open_dataset(dataset.id).transitions()
    about.write_text(text)
    assert len(dataset.transitions()["rewards"]) > len(few["rewards"])


def test_whoever_may_read_the_data_may_read_the_copy(dataset):
    (dataset.folder / "main_data.hdf5").chmod(0o644)
    dataset.transitions()
    assert (dataset.folder / ".main_data.flat.npz").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_costs_the_copy_only(dataset, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(dataset.transitions()["rewards"])
    assert copies(dataset) == []


def test_what_asks_for_infos_reads_the_file(dataset):
    dataset.transitions()
    assert dataset.episodes()[0].infos.keys() == {"qpos", "qvel"}


def test_episodes_that_do_not_fit_together_are_never_copied(dataset):
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = np.zeros(2)
    with pytest.raises(DatasetCorruptError, match="episode 1: actions must have 2 rows"):
        dataset.transitions()
    assert copies(dataset) == []


def test_small_datasets_are_not_copied(dataset, monkeypatch):
    monkeypatch.setattr(flat_copy, "WORTH_IT", 500)
    dataset.transitions()
    assert copies(dataset) == []


def test_a_dataset_with_a_copy_is_listed_and_opened_as_before(dataset):
    dataset.transitions()
    assert open_dataset(dataset.id).total_episodes == dataset.total_episodes
