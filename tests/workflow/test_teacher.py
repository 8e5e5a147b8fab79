import json
import pathlib
import shutil
import types

import numpy as np
import pytest

from robo_rl import agents
from robo_rl.agents import bc, distill
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.hardware.runtime.policy import NumpyPolicy, digest
from robo_rl.launch import cli
from robo_rl.learn import recipes
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs.directory import RunDirectory
from robo_rl.workflow import record, training
from robo_rl.workflow import teacher as teaching

SMALL = NetConfig(hidden=(8,))
DATASET = "cube/taught-v0"


@pytest.fixture
def teacher(tmp_path):
    """A policy of 31 observations and 5 actions that does tanh(0.5) whatever it sees."""
    arrays = {
        "normaliser/mean": np.zeros(31, np.float32),
        "normaliser/std": np.ones(31, np.float32),
        "policy/0/kernel": np.zeros((31, 2), np.float32),
        "policy/0/bias": np.zeros(2, np.float32),
        "policy/1/kernel": np.zeros((2, 5), np.float32),
        "policy/1/bias": np.full(5, 0.5, np.float32),
    }
    description = {
        "format": 1,
        "kind": "tanh_mlp",
        "rate_hz": 20.0,
        "observation": {"size": 31, "names": []},
        "action": {"size": 5, "names": [], "low": -1.0, "high": 1.0},
        "policy": {"hidden": [2], "activation": "relu", "layer_norm": "none", "epsilon": 0.0},
        "meta": {},
        "sha256": digest(arrays),
    }
    folder = tmp_path / "policies" / "teacher"
    folder.mkdir(parents=True)
    np.savez(folder / "arrays.npz", **arrays)
    (folder / "policy.json").write_text(json.dumps(description))
    return folder


def _run(tmp_path, folder):
    run = RunDirectory.create(tmp_path / "run", {"kind": "offline", **teaching.digest(folder)})
    teaching.keep(run, folder)
    return run


def test_a_run_keeps_its_teacher_whatever_becomes_of_the_folder(teacher, tmp_path):
    run = _run(tmp_path, teacher)
    shutil.rmtree(teacher)
    control = teaching.of(RunDirectory.open(run.path))
    np.testing.assert_allclose(control(np.ones((3, 31), np.float32)), np.tanh(0.5), rtol=1e-6)
    assert teaching.of(_run(tmp_path / "other", None)) is None


def test_a_teacher_that_is_missing_or_another_one_is_refused(teacher, tmp_path):
    run = _run(tmp_path, teacher)
    kept = run.path / "teacher" / "policy.json"
    about = json.loads(kept.read_text())
    with np.load(kept.parent / "arrays.npz") as stored:
        arrays = {**stored, "policy/1/bias": np.zeros(5, np.float32)}
    np.savez(kept.parent / "arrays.npz", **arrays)
    kept.write_text(json.dumps({**about, "sha256": digest(arrays)}))
    with pytest.raises(ValueError, match="is not the teacher that the run began with"):
        teaching.of(run)
    shutil.rmtree(kept.parent)
    with pytest.raises(ValueError, match="interrupted before it began"):
        teaching.of(run)


def test_what_does_not_fit_is_said_before_anything_is_written(teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="distill learns from a teacher: --teacher POLICY"):
        training.train(cli.Train(DATASET, agent="distill"))
    with pytest.raises(ValueError, match="bc does not learn from a teacher"):
        training.train(cli.Train(DATASET, agent="bc", teacher=teacher))
    with pytest.raises(ValueError, match="distill learns from a teacher: --teacher POLICY"):
        training.finetune(cli.Finetune(pathlib.Path("runs/none"), recipe="dagger"))
    with pytest.raises(ValueError, match="stands on a controller in Python"):
        training.finetune(cli.Finetune(pathlib.Path("runs/none"), recipe="residual_base"))
    with pytest.raises(
        ValueError, match=r"maps observations \(31,\) to actions \(5,\).*\(31,\).*6"
    ):
        teaching.check_size(teacher, (31,), (6,))
    teaching.check_size(teacher, (31,), (5,))
    shared = types.SimpleNamespace(__name__="robo_rl.agents.sac")
    teaching.check(shared, teacher, recipes.Recipe(teacher_share=0.5))
    assert not (tmp_path / "runs").exists()


def test_distillation_goes_offline_and_online_and_resumes_by_its_path_alone(
    teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    random = {"scene": "single", "form": "random"}
    record.record(DATASET, CollectConfig(episodes=1, env=random, max_steps=20))
    env, shift = record.learning_setting(DATASET)
    view = training.DataView(DATASET, reward_shift=shift)
    loop = OfflineLoop(steps=20, batch_size=8, log_every=20, checkpoint_every=20)
    config = distill.Config(actor=SMALL, learning_rate=3e-2)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(training, "run_offline", lambda _: None)
        offline = training.start_offline(
            tmp_path / "offline", "distill", config, view, loop, env, teacher
        )
        source = training.start_offline(
            tmp_path / "clone", "bc", bc.Config(actor=SMALL), view, loop, env
        )
    training.resume(source.path)
    recipe = recipes.get("dagger")
    adopted = training.adopted(agents.get("distill"), recipe, training.load(source.path))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(training, "run_online", lambda _: None)
        online = training.start_online(
            tmp_path / "online",
            source.path,
            recipe,
            adopted,
            OnlineLoop(env_steps=10, capacity=100),
            env,
            view,
            teacher,
        )
    shutil.rmtree(teacher)
    for run in (offline, online):
        training.resume(run.path)
        folder, difference = training.export_run(run.path)
        assert difference <= 1e-5
        policy = NumpyPolicy.load(folder)
        assert (policy.kind, policy.action_size) == ("tanh_mlp", 5)
    rows = view.load()["observations"]
    first = NumpyPolicy.load(offline.path / "policy").compute(rows)
    assert np.abs(first - np.tanh(0.5)).mean() < 0.3
