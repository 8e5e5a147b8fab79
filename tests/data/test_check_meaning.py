"""What is wrong with how things move, on three joints that are pushed about.

Each defect is put into clean episodes that no finding is made of.
"""

import dataclasses
import json
import statistics

import gymnasium
import numpy as np
import pytest

from robo_rl.data.check import check
from robo_rl.data.checks import actions as actions_check
from robo_rl.data.checks import clocks, labels, policies, sample, still
from robo_rl.data.checks.meaning import judge
from robo_rl.data.checks.motion import motion_of, two_groups
from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.view import view_of
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Dataset
from robo_rl.data.provenance import Provenance, RewardLabel

HZ = 10.0
COUNT, STEPS = 24, 80
SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (7,), np.float64)
ACTIONS = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
FROM_ENV = Provenance(HZ, RewardLabel("environment", "1"))


def push(seed, steps=STEPS):
    """Angles (3), speeds (3) and a lamp that is on at times; torque is the action, damped."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-0.8, 0.8, (steps, 3)).astype(np.float32)
    angle, speed = np.empty((steps + 1, 3)), np.empty((steps + 1, 3))
    angle[0], speed[0] = rng.uniform(-1.0, 1.0, 3), rng.uniform(-1.0, 1.0, 3)
    for step in range(steps):
        speed[step + 1] = 0.95 * speed[step] + 0.5 * actions[step] + rng.normal(0.0, 0.02, 3)
        angle[step + 1] = angle[step] + (speed[step] + speed[step + 1]) / (2.0 * HZ)
    lamp = (rng.random((steps + 1, 1)) < 0.3).astype(float)
    return Episode(
        observations=np.concatenate([angle, speed, lamp], axis=1),
        actions=actions,
        rewards=speed[1:, 0] - (actions**2).sum(axis=1),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


@pytest.fixture(scope="module")
def good():
    return tuple(push(seed) for seed in range(COUNT))


def codes(episodes, provenance=FROM_ENV):
    metadata = {"total_episodes": len(episodes), "data_format": "hdf5"}
    if provenance is not None:
        metadata["robo_rl"] = provenance.to_json()
    dataset = Dataset(None, metadata)
    views = tuple(view_of(number, episode) for number, episode in enumerate(episodes))
    judged = judge(dataset, Sample(views, True, ""))
    return {one.code: one for findings, _ in judged.values() for one in findings}


def each(episodes, **changes):
    """Every episode with some arrays changed: each(good, actions=lambda a: -a)."""
    return [
        dataclasses.replace(
            e, **{name: change(getattr(e, name)) for name, change in changes.items()}
        )
        for e in episodes
    ]


def every_third(episodes, **changes):
    return [e if i % 3 else each([e], **changes)[0] for i, e in enumerate(episodes)]


def scaled(columns, factor):
    factors = np.ones(7)
    factors[columns] = factor
    return lambda rows: rows * factors


def test_clean_episodes_make_no_finding(good):
    assert codes(good) == {}


def test_few_or_flat_or_short_episodes_are_said_not_to_be_judged(good):
    metadata = {"total_episodes": 3, "data_format": "hdf5"}
    views = tuple(view_of(number, episode) for number, episode in enumerate(good[:3]))
    judged = judge(Dataset(None, metadata), Sample(views, True, ""))
    for name in ("actions", "clock", "units", "order", "spikes", "still"):
        assert judged[name][1].whole
        assert "3 episodes" in judged[name][1].reason


@pytest.mark.parametrize(
    ("late", "shift"),
    [("late", lambda a: np.r_[a[:1], a[:-1]]), ("early", lambda a: np.r_[a[1:], a[-1:]])],
)
def test_actions_of_another_step_are_found(good, late, shift):
    found = codes(each(good, actions=shift))
    assert set(found) == {"action_lag"}
    assert f"one step {late}" in found["action_lag"].message
    assert found["action_lag"].confidence == "high"


def test_a_policy_that_gives_its_next_action_away_is_no_lag(good):
    """Actions mostly follow from the state, so that the next one tells of the next state."""
    rng = np.random.default_rng(0)

    def feedback(seed):
        episode = push(seed)
        rows, actions = episode.observations.copy(), episode.actions.copy()
        for step in range(STEPS):
            angle, speed = rows[step, :3], rows[step, 3:6]
            actions[step] = np.clip(-0.8 * angle - 0.5 * speed + rng.normal(0, 0.1, 3), -1, 1)
            rows[step + 1, 3:6] = 0.95 * speed + 0.5 * actions[step]
            rows[step + 1, :3] = angle + (speed + rows[step + 1, 3:6]) / (2.0 * HZ)
        return dataclasses.replace(episode, observations=rows, actions=actions)

    assert "action_lag" not in codes([feedback(seed) for seed in range(COUNT)])


def steered(seed, gain, noise=0.0):
    """As `push`, with torques that follow from the state."""
    rng = np.random.default_rng(seed)
    episode = push(seed)
    rows, actions = episode.observations.copy(), episode.actions.copy()
    for step in range(STEPS):
        angle, speed = rows[step, :3], rows[step, 3:6]
        wanted = np.sin(gain * angle) - 0.3 * speed + noise * rng.normal(size=3)
        actions[step] = np.clip(wanted, -1.0, 1.0)
        rows[step + 1, 3:6] = 0.95 * speed + 0.5 * actions[step] - 0.1 * np.sin(3.0 * angle)
        rows[step + 1, :3] = angle + (speed + rows[step + 1, 3:6]) / (2.0 * HZ)
    return dataclasses.replace(episode, observations=rows, actions=actions)


@pytest.mark.parametrize("gain", [-1.0, -2.0, -3.0])
def test_actions_of_a_policy_without_noise_are_no_defect(good, gain):
    steady = [steered(seed, gain) for seed in range(COUNT)]
    wrong = {"action_lag", "action_inverted", "actions_swapped"}
    assert not wrong & set(codes(steady))
    assert not wrong & set(codes([*steady[: COUNT // 2], *good[COUNT // 2 :]]))


def test_late_actions_of_a_policy_with_noise_are_found():
    noisy = [steered(seed, -2.0, 0.4) for seed in range(COUNT)]
    assert "action_lag" not in codes(noisy)
    assert "action_lag" in codes(each(noisy, actions=lambda a: np.r_[a[:1], a[:-1]]))


def test_an_action_of_the_other_sign_is_found_in_its_episodes(good):
    found = codes(every_third(good, actions=lambda a: a * np.float32([1, 1, -1])))
    assert set(found) == {"action_inverted"}
    assert found["action_inverted"].places == tuple((i, None) for i in range(0, 15, 3))
    assert found["action_inverted"].count == COUNT // 3


def test_two_exchanged_actions_are_found_in_their_episodes(good):
    found = codes(every_third(good, actions=lambda a: a[:, [1, 0, 2]]))
    assert "actions 0 and 1" in found["actions_swapped"].message
    assert found["actions_swapped"].count == COUNT // 3


def test_two_exchanged_columns_are_found_in_their_episodes(good):
    found = codes(every_third(good, observations=lambda o: o[:, [2, 1, 0, 3, 4, 5, 6]]))
    assert "numbers [0, 2]" in found["columns_swapped"].message
    assert found["columns_swapped"].count == COUNT // 3


def test_episodes_played_backwards_are_found_and_their_actions_not_judged(good):
    backwards = every_third(good, observations=lambda o: o[::-1].copy())
    found = codes(backwards)
    assert set(found) == {"time_reversed"}
    assert found["time_reversed"].places == tuple((i, None) for i in range(0, 15, 3))


def test_shuffled_steps_are_found():
    rng = np.random.default_rng(0)
    shuffled = [each([push(s)], observations=rng.permutation)[0] for s in range(COUNT)]
    found = codes(shuffled)
    assert set(found) == {"unordered"}
    assert found["unordered"].count > 0.8 * COUNT


def wind(seed, steps=40):
    """A load that goes at the speed it is told, another at each step: only its place goes on."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1.0, 1.0, (steps, 1)).astype(np.float32)
    place = np.cumsum(np.append(rng.uniform(), 0.1 * actions[:, 0]))
    return Episode(
        observations=np.stack([place, np.append(0.0, actions[:, 0])], axis=1),
        actions=actions,
        rewards=-abs(place[1:]),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


def test_one_number_that_goes_on_shows_that_steps_are_in_order():
    assert "unordered" not in codes([wind(seed) for seed in range(COUNT)])


def thinned(episode, kept):
    rows = np.append(kept, len(episode))
    steps = len(kept)
    return dataclasses.replace(
        episode,
        observations=episode.observations[rows],
        actions=episode.actions[kept],
        rewards=episode.rewards[kept],
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


def test_episodes_at_half_the_rate_are_found(good):
    slow = [e if i % 3 else thinned(e, np.arange(0, STEPS, 2)) for i, e in enumerate(good)]
    found = codes(slow)
    assert "rate_mixed" in found
    assert "2 times as far" in found["rate_mixed"].message
    assert found["rate_mixed"].count == COUNT // 3
    assert "units_mixed" not in found


def test_dropped_frames_are_found_where_they_are(good):
    rng = np.random.default_rng(0)
    kept = [np.flatnonzero(np.r_[True, rng.random(STEPS - 1) > 0.15]) for _ in good]
    found = codes([thinned(e, k) for e, k in zip(good, kept, strict=True)])
    assert "frames_dropped" in found
    episode, step = found["frames_dropped"].places[0]
    assert np.diff(np.append(kept[episode], STEPS))[step] == 2


def test_degrees_in_some_episodes_are_found(good):
    found = codes(every_third(good, observations=scaled([0, 1], np.rad2deg(1.0))))
    assert set(found) == {"units_mixed"}
    assert "numbers [0, 1] are 57.3 times" in found["units_mixed"].message
    assert "degrees for radians" in found["units_mixed"].message


def test_degrees_beside_radians_are_found(good):
    found = codes(each(good, observations=scaled([0, 1], np.rad2deg(1.0))), None)
    assert set(found) == {"units_mixed"}
    assert "numbers [0, 1]" in found["units_mixed"].message


@pytest.mark.parametrize(("hz", "wrong"), [(10.0, False), (40.0, True), (5.0, True)])
def test_a_control_rate_that_the_velocities_deny_is_found(good, hz, wrong):
    found = codes(good, dataclasses.replace(FROM_ENV, control_hz=hz))
    assert set(found) == ({"rate_differs"} if wrong else set())
    if wrong:
        assert "is 10 Hz" in found["rate_differs"].message


def test_repeated_rows_are_found(good):
    stale = np.arange(STEPS + 1) - (np.arange(STEPS + 1) % 3 == 1)
    found = codes(each(good, observations=lambda o: o[stale]))
    assert "rows_repeated" in found
    assert (0, 1) in found["rows_repeated"].places


def freeze(rows):
    return np.r_[rows[:40], np.repeat(rows[40:41], len(rows) - 40, axis=0)]


def test_frozen_sensors_are_found_and_a_machine_at_rest_is_not(good):
    found = codes(every_third(good, observations=freeze))
    assert found["frozen"].count == COUNT // 3
    still = [
        dataclasses.replace(e, actions=np.r_[e.actions[:40], np.zeros((40, 3), np.float32)])
        for e in each(good, observations=freeze)
    ]
    assert "frozen" not in codes(still)


@pytest.mark.parametrize("width", [1, 2])
def test_sensors_of_one_or_two_numbers_are_seen_to_freeze_with_less_trust(good, width):
    narrow = [dataclasses.replace(e, observations=e.observations[:, 3 : 3 + width]) for e in good]
    assert "frozen" not in codes(narrow)
    found = codes(every_third(narrow, observations=freeze))
    assert found["frozen"].count == COUNT // 3
    assert found["frozen"].confidence == "low"


def test_what_labels_cannot_tell_is_said(good):
    def gap(episodes):
        views = tuple(view_of(number, episode) for number, episode in enumerate(episodes))
        dataset = Dataset(None, {"total_episodes": len(views), "data_format": "hdf5"})
        return judge(dataset, Sample(views, True, ""))["labels"][1]

    assert gap(good) is None
    noise = np.random.default_rng(0)
    assert "no linear model" in gap(each(good, rewards=lambda r: noise.normal(size=len(r)))).reason
    short = gap([e.span(0, 5) for e in good]).reason
    assert "a lag of rewards cannot be told: 0 episodes" in short
    assert "time limits" not in short


def test_actions_that_explain_nothing_are_said_to_tell_nothing(good):
    rng = np.random.default_rng(0)
    views = [view_of(i, e) for i, e in enumerate(each(good, actions=rng.permutation))]
    dataset = Dataset(None, {"total_episodes": len(views), "data_format": "hdf5"})
    found, gap = judge(dataset, Sample(tuple(views), True, ""))["actions"]
    assert found == []
    assert "explain any of the motion" in gap.reason


def test_a_last_observation_that_repeats_the_one_before_is_found(good):
    found = codes(each(good, observations=lambda o: np.r_[o[:-1], o[-2:-1]]))
    assert set(found) == {"last_repeated"}
    assert found["last_repeated"].count == COUNT


def test_a_dead_column_is_doubtful_and_a_fixed_goal_is_not(good):
    found = codes(each(good, observations=scaled([6], 0.0)))
    assert set(found) == {"column_constant"}
    assert found["column_constant"].confidence == "low"
    padded = each(good, observations=lambda o: np.c_[o, np.zeros((len(o), 3))])
    assert codes(padded) == {}
    assert codes(each(good, observations=lambda o: np.c_[o[:, :6], np.full(len(o), 0.3)])) == {}


def stuck(rows, column, since):
    rows = rows.copy()
    rows[since:, column] = rows[since, column]
    return rows


@pytest.mark.parametrize(("since", "spoil"), [(40, each), (0, every_third)])
def test_a_number_that_stops_to_change_is_doubtful(good, since, spoil):
    found = codes(spoil(good, observations=lambda o: stuck(o, 1, since)))
    assert "[1]" in found["column_stuck"].message
    assert found["column_stuck"].confidence == "low"
    assert found["column_stuck"].places[0] == (0, since)


def test_a_mark_for_what_is_missing_is_found(good):
    rng = np.random.default_rng(0)

    def marked(rows):
        return np.where((rng.random(len(rows)) < 0.2)[:, None] & (np.arange(7) == 2), -999.0, rows)

    found = codes(each(good, observations=marked))
    assert "-999 in number 2" in found["sentinel"].message


def test_rows_of_nothing_are_doubtful(good):
    found = codes(each(good, observations=lambda o: np.r_[o[:1] * 0.0, o[1:]]))
    assert found["rows_zero"].count == COUNT
    assert found["rows_zero"].confidence == "low"


def test_one_wild_reward_is_found_and_a_prize_at_the_end_is_not(good):
    def prized(step):
        rewards = [e.rewards.copy() for e in good]
        rewards[3][step] = 1e6
        return [dataclasses.replace(e, rewards=r) for e, r in zip(good, rewards, strict=True)]

    assert codes(prized(20))["reward_spike"].places == ((3, 20),)
    ended = [
        dataclasses.replace(e, terminations=e.truncations, truncations=e.terminations)
        for e in prized(STEPS - 1)
    ]
    assert "reward_spike" not in codes(ended)


def test_spikes_are_found_where_they_are(good):
    spiked = [e.observations.copy() for e in good]
    for number, row in ((2, 30), (5, 0), (9, STEPS)):
        spiked[number][row, 1] += 500.0
    found = codes(
        [dataclasses.replace(e, observations=o) for e, o in zip(good, spiked, strict=True)]
    )
    assert found["spikes"].places == ((2, 30), (5, 0), (9, STEPS))
    assert "[1]" in found["spikes"].message


def test_a_force_that_is_mostly_none_has_no_spikes(good):
    rng = np.random.default_rng(0)

    def touched(rows):
        forces = rng.pareto(1.0, (len(rows), 2)) * (rng.random((len(rows), 2)) < [0.004, 0.9])
        return np.c_[rows, forces]

    assert "spikes" not in codes(each(good, observations=touched))


@pytest.mark.parametrize(
    ("when", "shift"),
    [("late", lambda r: np.r_[r[:1], r[:-1]]), ("early", lambda r: np.r_[r[1:], r[-1:]])],
)
def test_rewards_of_another_step_are_found(good, when, shift):
    found = codes(each(good, rewards=shift))
    assert set(found) == {"reward_lag"}
    assert f"one step {when}" in found["reward_lag"].message


@pytest.mark.parametrize(
    ("value", "odd"), [(-3.2, True), (0.0, False), (-1.0, False), (1.0, False)]
)
def test_a_reward_that_never_changes_is_found_unless_it_is_a_usual_one(good, value, odd):
    found = codes(each(good, rewards=lambda r: np.full_like(r, value)))
    assert set(found) == ({"reward_constant"} if odd else set())


def test_time_limits_marked_terminated_are_found(good):
    found = codes(each(good, terminations=lambda t: np.arange(len(t)) == len(t) - 1))
    assert found["limit_terminated"].count == COUNT
    early = [
        dataclasses.replace(e.span(0, 30 + i), terminations=np.arange(30 + i) == 29 + i)
        for i, e in enumerate(good)
    ]
    assert "limit_terminated" not in codes(early)
    alike = [
        dataclasses.replace(e.span(0, 28 + i % 3), terminations=np.arange(28 + i % 3) == 27 + i % 3)
        for i, e in enumerate(good)
    ]
    assert "limit_terminated" not in codes(alike)


def test_inverted_success_is_found(good):
    ended = []
    for i, e in enumerate(good):
        e = e.span(0, 30 + i)
        last = np.arange(len(e) + 1) == len(e)
        ended.append(dataclasses.replace(e, terminations=last[1:], infos={"success": last}))
    assert "success_differs" not in codes(ended)
    inverted = [dataclasses.replace(e, infos={"success": ~e.infos["success"]}) for e in ended]
    assert codes(inverted)["success_differs"].count == COUNT


def test_a_recording_split_into_single_steps_is_found(good):
    single = [e.span(t, t + 1) for e in good[:2] for t in range(40)]
    assert "single_steps" in codes(single)


def put(write, episodes):
    return write(
        episodes,
        provenance=FROM_ENV,
        observation_space=SPACE,
        action_space=ACTIONS,
        env=None,
    )


def test_the_check_says_what_it_saw_how_sure_it_is_and_what_to_do(write, good):
    report = check(put(write, each(good, actions=lambda a: np.r_[a[:1], a[:-1]])))
    (finding,) = report.findings
    assert (finding.code, finding.severity, report.exit_code) == ("action_lag", "warning", 0)
    assert "shift the actions" in finding.advice
    assert "share of the motion" in finding.basis
    table = report.table()
    assert "Confidence high: share of the motion" in table
    assert {"order", "clock", "units", "still", "spikes", "labels"} <= set(report.passed)


def test_actions_too_small_for_their_space_are_doubtful(write, good):
    report = check(put(write, each(good, actions=lambda a: a * np.float32(0.02))))
    assert [(f.code, f.confidence) for f in report.findings] == [("action_small", "low")]


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        (lambda e: each([e], observations=lambda o: o + 1e-6)[0], "nearly"),
        (lambda e: thinned(e, np.arange(STEPS - 3)), "the beginning of"),
    ],
)
def test_near_copies_and_beginnings_of_episodes_are_found(write, good, copy, kind):
    report = check(put(write, [*good, copy(good[4])]))
    found = {finding.code: finding for finding in report.findings}
    assert f"{COUNT} is {kind} 4" in found["near_copy"].message
    assert found["near_copy"].places == ((COUNT, None),)
    assert "duplicate" not in found


