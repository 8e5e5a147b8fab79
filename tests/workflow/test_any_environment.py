"""Record, check, train, evaluate, finetune, export and act, in an environment of nobody's arm."""

import json

import numpy as np
import pytest

import robo_rl
from robo_rl.launch import cli
from robo_rl.workflow.run import load_run
from robo_rl.workflow.train import train

pytestmark = pytest.mark.usefixtures("quick_compile")
TINY = {"steps": 8, "batch_size": 8, "option": ("actor.hidden=8", "critic.hidden=8")}


def test_a_policy_of_a_dict_environment_goes_all_the_way_and_acts_in_its_units(
    datasets, tmp_path, capsys
):
    name = datasets("Pointed")
    out = tmp_path / "run"
    arguments = ["train", name, "--agent", "td3bc", "--steps", "8", "--batch-size", "8"]
    assert cli.parse([*arguments, "--out", str(out), "--evaluate-every", "4"]).run() == 0
    said = capsys.readouterr().out
    assert "environment probe/Pointed-v0" in said
    assert "actions are scaled to [-1, 1] and back" in said
    order = "position, goal" if "of position, goal" in said else "goal, position"
    assert f"observations are one vector of {order}, in this order" in said
    assert cli.parse(["eval", str(out), "--episodes", "3", "--workers", "0", "--json"]).run() == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["episodes"] == 3
    assert 0.0 <= measured["success_low"] <= measured["success"] <= measured["success_high"]
    assert measured["return_low"] <= measured["return"] <= measured["return_high"]
    assert measured["score"] is None
    online = ["finetune", str(out), "--recipe", "wsrl", "--steps", "12", "--out"]
    small = ["--option", "warmup_steps=4", "batch_size=8"]
    assert cli.parse([*online, str(tmp_path / "online"), *small]).run() == 0
    policy = robo_rl.load_policy(robo_rl.export(load_run(tmp_path / "online")))
    env = robo_rl.make_env(robo_rl.open_dataset(name))
    observation, _ = env.reset(seed=0)
    action = policy(observation)
    spaces = load_run(out).spaces
    expected = spaces.from_unit(policy.act(spaces.read(observation)))
    assert env.action_space.contains(action)
    policy.reset()
    # The folder alone knows order and bounds: whoever deploys it needs no `spaces`.
    np.testing.assert_array_equal(action, expected)
    assert action.dtype == env.action_space.dtype
    meta = policy.description["meta"]
    assert meta["env"]["id"] == "probe/Pointed-v0"
    assert "arm" not in meta


def test_a_run_knows_its_environment_its_spaces_and_its_own_step_limit(datasets, tmp_path):
    name, small = datasets("Arm"), {"steps": 4, "batch_size": 8}
    run = train(name, "bc", out=tmp_path / "run", **small)
    again = train(name, "bc", out=tmp_path / "again", env="probe/Arm-v0", **small)
    assert run.env == again.env
    assert run.env.max_episode_steps is not None
