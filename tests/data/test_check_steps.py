"""Recorded steps taken again in Gymnasium's own MuJoCo environments; infos hold no state."""

import dataclasses
import itertools
import types

import gymnasium
import numpy as np
import pytest

from robo_rl.data.check import CheckConfig, check
from robo_rl.data.checks import step_replay
from robo_rl.data.checks.machines import CannotPutError, shown_by
from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.step_replay import Steps
from robo_rl.data.checks.view import view_of
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


NUMBERS = itertools.count()


def found(write, env, episodes):
    dataset = f"test/set{next(NUMBERS)}-v0"
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


def recorded(env, policy, count, seed=0):
    """Episodes of a policy (row, step, rng) -> action."""
    rng = np.random.default_rng(seed)
    episodes = []
    for number in range(count):
        rows, actions, rewards, ends = [env.reset(seed=number)[0]], [], [], []
        while not ends or not any(ends[-1]):
            actions.append(np.asarray(policy(rows[-1], len(actions), rng), np.float32))
            row, reward, *flags, _ = env.step(actions[-1])
            rows.append(row)
            rewards.append(float(reward))
            ends.append(flags)
        terminated, truncated = np.array(ends).T
        episodes.append(
            Episode(np.array(rows), np.array(actions), np.array(rewards), terminated, truncated)
        )
    return episodes


@pytest.fixture
def made():
    """Makes environments and closes them."""
    envs = []

    def make(*arguments, **options):
        envs.append(gymnasium.make(*arguments, **options))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def test_a_state_that_does_not_show_is_said_to_keep_steps_from_being_taken_again(
    write, swimmer, good, monkeypatch
):
    monkeypatch.setattr(type(swimmer.unwrapped), "_get_obs", lambda _: np.zeros(8))
    report, _ = found(write, swimmer, good)
    assert "do not show in observations" in report.skipped["step"]
    assert "do not show in observations" in report.skipped["reward"]


def test_observations_that_no_state_shows_are_said_not_to_be_judged(write, good, made):
    """Of a double pendulum's angles, observations have sines and cosines."""
    env = made("InvertedDoublePendulum-v5")
    rows = np.random.default_rng(0).normal(0.0, 0.1, (10, LIMIT + 1, 9))
    episodes = [
        dataclasses.replace(e, observations=row, actions=e.actions[:, :1])
        for e, row in zip(good, rows, strict=True)
    ]
    report, _ = found(write, env, episodes)
    assert "no state of InvertedDoublePendulumEnv" in report.skipped["step"]


@pytest.mark.parametrize("name", ["InvertedDoublePendulum-v5", "Pendulum-v1", "Reacher-v5"])
def test_angles_are_found_from_their_sines_and_cosines(write, made, name):
    env = made(name, max_episode_steps=20)
    size = env.action_space.shape
    own = recorded(env, lambda _row, _step, rng: rng.uniform(-1.0, 1.0, size), 12)
    report, findings = found(write, env, own)
    assert "step_differs" not in findings
    assert "reward_differs" not in findings
    assert "step" not in report.skipped
    _, findings = found(write, env, changed(own, "actions", np.negative))
    assert findings["step_differs"].confidence == "high"
    _, findings = found(write, env, changed(own, "rewards", lambda r: r + 5.0))
    assert "reward_differs" in findings


def test_rewards_are_judged_while_what_does_not_show_stands_still(write, made):
    """Of the pushed object, Pusher shows no speed, and pays for where it is."""
    env = made("Pusher-v5", max_episode_steps=20)
    own = recorded(env, lambda _row, _step, rng: rng.uniform(-1.0, 1.0, 7), 10)
    report, findings = found(write, env, own)
    assert findings == {}
    assert {"step", "terminated"} <= set(report.passed)
    _, findings = found(write, env, changed(own, "rewards", lambda r: r + 5.0))
    assert "reward_differs" in findings


def with_states(env, episodes):
    """The states that a recorder keeps in infos, from steps taken again."""
    out = []
    for number, episode in enumerate(episodes):
        env.reset(seed=number)
        states = [(env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy())]
        for action in episode.actions:
            env.step(action)
            states.append((env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy()))
        qpos, qvel = (np.array(part) for part in zip(*states, strict=True))
        out.append(dataclasses.replace(episode, infos={"qpos": qpos, "qvel": qvel}))
    return out