def test_episodes_that_begin_alike_and_part_later_are_no_copies(write, good):
    """As a simulator with one start and noise that sets in later gives them."""
    parting = [
        dataclasses.replace(e, observations=np.r_[good[0].observations[:6], e.observations[6:]])
        for e in good
    ]
    for e in parting:
        e.actions[:6] = good[0].actions[:6]
    assert "near_copy" not in {f.code for f in check(put(write, parting)).findings}


def test_a_large_dataset_is_judged_by_a_sample_and_says_so(write):
    short = [push(seed, 10) for seed in range(230)]
    report = check(put(write, short))
    assert report.findings == ()
    assert "200 of 230 episodes" in report.partial["actions"]
    assert "finite" in report.passed


def test_the_last_step_is_the_place_of_a_limit_marked_terminated(good):
    found = codes(each(good, terminations=lambda t: np.arange(len(t)) == len(t) - 1))
    lengths = {number: len(episode.rewards) for number, episode in enumerate(good)}
    assert dict(found["limit_terminated"].places) == {
        number: lengths[number] - 1 for number, _ in found["limit_terminated"].places
    }


def test_a_switch_that_rests_is_no_number_that_stopped(good):
    """It is there again and again, as a contact or a gripper's state."""

    def switch(rows):
        rows = rows.copy()
        rows[:, 1] = np.arange(len(rows)) // 3 % 2
        rows[40:, 1] = 0.0
        return rows

    assert "column_stuck" not in codes(each(good, observations=switch))


