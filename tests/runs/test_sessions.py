"""Killed runs: SIGKILL at a moment that nobody chose, resume, compare with an untouched run."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from robo_rl.agents import iql
from robo_rl.learn import offline
from robo_rl.learn.monitor import NonFiniteLoss
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics
from tests.probe_envs import Reach, collect, reach_expert
from tests.runs.run_probe import offline_in

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = iql.Config(actor=NetConfig(hidden=(8,)), critic=NetConfig(hidden=(8,)))
LOOP = OfflineLoop(steps=40, batch_size=16, log_every=10, checkpoint_every=20)


def _start(kind, path, *more):
    command = [sys.executable, "-m", "tests.runs.run_probe", kind, str(path), *more]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def _finish(kind, path, *more):
    assert _start(kind, path, *more).wait(timeout=180) == 0


def _kill_after_a_checkpoint(kind, path):
    """SIGKILL between 0 and 0.3 s after the first checkpoint: in an update or in a write."""
    process = _start(kind, path)
    deadline = time.monotonic() + 120
    while not any((path / "checkpoints").glob("0*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0.0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("kind", ["offline", "online"])
def test_a_run_killed_at_a_random_moment_resumes_bit_for_bit(kind, tmp_path):
    _finish(kind, tmp_path / "whole")
    _kill_after_a_checkpoint(kind, tmp_path / "killed")
    cut = RunDirectory.open(tmp_path / "killed").checkpoints.steps()
    _finish(kind, tmp_path / "killed", "resume")
    whole, killed = (RunDirectory.open(tmp_path / name) for name in ("whole", "killed"))
    assert cut
    assert whole.metrics_path.read_bytes() == killed.metrics_path.read_bytes()
    last = whole.checkpoints.latest()
    (expected, _), (got, _) = whole.checkpoints.read(last), killed.checkpoints.read(last)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    if kind == "online":
        assert "buffer/data/observations" in expected


@pytest.fixture
def data():
    return collect(Reach(), 30, reach_expert, noise=0.3)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    run.metrics.write(10, {"loss": 1.0})
    run.metrics.close()
    offline_in(run, CONFIG, data, LOOP, resume=True)
    assert [row["step"] for row in read_metrics(run.metrics_path)] == [10, 20, 30, 40]
    assert "loss" not in read_metrics(run.metrics_path)[0]


def test_resuming_a_finished_run_changes_nothing(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    expected = offline_in(run, CONFIG, data, LOOP)
    before = run.metrics_path.read_bytes()
    again = RunDirectory.open(run.path)
    got = offline_in(again, CONFIG, data, LOOP, resume=True)
    assert again.metrics_path.read_bytes() == before
    assert trees.digest(trees.flatten(got)) == trees.digest(trees.flatten(expected))


def test_a_session_ends_with_the_run_free_for_others(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    offline_in(run, CONFIG, data, LOOP)
    claim = "import sys; from robo_rl.runs.directory import RunDirectory as R; R.open(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", f"{claim}.claim()", str(run.path)], cwd=ROOT, check=True, timeout=60
    )


def test_a_session_that_fails_lets_go_of_the_run_too(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(ZeroDivisionError), sessions.Session(run):
        1 / 0  # noqa: B018
    assert run._lock is None


def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    offline_in(run, CONFIG, data, LOOP)
    longer = OfflineLoop(steps=60, batch_size=16, log_every=10, checkpoint_every=20)
    offline_in(RunDirectory.open(run.path), CONFIG, data, longer, resume=True)
    other = RunDirectory.create(tmp_path / "other", {})
    offline_in(other, CONFIG, data, longer)
    assert run.metrics_path.read_bytes() == other.metrics_path.read_bytes()


def test_an_overflow_keeps_the_last_good_checkpoint(tmp_path, data):
    broken = {**data, "rewards": data["rewards"].copy()}
    broken["rewards"][11] = 3e38
    run = RunDirectory.create(tmp_path / "run", {})
    loop = OfflineLoop(steps=2000, batch_size=1, log_every=5, checkpoint_every=5)
    with pytest.raises(NonFiniteLoss, match="critic_loss not finite"):
        offline_in(run, CONFIG, broken, loop)
    arrays, _ = run.checkpoints.read(run.checkpoints.latest())
    assert all(np.isfinite(value).all() for value in arrays.values())


def test_the_best_evaluation_is_kept_and_the_data_behind_the_normaliser_is_named(tmp_path, data):
    run = RunDirectory.create(tmp_path / "run", {})
    loop = OfflineLoop(
        steps=50, batch_size=16, log_every=10, checkpoint_every=10, evaluate_every=10
    )
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4])
    heard = []
    offline_in(
        run,
        CONFIG,
        data,
        loop,
        evaluate=lambda _: {"success": next(scores)},
        progress=lambda step, values: heard.append((step, values["success"])),
        data_ids=("cube/test-v0",),
    )
    assert run.checkpoints.best() == 20
    assert run.checkpoints.steps() == [20, 40, 50]
    assert heard == [(10, 0.1), (20, 0.9), (30, 0.2), (40, 0.3), (50, 0.4)]
    template = offline.initial_state(iql, CONFIG, data, loop)
    _, _, meta = run.restore(template, 20)
    assert meta["normaliser_data"] == ["cube/test-v0"]
    loaded = sessions.load_agent(run, template, 20)
    assert int(loaded.step) == 20
    assert len((run.path / "timing.jsonl").read_text().splitlines()) == 5
    assert jax.tree.structure(loaded) == jax.tree.structure(template)
