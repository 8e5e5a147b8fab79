import contextlib

import pytest

from robo_rl.data.check import check
from robo_rl.data.minari_io import open_dataset
from robo_rl.envs import registry
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.envs.registry import EnvSetting
from robo_rl.envs.task import Outcome
from robo_rl.envs.tasks.cube import CubeTask
from robo_rl.workflow import collect, environment

ENV = {"scene": "single", "form": "random", "relative_positions": True}


def test_a_dataset_remembers_what_its_observations_show(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collect.collect("cube/relative-v0", CollectConfig(episodes=1, env=ENV))
    dataset = open_dataset("cube/relative-v0")
    assert dataset.transitions()["observations"].shape[1] == 28 + 3 + 6
    assert dataset.env_spec.kwargs["relative_positions"] is True


def test_relative_positions_cannot_be_relabelled_for_another_goal(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(ValueError, match="leave out the task or relative_positions"):
        collect.collect("cube/relative-v0", CollectConfig(episodes=1, env=ENV), task=1)
    assert list(tmp_path.iterdir()) == []


def test_rewards_of_our_own_data_are_replayed_in_the_recovered_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collect.collect("cube/relative-v0", CollectConfig(episodes=2, env=ENV))
    dataset = open_dataset("cube/relative-v0")
    assert dataset.transitions()["terminated"].any()
    report = check(dataset)
    assert "reward" in report.passed
    assert report.exit_code == 0
    monkeypatch.setattr(CubeTask, "outcome", lambda *_: Outcome(0.5, False, False))
    assert "reward_differs" in {finding.code for finding in check(dataset).findings}


def test_relabelled_rewards_are_those_of_the_task_that_the_dataset_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = {"scene": "double", "form": "random"}
    collect.collect("cube/two-v0", CollectConfig(episodes=1, env=env, max_steps=30), task=2)
    dataset = open_dataset("cube/two-v0")
    assert dataset.transitions()["rewards"].min() == -2.0  # a cube each
    assert environment.origin(dataset).setting.kwargs["task_id"] == 2
    report = check(dataset)
    assert report.exit_code == 0
    assert "reward_differs" not in {finding.code for finding in report.findings}


@pytest.mark.parametrize(
    ("form", "task", "expected"),
    [
        ("random", None, ({"form": "goal", "relative_positions": True}, 1.0)),
        ("data", None, ({"form": "goal", "relative_positions": True}, 0.0)),
        ("random", 3, ({"form": "single", "task_id": 3}, 0.0)),
    ],
)
def test_what_is_learned_from_a_dataset_is_judged_as_it_was_recorded(
    form, task, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = {"scene": "single", "form": form, **({} if task else {"relative_positions": True})}
    collect.collect("cube/some-v0", CollectConfig(episodes=1, env=env, max_steps=20), task=task)
    dataset = open_dataset("cube/some-v0")
    origin = environment.origin(dataset)
    assert origin.setting == EnvSetting("robo_rl/CubeSingle-v0", expected[0])
    assert origin.reward_offset == expected[1]
    with contextlib.closing(registry.make(origin.setting)) as made:
        shape = dataset.transitions()["observations"].shape[1:]
        assert made.observation_space.shape == shape
        assert made.spec.max_episode_steps == 200
