"""Record, check, train, evaluate, finetune, export and act, in an environment of nobody's arm."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

import robo_rl
from robo_rl.launch import cli
from robo_rl.launch.commands import resume
from robo_rl.runs.checkpoints import CorruptCheckpoint
from robo_rl.workflow import film, suites, video
from robo_rl.workflow.evaluate import evaluate
from robo_rl.workflow.record import record
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
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    again = load_run(run.path)
    assert again.env is not None
    assert (again.env.id, again.env.max_episode_steps) == ("probe/Arm-v0", 7)
    assert evaluate(run, episodes=2, workers=0).episodes.lengths == (7, 7)
    longer = evaluate(run, episodes=2, workers=0, max_episode_steps=9)
    assert longer.episodes.lengths == (9, 9)


def test_data_without_an_environment_train_and_are_judged_where_one_is_named(
    datasets, tmp_path, monkeypatch
):
    name = datasets("Arm")
    metadata = next(tmp_path.glob("datasets/probe/arm-v0/data/metadata.json"))
    stored = json.loads(metadata.read_text())
    del stored["env_spec"]
    metadata.write_text(json.dumps(stored))
    said = []
    run = train(name, "bc", out=tmp_path / "run", steps=4, batch_size=8, say=said.append)
    assert "names no environment" in said[0]
    assert run.env is None
    with pytest.raises(ValueError, match=r"knows no environment; name one with env \(--env\)"):
        evaluate(run)
    assert len(evaluate(run, env="probe/Arm-v0", episodes=2, workers=0).episodes.seeds) == 2


def test_recorded_episodes_depend_on_the_seed_alone(tmp_path, monkeypatch, datasets):
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    mixed = [str(run.path), "random"]
    found = []
    for name, workers in (("a/b-v0", 0), ("c-v0", 0)):
        record(mixed, name, episodes=4, noise=0.2, seed=3, workers=workers)
        found.append(robo_rl.open_dataset(name).transitions())
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(found[0][key], found[1][key])
    assert np.abs(found[0]["actions"]).max() <= 1.0
    assert [p["name"] for p in robo_rl.open_dataset("c-v0").provenance.collector["policies"]] == [
        "run",
        "random",
    ]


def test_a_score_is_normalised_by_the_references_of_the_data(datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    record(
        "random",
        "a-v0",
        env="probe/Arm-v0",
        episodes=2,
        workers=0,
        ref_min_score=-7.0,
        ref_max_score=-5.0,
    )
    run = train("a-v0", "bc", out=tmp_path / "run", steps=4, batch_size=8)
    result = evaluate(run, episodes=2, workers=0)
    assert result.score == pytest.approx(100.0 * (result.episodes.mean_return + 7.0) / 2.0)
    assert f"normalised score {result.score:.1f}" in str(result)
    with pytest.raises(ValueError, match="both"):
        record("random", "b-v0", env="probe/Arm-v0", ref_min_score=1.0)


def test_a_refused_call_leaves_no_folder(datasets, tmp_path, monkeypatch):
    name = datasets("Arm")
    before = sorted(tmp_path.rglob("*"))
    for wrong, message in (
        ({"agent": "recoil"}, "expert"),
        ({"agent": "bc", "env": "Pendulum-v1"}, "does not fit environment Pendulum-v1"),
        ({"agent": "bc", "env": "Nowhere-v0"}, "no environment is called"),
        ({"agent": "bc", "reward_scale": "much"}, "expected a number or return-range"),
        ({"agent": "bc", "reward_scale": 0.0}, "not 0"),
        ({"agent": "bc", "option": ("hiden=3",)}, "no such setting"),
        ({"agent": "iql", "config": robo_rl.train}, "the config of iql is a"),
        ({"agent": "bc", "n_step": 0}, r"--n-step\) must be >= 1"),
        ({"agent": "bc", "steps": 1e2}, r"--steps\) must be a whole number, got 100.0"),
        ({"agent": "bc", "seed": 1.5}, r"--seed\) must be a whole number"),
        ({"agent": "bc", "seed": "0"}, r"--seed\) must be a whole number, got '0'"),
        ({"agent": "bc", "seed": 2**32}, r"--seed\) must be < 4294967296"),
        ({"agent": "bc", "evaluate_every": 5, "evaluation_episodes": 0}, "--evaluation-episodes"),
        ({"agent": "bc", "keep": 0}, r"--keep\) must be >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(name, out=tmp_path / "run", **wrong)
    assert sorted(tmp_path.rglob("*")) == before


def test_rewards_are_scaled_as_asked_for_or_as_the_paper_does(datasets, tmp_path):
    name = datasets("Arm")
    run = train(
        name, "bc", out=tmp_path / "a", steps=4, reward_scale=10, reward_shift=-5.0, batch_size=8
    )
    raw = robo_rl.open_dataset(name).transitions()["rewards"]
    np.testing.assert_allclose(run.view.load(run.spaces)["rewards"], 10 * raw - 5, rtol=1e-6)
    ant = robo_rl.EnvSetting("AntMaze_UMaze-v4")
    assert (suites.scales("iql", ant).scale, suites.scales("iql", ant).shift) == (1.0, -1.0)
    assert (suites.scales("cql", ant).scale, suites.scales("cql", ant).shift) == (10.0, -5.0)
    hopper = robo_rl.EnvSetting("Hopper-v5")
    assert suites.scales("iql", hopper).scale == suites.RETURN_RANGE
    assert suites.scales("td3bc", hopper).normalise
    assert not suites.scales("rebrac", hopper).normalise
    assert suites.scales("iql", robo_rl.EnvSetting("robo_rl/CubeSingle-v0")) == suites.Scales()


def test_the_range_of_returns_scales_rewards_to_a_thousand(datasets, tmp_path):
    name = datasets("Arm", episodes=30)
    rows = robo_rl.open_dataset(name).transitions()
    returns = np.bincount(rows["episode_id"], weights=rows["rewards"])
    if np.ptp(returns) == 0.0:
        with pytest.raises(ValueError, match="same return"):
            train(name, "iql", out=tmp_path / "run", reward_scale="return-range", **TINY)
        return
    run = train(name, "iql", out=tmp_path / "run", reward_scale="return-range", **TINY)
    assert run.view.reward_scale == pytest.approx(1000.0 / np.ptp(returns))


def test_data_do_not_depend_on_how_many_processes_recorded_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    found = []
    for name, workers in (("here-v0", 0), ("there-v0", 2)):
        record("random", name, env="Pendulum-v1", episodes=3, seed=1, workers=workers)
        found.append(robo_rl.open_dataset(name))
    one, two = (dataset.transitions() for dataset in found)
    for key in ("observations", "actions", "rewards", "truncated"):
        np.testing.assert_array_equal(one[key], two[key])
    assert np.abs(one["actions"]).max() > 1.0
    assert found[0].env_spec.max_episode_steps == 200


def test_workers_know_what_this_process_has_registered(datasets, tmp_path):
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    there = evaluate(run, episodes=2, workers=1)
    assert there.episodes.returns == evaluate(run, episodes=2, workers=0).episodes.returns


def test_a_film_that_cannot_be_made_says_what_to_install(datasets, tmp_path, monkeypatch):
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    with pytest.raises(ValueError, match=r"films are \.mp4 files"):
        evaluate(run, episodes=1, workers=0, video=tmp_path / "film.gif")
    monkeypatch.setattr(video, "find_backend", lambda: None)
    with pytest.raises(ValueError, match="apt-get install"):
        evaluate(run, episodes=1, workers=0, video=tmp_path / "film.mp4")
    assert not list(tmp_path.glob("film*"))
    monkeypatch.setattr(video, "find_backend", lambda: "egl")
    monkeypatch.setattr(film, "_filmed", _fails_half_way)
    (tmp_path / "film.mp4").write_bytes(b"an older one")
    with pytest.raises(RuntimeError, match="half way"):
        evaluate(run, episodes=1, workers=0, video=tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == b"an older one"
    assert [path.name for path in tmp_path.glob("*film*")] == ["film.mp4"]


def _fails_half_way(plan, backend):
    pathlib.Path(plan["out"]).write_bytes(b"half")
    raise RuntimeError("half way")


def test_a_run_is_exported_and_judged_when_its_data_are_gone(datasets, tmp_path):
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    shutil.rmtree(tmp_path / "datasets")
    assert robo_rl.export(load_run(run.path)).difference < 1e-5
    assert len(evaluate(run, episodes=2, workers=0).episodes.seeds) == 2


def test_a_method_without_a_policy_of_data_is_judged_in_jax(datasets, tmp_path):
    source = '''
"""Does nothing."""
import dataclasses
import jax.numpy as jnp

@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 1

def init(config, key, example_batch, normaliser=None):
    return {"w": jnp.zeros((example_batch["observations"].shape[-1], 2))}

def update(config, state, batch):
    return state, {"loss": jnp.zeros(())}

def act(config, state, observations, key, explore=False):
    return observations @ state["w"]
'''
    (tmp_path / "still.py").write_text(source)
    run = train(
        datasets("Arm"), str(tmp_path / "still.py"), out=tmp_path / "run", steps=4, batch_size=8
    )
    result = evaluate(run, episodes=2, workers=2)
    assert result.policy == ""
    assert result.episodes.returns == (-7.0, -7.0)
    (tmp_path / "still.py").write_text(source + "\n")
    with pytest.raises(ValueError, match="changed"):
        load_run(run.path).agent.init  # noqa: B018


def test_resume_goes_on_from_the_checkpoint_before_a_damaged_one_where_it_is_told(
    datasets, tmp_path, capsys
):
    run = train(datasets("Arm"), "bc", out=tmp_path / "run", steps=4, batch_size=8)
    newest = run.directory.checkpoints.path(4)
    shutil.copytree(newest, run.directory.checkpoints.path(2))
    (newest / "meta.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match="--fallback"):
        resume.Command(run.path).run()
    resume.Command(run.path, fallback=True).run()
    assert "done; next: robo-rl eval" in capsys.readouterr().out


def test_learning_online_tells_its_plan_and_success_only_where_the_environment_does(
    tmp_path, capsys
):
    small = ("critics=2", "warmup_steps=4", "actor.hidden=8", "critic.hidden=8", "batch_size=8")
    command = [
        "train",
        "--scratch",
        "--env",
        "Pendulum-v1",
        "--steps",
        "8",
        "--evaluate-every",
        "4",
    ]
    command += ["--evaluate-every", "4", "--max-episode-steps", "4", "--evaluation-episodes", "2"]
    assert cli.parse([*command, "--out", str(tmp_path / "run"), "--option", *small]).run() == 0
    said = capsys.readouterr().out
    assert "sac in Pendulum-v1: 8 steps, the first 4 without an update" in said
    number = r"-[\d.]+"
    line = rf"at step 8: return {number} \(95 % interval {number} to {number}\), 2 episodes"
    assert re.search(line, said)
    rows = load_run(tmp_path / "run").metrics()
    assert any("episode_return" in row for row in rows)
    assert not any("episode_success" in row or "success" in row for row in rows)


def test_a_step_limit_is_the_same_whether_it_is_named_or_the_ids_own(datasets, tmp_path):
    name, small = datasets("Arm"), {"steps": 4, "batch_size": 8}
    run = train(name, "bc", out=tmp_path / "run", **small)
    again = train(name, "bc", out=tmp_path / "again", env="probe/Arm-v0", **small)
    assert run.env == again.env
    assert run.env.max_episode_steps is not None


def test_a_recording_of_a_goal_that_only_info_tells_is_no_other_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    where = {"env": "pointmaze-medium-v0", "max_episode_steps": 12}
    record("random", "maze/random-v0", episodes=3, workers=0, **where)
    report = robo_rl.check("maze/random-v0")
    assert report.exit_code == 0
    assert "goal beside" in report.skipped["environment"]
