"""The examples of data, environments and methods run, each in a folder of its own."""

import pathlib

import numpy as np
import pytest

from robo_rl.plugins import load_file

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, quick_compile):
    """Loads an example by its name."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")  # put back after the example has set it
    return lambda name: load_file(EXAMPLES / f"{name}.py")[0]


def _written(folder):
    return {path.name for path in folder.iterdir()}


def test_eight_lines_go_from_a_dataset_to_an_action(example, tmp_path, capsys):
    module = example("train_offline")
    assert module.main(tmp_path, episodes=5, steps=2) > 0.0
    assert "recorded" in capsys.readouterr().out
    assert _written(tmp_path) == {"datasets", "run"}


def test_own_arrays_are_written_checked_and_learned_from(example, tmp_path, capsys):
    off = example("own_dataset").main(tmp_path, episodes=10, steps=300)
    assert off < 0.3
    shown = capsys.readouterr().out
    assert "10 episodes" in shown
    assert "mark at +0.20 m" in shown


def test_an_own_environment_acts_in_its_own_units(example, tmp_path, capsys):
    gained = example("own_environment").main(tmp_path, episodes=20, steps=20)
    assert np.isfinite(gained)
    told = capsys.readouterr().out
    brake = float(told.split("brakes with ")[1].split(" N")[0])
    assert 0.0 <= brake <= 20.0


def test_an_own_method_learns_by_the_loop_and_by_hand(example, tmp_path, capsys):
    example("own_method").main(tmp_path, episodes=2, steps=3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["by chance", "by the loop", "by hand"]


def test_a_network_of_ones_own_is_kept_with_its_run(example, tmp_path, capsys):
    assert np.isfinite(example("own_network").main(tmp_path, episodes=2, steps=3))
    assert "own_network.py:Bilinear(width=32)@" in capsys.readouterr().out


def test_a_run_goes_on_online(example, tmp_path, capsys):
    before, after = example("finetune").main(
        tmp_path, episodes=10, offline_steps=5, online_steps=20
    )
    assert np.isfinite([before, after]).all()
    assert _written(tmp_path) == {"datasets", "offline", "online"}