def test_steps_are_taken_again_from_recorded_states_too(write, swimmer, good):
    own = with_states(swimmer, good)
    report, findings = found(write, swimmer, own)
    assert findings == {}
    assert {"step", "reward", "terminated", "observation"} <= set(report.passed)
    _, findings = found(write, swimmer, changed(own, "rewards", lambda r: 100.0 * r))
    assert set(findings) == {"reward_differs"}
    report, findings = found(write, swimmer, changed(own, "actions", np.negative))
    assert findings["step_differs"].count > 200
    assert "steps are not the environment's" in report.skipped["reward"]
    _, findings = found(
        write,
        swimmer,
        [
            dataclasses.replace(e, terminations=e.truncations, truncations=e.terminations)
            for e in own
        ],
    )
    assert findings["terminated_differs"].count == len(good)


def test_nothing_is_said_to_be_right_that_steps_of_another_kind_say_nothing_of(
    write, swimmer, good
):
    report, findings = found(write, swimmer, changed(good, "actions", np.negative))
    assert "step_differs" in findings
    assert not {"reward", "terminated"} & set(report.passed)
    assert not {"reward", "terminated"} & set(report.partial)


def test_few_rewards_of_another_kind_are_told_with_their_number(write, swimmer, good):
    spoilt = [e.rewards.copy() for e in good]
    for number, step in ((0, 3), (4, 11), (7, 24)):
        spoilt[number][step] += 100.0
    _, findings = found(
        write,
        swimmer,
        [dataclasses.replace(e, rewards=r) for e, r in zip(good, spoilt, strict=True)],
    )
    assert findings["reward_differs"].places == ((0, 3), (4, 11), (7, 24))
    assert findings["reward_differs"].severity == "warning"


@pytest.mark.parametrize("spoilt", [slice(0, 1), slice(None)])
def test_one_row_of_nothing_is_seen_by_where_the_step_leads(write, swimmer, good, spoilt):
    rows = good[3].observations.copy()
    rows[spoilt] = 0.0
    episodes = [*good[:3], dataclasses.replace(good[3], observations=rows), *good[4:]]
    _, findings = found(write, swimmer, episodes)
    assert findings["step_differs"].places[0][0] == 3


def test_a_suspicion_that_the_environments_own_steps_deny_is_dropped(write, made):
    """A policy without noise ends all episodes at about one step, and gives its actions away."""
    env = made("InvertedPendulum-v5")
    own = recorded(env, lambda _row, _step, _rng: [1.0], 30)
    _, findings = found(write, env, own)
    assert findings == {}
    limited = [
        dataclasses.replace(e, terminations=e.truncations, truncations=e.terminations) for e in own
    ]
    _, findings = found(write, env, limited)
    assert "terminated_differs" in findings


def test_a_suspicion_is_kept_where_the_step_itself_differs(write, swimmer, good):
    rows = good[5].observations.copy()
    rows[12, 4] += 1000.0
    episodes = [*good[:5], dataclasses.replace(good[5], observations=rows), *good[6:]]
    _, findings = found(write, swimmer, episodes)
    assert {"spikes", "step_differs"} <= set(findings)


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


def test_forces_and_places_of_a_moment_before_are_no_part_of_a_state(write, made):
    """Of the humanoid's 348 numbers, most hang on the solver or lag behind the state."""
    env = made("Humanoid-v5", max_episode_steps=8)
    own = recorded(env, lambda _row, _step, rng: rng.uniform(-0.4, 0.4, 17), 8)
    report, findings = found(write, env, with_states(env, own))
    assert findings == {}
    assert "observation" in report.passed
    noisy = changed(with_states(env, own), "observations", lambda o: o + 0.5)
    assert "observation_differs" in found(write, env, noisy)[1]


def linear(env):
    """One policy without noise, from the state alone."""
    size, reach = env.action_space.shape[0], float(env.action_space.high[0])
    gains = np.random.default_rng(1).normal(size=(size, env.observation_space.shape[0])) * 0.3
    return lambda row, _step, _rng: reach * np.tanh(gains @ row)


def by_chance(env):
    low, high = env.action_space.low, env.action_space.high
    return lambda _row, _step, rng: rng.uniform(low, high)


