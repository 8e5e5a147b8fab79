"""The formulas against numbers from a hand, a closed form or a distribution known elsewhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from robo_rl.nn import losses
from tests.agents.in_sample import minimiser, standard_normal


def test_a_target_of_values_that_are_not_reduced_over_the_critics_is_refused():
    """Of (N, B) and (B,), broadcasting would make a target a critic without a word."""
    rows = jnp.ones(2)
    with pytest.raises(ValueError, match=r"rewards are \(2,\) and next_values \(2, 2\)"):
        losses.td_target(rows, 0.5, rows, jnp.ones((2, 2)))


def test_td_target_by_hand():
    got = losses.td_target(jnp.array([1.0, 3.0]), 0.5, jnp.array([1.0, 0.0]), jnp.array([4.0, 9.0]))
    np.testing.assert_allclose(got, [3.0, 3.0])


def _fit_expectile(samples, expectile):
    """Minimise the loss over one number, by Newton steps of the piecewise square."""
    v = jnp.mean(samples)
    loss = lambda x: jnp.mean(losses.expectile_loss(samples - x, expectile))  # noqa: E731
    for _ in range(30):
        curvature = 2.0 * jnp.mean(jnp.where(samples < v, 1.0 - expectile, expectile))
        v = v - jax.grad(loss)(v) / curvature
    return float(v)


@pytest.mark.parametrize(
    ("expectile", "expected"),
    [(0.5, 0.0), (0.7, 0.337), (0.9, 0.862), (0.95, 1.140), (0.99, 1.717)],
)
def test_expectiles_of_the_standard_normal(expectile, expected):
    quantiles = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert _fit_expectile(jnp.asarray(quantiles), expectile) == pytest.approx(expected, abs=2e-3)


def test_expectile_of_a_coin():
    """tau p / (tau p + (1 - tau)(1 - p)) with p = 0.1, tau = 0.9 is one half."""
    coin = jnp.asarray([1.0] + [0.0] * 9)
    assert _fit_expectile(coin, 0.9) == pytest.approx(0.5, abs=1e-5)


def test_expectile_loss_by_hand():
    got = losses.expectile_loss(jnp.array([2.0, -2.0]), 0.9)
    np.testing.assert_allclose(got, [0.9 * 4.0, 0.1 * 4.0], rtol=1e-6)


def test_the_clip_is_on_the_weight():
    """exp(3 * 1) stays, exp(3 * 2) = 403 becomes 100."""
    got = losses.advantage_weight(jnp.array([1.0, 2.0]), 3.0, 100.0)
    np.testing.assert_allclose(got, [np.exp(3.0), 100.0], rtol=1e-5)


def test_the_temperature_falls_while_the_policy_is_too_random():
    slope = jax.grad(losses.temperature_loss)
    assert float(slope(jnp.array(0.0), jnp.array(3.0), 1.0)) == pytest.approx(2.0)  # Adam lowers it
    assert float(slope(jnp.array(0.0), jnp.array(0.0), 1.0)) == pytest.approx(-1.0)


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 0.5), (2.0, 0.25), (5.0, 0.1)])
def test_the_gumbel_maximum_of_the_standard_normal(beta, expected):
    """beta log E exp(Q / beta) = 1 / (2 beta). No clip: the tail is what makes it 1 / (2 beta)."""
    got = minimiser(lambda u: losses.gumbel_loss(u, beta, 50.0), standard_normal(), -5.0, 5.0)
    assert got == pytest.approx(expected, abs=3e-3)


def test_the_gumbel_maximum_of_a_coin():
    """beta 1, Q 0 or log 9 with equal chance: log((1 + 9) / 2) = log 5."""
    coin = jnp.asarray([0.0, np.log(9.0)], jnp.float32)
    got = minimiser(lambda u: losses.gumbel_loss(u, 1.0, 7.0), coin)
    assert got == pytest.approx(np.log(5.0), abs=1e-4)


def test_gumbel_loss_by_hand():
    """u = (2, -4), beta 2: z = (1, -2), m = 1, so (e - 2) / e and (e^-2 + 1) / e."""
    got = losses.gumbel_loss(jnp.array([2.0, -4.0]), 2.0, 7.0)
    np.testing.assert_allclose(got, [1.0 - 2.0 / np.e, (np.exp(-2.0) + 1.0) / np.e], rtol=1e-5)


def test_the_scale_of_the_gumbel_loss_is_at_least_that_of_minus_one():
    """u = -3, beta 1: the maximum is held at -1, so (exp(-3) + 2) * e."""
    got = losses.gumbel_loss(jnp.array([-3.0]), 1.0, 7.0)
    np.testing.assert_allclose(got, [(np.exp(-3.0) + 2.0) * np.e], rtol=1e-5)


def test_the_stable_gumbel_loss_has_the_direction_of_the_plain_one():
    """The slopes of a batch differ by one positive factor, exp(-m)."""
    u = jnp.array([-3.0, -0.5, 0.2, 2.5])
    plain = jax.grad(lambda x: jnp.sum(jnp.exp(x) - x - 1.0))(u)
    stable = jax.grad(lambda x: jnp.sum(losses.gumbel_loss(x, 1.0, 7.0)))(u)
    np.testing.assert_allclose(stable, np.exp(-2.5) * np.asarray(plain), rtol=1e-5)


def test_the_gumbel_loss_stays_finite_where_the_plain_form_overflows():
    u = jnp.array([1000.0, -1000.0])
    loss, slope = jax.value_and_grad(lambda x: jnp.sum(losses.gumbel_loss(x, 1.0, 200.0)))(u)
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()


def test_rows_beyond_the_clip_of_z_have_no_gradient():
    slope = jax.grad(lambda x: jnp.sum(losses.gumbel_loss(x, 1.0, 7.0)))(jnp.array([8.0, 6.0]))
    assert slope[0] == 0.0
    assert slope[1] > 0.0


def test_with_a_large_beta_the_gumbel_loss_is_the_squared_error():
    """exp(z) - z - 1 tends to z^2 / 2, so V to the mean."""
    u = np.array([-1.0, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(
        losses.gumbel_loss(u, 1000.0, 7.0), u**2 / (2 * 1000.0**2), rtol=0.01, atol=1e-7
    )
    got = minimiser(lambda x: losses.gumbel_loss(x, 100.0, 7.0), jnp.array([0.0, 1.0, 5.0]))
    assert got == pytest.approx(2.0, abs=0.05)


def test_huber_loss_by_hand():
    """delta 2: 1.5^2 / 2, then 2 (3 - 1) and 2 (10 - 1)."""
    got = losses.huber_loss(jnp.array([1.5, -3.0, 10.0]), 2.0)
    np.testing.assert_allclose(got, [1.125, 4.0, 18.0])
    slope = jax.vmap(jax.grad(lambda x: losses.huber_loss(x, 2.0)))(jnp.array([1.5, -3.0, 10.0]))
    np.testing.assert_allclose(slope, [1.5, -2.0, 2.0])


LOSSES = {"total_variation": losses.total_variation_loss, "chi_square": losses.chi_square_loss}


@pytest.mark.parametrize(
    ("lam", "quantile"), [(0.6, 1 / 3), (2 / 3, 0.5), (0.8, 0.75), (0.95, 18 / 19)]
)
def test_total_variation_is_a_quantile(lam, quantile):
    """(2 lambda - 1) / lambda of the standard normal."""
    got = minimiser(lambda u: losses.total_variation_loss(u, lam), standard_normal())
    assert got == pytest.approx(scipy.stats.norm.ppf(quantile), abs=2e-3)


def _released(difference, lam):
    """Chi-square as the authors' code has it, which is positive again below -4."""
    return lam * jnp.maximum(difference + difference**2 / 4, 0.0) - (1.0 - lam) * difference


