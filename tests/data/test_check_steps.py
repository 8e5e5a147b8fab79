"""Recorded steps taken again in Gymnasium's own MuJoCo environments; infos hold no state."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from robo_rl.data.check import check
from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import Provenance, RewardLabel

LIMIT = 25
UNKNOWN = Provenance(None, RewardLabel("environment", "1"))


@pytest.fixture(scope="module")
def swimmer():
    env = gymnasium.make("Swimmer-v5", max_episode_steps=LIMIT)
    yield env
    env.close()


@pytest.fixture(scope="module")
def good(swimmer):
    """Ten episodes of random actions."""
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(10):
        rows, actions, rewards = [swimmer.reset(seed=seed)[0]], [], []
        for _ in range(LIMIT):
            actions.append(rng.uniform(-1.0, 1.0, 2).astype(np.float32))
            row, reward, *_ = swimmer.step(actions[-1])
            rows.append(row)
            rewards.append(reward)
        ends = np.arange(LIMIT) == LIMIT - 1
        episodes.append(
            Episode(np.array(rows), np.array(actions), np.array(rewards), ends & False, ends)
        )
    return episodes


def found(write, env, episodes, dataset="test/swimmer-v0"):
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    report = check(write(episodes, dataset, UNKNOWN, env=env.spec, **spaces), env=env)
    return report, {finding.code: finding for finding in report.findings}


def changed(episodes, name, change):
    return [dataclasses.replace(e, **{name: change(getattr(e, name))}) for e in episodes]


def test_steps_of_the_environment_itself_pass(write, swimmer, good):
    report, findings = found(write, swimmer, good)
    assert findings == {}
    assert {"step", "reward", "terminated"} <= set(report.passed)


def test_rewards_that_the_environment_does_not_pay_are_an_error(write, swimmer, good):
    report, findings = found(write, swimmer, changed(good, "rewards", np.negative))
    assert set(findings) == {"reward_differs"}
    assert report.exit_code == 1


def test_a_time_limit_marked_terminated_is_an_error(write, swimmer, good):
    ended = [
        dataclasses.replace(e, terminations=e.truncations, truncations=e.terminations) for e in good
    ]
    _, findings = found(write, swimmer, ended)
    assert findings["terminated_differs"].count == len(good)
    assert findings["terminated_differs"].severity == "error"


def test_actions_that_were_cut_are_seen_by_where_they_lead(write, swimmer, good):
    cut = changed(good, "actions", lambda a: np.clip(5.0 * a, -1.0, 1.0).astype(np.float32))
    report, findings = found(write, swimmer, cut)
    assert "step_differs" in findings
    assert findings["step_differs"].severity == "warning"
    assert report.exit_code == 0


def test_another_robot_of_the_same_size_is_seen(write, swimmer, good):
    slow = gymnasium.make("Swimmer-v5", frame_skip=1)
    _, findings = found(write, slow, good)
    assert findings["step_differs"].confidence == "high"
    slow.close()


def test_impossible_states_leave_no_log_of_the_simulator(
    write, swimmer, good, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    far = changed(good, "observations", lambda o: o * 1e9)
    _, findings = found(write, swimmer, far)
    assert "step_differs" in findings
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()
    assert "unstable" not in "".join(capfd.readouterr())


def test_an_environment_that_fails_is_said_not_raised(write, swimmer, good, monkeypatch):
    def broken(*_):
        raise RuntimeError("no licence")

    monkeypatch.setattr(type(swimmer.unwrapped), "step", broken)
    report, findings = found(write, swimmer, good)
    assert "no licence" in report.skipped["step"]
    assert findings == {}


def test_a_state_that_does_not_show_is_said_to_keep_steps_from_being_taken_again(write, good):
    """Of a double pendulum's angles, observations have sines and cosines."""
    env = gymnasium.make("InvertedDoublePendulum-v5")
    rows = np.random.default_rng(0).normal(0.0, 0.1, (10, LIMIT + 1, 9))
    episodes = [
        dataclasses.replace(e, observations=row, actions=e.actions[:, :1])
        for e, row in zip(good, rows, strict=True)
    ]
    report, _ = found(write, env, episodes)
    assert "do not show in observations" in report.skipped["step"]
    env.close()


def test_speeds_that_the_environment_cuts_are_not_started_from(write):
    """Walker2d shows no speed beyond 10 rad/s, so such a state cannot be put."""
    env = gymnasium.make("Walker2d-v5")
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(12):
        rows, actions, ends = [env.reset(seed=seed)[0]], [], [False]
        while not ends[-1]:
            actions.append(rng.uniform(-1.0, 1.0, 6).astype(np.float32))
            row, _, terminated, _, _ = env.step(actions[-1])
            rows.append(row)
            ends.append(terminated)
        flags = np.array(ends[1:])
        episodes.append(
            Episode(np.array(rows), np.array(actions), np.zeros(len(flags)), flags, ~flags & False)
        )
    assert max(abs(e.observations).max() for e in episodes) == 10.0
    _, findings = found(write, env, episodes)
    assert "step_differs" not in findings
    env.close()
