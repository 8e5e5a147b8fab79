import dataclasses

import numpy as np
import pytest

from robo_rl.judge import selection
from robo_rl.judge.selection import Protocol

QUICK = Protocol(pulls=20, plays=200, bootstraps=100)
CERTAIN = np.array([0.2, 0.9, 0.5])[:, None] * np.ones((1, 4))
"""Three policies whose every episode has the same score."""


def _noisy(rates, episodes=40):
    """Policies with exactly these success rates."""
    return np.array([np.arange(episodes) < rate * episodes for rate in rates], np.float64)


def test_a_single_policy_is_deployed_at_its_own_mean():
    deployed = selection.expected(_noisy([0.3]), QUICK)
    for values in dataclasses.astuple(deployed):
        np.testing.assert_allclose(values, 0.3)


def test_without_noise_the_best_is_deployed_once_all_were_tried():
    """After one pull any of the three is deployed, after two the better of two: 0.9, 0.9 or 0.5."""
    deployed = selection.expected(CERTAIN, dataclasses.replace(QUICK, plays=4000))
    assert deployed.mean[0] == pytest.approx((0.2 + 0.9 + 0.5) / 3, abs=0.02)
    assert deployed.mean[1] == pytest.approx((0.9 + 0.9 + 0.5) / 3, abs=0.02)
    np.testing.assert_allclose(deployed.mean[2:], 0.9)
    np.testing.assert_allclose(deployed.low[2:], 0.9)


def test_plays_draw_policies_without_replacement():
    """Of two out of three: the best is among them two times in three, else 0.5 is."""
    two = dataclasses.replace(QUICK, plays=4000, policies=2)
    deployed = selection.expected(CERTAIN, two)
    assert deployed.mean[-1] == pytest.approx((0.9 + 0.9 + 0.5) / 3, abs=0.02)


def test_more_episodes_find_better_policies():
    scores = _noisy([0.1, 0.3, 0.5, 0.7, 0.9])
    deployed = selection.expected(scores, dataclasses.replace(QUICK, pulls=200, plays=1000))
    at = deployed.mean[[0, 4, 19, 59, 199]]
    assert (np.diff(at) > 0.0).all()
    assert at[0] == pytest.approx(0.5, abs=0.03)  # a blind choice
    assert at[-1] > 0.85


def test_the_bandit_spends_its_pulls_on_what_looks_good():
    """By hand: after a pull of each, bounds are 0.5 + b and 0.6 + b, so the second is pulled."""
    bound = selection._upper_bound(np.array([[1.0, 1.0]]), np.array([[0.5, 0.6]]), 2, 2.0, 1.0)
    np.testing.assert_allclose(bound, np.array([[0.5, 0.6]]) + np.sqrt(2.0 * np.log(2.0)))
    fresh = selection._upper_bound(np.array([[3.0, 0.0]]), np.array([[3.0, 0.0]]), 3, 2.0, 1.0)
    assert np.argmax(fresh) == 1
    # Without a bonus the first success is pulled and deployed for ever.
    greedy = Protocol(pulls=50, plays=50, alpha=0.0)
    chosen = selection.play(CERTAIN, greedy, np.random.default_rng(0))
    assert (chosen[:, 2:] == 1).all()


def test_scores_in_other_units_give_the_same_choices():
    scores = _noisy([0.2, 0.5, 0.6])
    first, second = (
        selection.play(values, QUICK, np.random.default_rng(3))
        for values in (scores, 200.0 * scores - 1000.0)
    )
    np.testing.assert_array_equal(first, second)


def test_a_seed_is_reproducible_and_another_is_another_draw():
    scores = _noisy([0.2, 0.5, 0.6])
    first, again, other = (
        selection.expected(scores, dataclasses.replace(QUICK, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.low, again.low)
    assert not np.array_equal(first.mean, other.mean)


def test_the_interval_is_that_of_a_mean():
    """Of 400 coin flips: 0.5 +- 1.96 sqrt(0.25 / 400) = 0.049."""
    flips = (np.arange(400) % 2).astype(np.float64)
    low, high = selection.bootstrap_interval(flips, 4000, 0.95, np.random.default_rng(0))
    assert low == pytest.approx(0.451, abs=0.006)
    assert high == pytest.approx(0.549, abs=0.006)


def test_the_best_mean_is_recommended_and_the_first_of_equals():
    assert selection.recommend(CERTAIN) == 1
    assert selection.recommend(np.ones((3, 2))) == 0


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_what_is_no_matrix_of_scores_is_refused(wrong):
    with pytest.raises(ValueError, match="scores must be"):
        selection.expected(wrong, QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pulls": 0},
        {"policies": 0},
        {"plays": 0},
        {"bootstraps": 0},
        {"alpha": -1.0},
        {"confidence": 1.0},
    ],
)
def test_a_wrong_protocol_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"Protocol.{next(iter(wrong))}"):
        Protocol(**wrong)