def test_chi_square_on_a_narrow_q_is_what_was_released():
    """N(0, 1), lambda 0.8: both 0.86."""
    for loss in (losses.chi_square_loss, _released):
        got = minimiser(lambda u, f=loss: f(u, 0.8), standard_normal())
        assert got == pytest.approx(0.86, abs=0.01)


def _excess(t):
    """E[1[d > 0] (1 + d / 2)] for d = 5 (Z - t), which is (1 - lambda) / lambda at the minimum."""
    above = scipy.stats.norm.sf(t)
    return above + 2.5 * (scipy.stats.norm.pdf(t) - t * above)


def test_chi_square_on_a_wide_q_goes_on_to_the_maximum():
    """N(0, 5^2), lambda 0.9: 8.04, where the released form stays at 1.8."""
    wide = 5.0 * standard_normal()
    expected = 5.0 * scipy.optimize.brentq(lambda t: _excess(t) - 1 / 9, 0.0, 5.0)
    assert expected == pytest.approx(8.04, abs=0.01)
    got = minimiser(lambda u: losses.chi_square_loss(u, 0.9), wide)
    assert got == pytest.approx(expected, abs=0.01)
    assert minimiser(lambda u: _released(u, 0.9), wide) == pytest.approx(1.8, abs=0.05)


