import json

import numpy as np
import pytest

from robo_rl.agents import bc
from robo_rl.data.minari_io import open_dataset
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.envs.registry import EnvSetting
from robo_rl.judge.episodes import Episodes, evaluation_seeds
from robo_rl.launch import cli
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs.checkpoints import CheckpointError
from robo_rl.runs.directory import RunDirectory
from robo_rl.workflow import choose, collect, evaluate
from robo_rl.workflow.data_view import DataView
from robo_rl.workflow.train import home_of, start_offline

ENV = {"scene": "single", "form": "random", "relative_positions": True}
CONFIG = bc.Config(actor=NetConfig(hidden=(4,)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of two updates each."""
    root = tmp_path_factory.mktemp("select")
    paths = [root / "first", root / "second"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root / "datasets"))
        collect.collect("cube/tiny-v0", CollectConfig(episodes=1, env=ENV, max_steps=5))
        for seed, path in enumerate(paths):
            loop = OfflineLoop(steps=2, batch_size=4, log_every=1, checkpoint_every=1, seed=seed)
            home, _ = home_of(open_dataset("cube/tiny-v0"))
            start_offline(path, "bc", CONFIG, DataView("cube/tiny-v0"), loop, home)
        yield paths


@pytest.fixture
def evaluated(monkeypatch):
    """Evaluations without a simulator: "first" always fails, "second" does on even episodes."""
    calls = []

    def evaluate_policy(folder, env, spaces, episodes, seed, workers, title):
        calls.append((title, episodes, seed, env))
        seeds = evaluation_seeds(seed, episodes)
        success = [title == "second" and index % 2 == 1 for index in range(episodes)]
        each = sorted(zip(seeds, success, strict=True))
        return Episodes(
            seeds=tuple(seed for seed, _ in each),
            success=tuple(won for _, won in each),
            returns=tuple(10.0 * won - 5.0 for _, won in each),
            lengths=(7,) * episodes,
            truncated=(False,) * episodes,
        )

    monkeypatch.setattr(evaluate, "evaluate_policy", evaluate_policy)
    return calls


def _select(runs, out, *more):
    return cli.parse(["select", *map(str, runs), "--out", str(out), "--pulls", "9", *more]).run()


def test_the_better_run_is_recommended_with_figures_and_a_plot(runs, evaluated, tmp_path, capsys):
    out = tmp_path / "new" / "choice.json"
    assert _select(runs, out, "--episodes", "8") == 0
    found = json.loads(out.read_text())
    assert found["recommended"]["run"] == str(runs[1])
    assert found["recommended"]["mean"] == 0.5
    assert found["recommended"]["ci95"] == pytest.approx([0.2152, 0.7848], abs=1e-4)
    assert [policy["mean"] for policy in found["policies"]] == [0.0, 0.5]
    curve = found["deployed"]
    assert len(curve["mean"]) == 9
    assert curve["mean"][0] == pytest.approx(0.25, abs=0.03)  # a blind choice
    assert curve["mean"][-1] > 0.4
    assert all(np.diff(curve["high"]) > -0.05)
    assert "<svg" in out.with_suffix(".html").read_text()
    assert [path.name for path in out.parent.glob(".*")] == []
    shown = capsys.readouterr().out
    assert f"recommended: {runs[1]}, success 0.5" in shown


def test_an_evaluation_is_not_repeated_unless_something_differs(runs, evaluated, tmp_path):
    out = tmp_path / "choice.json"
    _select(runs, out, "--episodes", "6", "--seed", "5")
    first = out.read_text()
    assert [call[:3] for call in evaluated] == [("first", 6, 5), ("second", 6, 5)]
    _select(runs, out, "--episodes", "6", "--seed", "5")
    assert len(evaluated) == 2
    assert out.read_text() == first
    _select(runs, out, "--episodes", "4", "--seed", "5", "--score", "return")
    assert len(evaluated) == 2
    assert json.loads(out.read_text())["recommended"]["mean"] == 0.0  # 10 * 0.5 - 5
    _select(runs, out, "--episodes", "7", "--seed", "5")
    _select(runs, out, "--episodes", "6", "--seed", "5", "--gap", "1")
    assert [call[1] for call in evaluated[2:]] == [7, 7, 6, 6]
    assert evaluated[-1][3].kwargs["gap"] is not None


def test_wrong_runs_are_refused_before_anything_is_evaluated(runs, evaluated, tmp_path):
    with pytest.raises(ValueError, match="at least 2 runs, got 1"):
        _select(runs[:1], tmp_path / "x.json")
    with pytest.raises(ValueError, match="given twice"):
        _select([runs[0], runs[0]], tmp_path / "x.json")
    config = RunDirectory.open(runs[0]).config
    bare = RunDirectory.create(tmp_path / "bare", config).path
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        _select([runs[0], bare], tmp_path / "x.json")
    other = RunDirectory.create(tmp_path / "other", {**config, "env": {"scene": "double"}})
    other.save(1, {"x": np.ones(1)})
    with pytest.raises(ValueError, match=r"different environments.*Double"):
        _select([runs[0], other.path], tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"--pulls\) must be >= 1"):
        _select(runs, tmp_path / "x.json", "--pulls", "0")
    assert evaluated == []
    assert not (tmp_path / "x.json").exists()


def test_the_gap_of_a_finetuned_run_makes_no_other_environment(runs, tmp_path):
    config = RunDirectory.open(runs[0]).config
    tuned = RunDirectory.create(
        tmp_path / "tuned",
        {
            **config,
            "env": EnvSetting.from_json(config["env"]).with_kwargs(gap={"seed": 1}).to_json(),
        },
    )
    tuned.save(1, {"x": np.ones(1)})
    kwargs = {"form": "goal", "relative_positions": True}
    expected = EnvSetting("robo_rl/CubeSingle-v0", kwargs, max_episode_steps=200)
    assert choose.common_env([runs[0], tuned.path]) == expected