def test_pictures_are_left_out_of_what_is_kept_and_all_else_stays():
    infos = {"t": np.zeros(5), "q": np.zeros((5, 3)), "depth": np.zeros((5, 4, 4))}
    infos["rgb"] = np.zeros((5, 4, 4, 3), np.uint8)
    assert set(sample._small(infos)) == {"t", "q"}


def gap_of(episodes, name):
    views = tuple(view_of(number, episode) for number, episode in enumerate(episodes))
    dataset = Dataset(None, {"total_episodes": len(views), "data_format": "hdf5"})
    return judge(dataset, Sample(views, True, ""))[name][1]


@pytest.mark.parametrize(
    ("steps", "since", "odd"),
    [
        (80, 64, True),
        (80, 65, False),
        (81, 64, True),
        (81, 65, False),
        (40, 30, True),
        (40, 31, False),
    ],
)
def test_a_number_is_stuck_that_rests_for_a_fifth_of_the_episode_and_ten_steps(steps, since, odd):
    episodes = [push(seed, steps) for seed in range(COUNT)]
    found = codes(each(episodes, observations=lambda o: stuck(o, 1, since)))
    assert ("column_stuck" in found) == odd


def test_a_level_that_is_held_for_some_steps_is_no_number_that_stopped(good):
    """It has few values while it changes, though it comes to rest at another in each episode."""
    rng = np.random.default_rng(0)

    def level(rows):
        rows = rows.copy()
        rows[:, 1] = np.arange(len(rows)) // 3 % 4
        rows[40:, 1] = rng.uniform(4.0, 5.0)
        return rows

    assert "column_stuck" not in codes(each(good, observations=level))


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_a_reward_that_never_changes_leaves_no_question_of_its_step(good, value):
    assert gap_of(each(good, rewards=lambda r: np.full_like(r, value)), "labels") is None