@pytest.mark.parametrize("divergence", sorted(LOSSES))
def test_towards_one_lambda_gives_the_maximum(divergence):
    q = jnp.asarray([0.0, 1.0, 3.0])
    got = minimiser(lambda u: LOSSES[divergence](u, 0.999), q)
    assert got == pytest.approx(3.0, abs=0.01)


def test_losses_of_divergences_by_hand():
    """lambda 0.8, u = (2, -6): 0.8 * 2 - 0.2 * 2 and 1.2; with the square 0.8 * 3 - 0.4 and 1.2."""
    u = jnp.array([2.0, -6.0])
    np.testing.assert_allclose(losses.total_variation_loss(u, 0.8), [1.2, 1.2], rtol=1e-5)
    np.testing.assert_allclose(losses.chi_square_loss(u, 0.8), [2.0, 1.2], rtol=1e-5)


def test_the_size_of_q_divides_without_a_gradient():
    """Each of two rows pulls with (1 / 2) / mean(2, 4) = 1 / 6; through |Q| it would be 0."""
    np.testing.assert_allclose(jax.grad(losses.relative_q)(jnp.array([2.0, 4.0])), [1 / 6, 1 / 6])


def test_a_q_of_zero_is_no_division_by_zero():
    assert float(losses.relative_q(jnp.zeros(4))) == 0.0
    assert np.isfinite(jax.grad(losses.relative_q)(jnp.zeros(4))).all()


def test_the_soft_maximum_with_importance_by_hand():
    """log(e^1 / 0.5 + e^2 / 0.25), whatever the data's action is worth."""
    density = jnp.log(jnp.array([[0.5, 0.25]]))
    for data in (0.0, 9.0):
        got = losses.soft_maximum(jnp.array([[[1.0, 2.0]]]), density, jnp.array([[data]]), True)
        assert float(got[0, 0]) == pytest.approx(math.log(2 * math.e + 4 * math.e**2), rel=1e-6)


def test_the_soft_maximum_without_importance_by_hand():
    """log((e^1 + e^2 + e^3) / 3): the data's action is one of three."""
    got = losses.soft_maximum(
        jnp.array([[[1.0, 2.0]]]), jnp.full((1, 2), 7.0), jnp.array([[3.0]]), False
    )
    expected = math.log((math.e + math.e**2 + math.e**3) / 3)
    assert float(got[0, 0]) == pytest.approx(expected, rel=1e-6)


def test_of_a_constant_q_only_the_size_of_the_box_is_left():
    """Uniform actions in [-1, 1]^2 have density 1 / 4: log(M * 4) whatever Q is."""
    sampled = jnp.full((2, 5, 6), 3.0)
    density = jnp.full((5, 6), -2 * math.log(2.0))
    got = losses.soft_maximum(sampled, density, jnp.full((2, 5), 3.0), True) - 3.0
    np.testing.assert_allclose(got, math.log(24.0), rtol=1e-6)


