import contextlib
import dataclasses
import errno
import io
import json
import pathlib
import shutil
import subprocess
import sys
import urllib.error

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from robo_rl.data import locate
from robo_rl.data.episodes import Episode
from robo_rl.data.errors import (
    DatasetCorruptError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    DatasetWriteError,
)
from robo_rl.data.minari_io import Card, list_datasets, open_dataset, write_dataset


def assert_equal_episodes(read: Episode, written: Episode) -> None:
    np.testing.assert_array_equal(read.observations, written.observations)
    for name in ("actions", "rewards", "terminations", "truncations"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert read.infos.keys() == written.infos.keys()
    for name, array in written.infos.items():
        np.testing.assert_array_equal(read.infos[name], array)
    assert read.seed == written.seed
    assert dict(read.metadata) == dict(written.metadata)


def test_what_is_written_is_read_back_bit_for_bit(write, clean):
    dataset = write(clean)
    read = dataset.episodes()
    assert len(read) == len(clean)
    for back, episode in zip(read, clean, strict=True):
        assert_equal_episodes(back, episode)


def test_nested_info_names_survive(write, episode):
    one = dataclasses.replace(episode(0), infos={"privileged/block_0_pos": np.ones((31, 3))})
    dataset = write([one])
    np.testing.assert_array_equal(
        dataset.episodes()[0].infos["privileged/block_0_pos"], np.ones((31, 3))
    )


def test_minari_itself_loads_the_dataset(write, clean):
    write(clean, card=Card(description="points", authors=("a",), author_emails=("a@b.c",)))
    dataset = minari.load_dataset("test/point-v0")
    assert dataset.total_episodes == 6
    assert dataset.total_steps == 180
    for index, stored in enumerate(dataset.iterate_episodes()):
        np.testing.assert_array_equal(stored.observations, clean[index].observations)
        np.testing.assert_array_equal(stored.terminations, clean[index].terminations)
    assert dataset.spec.env_spec.id == "robo_rl_test/Point-v0"
    assert list(minari.list_local_datasets()) == ["test/point-v0"]


def test_a_dataset_that_minari_wrote_reads_the_same(clean):
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=e.observations,
            actions=e.actions,
            rewards=e.rewards,
            terminations=e.terminations,
            truncations=e.truncations,
        )
        for e in clean
    ]
    with pytest.warns(UserWarning, match="(is|env_spec is|is set to) None"):
        minari.create_dataset_from_buffers(
            "theirs-v3",
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
        )
    dataset = open_dataset("theirs-v3")
    assert dataset.provenance is None
    assert dataset.env_spec is None
    np.testing.assert_array_equal(dataset.transitions()["actions"][:30], clean[0].actions)


def test_jpeg_images_of_other_writers_are_decoded_through_minari(clean):
    image = np.zeros((31, 32, 32, 3), np.uint8)
    image[3] = 255
    space = gymnasium.spaces.Dict({"image": gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)})
    buffer = minari.data_collector.EpisodeBuffer(
        observations={"image": image},
        actions=clean[0].actions,
        rewards=clean[0].rewards,
        terminations=clean[0].terminations,
        truncations=clean[0].truncations,
    )
    with pytest.warns(UserWarning, match="(is|env_spec is|is set to) None"):
        minari.create_dataset_from_buffers(
            "images-v0",
            [buffer],
            observation_space=space,
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
        )
    flat = open_dataset("images-v0").transitions()
    assert flat["observations"]["image"].dtype == np.uint8
    np.testing.assert_array_equal(flat["observations"]["image"], image[:-1])
    np.testing.assert_array_equal(flat["next_observations"]["image"], image[1:])


def test_our_images_are_stored_without_loss(write, episode):
    image = np.random.default_rng(0).integers(0, 256, (31, 32, 32, 3), np.uint8)
    one = dataclasses.replace(episode(0), observations={"image": image, "state": np.zeros((31, 1))})
    space = gymnasium.spaces.Dict(
        {
            "image": gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8),
            "state": gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
        }
    )
    dataset = write([one], observation_space=space)
    np.testing.assert_array_equal(dataset.episodes()[0].observations["image"], image)


def test_provenance_travels(write, clean, provenance):
    dataset = write(clean)
    assert dataset.provenance == provenance
    assert dataset.provenance.code_version.startswith("robo_rl ")
    stored = json.loads((dataset.folder / "metadata.json").read_text())["robo_rl"]
    assert stored["arm_digest"] == "0123456789abcdef"
    assert stored["control_hz"] == 10.0
    assert stored["collector"] == {"oracle": "random", "noise": 0.5}