@pytest.mark.parametrize(
    ("name", "count", "policies"),
    [
        ("Hopper-v5", 60, [linear]),
        ("Walker2d-v5", 60, [linear, by_chance]),
        ("Pendulum-v1", 20, [linear]),
        ("Pendulum-v1", 20, [linear, by_chance]),
        ("Reacher-v5", 40, [by_chance]),
        ("Swimmer-v5", 12, [linear]),
    ],
)
def test_ordinary_policies_look_like_no_defect_without_the_environment_too(
    write, made, name, count, policies
):
    env = made(name, **({"max_episode_steps": 200} if name == "Swimmer-v5" else {}))
    sets = [recorded(env, policy(env), count, n) for n, policy in enumerate(policies)]
    episodes = [sets[i % len(sets)][i] for i in range(count)]
    dataset = write(
        episodes,
        f"test/set{next(NUMBERS)}-v0",
        UNKNOWN,
        env=env.spec,
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    report = check(dataset, CheckConfig(reward_samples=0))
    assert not {finding.code for finding in report.findings} - {"jump_suspected"}


def unlike(episodes, share):
    """As another version of the simulator gives them: off by a share of a usual change."""
    rng = np.random.default_rng(0)
    usual = np.percentile(
        np.concatenate([abs(np.diff(e.observations, axis=0)) for e in episodes]), 90, axis=0
    )
    return changed(
        episodes, "observations", lambda o: o + share * usual * rng.uniform(-1.0, 1.0, o.shape)
    )


def some(episodes, rewards, every):
    """Every so many steps with another reward."""
    return changed(
        episodes, "rewards", lambda r: np.where(np.arange(len(r)) % every, r, rewards(r))
    )


@pytest.mark.parametrize(
    ("share", "every", "severity", "confidence"),
    [
        (0.0, 5, "warning", "high"),
        (0.0, 1, "error", "high"),
        (0.004, 5, "warning", "medium"),
        (0.004, 1, "error", "high"),
    ],
)
def test_other_rewards_are_as_sure_as_the_simulator_is_the_same_or_they_are_many(
    write, swimmer, good, share, every, severity, confidence
):
    off = unlike(good, share)
    _, findings = found(write, swimmer, off)
    assert findings == {}
    _, findings = found(write, swimmer, some(off, lambda r: r + 0.05 * (1.0 + abs(r)), every))
    assert set(findings) == {"reward_differs"}
    assert findings["reward_differs"].severity == severity
    assert findings["reward_differs"].confidence == confidence


@pytest.mark.parametrize(("share", "least"), [(0.0, 0.002), (0.004, 0.01)])
def test_a_reward_may_be_off_by_more_in_another_version_of_the_simulator(
    write, swimmer, good, share, least
):
    """By a hundredth of its size and one, in the same simulator by a five-hundredth."""
    near = some(unlike(good, share), lambda r: r + 0.5 * least * (1.0 + abs(r)), 1)
    assert found(write, swimmer, near)[1] == {}
    far = some(unlike(good, share), lambda r: r + 1.6 * least * (1.0 + abs(r)), 1)
    assert set(found(write, swimmer, far)[1]) == {"reward_differs"}


@pytest.mark.parametrize(("share", "odd"), [(0.05, False), (0.2, True)])
def test_steps_may_be_off_by_a_quarter_of_a_usual_change(write, swimmer, good, share, odd):
    _, findings = found(write, swimmer, unlike(good, share))
    assert ("step_differs" in findings) == odd


def steps_of(env, episodes, samples=40):
    views = tuple(view_of(number, episode) for number, episode in enumerate(episodes))
    return Steps(Sample(views, True, ""), env, samples, 0, UNKNOWN)


@pytest.mark.parametrize(
    ("row", "steps"),
    [
        (0, [0]),
        (1, [0, 1]),
        (12, [11, 12]),
        (LIMIT - 1, [LIMIT - 2, LIMIT - 1]),
        (LIMIT, [LIMIT - 1]),
    ],
)
def test_of_a_suspected_row_the_steps_to_and_from_it_are_taken_again(swimmer, good, row, steps):
    again = steps_of(swimmer, good)._near_places([(3, row), (99, row)])
    assert [one.place for one in again] == [(3, step) for step in steps]


def test_of_a_suspected_episode_four_different_steps_are_taken_again(swimmer, good):
    again = steps_of(swimmer, good)._near_places([(3, None), (5, None)])
    assert [one.place[0] for one in again] == [3] * 4 + [5] * 4
    assert len({one.place for one in again}) == 8


def test_sampled_steps_are_of_all_episodes_and_many_begin_or_end_one():
    """An eighth of them begins an episode, an eighth ends one."""
    views = [types.SimpleNamespace(number=number, steps=400) for number in range(20)]
    usable = [(view, step) for view in views for step in range(400)]
    chosen = step_replay._spread(usable, 56, np.random.default_rng(0))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 56
    steps = [usable[i][1] for i in chosen]
    assert (steps.count(0), steps.count(399)) == (7, 7)
    each = np.bincount([usable[i][0].number for i in chosen], minlength=20)
    assert each.min() >= 2
    assert step_replay._spread(usable, 10**6, np.random.default_rng(0)) == list(range(8000))


class Pivot:
    """A slide, an angle that shows by its sine and cosine, and a number that does not show."""

    name = "Pivot"
    period_s = 0.1

    def __init__(self, rest=(0.0, 0.0, 0.0), pushes=0.0, turns=0.0, costs=0.0):
        self.rest = np.array(rest)
        self._moved = np.array([pushes, turns, 0.0])
        self._costs = costs
        self.put(self.rest)

    def put(self, state):
        self._now = np.array(state, np.float64)
        return self._now.copy()

    def state(self):
        return self._now.copy()

    def observe(self):
        slide, angle, _ = self._now
        return np.array([slide, np.sin(angle), np.cos(angle)])

    def act(self, action):
        hidden = self._now[2]
        self._now = self._now + 0.1 * action[0] + hidden * self._moved
        return self.observe(), 1.0 - self._costs * hidden, False

    def cuts(self, shown):
        return np.full(len(shown), np.inf)


ONE = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)


