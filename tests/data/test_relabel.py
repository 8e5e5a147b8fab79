import numpy as np
import pytest

from robo_rl.data.episodes import Episode
from robo_rl.data.relabel import HindsightConfig, hindsight, relabelled
from robo_rl.data.transitions import flatten_episodes


def _episodes(lengths):
    """Of a counter: the state is (number, -number), the goal one number, recorded as 999.

    Numbers of different episodes do not overlap.
    """
    episodes = []
    for index, steps in enumerate(lengths):
        number = 100.0 * index + np.arange(steps + 1)
        ends = np.arange(steps) == steps - 1
        episodes.append(
            Episode(
                observations=np.stack([number, -number, np.full(steps + 1, 999.0)], axis=1),
                actions=np.zeros((steps, 1)),
                rewards=np.full(steps, 7.0),
                terminations=np.zeros(steps, bool),
                truncations=ends,
            )
        )
    return episodes


def goal_transitions(lengths):
    """As rows."""
    return flatten_episodes(_episodes(lengths))


def shares(**p):
    return {"p_original": 0.0, "p_current": 0.0, "p_future": 0.0, "p_random": 0.0, **p}


def relabel(transitions, **options):
    config = HindsightConfig(goal_columns=(0,), tolerance=0.25, **options)
    return hindsight(transitions, config, np.random.default_rng(0))


def test_the_goal_replaces_the_old_one_on_both_sides_of_the_step():
    transitions = goal_transitions([5, 3])
    out = relabel(transitions, **shares(p_future=1.0))
    np.testing.assert_array_equal(out["observations"][:, 2], out["next_observations"][:, 2])
    np.testing.assert_array_equal(out["observations"][:, :2], transitions["observations"][:, :2])
    assert (out["observations"][:, 2] != 999.0).all()
    np.testing.assert_array_equal(transitions["observations"][:, 2], 999.0)


