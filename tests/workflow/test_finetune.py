"""Learning online from a run, on a small environment, by way of the command line."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from robo_rl import agents
from robo_rl.data.minari_io import open_dataset
from robo_rl.launch import cli
from robo_rl.learn import recipes
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import trees
from robo_rl.runs.checkpoints import CheckpointError
from robo_rl.workflow import finetune as verbs
from robo_rl.workflow import vector_envs
from robo_rl.workflow.data_view import DataView
from robo_rl.workflow.evaluate import evaluate
from robo_rl.workflow.export import export
from robo_rl.workflow.finetune import finetune, learn_online, resume
from robo_rl.workflow.run import load_run
from robo_rl.workflow.train import home_of, start_offline, train

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = NetConfig(hidden=(8, 8))
LOOP = OfflineLoop(steps=4, batch_size=8, log_every=4, checkpoint_every=4)


@pytest.fixture
def source(tmp_path, monkeypatch, arm, datasets):
    """The run of an offline agent, by name; and the vectors of arms that were made."""
    for recipe in ("ppo", "unio4_online"):
        options = {**dict(recipes.RECIPES[recipe].options), "minibatch": 16, "epochs": 2}
        changed = dataclasses.replace(
            recipes.RECIPES[recipe], rollout=16, options=tuple(options.items())
        )
        monkeypatch.setitem(recipes.RECIPES, recipe, changed)
    planned = verbs.planned_loop

    def saved_often(*arguments):
        return dataclasses.replace(planned(*arguments), checkpoint_every=20)

    monkeypatch.setattr(verbs, "planned_loop", saved_often)
    # Several arms stay in this process, which counts their steps.
    vectors = []

    def vector(makers, context, autoreset_mode):
        vectors.append(SyncVectorEnv(makers, autoreset_mode=autoreset_mode))
        return vectors[-1]

    monkeypatch.setattr(vector_envs, "AsyncVectorEnv", vector)
    dataset = datasets("Arm")
    home, _ = home_of(open_dataset(dataset))

    def make(name):
        nets = {"flowbc": {"flow": SMALL}, "fql": dict.fromkeys(("flow", "actor", "critic"), SMALL)}
        config = agents.get(name).Config(**nets.get(name, {"actor": SMALL}))
        return start_offline(tmp_path / name, name, config, DataView(dataset), LOOP, home).path

    arm.steps = 0
    yield make, vectors
    assert all(vector.closed for vector in vectors)


def _finetune(offline, *more):
    return cli.parse(["finetune", str(offline), *map(str, more)]).run()


@pytest.mark.parametrize(
    ("name", "recipe", "envs"), [("bc", "ppo", 1), ("iql", "unio4_online", 1), ("bc", "ppo", 2)]
)
def test_a_rollout_recipe_runs_from_an_offline_run_and_resumes_exactly(
    name, recipe, envs, source, tmp_path, monkeypatch, arm
):
    make, vectors = source
    offline = make(name)
    options = ("--recipe", recipe, "--steps", 48, "--envs", envs)
    assert _finetune(offline, *options, "--out", tmp_path / "whole") == 0
    monkeypatch.setattr(arm, "breaks_at", arm.steps + 30)
    with pytest.raises(KeyboardInterrupt):
        _finetune(offline, *options, "--out", tmp_path / "cut")
    resume(tmp_path / "cut")
    whole, resumed = (load_run(tmp_path / path) for path in ("whole", "cut"))
    expected, got = trees.flatten(whole.state()), trees.flatten(resumed.state())
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    lines = [(tmp_path / path / "metrics.jsonl").read_text() for path in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[-1])["updates"] == 3.0
    assert resumed.directory.config["envs"] == envs
    assert [vector.num_envs for vector in vectors] == ([] if envs == 1 else [envs] * 3)
    folder, difference = export(whole)
    assert (folder / "policy.json").exists()
    assert difference < 1e-5


def test_what_cannot_work_is_said_before_a_folder_is_made(source, tmp_path):
    offline = source[0]("flowbc")
    with pytest.raises(ValueError, match=r"env_steps = 15 .* Recipe.rollout = 16"):
        finetune(offline, "ppo", steps=15, out=tmp_path / "few")
    with pytest.raises(ValueError, match=r"flowbc hands on no policy .* or a run of .*iql"):
        finetune(offline, "unio4_online", steps=16, out=tmp_path / "flow")
    with pytest.raises(ValueError, match=r"ppo learns from rollouts .* finetune"):
        train("probe/arm-v0", "ppo", out=tmp_path / "train")
    with pytest.raises(ValueError, match=r"goes on with a run of cql; .* is of flowbc"):
        finetune(offline, "cql", out=tmp_path / "other")
    with pytest.raises(ValueError, match=r"multiple of the 3 environments"):
        finetune(offline, "ppo", steps=48, envs=3, out=tmp_path / "shares")
    with pytest.raises(ValueError, match=r"--envs\) must be >= 1, got 0"):
        finetune(offline, "ppo", envs=0, out=tmp_path / "none")
    for wrong in (
        {"seed": -1},
        {"seed": 2**32},
        {"steps": 10.5},
        {"envs": 1.5},
        {"evaluate_every": 5, "evaluation_episodes": -3},
    ):
        with pytest.raises(ValueError, match=rf"{list(wrong)[-1]} .*must be"):
            finetune(offline, "ppo", out=tmp_path / "counts", **wrong)
    for wrong in ({"keep": 0}, {"steps": "7"}, {"evaluation_episodes": 0}):
        with pytest.raises(ValueError, match=rf"{list(wrong)[-1]} .*must be"):
            learn_online("probe/Arm-v0", out=tmp_path / "counts", **wrong)
    with pytest.raises(ValueError, match=r"no such setting; is rollout meant\?"):
        finetune(offline, "ppo", option=("rolout=8",), out=tmp_path / "option")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "flowbc"]


@pytest.mark.parametrize("recipe", ["iql", "unio4_online"])
def test_a_run_without_a_checkpoint_is_not_copied_first(source, tmp_path, recipe):
    offline = source[0]("iql")
    shutil.rmtree(offline / "checkpoints")
    with pytest.raises(CheckpointError, match="there is no checkpoint yet"):
        finetune(offline, recipe, steps=48, out=tmp_path / "online")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "iql"]


def test_a_run_that_does_not_fit_an_environment_is_refused_by_its_spaces(source, tmp_path):
    offline = source[0]("iql")
    message = r"observations \(2,\) against \(3,\); actions in .*\(2 numbers\) against .*-2"
    with pytest.raises(ValueError, match=message):
        finetune(offline, "iql", env="Pendulum-v1", out=tmp_path / "online")
    with pytest.raises(ValueError, match=message):
        evaluate(offline, env="Pendulum-v1")
    assert not (tmp_path / "online").exists()


def test_a_gap_is_of_the_simulated_arm_alone(source, tmp_path):
    with pytest.raises(ValueError, match=r"--gap\) 1 changes the simulated arm; .*probe/Arm-v0"):
        finetune(source[0]("iql"), "iql", gap=1.0, out=tmp_path / "online")


def test_a_recipe_plays_chunks_as_long_as_those_that_were_learned(source, tmp_path):
    offline = source[0]("fql")
    out = tmp_path / "online"
    with pytest.raises(
        ValueError, match=r"chunks of 1 actions and the recipe plays 5; .*--chunk\) 5"
    ):
        finetune(offline, "qc_fql", steps=16, out=out)
    run = finetune(
        offline,
        "qc_fql",
        steps=16,
        option=("chunk=1", "warmup_steps=8", "batch_size=4"),
        out=out,
    )
    assert run.recipe is not None
    assert (run.recipe.chunk, run.recipe.warmup_steps, run.recipe.batch_size) == (1, 8, 4)


def test_options_of_the_agent_are_kept_with_the_online_run(source, tmp_path):
    run = finetune(
        source[0]("iql"), "unio4_online", steps=16, out=tmp_path / "online", option=("clip=0.01",)
    )
    assert load_run(run.path).config.clip == 0.01


def test_learning_from_nothing_needs_an_environment_alone(source, tmp_path):
    out = tmp_path / "scratch"
    arguments = "train --scratch --env probe/Arm-v0 --agent sac --steps 24 --evaluate-every 12"
    small = ("critics=2", "warmup_steps=8", "actor.hidden=8", "critic.hidden=8", "batch_size=8")
    command = [*arguments.split(), "--evaluation-episodes", "2", "--out", str(out)]
    assert cli.parse([*command, "--option", *small]).run() == 0
    run = load_run(out)
    assert run.view is None
    assert any("return_low" in row for row in run.metrics())
    assert resume(out).path == run.path
    with pytest.raises(ValueError, match=r"iql does not learn from nothing; sac, ppo do"):
        learn_online("probe/Arm-v0", "iql")
    with pytest.raises(ValueError, match=r"recipe wsrl starts from a run"):
        learn_online("probe/Arm-v0", recipe="wsrl")
    with pytest.raises(ValueError, match=r"rlpd reads offline data: name a dataset"):
        learn_online("probe/Arm-v0", recipe="rlpd")


def test_an_agent_of_ones_own_learns_from_nothing_as_sac_collects(source, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from robo_rl.agents.sac import *\nfrom robo_rl.agents.sac import Config\n")
    small = ("critics=2", "warmup_steps=8", "batch_size=8")
    run = learn_online("probe/Arm-v0", str(path), steps=16, option=small, out=tmp_path / "scratch")
    assert run.directory.config["agent"].startswith(f"{path}#sha256=")
    assert run.metrics()[-1]["updates"] == 8.0
    with pytest.raises(ValueError, match="recipe ppo is one of agent ppo, not of sac"):
        learn_online("probe/Arm-v0", "sac", recipe="ppo")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--batch-size", "7"], "--batch-size goes with a dataset .* --option NAME=VALUE"),
        (["--expert", "nope/x-v0"], "--expert goes with a dataset"),
        (["--chunk", "4"], "--chunk goes with a dataset"),
        (["--reward-scale", "return-range"], "--reward-scale return-range: .* give a number"),
    ],
)
def test_flags_that_learning_from_nothing_cannot_heed_are_refused(flag, message, tmp_path):
    command = ["train", "--scratch", "--env", "Pendulum-v1", "--out", str(tmp_path / "no"), *flag]
    with pytest.raises(ValueError, match=message):
        cli.parse(command).run()
    assert not list(tmp_path.iterdir())


def test_rlpd_learns_from_nothing_beside_a_dataset(source, tmp_path):
    run = learn_online(
        "probe/Arm-v0",
        recipe="rlpd",
        dataset="probe/arm-v0",
        steps=16,
        option=("critics=2", "warmup_steps=8", "batch_size=8", "utd=2"),
        out=tmp_path / "rlpd",
    )
    assert run.metrics()[-1]["updates"] == 8.0
