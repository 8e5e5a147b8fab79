import json
import shutil
import types

import numpy as np
import pytest

from robo_rl import agents
from robo_rl.agents import bc, distill
from robo_rl.data.minari_io import open_dataset
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.hardware.runtime.policy import NumpyPolicy, digest
from robo_rl.learn import recipes
from robo_rl.learn.contract import Capabilities
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs.directory import RunDirectory
from robo_rl.workflow import collect
from robo_rl.workflow import finetune as online_verbs
from robo_rl.workflow import teacher as teaching
from robo_rl.workflow import train as offline_verbs
from robo_rl.workflow.data_view import DataView
from robo_rl.workflow.export import export
from robo_rl.workflow.finetune import adopted, finetune, resume, start_online
from robo_rl.workflow.train import home_of, start_offline, train

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
    config = {"kind": "offline", **teaching.digest(folder)}
    return RunDirectory.create(
        tmp_path / "run", config, fill=lambda made: teaching.keep(made, folder)
    )


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
    run = RunDirectory.create(tmp_path / "some", {"kind": "offline"}).path
    with pytest.raises(ValueError, match=r"learns from a teacher: give teacher \(--teacher\)"):
        train(DATASET, "distill")
    with pytest.raises(ValueError, match="bc does not learn from a teacher"):
        train(DATASET, "bc", teacher=teacher)
    with pytest.raises(ValueError, match=r"learns from a teacher: give teacher \(--teacher\)"):
        finetune(run, "dagger")
    with pytest.raises(ValueError, match="stands on a controller in Python"):
        finetune(run, "residual_base")
    with pytest.raises(
        ValueError, match=r"maps observations \(31,\) to actions \(5,\).*\(31,\).*6"
    ):
        teaching.check_size(teacher, (31,), (6,))
    teaching.check_size(teacher, (31,), (5,))
    shared = types.SimpleNamespace(__name__="robo_rl.agents.sac", CAPABILITIES=Capabilities())
    teaching.check_teacher(shared, teacher, recipes.Recipe(teacher_share=0.5))
    assert not (tmp_path / "runs").exists()


def test_distillation_goes_offline_and_online_and_resumes_by_its_path_alone(
    teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    random = {"scene": "single", "form": "random"}
    collect.collect(DATASET, CollectConfig(episodes=1, env=random, max_steps=20))
    home, origin = home_of(open_dataset(DATASET))
    view = DataView(DATASET, reward_offset=origin.reward_offset)
    loop = OfflineLoop(steps=20, batch_size=8, log_every=20, checkpoint_every=20)
    config = distill.Config(actor=SMALL, learning_rate=3e-2)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(offline_verbs, "run_offline", lambda _, rows: None)
        offline = start_offline(
            tmp_path / "offline", "distill", config, view, loop, home, teacher=teacher
        )
        source = start_offline(tmp_path / "clone", "bc", bc.Config(actor=SMALL), view, loop, home)
    resume(source.path)
    recipe = recipes.get("dagger")
    config = adopted(agents.get("distill"), recipe, source)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(online_verbs, "run_online", lambda _: None)
        online = start_online(
            tmp_path / "online",
            source,
            recipe,
            config,
            OnlineLoop(env_steps=10, capacity=100),
            home,
            view,
            teacher,
        )
    shutil.rmtree(teacher)
    for run in (offline, online):
        resume(run.path)
        folder, difference = export(run.path)
        assert difference <= 1e-5
        policy = NumpyPolicy.load(folder)
        assert (policy.kind, policy.action_size) == ("tanh_mlp", 5)
    rows = view.load()["observations"]
    first = NumpyPolicy.load(offline.path / "policy").compute(rows)
    assert np.abs(first - np.tanh(0.5)).mean() < 0.3
