"""`robo-rl data import`: from a file of a known format, or with a reader of one's own."""

import h5py
import numpy as np
import pytest

from robo_rl.data.minari_io import open_dataset
from robo_rl.launch import cli

READER = """
import gymnasium
import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.formats import Recording
from robo_rl.data.provenance import Provenance, RewardLabel


class Reader:
    name = "csv"

    def sniff(self, path):
        return path.suffix == ".csv"

    def read(self, path, scale: float = 1.0):
        rows = np.loadtxt(path, delimiter=",", ndmin=2) * scale
        last = np.arange(len(rows) - 1) == len(rows) - 2
        episode = Episode(rows[:, :1], rows[:-1, 1:2], rows[:-1, 2], ~last & last, last)
        box = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        return Recording([episode], box, box, Provenance(10.0, RewardLabel("csv", "1")))


CSV = Reader()
"""


@pytest.fixture(autouse=True)
def _own_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


@pytest.fixture
def hopper(tmp_path):
    path = tmp_path / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(24, dtype=np.float32).reshape(12, 2)
        file["actions"] = np.full((12, 1), 2.0, np.float32)
        file["rewards"] = np.zeros(12, np.float32)
        file["terminals"] = np.zeros(12, bool)
    return path


def imported(*arguments):
    return cli.parse(["data", "import", *map(str, arguments)]).run()


def test_a_format_found_by_looking_takes_its_options(hopper, capsys):
    imported(hopper, "mine/hopper-v0", "--option", "episode_steps=4", "action_bound=2.5")
    assert "wrote mine/hopper-v0" in capsys.readouterr().out
    dataset = open_dataset("mine/hopper-v0")
    assert dataset.total_episodes == 3
    assert dataset.action_space.high.tolist() == [2.5]


def test_a_reader_of_ones_own_reaches_the_command_line(tmp_path):
    (tmp_path / "mine.py").write_text(READER, encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text("0.1,0.2,0.3\n0.4,0.5,0.6\n0.7,0.8,0.9\n", encoding="utf-8")
    imported(
        table, "mine/table-v0", "--format", f"{tmp_path / 'mine.py'}:CSV", "--option", "scale=0.5"
    )
    rows = open_dataset("mine/table-v0").transitions()
    np.testing.assert_allclose(rows["observations"], [[0.05], [0.2]])


def test_options_of_another_format_are_refused_and_leave_nothing(hopper, tmp_path):
    with pytest.raises(ValueError, match="format d4rl has no option task; it has env, episode_"):
        imported(hopper, "mine/hopper-v0", "--task", "2")
    with pytest.raises(ValueError, match="expected a whole number"):
        imported(hopper, "mine/hopper-v0", "--option", "episode_steps=few")
    assert not (tmp_path / "datasets" / "mine").exists()