def test_provenance_of_an_unknown_schema_is_refused(write, clean):
    dataset = write(clean)
    file = dataset.folder / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["robo_rl"]["schema"] = 99
    file.write_text(json.dumps(metadata))
    with pytest.raises(DatasetCorruptError, match="expected schema 1, got 99"):
        _ = open_dataset("test/point-v0").provenance


def test_an_environment_that_is_not_registered_is_kept_by_name(write, clean):
    dataset = write(clean, env="elsewhere/Arm-v1", env_kwargs={"task": 2})
    assert dataset.env_spec.id == "elsewhere/Arm-v1"
    assert dataset.env_spec.kwargs == {"task": 2}
    assert dataset.env_spec.entry_point is None


def test_the_entry_point_of_an_environment_spec_is_kept(write, clean):
    spec = EnvSpec("elsewhere/Arm-v1", entry_point="elsewhere:Arm", max_episode_steps=7)
    dataset = write(clean, env=spec)
    assert dataset.env_spec.entry_point == "elsewhere:Arm"
    assert dataset.env_spec.max_episode_steps == 7


def test_transitions_by_hand(write):
    one = Episode(
        observations=np.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]),
        actions=np.array([[0.1, 0.0], [0.2, 0.0]]),
        rewards=np.array([1.0, 2.0]),
        terminations=np.array([False, True]),
        truncations=np.array([False, False]),
        infos={"qpos": np.array([[5.0], [6.0], [7.0]])},
    )
    two = dataclasses.replace(one, terminations=one.truncations, truncations=one.terminations)
    flat = write([one, two]).transitions(next_actions=True, mc_discount=0.5, infos=("qpos",))
    np.testing.assert_array_equal(flat["observations"][:, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(flat["next_observations"][:, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(flat["masks"], [1, 0, 1, 1])
    np.testing.assert_array_equal(flat["terminated"], [False, True, False, False])
    np.testing.assert_array_equal(flat["truncated"], [False, False, False, True])
    np.testing.assert_array_equal(flat["episode_id"], [0, 0, 1, 1])
    np.testing.assert_array_equal(flat["returns"], [2, 2, 2, 2])
    np.testing.assert_allclose(flat["next_actions"][:, 0], [0.2, 0.2, 0.2, 0.2])
    np.testing.assert_array_equal(flat["qpos"][:, 0], [5, 6, 5, 6])
    np.testing.assert_array_equal(flat["next_qpos"][:, 0], [6, 7, 6, 7])
    for name in ("observations", "actions", "rewards", "next_observations", "masks", "returns"):
        assert flat[name].dtype == np.float32, name


def test_a_dataset_opens_by_path_too(write, clean, datasets_root):
    write(clean)
    for path in (datasets_root / "test/point-v0", datasets_root / "test/point-v0/data"):
        assert open_dataset(path).id == "test/point-v0"


def test_datasets_are_listed_with_what_is_wrong_with_them(write, clean, datasets_root):
    assert list_datasets() == []
    write(clean)
    write(clean[:2], "alone-v1")
    (datasets_root / "test/point-v0/data/metadata.json").write_text("{")
    alone, point = list_datasets()
    assert (alone.id, alone.episodes, alone.steps) == ("alone-v1", 2, 60)
    assert alone.env_id == "robo_rl_test/Point-v0"
    assert point.id == "test/point-v0"
    assert "cannot be read as JSON" in point.problem


def test_a_missing_dataset_names_those_that_are_known(write, clean):
    with pytest.raises(DatasetNotFoundError, match="known: none"):
        open_dataset("test/pont-v0")
    write(clean)
    with pytest.raises(DatasetNotFoundError, match=r"meant\? Known: test/point-v0"):
        open_dataset("test/pont-v0")


def test_without_a_network_a_misspelt_name_is_told_at_once_and_nothing_is_tried(
    write, clean, monkeypatch
):
    def never(_):
        raise AssertionError("tried")

    def no_route(request, timeout):
        assert timeout <= 10
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(minari, "download_dataset", never)
    monkeypatch.setattr("urllib.request.urlopen", no_route)
    write(clean)
    with pytest.raises(DatasetNotFoundError, match=r"is 'test/point-v0' meant\?.*no route"):
        open_dataset("test/pont-v0", download=True)


def test_a_host_that_answers_at_all_is_asked_for_the_data(monkeypatch):
    def busy(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 503, "busy", {}, None)

    monkeypatch.setattr("urllib.request.urlopen", busy)
    assert locate._unreachable() == ""


def test_a_failed_download_says_what_to_do(monkeypatch, online):
    def offline(_: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(minari, "download_dataset", offline)
    with pytest.raises(DatasetError, match=r"no route.*copy the dataset under"):
        open_dataset("D4RL/door/human-v2", download=True)


def test_a_download_happens_only_when_asked(write, clean, monkeypatch, online):
    asked = []

    def fetch(dataset_id: str) -> None:
        asked.append(dataset_id)
        write(clean, dataset_id)

    monkeypatch.setattr(minari, "download_dataset", fetch)
    with pytest.raises(DatasetNotFoundError, match="ask for a download"):
        open_dataset("far-v0")
    assert asked == []
    assert open_dataset("far-v0", download=True).total_episodes == 6
    open_dataset("far-v0", download=True)
    assert asked == ["far-v0"]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_a_clear_error(write, clean, kept):
    dataset = write(clean)
    file = dataset.folder / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DatasetCorruptError, match=r"main_data.hdf5 cannot be read.*again"):
        open_dataset("test/point-v0").transitions()


def test_a_missing_episode_is_a_clear_error(write, clean):
    dataset = write(clean)
    with h5py.File(dataset.folder / "main_data.hdf5", "a") as main:
        del main["episode_3/actions"]
    with pytest.raises(DatasetCorruptError, match="actions"):
        dataset.transitions()


def test_noise_over_the_file_never_passes_as_another_error(write, clean):
    """Any damage is a DatasetError or changes numbers; it never escapes as something else."""
    dataset = write(clean)
    file = dataset.folder / "main_data.hdf5"
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(content)
        start = int(rng.integers(len(content) - 64))
        damaged[start : start + 64] = rng.bytes(64)
        file.write_bytes(damaged)
        with contextlib.suppress(DatasetError):
            dataset.transitions()


def test_a_dataset_without_metadata_was_not_finished(write, clean, datasets_root):
    write(clean)
    (datasets_root / "test/point-v0/data/metadata.json").unlink()
    with pytest.raises(DatasetCorruptError, match="not written to its end"):
        open_dataset("test/point-v0")


def leftovers(root):
    return [path for path in root.rglob("*") if path.is_file()] if root.exists() else []


@pytest.mark.parametrize("fits", [0, 100, 5_000, 20_000])
def test_a_full_disk_leaves_nothing(write, clean, datasets_root, monkeypatch, fits):
    """The disk takes some bytes, then refuses every write, also those of closing the file."""

    class Disk(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > fits:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    real = pathlib.Path.open

    def open_on_small_disk(path, mode="r", **arguments):
        return Disk(path, "w+") if mode == "w+b" else real(path, mode, **arguments)

    monkeypatch.setattr(pathlib.Path, "open", open_on_small_disk)
    with pytest.raises(DatasetWriteError, match=r"No space left on device.*Nothing was kept"):
        write(clean)
    assert leftovers(datasets_root) == []
    assert list_datasets() == []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import gymnasium, numpy as np
from robo_rl.data import locate
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Provenance, RewardLabel, write_dataset
ends = np.arange(200) == 199
episode = Episode(
    np.zeros((201, 4)), np.zeros((200, 2)), np.zeros(200), np.zeros(200, bool), ends
)
write_dataset(
    "limited-v0",
    [episode] * 50,
    observation_space=gymnasium.spaces.Box(-1, 1, (4,), np.float32),
    action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    provenance=Provenance(control_hz=None, reward=RewardLabel("none", "1")),
)
"""


def test_a_file_that_may_not_grow_ends_in_an_error_not_in_a_crash(datasets_root):
    """The kernel itself refuses: HDF5 left to itself ends in a segmentation fault here."""
    ended = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert "DatasetWriteError: writing dataset 'limited-v0'" in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert leftovers(datasets_root) == []


def test_a_failing_collector_leaves_nothing_and_keeps_its_error(write, clean, datasets_root):
    def collect():
        yield clean[0]
        raise RuntimeError("the simulator diverged")

    with pytest.raises(RuntimeError, match="the simulator diverged"):
        write(collect())
    assert leftovers(datasets_root) == []


def test_overwriting_must_be_asked_for_and_a_failed_overwrite_keeps_the_old(
    write, clean, monkeypatch
):
    write(clean)
    with pytest.raises(DatasetExistsError, match="already there"):
        write(clean[:2])
    with pytest.raises(ValueError, match="episode 0"):
        write([dataclasses.replace(clean[0], actions=np.zeros((3, 2)))], overwrite=True)
    assert open_dataset("test/point-v0").total_episodes == 6
    assert write(clean[:2], overwrite=True).total_episodes == 2


@pytest.mark.parametrize("name", ["point", "point-v", "../point-v0", "/point-v0", "a b-v0", ""])
def test_a_bad_name_is_refused(write, clean, name):
    with pytest.raises(ValueError, match="dataset id must look like"):
        write(clean, name)


def test_no_episodes_is_an_error(write, datasets_root):
    with pytest.raises(ValueError, match="at least one episode"):
        write([])
    assert leftovers(datasets_root) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((30, 4))}, "observations must have 31 rows"),
        ({"actions": np.zeros((31, 2))}, "actions must have 30 rows"),
        ({"terminations": np.zeros(30)}, "terminations must be bool, got float64"),
        ({"truncations": np.zeros((30, 1), bool)}, "truncations must have one axis"),
        ({"infos": {"qpos": np.zeros((30, 2))}}, r"infos\['qpos'\] must have 31 rows"),
        ({"infos": {"task": np.array(["a"] * 31)}}, r"infos\['task'\] must hold numbers"),
        ({"observations": np.zeros((31, 5))}, r"observations must have rows of \(4,\), got \(5,\)"),
        ({"observations": {"state": np.zeros((31, 4))}}, "do not fit"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(write, episode, change, message):
    with pytest.raises(ValueError, match=message):
        write([episode(0), dataclasses.replace(episode(1), **change)])


def test_a_dataset_moved_to_another_folder_still_opens(write, clean, datasets_root, tmp_path):
    write(clean)
    shutil.move(datasets_root / "test/point-v0", tmp_path / "elsewhere")
    assert open_dataset(tmp_path / "elsewhere").total_episodes == 6


def test_kwargs_that_are_not_json_are_refused(clean, provenance):
    with pytest.raises(ValueError, match="must be JSON values"):
        write_dataset(
            "test-v0",
            clean,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
            provenance=provenance,
            env="a/B-v0",
            env_kwargs={"robot": object()},
        )


SPACES = {
    "observation_space": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
    "action_space": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.full(30, np.nan)}, r"episode 1: rewards are not finite in 30 of 30 rows"),
        ({"actions": np.full((30, 2), 3.0)}, r"episode 1: actions leave their space .*30 of 30"),
        ({"observations": np.full((31, 4), np.inf)}, r"observations are not finite in 31 of 31"),
    ],
)
def test_numbers_that_nobody_could_learn_from_are_written_only_when_asked(
    write, episode, change, message
):
    episodes = [episode(0), dataclasses.replace(episode(1), **change)]
    with pytest.raises(ValueError, match=rf"{message}.*as_is=True"):
        write(episodes, as_is=False)
    assert list_datasets() == []
    assert write(episodes).total_episodes == 2


def test_actions_at_their_bounds_but_for_rounding_are_written(write, episode):
    near = dataclasses.replace(episode(0), actions=np.full((30, 2), 1.0 + 1e-6))
    assert write([near], as_is=False).total_episodes == 1


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ({"observations": np.zeros((3, 4))}, "a list of robo_rl.Episode.*got dict"),
        ([{"rewards": np.zeros(3)}], "episode 0 must be a robo_rl.Episode, got dict"),
        (None, "a list of robo_rl.Episode.*got NoneType"),
    ],
)
def test_what_is_no_episode_is_told_so(episodes, message, provenance):
    with pytest.raises(ValueError, match=message):
        write_dataset("a/b-v0", episodes, provenance=provenance, **SPACES)


def test_one_episode_is_no_list_of_them(episode, provenance):
    with pytest.raises(ValueError, match="got one Episode"):
        write_dataset("a/b-v0", episode(0), provenance=provenance, **SPACES)


@pytest.mark.parametrize("name", ["overwrite", "as_is"])
def test_a_word_is_no_switch(write, episode, name):
    write([episode(0)])
    with pytest.raises(ValueError, match=rf"{name} must be True or False, got 'no'"):
        write([episode(0)], **{name: "no"})


def test_data_of_unknown_origin_need_no_provenance(clean):
    write_dataset("a/b-v0", clean, **SPACES)
    about = open_dataset("a/b-v0").provenance
    assert (about.control_hz, about.reward.source) == (None, "none")
