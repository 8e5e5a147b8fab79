"""The example of a task runs, and its file reaches every door."""

import pathlib

import numpy as np

from robo_rl.data.minari_io import open_dataset
from robo_rl.envs import tasks
from robo_rl.plugins import load_file

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "own_task.py"


def test_the_example_plays_records_and_comes_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")  # put back after the example has set it
    module, _ = load_file(EXAMPLE)
    assert module.main(tmp_path, episodes=3) == 1.0
    assert "3 episodes end over the block" in capsys.readouterr().out
    opened = open_dataset("hover/controller-v0")
    assert opened.env_spec is not None
    assert opened.env_spec.kwargs == {"task": tasks.TASKS.find(f"{EXAMPLE}:Hover").reference}
    rows = opened.transitions()
    assert rows["rewards"][rows["masks"] == 0.0].tolist() == [0.0, 0.0, 0.0]
    assert set(np.unique(rows["rewards"])) == {-1.0, 0.0}