def shows(pivot):
    return shown_by(pivot, ONE, np.random.default_rng(0))


def test_what_an_observation_tells_of_a_state_is_found_by_trying():
    shown = shows(Pivot())
    assert shown.state_of.tolist() == [0, -1, -1]
    assert shown.told.tolist() == [1]
    assert shown.followed.all()
    assert shown.judged.all()
    assert shown.pays


def test_what_does_not_show_is_told_apart_by_what_it_moves():
    assert not shows(Pivot(costs=1.0)).pays
    pushed = shows(Pivot(pushes=1.0))
    assert pushed.followed.all()
    assert pushed.judged.tolist() == [False, True, True]
    with pytest.raises(CannotPutError, match="2 numbers of the state of Pivot do not show"):
        shows(Pivot(turns=1.0))


@pytest.mark.parametrize("angle", [0.3, -1.0, 2.5, -3.0])
def test_a_state_is_found_that_shows_an_observation(angle):
    seen = np.array([0.4, np.sin(angle), np.cos(angle)])
    state = shows(Pivot()).state(seen, np.random.default_rng(0))
    np.testing.assert_allclose(state, [0.4, angle, 0.0], atol=1e-4)


@pytest.mark.parametrize("turn", [-2.0 * np.pi, 0.0, 4.0 * np.pi])
def test_an_angle_is_found_within_half_a_turn_of_where_the_machine_rests(turn):
    shown = shows(Pivot(rest=(0.0, turn, 0.0)))
    for angle in (-2.9, 0.5, 2.9):
        seen = np.array([0.0, np.sin(angle), np.cos(angle)])
        state = shown.state(seen, np.random.default_rng(0))
        assert state[1] == pytest.approx(turn + angle, abs=1e-4)


def test_no_state_shows_a_sine_and_a_cosine_that_do_not_fit():
    assert shows(Pivot()).state(np.array([0.4, 0.9, 0.9]), np.random.default_rng(0)) is None


def test_an_angle_by_its_sine_may_be_a_whole_turn_away_either_way():
    state = np.array([0.4, 2.5, 0.1])
    before = state.copy()
    turned = shows(Pivot()).turned(state)
    np.testing.assert_allclose(turned, [[0.4, 2.5 + 2 * np.pi, 0.1], [0.4, 2.5 - 2 * np.pi, 0.1]])
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("turns", [-3, -1, 0, 1, 2])
def test_whole_turns_are_taken_off_an_angle_that_was_found(turns):
    shown = shows(Pivot())
    seen = np.array([0.4, np.sin(2.5), np.cos(2.5)])
    state = shown._unwound(np.array([0.4, 2.5 + 2.0 * np.pi * turns, 0.0]), seen)
    np.testing.assert_allclose(state, [0.4, 2.5, 0.0], atol=1e-4)