@pytest.mark.parametrize("first", [-10.0, 10.0])
def test_a_first_reward_beyond_all_others_hides_no_lag(good, first):
    late = each(good, rewards=lambda r: np.r_[[first], r[:-1]])
    assert "reward_lag" in codes(late)


@pytest.mark.parametrize(("steps", "enough"), [(20, True), (19, False)])
def test_actions_are_judged_from_ten_steps_for_each_number_on(good, steps, enough):
    """There are 7 observed numbers, and 3 actions at three lags: 16 in all."""
    gap = gap_of([good[0].span(0, steps), *(e.span(0, 20) for e in good[1:8])], "actions")
    if enough:
        assert gap is None or not gap.whole
    else:
        assert gap.whole
        assert gap.reason == "159 steps are too few for 16 numbers"


@pytest.mark.parametrize(
    ("numbers", "led", "share"), [(6, 1, 0.5), (12, 2, 0.5), (12, 1, 0.25), (17, 2, 0.5)]
)
def test_actions_are_told_by_the_sixth_of_the_numbers_that_they_lead_best(numbers, led, share):
    """What goes where it is told: half of its change is the new command, half was the old one."""
    rng = np.random.default_rng(0)
    views = []
    for number in range(12):
        actions = rng.normal(size=(200, led))
        rows = rng.normal(size=(201, numbers))
        rows[1:, :led] = actions
        ends = np.arange(200) == 199
        views.append(view_of(number, Episode(rows, actions, rows[1:, 0], ends & False, ends)))
    motion = motion_of(views)
    assert actions_check._unique_gain(motion, 0) == pytest.approx(share, abs=0.03)
    assert actions_check._unique_gain(motion, 1) == pytest.approx(0.0, abs=0.03)


