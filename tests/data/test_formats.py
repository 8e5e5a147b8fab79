"""Readers of formats: found by name, path or look; what they read is worked out by hand."""

import textwrap

import gymnasium
import h5py
import numpy as np
import pytest

from robo_rl.data import formats
from robo_rl.data.errors import DatasetCorruptError, DatasetError, DatasetNotFoundError
from robo_rl.data.formats import options
from robo_rl.data.minari_io import open_dataset
from robo_rl.plugins import PluginError

STATES = np.arange(12, dtype=np.float32).reshape(6, 2)
ACTIONS = np.linspace(-1.0, 1.0, 6, dtype=np.float32)[:, None]
REWARDS = np.arange(6, dtype=np.float32)
# Rows 0-2 end at a time limit, rows 3-4 at the goal, row 5 is where the recording was cut.
TIMEOUTS = np.array([0, 0, 1, 0, 0, 0], bool)
TERMINALS = np.array([0, 0, 0, 0, 1, 0], bool)
ARRAYS = {
    "observations": STATES,
    "actions": ACTIONS,
    "rewards": REWARDS,
    "terminals": TERMINALS,
    "timeouts": TIMEOUTS,
}
FOLLOWING = np.array([[2, 3], [4, 5], [60, 61], [8, 9], [90, 91], [12, 13]], np.float32)


def d4rl(folder, name="hopper-medium-v2.hdf5", **changes):
    path = folder / name
    with h5py.File(path, "w") as file:
        for key, array in {**ARRAYS, **changes}.items():
            if array is not None:
                file[key] = array
    return path


def ogbench(folder, name="pointmaze-medium-navigate-v0.npz"):
    path = folder / name
    terminals = np.array([0, 0, 1, 0, 1], bool)
    rng = np.random.default_rng(0)
    np.savez(
        path,
        observations=rng.normal(size=(5, 2)).astype(np.float32),
        actions=rng.uniform(-1, 1, (5, 2)).astype(np.float32),
        terminals=terminals,
    )
    return path


def test_d4rl_without_next_observations_by_hand(tmp_path):
    """The step before a time-out is dropped, the state after a termination is the last again."""
    first, second = formats.read(d4rl(tmp_path)).episodes
    np.testing.assert_array_equal(first.observations, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(first.rewards, [0, 1])
    np.testing.assert_array_equal(first.actions, ACTIONS[:2])
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False] * 2, [False, True])
    np.testing.assert_array_equal(second.observations, [[6, 7], [8, 9], [8, 9]])
    np.testing.assert_array_equal(second.rewards, [3, 4])
    assert (second.terminations.tolist(), second.truncations.tolist()) == (
        [False, True],
        [False, False],
    )


def test_d4rl_with_next_observations_keeps_every_step(tmp_path):
    path = d4rl(tmp_path, next_observations=FOLLOWING)
    episodes = list(formats.read(path).episodes)
    assert [len(episode) for episode in episodes] == [3, 2, 1]
    np.testing.assert_array_equal(episodes[0].observations[-1], [60, 61])
    np.testing.assert_array_equal(episodes[1].observations[-1], [90, 91])
    assert [e.terminations[-1] for e in episodes] == [False, True, False]
    assert [e.truncations[-1] for e in episodes] == [True, False, True]
    np.testing.assert_array_equal(np.concatenate([e.rewards for e in episodes]), REWARDS)


def test_d4rl_cuts_where_the_next_row_does_not_follow(tmp_path):
    """Without timeouts, the next observations tell the seam after row 2."""
    path = d4rl(tmp_path, next_observations=FOLLOWING, timeouts=None)
    assert [len(episode) for episode in formats.read(path).episodes] == [3, 2, 1]


def test_d4rl_without_timeouts_takes_the_time_limit(tmp_path):
    path = d4rl(tmp_path, timeouts=None)
    with pytest.raises(DatasetError, match=r"neither timeouts nor next_obs.*episode_steps"):
        formats.read(path)
    lengths = [len(episode) for episode in formats.read(path, episode_steps=2).episodes]
    assert lengths == [1, 1, 1]  # rows 0-1, rows 2-3, the goal; row 5 leads nowhere known


def test_d4rl_actions_are_as_they_are_and_bounded(tmp_path):
    wide = d4rl(tmp_path, "wide.hdf5", actions=3.0 * ACTIONS)
    with pytest.raises(DatasetError, match="actions reach 3, and nothing says their bounds"):
        formats.read(wide)
    with pytest.raises(DatasetError, match="actions reach 3, beyond 2"):
        formats.read(wide, action_bound=2.0)
    assert formats.read(wide, action_bound=3.0).action_space.high.tolist() == [3.0]
    recording = formats.read(wide, env="Pendulum-v1", action_bound=3.5)
    assert recording.action_space.high.tolist() == [3.5]
    pendulum = formats.read(d4rl(tmp_path), env="Pendulum-v1")
    assert pendulum.action_space.high.tolist() == [2.0]
    two = d4rl(tmp_path, "two.hdf5", actions=np.zeros((6, 2), np.float32))
    with pytest.raises(DatasetError, match=r"have \(2,\) numbers, Pendulum-v1 takes \(1,\)"):
        formats.read(two, env="Pendulum-v1")