@pytest.mark.parametrize(("excess", "sign"), [(2.0, -1.0), (-2.0, 1.0)])
def test_the_multiplier_rises_where_the_gap_is_exceeded(excess, sign):
    """d(-e^m x)/dm = -x at m = 0; descent raises m where x > 0."""
    slope = jax.grad(losses.multiplier_loss)(jnp.zeros(()), jnp.asarray(excess))
    assert float(slope) == pytest.approx(-excess)
    assert np.sign(float(slope)) == sign


def test_generalised_advantages_by_hand():
    """Terminated after two rows, then one row cut by time, then one cut by the rollout's end.

    With a discount of 0.5 and a lambda of 0.5, the deltas are 1 + 0.5 * 2 - 1 = 1,
    2 + 0 - 2 = 0 (terminated: no bootstrap), 3 + 0.5 * 4 - 1 = 4 and 1 + 0.5 * 6 - 2 = 2.
    """
    rewards = jnp.array([1.0, 2.0, 3.0, 1.0])
    values = jnp.array([1.0, 2.0, 1.0, 2.0])
    next_values = jnp.array([2.0, 9.0, 4.0, 6.0])
    masks, ends = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 1.0])
    got = losses.gae(rewards, values, next_values, masks, ends, 0.5, 0.5)
    np.testing.assert_allclose(got, [1.0, 0.0, 4.0, 2.0])
    joined = losses.gae(rewards, values, next_values, masks, jnp.zeros(4), 0.5, 0.5)
    np.testing.assert_allclose(joined, [1.28125, 1.125, 4.5, 2.0])


def test_advantages_of_lambda_one_are_the_return_less_the_value():
    """1 + 0.5 * (2 + 0.5 * (4 + 0.5 * 8)) = 4: only the last row bootstraps."""
    rewards, values = jnp.array([1.0, 2.0, 4.0]), jnp.array([7.0, -3.0, 5.0])
    next_values, ends = jnp.array([-3.0, 5.0, 8.0]), jnp.array([0.0, 0.0, 1.0])
    got = losses.gae(rewards, values, next_values, jnp.ones(3), ends, 0.5, 1.0)
    np.testing.assert_allclose(got + values, [4.0, 6.0, 8.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "moves"),
    [
        (1.1, 2.0, 2.2, True),
        (1.5, 2.0, 2.4, False),  # gone far enough towards what was good
        (0.5, 2.0, 1.0, True),  # away from what was good: the way back stays open
        (0.5, -2.0, -1.6, False),
        (1.5, -2.0, -3.0, True),
    ],
)
def test_the_clipped_surrogate_of_both_signs(ratio, advantage, expected, moves):
    old = jnp.asarray(-0.3)
    log_prob = old + jnp.log(ratio)
    value, slope = jax.value_and_grad(losses.clipped_surrogate)(log_prob, old, advantage, 0.2)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(slope) == pytest.approx(ratio * advantage if moves else 0.0, rel=1e-5)


def test_the_loss_of_v_by_hand():
    """V moved from 0 to 1, the return is 2: 1 / 2 free, and (0.2 - 2)^2 / 2 behind the clip.

    Moved away from the return, the free loss is the larger one and keeps its gradient.
    """
    v, old, returns = jnp.array([1.0, -1.0]), jnp.zeros(2), jnp.array([2.0, 2.0])
    np.testing.assert_allclose(losses.clipped_value_loss(v, old, returns, 0.0), [0.5, 4.5])
    np.testing.assert_allclose(losses.clipped_value_loss(v, old, returns, 0.2), [1.62, 4.5])
    slopes = jax.grad(lambda v: losses.clipped_value_loss(v, old, returns, 0.2).sum())(v)
    np.testing.assert_allclose(slopes, [0.0, -3.0])


def test_relative_q_by_hand():
    """mean(1, -3, 5) / mean(1, 3, 5) = 1 / 3."""
    assert float(losses.relative_q(jnp.array([1.0, -3.0, 5.0]))) == pytest.approx(1.0 / 3.0)