@pytest.mark.parametrize("discount", [0.5, 0.99, 1.0])
def test_future_goals_lie_ahead_in_the_same_episode(discount):
    transitions = goal_transitions([5, 1, 8] * 30)
    out = relabel(transitions, **shares(p_future=1.0), future_discount=discount)
    goal, state = out["observations"][:, 2], out["observations"][:, 0]
    assert (goal > state).all()
    np.testing.assert_array_equal(goal // 100, transitions["episode_id"])


def test_geometric_futures_have_the_mean_of_their_distribution():
    """1 + Geometric(1 - 0.5) - 1 has mean 2 where the end is far away."""
    transitions = goal_transitions([99] * 50)
    out = relabel(transitions, **shares(p_future=1.0), future_discount=0.5)
    ahead = out["observations"][:, 2] - out["observations"][:, 0]
    far_from_end = transitions["observations"][:, 0] % 100 < 60
    assert ahead[far_from_end].mean() == pytest.approx(2.0, abs=0.1)


def test_reward_and_mask_say_success():
    out = relabel(goal_transitions([6] * 20), **shares(p_future=0.5, p_random=0.5))
    reached = out["next_observations"][:, 0] == out["next_observations"][:, 2]
    assert 0 < reached.sum() < len(reached)
    np.testing.assert_array_equal(out["rewards"], np.where(reached, 0.0, -1.0))
    np.testing.assert_array_equal(out["masks"], np.where(reached, 0.0, 1.0))
    np.testing.assert_array_equal(out["terminated"], reached)
    last = np.append(np.diff(out["episode_id"]) != 0, True)
    np.testing.assert_array_equal(out["truncated"], last & ~reached)


def test_current_goals_are_reached_at_once():
    for timing, key in (("pre", "observations"), ("post", "next_observations")):
        out = relabel(goal_transitions([6]), **shares(p_current=1.0), timing=timing)
        np.testing.assert_array_equal(out[key][:, 2], out[key][:, 0])
        np.testing.assert_array_equal(out["rewards"], 0.0)


def test_original_goals_are_kept_and_judged():
    out = relabel(goal_transitions([6]), **shares(p_original=1.0))
    np.testing.assert_array_equal(out["observations"][:, 2], 999.0)
    np.testing.assert_array_equal(out["rewards"], -1.0)


def test_random_goals_are_states_of_any_episode():
    transitions = goal_transitions([20] * 10)
    out = relabel(transitions, **shares(p_random=1.0))
    goals = out["observations"][:, 2]
    assert np.isin(goals, transitions["next_observations"][:, 0]).all()
    others = goals // 100.0 != transitions["observations"][:, 0] // 100.0
    assert others.mean() == pytest.approx(0.9, abs=0.1)


def test_infos_that_an_episode_lacks_are_named_with_those_it_has():
    (episode,) = _episodes([3])
    with pytest.raises(ValueError, match=r"episode 0: no infos \['qpos'\]; it has none"):
        flatten_episodes([episode], infos=("qpos",))


def test_the_shares_are_met():
    transitions = goal_transitions([50] * 80)
    out = relabel(transitions, **shares(p_original=0.25, p_current=0.25, p_future=0.5))
    kept = (out["observations"][:, 2] == 999.0).mean()
    assert kept == pytest.approx(0.25, abs=0.03)
    now = (out["next_observations"][:, 2] == out["next_observations"][:, 0]).mean()
    assert now == pytest.approx(0.25 + 0.5 * 0.01, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (shares(p_future=0.9), "shares must be"),
        (shares(p_future=1.5, p_random=-0.5), "shares must be"),
        ({"future_discount": 0.0}, "future_discount must be"),
        ({"goal_columns": ()}, "needs goal_columns"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HindsightConfig(**{"goal_columns": (0,), "tolerance": 0.1, **options})


def test_the_goal_must_be_appended_to_the_state():
    with pytest.raises(ValueError, match="in the first S"):
        hindsight(
            goal_transitions([3]),
            HindsightConfig(goal_columns=(2,), tolerance=0.1),
            np.random.default_rng(0),
        )


def six_steps(truncations):
    """An episode that shows the number of each row and ends its task nowhere."""
    return Episode(
        observations=np.arange(7.0)[:, None],
        actions=np.zeros((6, 1)),
        rewards=np.zeros(6),
        terminations=np.zeros(6, bool),
        truncations=truncations,
    )


@pytest.mark.parametrize(
    ("after", "spans"),
    [("split", [(0, 2), (2, 5), (5, 6)]), ("keep", [(0, 6)]), ("drop", [(0, 2)])],
)
def test_a_termination_splits_keeps_or_ends_a_recording(after, spans):
    """Six steps that terminate at their second and fifth: each piece ends where it should."""
    steps = np.arange(6)
    whole = six_steps(steps == 5)
    pieces = list(relabelled(whole, steps + 0.5, np.isin(steps, (1, 4)), after))
    assert [(p.observations[0, 0], p.observations[-1, 0]) for p in pieces] == spans
    np.testing.assert_array_equal(pieces[0].rewards, steps[: spans[0][1]] + 0.5)
    if after != "drop":
        assert pieces[-1].truncations[-1]
    if after != "keep":
        assert pieces[0].terminations[-1]


@pytest.mark.parametrize(("tolerance", "reached"), [(5.0, True), (4.99, False)])
@pytest.mark.parametrize("timing", ["pre", "post"])
def test_a_goal_is_reached_within_its_euclidean_distance(tolerance, reached, timing):
    """(3, 4) is 5 away from (0, 0); the state on the other side of the step is not judged."""
    near, far = np.array([[9.0, 3.0, 4.0, 0.0, 0.0]]), np.array([[9.0, 60.0, 80.0, 0.0, 0.0]])
    transitions = {
        "observations": near if timing == "pre" else far,
        "next_observations": far if timing == "pre" else near,
        "episode_id": np.zeros(1, int),
    }
    config = HindsightConfig((1, 2), tolerance, **shares(p_original=1.0), timing=timing)
    out = hindsight(transitions, config, np.random.default_rng(0))
    assert out["terminated"].tolist() == [reached]
    assert out["rewards"].tolist() == [0.0 if reached else -1.0]
    assert out["masks"].tolist() == [0.0 if reached else 1.0]
    assert out["truncated"].tolist() == [not reached]


def test_futures_without_a_discount_are_the_remaining_states_alike():
    transitions = goal_transitions([4] * 2000)
    out = relabel(transitions, **shares(p_future=1.0), future_discount=1.0)
    row, goal = out["observations"][:, 0] % 100, out["observations"][:, 2] % 100
    for first in range(4):
        counts = np.bincount(goal[row == first].astype(int), minlength=5) / 2000.0
        left = 4 - first
        expected = np.r_[np.zeros(first + 1), np.full(left, 1.0 / left)]
        np.testing.assert_allclose(counts, expected, atol=0.04)


def test_geometric_futures_end_with_the_episode():
    """With 0.5 a half is the next state, a quarter the one after it, the rest the last one."""
    transitions = goal_transitions([3] * 4000)
    out = relabel(transitions, **shares(p_future=1.0), future_discount=0.5)
    row, goal = out["observations"][:, 0] % 100, out["observations"][:, 2] % 100
    counts = np.bincount(goal[row == 0].astype(int), minlength=4) / 4000.0
    np.testing.assert_allclose(counts, [0.0, 0.5, 0.25, 0.25], atol=0.03)


@pytest.mark.parametrize("future_discount", [0.0, -0.1, 1.1, float("nan")])
def test_a_future_discount_lies_above_zero_and_at_most_at_one(future_discount):
    HindsightConfig((0,), 0.0, future_discount=1.0)
    with pytest.raises(ValueError, match="future_discount must be"):
        HindsightConfig((0,), 0.0, future_discount=future_discount)


def test_the_goal_columns_lie_before_the_goal():
    """Of three numbers the last is the goal, so that the second is the last of the state."""
    rng = np.random.default_rng(0)
    hindsight(goal_transitions([3]), HindsightConfig((1,), 0.1), rng)
    with pytest.raises(ValueError, match="in the first S"):
        hindsight(goal_transitions([3]), HindsightConfig((0, 1), 0.1), rng)


def test_ends_that_an_episode_had_before_stay_where_its_new_task_goes_on():
    steps = np.arange(6)
    whole = six_steps(np.isin(steps, (1, 2)))
    (kept,) = relabelled(whole, np.zeros(6), steps == 2, "keep")
    assert kept.truncations.tolist() == [False, True, False, False, False, True]
    assert kept.terminations.tolist() == (steps == 2).tolist()
    (ended,) = relabelled(whole, np.zeros(6), steps == 5, "keep")
    assert not ended.truncations[-1]
    assert whole.truncations.tolist() == np.isin(steps, (1, 2)).tolist()
