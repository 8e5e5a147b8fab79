import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rl.data.returns import monte_carlo_returns, n_step, window_returns

FALSE, TRUE = False, True


def flat(rewards, terminated, truncated, episode_id):
    rows = np.arange(len(rewards), dtype=np.float32)
    return {
        "observations": rows[:, None],
        "actions": rows[:, None],
        "rewards": np.asarray(rewards, np.float32),
        "next_observations": rows[:, None] + 1.0,
        "terminated": np.asarray(terminated),
        "truncated": np.asarray(truncated),
        "masks": 1.0 - np.asarray(terminated, np.float32),
        "episode_id": np.asarray(episode_id),
    }


def test_window_returns_by_hand():
    rewards = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    stops = np.array([[FALSE, FALSE, FALSE], [FALSE, TRUE, FALSE], [TRUE, TRUE, FALSE]])
    sums, last, discounts = window_returns(rewards, stops, 0.5)
    np.testing.assert_allclose(sums, [1 + 1 + 1, 1 + 1, 1])
    np.testing.assert_array_equal(last, [2, 1, 0])
    np.testing.assert_allclose(discounts, [0.125, 0.25, 0.5])


def test_n_step_by_hand():
    """Two episodes: 3 steps that terminate, 2 steps that are truncated."""
    transitions = flat(
        [1, 2, 4, 8, 16],
        [FALSE, FALSE, TRUE, FALSE, FALSE],
        [FALSE, FALSE, FALSE, FALSE, TRUE],
        [0, 0, 0, 1, 1],
    )
    out = n_step(transitions, 2, 0.5)
    np.testing.assert_allclose(out["rewards"], [2, 4, 4, 16, 16])
    np.testing.assert_allclose(out["next_observations"][:, 0], [2, 3, 3, 5, 5])
    np.testing.assert_allclose(out["masks"], [1, 0, 0, 1, 1])
    np.testing.assert_array_equal(out["terminated"], [FALSE, TRUE, TRUE, FALSE, FALSE])
    np.testing.assert_array_equal(out["truncated"], [FALSE, FALSE, FALSE, TRUE, TRUE])
    np.testing.assert_allclose(out["discounts"], [0.25, 0.25, 0.5, 0.25, 0.5])
    np.testing.assert_array_equal(out["observations"], transitions["observations"])


def test_one_step_is_the_transition_itself():
    transitions = flat([1, 2], [FALSE, TRUE], [FALSE, FALSE], [0, 0])
    out = n_step(transitions, 1, 0.9)
    np.testing.assert_array_equal(out["rewards"], transitions["rewards"])
    np.testing.assert_array_equal(out["next_observations"], transitions["next_observations"])
    np.testing.assert_allclose(out["discounts"], 0.9)


def test_n_must_be_positive():
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        n_step(flat([1], [TRUE], [FALSE], [0]), 0, 0.9)


def test_monte_carlo_returns_by_hand():
    """Cut at the terminated third and at the truncated fifth step: 1+.5*2+.25*4 = 3, 2+2, 4; 16."""
    returns = monte_carlo_returns(
        np.array([1.0, 2.0, 4.0, 8.0, 16.0]),
        np.array([FALSE, FALSE, TRUE, FALSE, FALSE]),
        np.array([FALSE, FALSE, FALSE, FALSE, TRUE]),
        0.5,
    )
    np.testing.assert_allclose(returns, [3.0, 4.0, 4.0, 16.0, 16.0])
    assert returns.dtype == np.float32


def test_endless_returns_pay_only_where_nothing_was_reached():
    """-1 for ever at 0.9 is -10; an episode that terminated keeps its finite sum."""
    returns = monte_carlo_returns(
        np.array([-1.0, -1.0, -1.0, 0.0, -1.0, -1.0]),
        np.array([FALSE, FALSE, FALSE, TRUE, FALSE, TRUE]),
        np.array([FALSE, TRUE, FALSE, FALSE, FALSE, FALSE]),
        0.9,
        endless=True,
    )
    np.testing.assert_allclose(returns, [-10.0, -10.0, -1.0, 0.0, -1.9, -1.0], rtol=1e-6)


def test_endless_needs_a_discount_below_one():
    with pytest.raises(ValueError, match="endless needs discount < 1"):
        monte_carlo_returns(np.ones(1), np.zeros(1, bool), np.ones(1, bool), 1.0, endless=True)


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.sampled_from(["", "terminated", "truncated"])),
        min_size=1,
        max_size=40,
    ),
    st.floats(0.1, 1.0),
)
def test_returns_obey_bellman(steps, discount):
    """G_t = r_t + discount * G_{t+1} inside an episode, G_t = r_t at its end."""
    rewards = np.array([reward for reward, _ in steps])
    terminated = np.array([end == "terminated" for _, end in steps])
    truncated = np.array([end == "truncated" for _, end in steps])
    truncated[-1] |= not terminated[-1]
    returns = monte_carlo_returns(rewards, terminated, truncated, discount)
    following = np.append(returns[1:], 0.0) * ~(terminated | truncated)
    np.testing.assert_allclose(returns, rewards + discount * following, rtol=1e-4, atol=1e-4)