def moving(columns, count=10):
    """The motion of episodes that all show the same rows."""
    rows = np.stack(columns, axis=1)
    steps = len(rows) - 1
    episode = Episode(
        rows,
        np.linspace(0.0, 4.0, steps)[:, None],
        np.zeros(steps),
        np.zeros(steps, bool),
        np.arange(steps) == steps - 1,
    )
    return motion_of([view_of(number, episode) for number in range(count)])


@pytest.mark.parametrize("middle", [0.0, -1e3, 1e3])
@pytest.mark.parametrize(("share", "varies"), [(0.9, False), (1.2, True)])
def test_a_number_varies_by_more_than_a_billionth_of_its_size_and_one(middle, share, varies):
    spread = share * 1e-9 * (1.0 + abs(middle))
    doubtful = middle + 1.28 * spread * np.tile([-1.0, 1.0], 20)
    motion = moving([np.arange(40.0), doubtful])
    assert motion.columns.tolist() == ([0, 1] if varies else [0])
    assert motion.constant.tolist() == ([] if varies else [1])


def test_the_unit_of_a_number_is_its_deviation_whatever_its_spikes():
    shares = (np.random.default_rng(0).permutation(4001) + 0.5) / 4001
    rows = np.array([statistics.NormalDist(5.0, 3.0).inv_cdf(share) for share in shares])
    rare = np.where(np.arange(4001) % 25 == 0, 10.0, 0.0)  # its middle nine tenths stand still
    spiked = rows.copy()
    spiked[::50] = 1e6
    motion = moving([rows, spiked, rare], 8)
    assert motion.spread == pytest.approx([3.0, 3.0, rare.std()], rel=0.05)
    assert motion.spread[[0, 2]] == pytest.approx([3.0, rare.std()], rel=0.01)
    states = motion.courses[0].states
    assert np.median(states[:, 0]) == pytest.approx(0.0, abs=1e-9)
    assert states[:, 0].std() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(motion.raw[0].states[:, 0], rows)
    assert motion.courses[0].actions.mean() == pytest.approx(0.0, abs=1e-9)
    assert motion.courses[0].actions.std() == pytest.approx(1.0)


