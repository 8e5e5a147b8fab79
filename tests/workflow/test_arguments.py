"""What a verb cannot use is refused in a sentence, and what says the same is taken as well."""

import types

import gymnasium
import numpy as np
import pytest

import robo_rl
from robo_rl.agents import iql, td3bc
from robo_rl.learn import checks
from robo_rl.workflow.train import train

SMALL = {"steps": 4, "batch_size": 8}


@pytest.fixture
def run(datasets, tmp_path):
    return train(datasets("Arm"), "bc", out=tmp_path / "run", **SMALL)


def test_an_agent_s_module_is_as_good_as_its_name(datasets, tmp_path):
    name = datasets("Arm")
    by_module = train(name, td3bc, out=tmp_path / "a", **SMALL)
    by_name = train(name, "td3bc", out=tmp_path / "b", **SMALL)
    assert by_module.directory.config == by_name.directory.config
    assert by_module.agent is td3bc


def test_a_module_of_one_s_own_is_kept_by_its_file(datasets, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from robo_rl.agents.bc import Config, init, update, act, policy\n")
    module = types.ModuleType("mine")
    module.__file__ = str(file)
    made = train(datasets("Arm"), module, out=tmp_path / "run", **SMALL)
    assert made.directory.config["agent"].startswith(f"{file}#sha256=")


def test_an_opened_dataset_is_learned_from_and_not_another_of_its_name(datasets, tmp_path):
    name = datasets("Arm", episodes=4)
    moved = tmp_path / "moved"
    (tmp_path / "datasets" / name).rename(moved)
    datasets("Arm", episodes=9)
    made = train(robo_rl.open_dataset(moved), "bc", out=tmp_path / "run", **SMALL)
    assert len(np.unique(made.transitions()["episode_id"])) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": 3}, "agent must be a name .*got 3"),
        ({"agent": iql, "expert": "probe/arm-v0"}, r"expert.*iql imitates no expert; recoil does"),
        ({"normalise": "yes"}, "normalise.* must be True or False, got 'yes'"),
        ({"env": 3}, "env must be a Gymnasium id or a robo_rl.EnvSetting, got int"),
        ({"option": 3}, "give settings as a dict"),
        ({"reward_scale": "much"}, r"reward_scale \(--reward-scale\): expected a number"),
    ],
)
def test_train_says_what_it_cannot_use(datasets, tmp_path, change, message):
    name = datasets("Arm")
    with pytest.raises(ValueError, match=message):
        train(name, **{"agent": "bc", "out": tmp_path / "run", **change})
    assert not (tmp_path / "run").exists()


def test_an_environment_that_is_made_already_is_named_by_its_id(datasets):
    env = gymnasium.make("probe/Arm-v0")
    with pytest.raises(ValueError, match=r"got .*: environments are made anew.*'probe/Arm-v0'"):
        train(datasets("Arm"), "bc", env=env)


@pytest.mark.parametrize("wrong", [None, 3, {"observations": np.zeros((3, 2))}])
def test_a_dataset_is_a_name_or_an_opened_one(wrong):
    for take in (robo_rl.open_dataset, train):
        with pytest.raises(ValueError, match="a dataset is named by its Minari id or its path"):
            take(wrong)


def test_what_export_returned_is_judged_as_its_folder_is(run):
    exported = robo_rl.export(run)
    result = robo_rl.evaluate(exported, episodes=2, workers=0)
    again = robo_rl.evaluate(exported.folder, episodes=2, workers=0)
    assert result.to_json() == again.to_json()
    with pytest.raises(ValueError, match="expected a run, its folder, or an exported policy"):
        robo_rl.evaluate(robo_rl.load_policy(exported), episodes=2)
    with pytest.raises(ValueError, match="load_policy: give the folder"):
        robo_rl.load_policy(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": -1}, "workers.* must be >= 0, got -1"),
        ({"workers": 1.5}, "workers.* must be a whole number, got 1.5"),
        ({"seed": -1}, "seed.* must be >= 0, got -1"),
        ({"step": "x"}, "step.* must be a whole number, got 'x'"),
        ({"episodes": 0}, r"episodes \(--episodes\) must be >= 1, got 0"),
    ],
)
def test_evaluate_says_what_it_cannot_use(run, change, message):
    with pytest.raises(ValueError, match=message):
        robo_rl.evaluate(run, **change)


def test_a_run_is_shown_by_its_folder(run):
    assert str(run) == repr(run) == f"Run({str(run.path)!r})"


def test_a_film_without_a_place_is_refused_before_anything_is_played(run, tmp_path):
    for video, message in (
        (tmp_path / "no" / "where" / "x.mp4", "make .*no first, it is not there"),
        (tmp_path / "x.gif", "films are .mp4 files"),
    ):
        with pytest.raises(ValueError, match=message):
            robo_rl.evaluate(run, episodes=10**9, video=video)
    assert not (tmp_path / "no").exists()


def test_record_says_what_it_cannot_use(datasets):
    for policy, change, message in (
        ([], {}, "name a policy, or several"),
        (3, {}, "expected a run, its folder"),
        ("random", {"workers": -1}, "workers.* must be >= 0"),
        ("random", {"noise": float("inf")}, r"noise \(--noise\) must be finite"),
        ("random", {"random_action_prob": 2}, r"random_action_prob \(--random-action-prob\)"),
    ):
        with pytest.raises(ValueError, match=message):
            robo_rl.record(policy, "a/b-v0", env="probe/Arm-v0", **change)


def test_a_score_that_is_not_known_is_no_score():
    with pytest.raises(ValueError, match="must be success or return, got 'succes'"):
        robo_rl.choose(["a", "b"], score="succes")


def test_a_batch_is_checked_for_an_agent_and_not_for_a_name():
    with pytest.raises(ValueError, match=r"agent must be given itself, such as robo_rl\.agents"):
        checks.check_batch("iql", iql.Config(), {})


def test_an_environment_is_made_of_whatever_has_one(run, datasets):
    exported = robo_rl.export(run)
    sources = (run, run.path, str(run.path), exported, exported.folder)
    sources += (robo_rl.load_policy(exported), "probe/arm-v0", robo_rl.open_dataset("probe/arm-v0"))
    for source in (*sources, "probe/Arm-v0", robo_rl.EnvSetting("probe/Arm-v0")):
        for learner in (False, True):
            env = robo_rl.make_env(source, learner=learner)
            assert env.spec is None or env.spec.id == "probe/Arm-v0"
            env.close()


def test_an_environment_of_nothing_is_told_so(tmp_path):
    for wrong, message in (
        (3, "source must be a dataset, a run, an exported policy, a Gymnasium id"),
        (tmp_path / "none", "holds no run, no exported policy and no dataset"),
        ("Nowhere-v0", "no environment is called 'Nowhere-v0'"),
    ):
        with pytest.raises(ValueError, match=message):
            robo_rl.make_env(wrong)
