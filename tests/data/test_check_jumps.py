"""Resets inside episodes, on recordings of an arm without limits, infos or an environment."""

import dataclasses

import gymnasium
import h5py
import numpy as np
import pytest

from robo_rl.data.check import check
from robo_rl.data.checks import jumps
from robo_rl.data.checks.jumps import JumpsCheck, Usual
from robo_rl.data.checks.view import view_of
from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import Provenance, RewardLabel, StateLayout

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)
UNKNOWN = Provenance(None, RewardLabel("none", "1"))


def arm(rng, steps, start=None):
    """Six joints that gather speed at random."""
    speed = np.zeros((steps + 1, 6))
    for step in range(steps):
        speed[step + 1] = 0.9 * speed[step] + rng.normal(0.0, 0.004, 6)
    first = rng.uniform(-1.0, 1.0, 6) if start is None else start
    ends = np.arange(steps) == steps - 1
    return Episode(
        observations=(first + np.cumsum(speed, axis=0)).astype(np.float32),
        actions=rng.uniform(-0.9, 0.9, (steps, 2)).astype(np.float32),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, bool),
        truncations=ends,
    )


def glued(parts):
    """One episode of all parts; the last state of each but the last is lost."""
    states = [part.observations[:-1] for part in parts[:-1]] + [parts[-1].observations]
    steps = sum(len(part) for part in parts)
    return Episode(
        observations=np.concatenate(states),
        actions=np.concatenate([part.actions for part in parts]),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


def found(report):
    return {f.code: f for f in report.findings}


@pytest.mark.parametrize(("steps", "count", "least"), [(200, 10, 9), (57, 20, 18), (25, 40, 38)])
def test_glued_episodes_are_told_apart_at_their_seams(write, steps, count, least):
    """Up to one step in 25 is a seam, and still none of the others is suspected."""
    rng = np.random.default_rng(0)
    episode = glued([arm(rng, steps) for _ in range(count)])
    finding = found(check(write([episode], provenance=UNKNOWN, observation_space=SPACE)))[
        "jump_suspected"
    ]
    assert least <= finding.count <= count - 1
    assert all((step + 1) % steps == 0 for _, step in finding.places)
    assert finding.confidence == "medium"


def test_one_recording_cut_into_episodes_has_no_seam(write):
    rng = np.random.default_rng(0)
    episodes = [arm(rng, 60)]
    for _ in range(7):
        episodes.append(arm(rng, 60, episodes[-1].observations[-1]))
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert "jumps" not in report.skipped
    assert "returns to a first state cannot be told" in report.partial["jumps"]


def test_dict_observations_are_looked_at_side_by_side(write):
    rng = np.random.default_rng(0)

    def split(episode):
        joints = {"left": episode.observations[:, :3], "right": episode.observations[:, 3:]}
        return dataclasses.replace(episode, observations=joints)

    half = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    space = gymnasium.spaces.Dict({"left": half, "right": half})
    whole = [split(arm(rng, 60)) for _ in range(4)]
    bad = split(glued([arm(rng, 60), arm(rng, 60)]))
    assert "jumps" in check(write(whole, provenance=UNKNOWN, observation_space=space)).partial
    dataset = write([*whole, bad], "b-v0", UNKNOWN, observation_space=space)
    assert found(check(dataset))["jump_suspected"].places == ((4, 59),)


def test_images_are_not_said_to_be_free_of_jumps(write):
    rng = np.random.default_rng(0)
    space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    pictures = [
        dataclasses.replace(
            arm(rng, 20), observations=rng.integers(0, 255, (21, 8, 8, 3), np.uint8)
        )
        for _ in range(4)
    ]
    report = check(write(pictures, provenance=UNKNOWN, observation_space=space))
    assert "no vector of reals" in report.skipped["jumps"]
    assert "jumps" not in report.passed


def test_episodes_of_another_width_are_said_not_to_be_looked_at(write):
    rng = np.random.default_rng(0)
    dataset = write([arm(rng, 60) for _ in range(5)], provenance=UNKNOWN, observation_space=SPACE)
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        narrow = file["episode_3/observations"][:, :4]
        del file["episode_3/observations"]
        file["episode_3/observations"] = narrow
    report = check(dataset)
    assert "1 episodes have no state as the others" in report.partial["jumps"]
    assert "space_differs" in found(report)


def walker(rng, steps):
    """Its velocities change at random; episodes begin alike."""
    episode = arm(rng, steps)
    rows = rng.normal(0.0, 1.0, (steps + 1, 6))
    rows[0] *= 0.01
    return dataclasses.replace(episode, observations=rows.astype(np.float32))


def test_a_walker_put_back_to_its_start_is_seen_although_it_jerks_as_hard_by_itself(write):
    """Velocities change at random from step to step, so only the start gives the reset away."""
    rng = np.random.default_rng(0)
    clean = [walker(rng, 100) for _ in range(12)]
    assert "jumps" in check(write(clean, provenance=UNKNOWN, observation_space=SPACE)).passed
    bad = glued([walker(rng, 100), walker(rng, 100)])
    dataset = write([*clean, bad], "b-v0", UNKNOWN, observation_space=SPACE)
    assert found(check(dataset))["reset_inside"].places == ((12, 99),)


@pytest.mark.parametrize(("count", "enough"), [(7, False), (8, True)])
def test_a_return_to_a_first_state_is_told_from_eight_episodes_on(write, count, enough):
    rng = np.random.default_rng(0)
    episodes = [walker(rng, 100) for _ in range(count - 1)]
    episodes.append(glued([walker(rng, 100), walker(rng, 100)]))
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert ("reset_inside" in found(report)) == enough
    assert ("episodes are too few" in report.partial.get("jumps", "")) == (not enough)


@pytest.mark.parametrize(("steps", "enough"), [(59, False), (60, True)])
def test_jumps_are_looked_for_from_sixty_steps_on(write, steps, enough):
    rng = np.random.default_rng(0)
    report = check(write([arm(rng, steps)], provenance=UNKNOWN, observation_space=SPACE))
    assert ("jumps" in report.skipped) == (not enough)
    assert ("jumps" in report.partial) == enough


@pytest.mark.parametrize(("active", "judged"), [(1, False), (2, True)])
def test_one_number_alone_may_be_a_switch_and_is_not_looked_at(write, active, judged):
    rng = np.random.default_rng(0)

    def resting(episode):
        rows = episode.observations.copy()
        rows[:, active:] = rows[0, active:]
        return dataclasses.replace(episode, observations=rows)

    episodes = [resting(arm(rng, 60)) for _ in range(3)]
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert ("jumps" in report.skipped) == (not judged)


@pytest.mark.parametrize(
    ("jerked", "odd"), [((0,), False), ((0, 1), True), ((3, 5), True), (range(6), True)]
)
def test_a_jump_is_suspected_where_two_of_six_numbers_jerk_at_once(write, jerked, odd):
    """A quarter of them, and never one alone."""
    rng = np.random.default_rng(0)
    episodes = [arm(rng, 60) for _ in range(4)]
    rows = episodes[2].observations.copy()
    rows[31:, list(jerked)] += 1.0
    episodes[2] = dataclasses.replace(episodes[2], observations=rows)
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    if odd:
        assert found(report)["jump_suspected"].places == ((2, 30),)
    else:
        assert "jump_suspected" not in found(report)


@pytest.mark.parametrize(("jerked", "odd"), [((1,), False), ((0, 1), True)])
def test_of_four_numbers_that_move_two_must_jerk_at_once(write, jerked, odd):
    rng = np.random.default_rng(0)
    episodes = []
    for number in range(4):
        episode = arm(rng, 60)
        rows = episode.observations.copy()
        rows[:, 4:] = rows[0, 4:]
        rows[31:, list(jerked)] += number == 2
        episodes.append(dataclasses.replace(episode, observations=rows))
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert ("jump_suspected" in found(report)) == odd


@pytest.mark.parametrize("row", [1, 60])
def test_a_jump_in_the_first_or_last_step_is_suspected_too(write, row):
    rng = np.random.default_rng(0)
    episodes = [arm(rng, 60) for _ in range(4)]
    rows = episodes[2].observations.copy()
    rows[row:] += 1.0
    episodes[2] = dataclasses.replace(episodes[2], observations=rows)
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert found(report)["jump_suspected"].places == ((2, row - 1),)


def placed(qpos, qvel=None):
    """A recording that shows nothing but what its infos hold."""
    steps = len(qpos) - 1
    infos = {"qpos": qpos} if qvel is None else {"qpos": qpos, "qvel": qvel}
    ends = np.arange(steps) == steps - 1
    return view_of(
        0,
        Episode(
            observations=np.zeros((steps + 1, 1), np.float32),
            actions=np.zeros((steps, 1), np.float32),
            rewards=np.zeros(steps),
            terminations=np.zeros(steps, bool),
            truncations=ends,
            infos=infos,
        ),
    )


def impossible(view, layout, hz=10.0):
    checked = JumpsCheck([view], Provenance(hz, RewardLabel("none", "1"), layout=layout))
    checked.see(view)
    return [place for one in checked.findings() if one.code == "jump" for place in one.places]


@pytest.mark.parametrize(
    ("hz", "joint", "moved", "odd"),
    [
        (10.0, 0, 0.268, False),
        (10.0, 0, 0.272, True),
        (10.0, 0, -0.272, True),
        (10.0, 1, 0.518, False),
        (10.0, 1, 0.522, True),
        (20.0, 0, 0.143, False),
        (20.0, 0, 0.147, True),
    ],
)
def test_a_joint_may_go_a_quarter_beyond_its_velocity_and_a_little(hz, joint, moved, odd):
    """At 2 rad/s and 10 Hz 0.2 rad in a step, a quarter more, and 0.02 rad: 0.27 rad."""
    qpos = np.zeros((30, 4))
    qpos[12:, 1 + joint] = moved
    qpos[20:, 0] = 9.0  # no joint of the arm, whose numbers begin with the second
    qpos[22:, 3] = 9.0
    layout = StateLayout(velocity_rad_s=(2.0, 4.0), arm_qpos=1)
    assert impossible(placed(qpos), layout, hz) == ([(0, 11)] if odd else [])


@pytest.mark.parametrize(
    ("hz", "speed", "after", "moved", "odd"),
    [
        (10.0, 0.0, 0.0, 0.395, False),
        (10.0, 0.0, 0.0, 0.405, True),
        (10.0, 2.0, 0.0, 0.595, False),
        (10.0, 2.0, 0.0, 0.605, True),
        (10.0, 0.0, 2.0, 0.595, False),
        (20.0, 0.0, 0.0, 0.098, False),
        (20.0, 0.0, 0.0, 0.102, True),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_body_goes_as_far_as_its_speed_and_the_strongest_push(hz, speed, after, moved, odd, axis):
    """At rest, 40 m/s^2 for a tenth of a second make 4 m/s and 0.4 m at most; at 2 m/s 0.6 m."""
    qpos, qvel = np.zeros((30, 9)), np.zeros((30, 8))
    qpos[12:, 2 + axis] = moved
    qvel[11, 1 + axis], qvel[12, 1 + axis] = speed, after
    qpos[20:, 5:] = 9.0  # how it is turned
    qpos[22:, :2] = 9.0
    layout = StateLayout(velocity_rad_s=(), object_qpos=(2,), object_qvel=(1,))
    assert impossible(placed(qpos, qvel), layout, hz) == ([(0, 11)] if odd else [])


def test_bodies_are_not_judged_where_their_numbers_are_not_recorded():
    qpos, qvel = np.zeros((30, 5)), np.zeros((30, 5))
    qpos[12:, 2:] = 9.0
    for place, speed in ((3, 2), (2, 3)):
        layout = StateLayout(velocity_rad_s=(), object_qpos=(place,), object_qvel=(speed,))
        assert impossible(placed(qpos, qvel), layout) == []
    layout = StateLayout(velocity_rad_s=(), object_qpos=(2,), object_qvel=(2,))
    assert impossible(placed(qpos, qvel), layout) == [(0, 11)]
    assert impossible(placed(qpos, qvel[:, :2]), layout) == []
    assert impossible(placed(np.c_[qpos, qpos], qvel[:, :2]), layout) == []
    assert impossible(placed(qpos[:, 0], qvel), layout) == []
    arm_too = StateLayout(velocity_rad_s=(1.0, 1.0), object_qpos=(), object_qvel=())
    assert impossible(placed(qpos[:, 0]), arm_too) == []
    assert impossible(placed(qpos), layout) == []


@pytest.mark.parametrize(
    ("before", "after", "odd"),
    [(100.0, 3.4, True), (100.0, 3.6, False), (35.5, 0.0, True), (34.5, 0.0, False)],
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_return_leads_from_far_away_to_within_the_reach_of_first_states(before, after, odd, sign):
    """In deviations of the first states: 35 away before it, and 3.5 after it."""
    middle, spread = np.arange(6.0), np.linspace(0.5, 2.0, 6)
    usual = Usual("observations", middle, middle, 2, np.stack([middle, spread]), spread, True)
    away = np.array([200.0, before, after, 0.0, 0.0])[:, None] * np.r_[sign, np.ones(5)]
    assert jumps._starting(middle + away * spread, usual).tolist() == [False, odd, False, False]


@pytest.mark.parametrize(("closer", "known"), [(1.95, False), (2.06, True)])
def test_first_states_are_known_where_all_numbers_together_make_them_likely(closer, known):
    """By twelve nats, two for each of six numbers: they lie e^2 times as close as other rows."""
    rng = np.random.default_rng(0)
    views = []
    for number in range(8):
        episode = arm(rng, 100)
        rows = rng.choice([-1.0, 1.0], (101, 6))
        rows[0] = (-1.0) ** number * np.exp(-closer)
        views.append(view_of(number, dataclasses.replace(episode, observations=rows)))
    assert jumps._usual(views).start_known == known