def test_a_misshapen_d4rl_file_is_refused(tmp_path):
    with pytest.raises(DatasetCorruptError, match="as many rows"):
        formats.read(d4rl(tmp_path, rewards=REWARDS[:5]))
    with pytest.raises(DatasetCorruptError, match="lacks rewards"):
        formats.read(d4rl(tmp_path, rewards=None), "d4rl")
    with pytest.raises(DatasetError, match="actions must be vectors"):
        formats.read(d4rl(tmp_path, actions=np.zeros(6, np.int64)), "d4rl")


def test_import_writes_a_dataset_that_opens(tmp_path):
    formats.import_dataset(d4rl(tmp_path), "d4rl/hopper-v0", env="Hopper-v5-unknown")
    opened = open_dataset("d4rl/hopper-v0")
    assert opened.provenance is not None
    assert opened.provenance.collector["importer"] == "d4rl"
    assert opened.provenance.arm == ""
    rows = opened.transitions()
    assert len(rows["rewards"]) == 4
    np.testing.assert_array_equal(rows["masks"], [1.0, 1.0, 1.0, 0.0])


def test_the_format_is_chosen_by_looking(tmp_path):
    assert formats.choose(d4rl(tmp_path)).name == "d4rl"
    assert formats.choose(ogbench(tmp_path)).name == "ogbench"
    other = tmp_path / "table.csv"
    other.write_text("1,2,3")
    with pytest.raises(DatasetError, match=r"no known format \(d4rl, ogbench\), or cut") as caught:
        formats.choose(other)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetNotFoundError, match="no file or folder"):
        formats.choose(tmp_path / "absent.hdf5")


def test_ogbenchs_reader_takes_the_environment_from_the_name_of_the_file(tmp_path):
    path = ogbench(tmp_path)
    recording = formats.read(path)
    assert [len(episode) for episode in recording.episodes] == [2, 1]
    assert recording.env == "pointmaze-medium-v0"
    assert isinstance(recording.action_space, gymnasium.spaces.Box)
    formats.import_dataset(path, "og/maze-v0", env="pointmaze-medium-v0")
    assert open_dataset("og/maze-v0").env_spec.id == "pointmaze-medium-v0"


def test_an_unknown_option_or_format_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="format d4rl has no option task; it has env, episode_"):
        formats.read(d4rl(tmp_path), task=1)
    with pytest.raises(PluginError, match="no dataset format is called 'd4lr'; is 'd4rl' meant"):
        formats.read(d4rl(tmp_path), "d4lr")


def test_a_choice_that_an_option_does_not_have_lists_the_choices(tmp_path):
    with pytest.raises(ValueError, match="after_success must be one of split, keep, drop, got 'c'"):
        formats.read(ogbench(tmp_path), after_success="c")


@pytest.mark.parametrize("task", [-1, 6, 9])
def test_a_task_that_ogbench_does_not_have_is_refused(tmp_path, task):
    with pytest.raises(ValueError, match=f"1 to 5, and 0 for the default one; got {task}"):
        formats.read(ogbench(tmp_path), task=task)


@pytest.mark.parametrize(
    ("text", "value"),
    [("episode_steps=7", 7), ("action_bound=2", 2.0), ("env=Hopper-v5", "Hopper-v5")],
)
def test_options_as_typed_have_the_types_of_the_reader(text, value):
    (parsed,) = options.parsed(formats.get("d4rl"), [text]).values()
    assert parsed == value
    assert type(parsed) is type(value)


def test_options_that_cannot_be_read_are_a_sentence():
    d4rl_reader = formats.get("d4rl")
    with pytest.raises(ValueError, match=r"episode_steps=7\.5: expected a whole number"):
        options.parsed(d4rl_reader, ["episode_steps=7.5"])
    with pytest.raises(ValueError, match="has no option steps; it has env, episode_steps"):
        options.parsed(d4rl_reader, ["steps=7"])
    with pytest.raises(ValueError, match=r"--option\) steps: expected NAME=VALUE"):
        options.parsed(d4rl_reader, ["steps"])


OWN = """
    import gymnasium
    import numpy as np

    from robo_rl.data.episodes import Episode
    from robo_rl.data.formats import Recording
    from robo_rl.data.provenance import Provenance, RewardLabel


    class _Csv:
        name = "csv"

        def sniff(self, path):
            return path.suffix == ".csv"

        def read(self, path, scale=1.0):
            rows = np.loadtxt(path, delimiter=",", ndmin=2) * scale
            last = np.arange(len(rows) - 1) == len(rows) - 2
            episode = Episode(rows[:, :1], rows[:-1, 1:2], rows[:-1, 2], ~last & last, last)
            box = gymnasium.spaces.Box(-1.0, 1.0, (1,))
            label = RewardLabel("csv", "1")
            return Recording([episode], box, box, Provenance(10.0, label))


    CSV = _Csv()
"""


def test_a_reader_of_ones_own_is_found_by_path(tmp_path):
    reader = tmp_path / "mine.py"
    reader.write_text(textwrap.dedent(OWN))
    table = tmp_path / "table.csv"
    table.write_text("0.1,0.2,0.3\n0.4,0.5,0.6\n0.7,0.8,0.9\n")
    formats.import_dataset(table, "mine/table-v0", str(reader), scale=0.5)
    rows = open_dataset("mine/table-v0").transitions()
    np.testing.assert_allclose(rows["observations"], [[0.05], [0.2]])
    np.testing.assert_allclose(rows["actions"], [[0.1], [0.25]])
