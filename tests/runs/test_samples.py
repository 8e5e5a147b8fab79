"""A run without its data: the state that fits its checkpoints, and the observations to probe."""

import numpy as np
import pytest

from robo_rl.agents import iql
from robo_rl.learn import offline
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import samples, trees
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.export import probe_observations
from tests.probe_envs import Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))


@pytest.fixture
def data():
    return collect(Reach(), 30, reach_expert, noise=0.3)


def test_a_state_of_the_sample_takes_the_checkpoints_of_the_data(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {}, fill=lambda path: samples.keep(path, data))
    config = iql.Config(actor=SMALL, critic=SMALL)
    loop = OfflineLoop(steps=1, batch_size=4, normalise=True)
    state = offline.initial_state(iql, config, data, loop)
    run.save(1, state)
    run.close()
    kept = samples.read(run.path)
    assert len(kept.rows["actions"]) == 64 < len(data["actions"])
    again = run.restore(offline.initial_state(iql, config, kept.rows, loop))[1]
    expected, got = trees.flatten(state), trees.flatten(again)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_the_probes_are_those_of_the_whole_data(tmp_path, data):
    samples.keep(tmp_path, data)
    expected = probe_observations(data["observations"])
    np.testing.assert_array_equal(samples.read(tmp_path).probes, expected)


def test_observations_of_several_parts_come_back_and_are_not_probed(tmp_path):
    seen = {"image": np.zeros((3, 4, 4, 3), np.uint8), "arm/joints": np.ones((3, 2), np.float32)}
    rows = {"observations": seen, "next_observations": seen, "actions": np.zeros((3, 1))}
    samples.keep(tmp_path, {**rows, "gripper/opening": np.arange(3)})
    kept = samples.read(tmp_path)
    assert kept.probes is None
    assert kept.rows["observations"].keys() == seen.keys()
    assert kept.rows["observations"]["image"].dtype == np.uint8
    np.testing.assert_array_equal(kept.rows["gripper/opening"], np.arange(3))


def test_a_run_of_an_earlier_version_has_none_and_a_damaged_one_is_said(tmp_path):
    assert samples.read(tmp_path) is None
    (tmp_path / samples.FILE).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"sample\.npz is damaged.*restore it from a copy"):
        samples.read(tmp_path)