def jittered(jitter, step, seed):
    """A number that trembles and once goes far."""
    rng = np.random.default_rng(seed)
    return jitter * rng.uniform(-1.0, 1.0, STEPS + 1) + step * (np.arange(STEPS + 1) > STEPS // 2)


@pytest.mark.parametrize(
    ("trembles", "goes", "unit"),
    [
        (1000.0, 1000.0, ": a thousandth (mm for m)"),
        (57.3, 57.3, ": degrees for radians"),
        (1000.0, 300.0, None),
        (300.0, 1000.0, None),
        (300.0, 300.0, None),
    ],
)
def test_a_number_by_itself_is_in_another_unit_where_changes_and_range_say_a_known_one(
    good, trembles, goes, unit
):
    def with_another(number, episode):
        odd = number % 3 == 0
        column = jittered(trembles if odd else 1.0, 50.0 * (goes if odd else 1.0), number)
        return each([episode], observations=lambda o: np.c_[o, column])[0]

    found = codes([with_another(number, episode) for number, episode in enumerate(good)])
    assert ("units_mixed" in found) == (unit is not None)
    if unit is not None:
        assert "numbers [7]" in found["units_mixed"].message
        assert unit in found["units_mixed"].message
        assert found["units_mixed"].count == COUNT // 3


def test_a_number_that_trembles_more_in_some_episodes_and_goes_as_far_is_in_one_unit(good):
    """Its range says nothing, and where both do, they must mean the same episodes."""

    def numbers(trembling, going):
        return codes(
            [
                each(
                    [e],
                    observations=lambda o, i=i: np.c_[
                        o,
                        jittered(1000.0 if i in trembling else 1.0, 1e5 if i in going else 1e2, i),
                    ],
                )[0]
                for i, e in enumerate(good)
            ]
        )

    every = set(range(COUNT))
    third, another = set(range(0, COUNT, 3)), set(range(1, COUNT, 3))
    assert "units_mixed" in numbers(third, third)
    assert "units_mixed" not in numbers(third, every)
    assert "units_mixed" not in numbers(third, third | another)
    assert "units_mixed" not in numbers(set(), third)


@pytest.mark.parametrize(("marks", "odd"), [(4, False), (5, True)])
def test_a_mark_is_what_stands_there_five_times(good, marks, odd):
    rows = [e.observations.copy() for e in good]
    for number in range(marks):
        rows[number][7, 2] = -999.0
    marked = [dataclasses.replace(e, observations=o) for e, o in zip(good, rows, strict=True)]
    found = codes(marked)
    assert ("sentinel" in found) == odd
    if odd:
        assert found["sentinel"].places == tuple((number, 7) for number in range(marks))


@pytest.mark.parametrize(("columns", "odd"), [((3, 4), False), ((3, 4, 5), True)])
def test_rows_of_nothing_are_seen_from_three_numbers_on(good, columns, odd):
    narrow = each(good, observations=lambda o: np.r_[o[:1, columns] * 0.0, o[1:, columns]])
    assert ("rows_zero" in codes(narrow)) == odd


@pytest.mark.parametrize(("zeros", "odd"), [(38, True), (43, False)])
def test_rows_of_nothing_are_no_finding_where_they_are_the_most(good, zeros, odd):
    """Of the 81 rows of each episode."""
    found = codes(each(good, observations=lambda o: o * (np.arange(81) >= zeros)[:, None]))
    assert ("rows_zero" in found) == odd


def test_a_slow_sensor_is_seen_to_get_stuck_although_it_repeats_its_values(good):
    def slow(number, rows):
        rows = rows.copy()
        rows[:, 1] = 100.0 * number + np.arange(len(rows)) // 3
        return stuck(rows, 1, 42)

    episodes = [each([e], observations=lambda o, i=i: slow(i, o))[0] for i, e in enumerate(good)]
    assert codes(episodes)["column_stuck"].places[0] == (0, 42)


@pytest.mark.parametrize(("share", "odd"), [(0.45, True), (0.55, False)])
def test_what_most_rows_show_is_no_mark(good, share, odd):
    missing = np.arange(STEPS + 1) % 20 < 20 * share
    marked = each(good, observations=lambda o: np.c_[o, np.where(missing, -999.0, o[:, 1])])
    assert ("sentinel" in codes(marked)) == odd


def ending(lengths, marked, env_limit=None):
    """Episodes of some lengths, the chosen ones terminated; what they are found to be."""
    whole = push(0, max(lengths))
    episodes = []
    for number, steps in enumerate(lengths):
        last = np.arange(steps) == steps - 1
        ended = last & (number in marked)
        episodes.append(
            dataclasses.replace(whole.span(0, steps), terminations=ended, truncations=last & ~ended)
        )
    metadata = {"total_episodes": len(episodes), "data_format": "hdf5"}
    if env_limit is not None:
        spec = {"id": "CartPole-v1", "max_episode_steps": env_limit}
        spec |= {"entry_point": None, "reward_threshold": None, "nondeterministic": False}
        spec |= {"order_enforce": True, "disable_env_checker": False, "kwargs": {}}
        metadata["env_spec"] = json.dumps(
            {**spec, "additional_wrappers": [], "vector_entry_point": None}
        )
    views = tuple(view_of(number, episode) for number, episode in enumerate(episodes))
    told, unknown = labels.label_findings(Dataset(None, metadata), views)
    return {one.code: one for one in told}, unknown


@pytest.mark.parametrize(
    ("full", "shorter", "odd"),
    [(2, 10, False), (3, 20, True), (3, 27, True), (3, 28, False), (4, 36, True), (4, 37, False)],
)
def test_a_limit_is_where_three_episodes_and_a_tenth_of_them_end(full, shorter, odd):
    lengths = [40] * full + [10 + number % 26 for number in range(shorter)]
    found, _ = ending(lengths, range(full))
    assert ("limit_terminated" in found) == odd
    if odd:
        assert found["limit_terminated"].confidence == "low"
        assert found["limit_terminated"].of == full + shorter


@pytest.mark.parametrize(("marked", "odd"), [(7, False), (8, True)])
def test_a_limit_is_marked_terminated_in_four_fifths_of_its_episodes(marked, odd):
    found, _ = ending([40] * 10, range(marked))
    assert ("limit_terminated" in found) == odd
    if odd:
        assert found["limit_terminated"].count == marked


@pytest.mark.parametrize(
    ("near", "env_limit", "confidence"),
    [
        ([37, 38, 39, 37, 39], None, "low"),
        ([37, 38, 39, 37, 39, 38], None, None),
        ([36] * 9, None, "low"),
        ([37] * 6, 40, "high"),
        ([37] * 6, 41, None),
        ([37] * 6, 39, None),
    ],
)
def test_ends_just_before_the_greatest_length_are_no_limit_unless_it_is_the_environments(
    near, env_limit, confidence
):
    found, _ = ending([40] * 10 + near, range(10), env_limit)
    assert ("limit_terminated" in found) == (confidence is not None)
    if confidence is not None:
        assert found["limit_terminated"].confidence == confidence


@pytest.mark.parametrize(("count", "told"), [(7, False), (8, True)])
def test_limits_and_constant_rewards_are_told_from_eight_episodes_on(count, told):
    found, unknown = ending([40] * count + [1, 1], range(count))
    assert ("limit_terminated" in found) == told
    assert any(f"time limits cannot be told: {count} ep" in one for one in unknown) == (not told)


def rewarded(rewards):
    """What the labels of episodes with these rewards are found to be."""
    whole = push(0, len(rewards[0]))
    views = [
        view_of(number, dataclasses.replace(whole, rewards=np.asarray(row)))
        for number, row in enumerate(rewards)
    ]
    metadata = {"total_episodes": len(views), "data_format": "hdf5"}
    told, _ = labels.label_findings(Dataset(None, metadata), views)
    return {one.code: one for one in told}


def test_rewards_that_differ_between_episodes_only_are_constant_too():
    def found(values):
        return rewarded([np.full(20, value) for value in values])

    assert "every step pays -3.2" in found([-3.2] * 8)["reward_constant"].message
    mixed = found([-3.2, 0.7] * 4)["reward_constant"]
    assert "no episode's reward varies" in mixed.message
    assert mixed.count == mixed.of == 160
    assert "reward_constant" not in found([-3.2] * 7)
    assert "reward_constant" not in found([-3.2] * 7 + [-1.0])


@pytest.mark.parametrize(
    ("middle", "reach", "off", "odd"),
    [
        (0.0, 1.0, 197.4, False),
        (0.0, 1.0, 198.3, True),
        (0.0, 1.0, -197.4, False),
        (0.0, 1.0, -198.3, True),
        (10.0, 1.0, 990.0, False),
        (10.0, 1.0, 1010.0, True),
        (-10.0, 1.0, 990.0, False),
        (-10.0, 1.0, 1010.0, True),
        (0.0, 1.0, 1e39, False),
    ],
)
def test_a_wild_reward_is_a_hundred_times_the_range_or_the_middle_away(middle, reach, off, odd):
    """Nearly all of the rewards lie within 0.99 of the middle; what float32 does not hold is told
    elsewhere."""
    rewards = np.tile(middle + reach * np.linspace(-1.0, 1.0, 101), (8, 1))
    rewards[3, 40] = middle + off
    found = rewarded(rewards)
    assert ("reward_spike" in found) == odd
    if odd:
        assert found["reward_spike"].places == ((3, 40),)


@pytest.mark.parametrize(("episodes", "wild", "odd"), [(8, 1, True), (8, 2, False), (200, 2, True)])
def test_wild_rewards_are_few(episodes, wild, odd):
    """One, or as many as a hundredth of the episodes; more are a part of the task."""
    rewards = np.tile(np.linspace(-1.0, 1.0, 51), (episodes, 1))
    rewards[:wild, 20] = 1e4
    assert ("reward_spike" in rewarded(rewards)) == odd


@pytest.mark.parametrize(("single", "odd"), [(9, False), (10, True)])
def test_a_recording_is_split_where_half_of_its_episodes_are_single_steps(single, odd):
    found, _ = ending([1] * single + [20] * 10, ())
    assert ("single_steps" in found) == odd


@pytest.mark.parametrize(
    ("inverted", "right", "odd"), [(2, 0, False), (3, 0, True), (8, 2, True), (7, 3, False)]
)
def test_success_is_inverted_where_it_is_so_in_four_fifths_of_three_ends(inverted, right, odd):
    last = np.arange(21) == 20
    episodes = [
        dataclasses.replace(
            push(number, 20),
            terminations=last[1:],
            truncations=last[1:] & False,
            infos={"success": ~last if number < inverted else last},
        )
        for number in range(inverted + right)
    ]
    found = codes(episodes)
    assert ("success_differs" in found) == odd
    if odd:
        assert found["success_differs"].count == inverted


def held(rows, first, count):
    """Some rows repeat the one before them."""
    rows = rows.copy()
    rows[first + 1 : first + 1 + count] = rows[first]
    return rows


@pytest.mark.parametrize(
    ("steps", "count", "odd"), [(80, 15, False), (80, 16, True), (40, 9, False), (40, 10, True)]
)
def test_sensors_are_frozen_that_stand_still_for_a_fifth_and_ten_steps(steps, count, odd):
    episodes = [push(seed, steps) for seed in range(8)]
    found = codes(each(episodes, observations=lambda o: held(o, 12, count)))
    assert ("frozen" in found) == odd
    assert ("rows_repeated" in found) == (not odd)
    if not odd:
        assert found["rows_repeated"].places[:2] == ((0, 13), (0, 14))
        assert found["rows_repeated"].count == 8 * count


@pytest.mark.parametrize(("clean", "odd"), [(19, True), (20, False)])
def test_sensors_that_froze_in_one_of_twenty_episodes_are_told(clean, odd):
    episodes = [push(seed, 40) for seed in range(clean + 1)]
    episodes[3] = each([episodes[3]], observations=lambda o: held(o, 12, 20))[0]
    assert ("frozen" in codes(episodes)) == odd


def twelve_with_a_repeat(count, row):
    """Twelve episodes of 40 steps; in so many of them the row after `row` repeats it."""
    episodes = [push(seed, 40) for seed in range(12)]
    repeated = each(episodes[:count], observations=lambda o: held(o, row, 1))
    return [*repeated, *episodes[count:]]


@pytest.mark.parametrize(("repeated", "odd"), [(9, False), (10, True)])
def test_repeated_rows_are_told_from_a_fiftieth_of_the_steps_on(repeated, odd):
    """Of 480, that is 9.6."""
    episodes = twelve_with_a_repeat(repeated, 12)
    assert ("rows_repeated" in codes(episodes)) == odd


@pytest.mark.parametrize(("repeated", "odd"), [(5, False), (6, True)])
def test_last_rows_that_repeat_are_told_where_half_of_the_episodes_have_them(repeated, odd):
    episodes = twelve_with_a_repeat(repeated, 39)
    found = codes(episodes)
    assert ("last_repeated" in found) == odd
    if odd:
        assert found["last_repeated"].places[0] == (0, 40)


@pytest.mark.parametrize(("high", "odd"), [(8.8, False), (9.3, True)])
def test_a_spike_is_ten_times_the_usual_range_away_from_its_neighbours(high, odd):
    """Nine tenths of a number that climbs from 0 to 1 are 0.9 apart."""
    rows = [np.linspace(0.0, 1.0, 101) for _ in range(8)]
    rows[2][40] += high
    views = [
        view_of(
            number,
            Episode(row[:, None], np.zeros((100, 1)), row[1:], np.zeros(100, bool), row[1:] == 1.0),
        )
        for number, row in enumerate(rows)
    ]
    (told,) = still.spike_findings(motion_of(views)) or [None]
    assert (told is not None) == odd
    if odd:
        assert told.places == ((2, 40),)


def test_two_groups_are_as_clear_as_their_gap_is_wide_against_them():
    values = np.array([3.5, 0.0, 4.0, 0.5, np.nan, 3.0, 1.0])
    how, upper = two_groups(values)
    assert how == pytest.approx(2.0)
    assert values[upper].tolist() == [3.5, 4.0, 3.0]
    pair = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 9.0, 9.1])
    assert two_groups(pair)[0] < 0.1  # two are no group


@pytest.mark.parametrize(
    ("lower", "upper", "gap", "smaller"),
    [
        (3, 3, 3.5, "upper"),
        (3, 2, 9.0, None),
        (10, 9, 2.5, None),
        (10, 9, 3.5, "upper"),
        (9, 10, 3.5, "lower"),
        (10, 10, 1.2, None),
        (10, 10, 1.5, "upper"),
    ],
)
def test_groups_of_few_must_be_clearer_and_the_smaller_is_told(lower, upper, gap, smaller):
    """Each group is 1 wide; from twenty on a gap of 1.3 is clear, among fewer one of 3."""
    values = np.r_[np.linspace(0.0, 1.0, lower), 1.0 + gap + np.linspace(0.0, 1.0, upper), np.nan]
    few = clocks.clear(values)
    if smaller is None:
        assert few is None
    else:
        numbers = range(lower) if smaller == "lower" else range(lower, lower + upper)
        assert np.flatnonzero(few).tolist() == list(numbers)


def led_by_state(number, here=0.0, before=0.0, steps=2000):
    """Actions of unit size, of which the row's state and the one before it make some shares."""
    rng = np.random.default_rng(number)
    state = rng.normal(size=(steps + 1, 2))
    earlier = np.r_[rng.normal(size=1), state[:-2, 0]]
    rest = np.sqrt(1.0 - abs(here) - before) * rng.normal(size=steps)
    actions = np.sign(here) * np.sqrt(abs(here)) * state[:-1, 0] + np.sqrt(before) * earlier + rest
    ends = np.arange(steps) == steps - 1
    episode = Episode(state, actions[:, None], state[1:, 0], ends & False, ends)
    return view_of(number, episode)


@pytest.mark.parametrize(
    ("here", "before", "follows"),
    [
        (0.53, 0.0, True),
        (0.47, 0.0, False),
        (0.7, 0.3 * 0.12, True),
        (0.7, 0.3 * 0.18, False),
        (0.985, 0.015 * 0.5, True),
        (0.975, 0.025 * 0.5, False),
    ],
)
def test_actions_follow_from_the_state_where_it_says_most_and_the_one_before_little(
    here, before, follows
):
    """Half of them; and the state before says at most 0.15 of the rest, if that is above 0.02."""
    motion = motion_of([led_by_state(number, here, before) for number in range(8)])
    assert policies.follows_from_state(motion) == follows


@pytest.mark.parametrize(
    ("others", "few", "made"),
    [
        (0.0, 0.0, False),
        (0.47, 0.47, False),
        (0.53, 0.53, True),
        (0.0, 0.53, True),
        (0.53, 0.0, True),
        (0.8, -0.8, False),
        (0.8, -0.28, False),
        (0.8, -0.22, True),
    ],
)
def test_what_a_policy_does_is_no_inverted_action_unless_it_turns_around(others, few, made):
    """A policy explains half of the action in some episodes; turned, a quarter in the others."""
    chosen = np.arange(12) < 4
    views = [led_by_state(n, few if one else others) for n, one in enumerate(chosen)]
    assert policies.made_by_policy(motion_of(views), 0, chosen) == made
