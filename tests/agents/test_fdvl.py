import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from robo_rl.agents import fdvl
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.agents.in_sample import (
    assert_it_acts_well_on_match,
    minimiser,
    standard_normal,
    trained_on_match,
    value_at_zero,
)

SMALL = NetConfig(hidden=(16, 16))
LOSSES = {"total_variation": fdvl.total_variation_loss, "chi_square": fdvl.chi_square_loss}


@pytest.mark.parametrize(
    ("lam", "quantile"), [(0.6, 1 / 3), (2 / 3, 0.5), (0.8, 0.75), (0.95, 18 / 19)]
)
def test_total_variation_is_a_quantile(lam, quantile):
    """(2 lambda - 1) / lambda of the standard normal."""
    got = minimiser(lambda u: fdvl.total_variation_loss(u, lam), standard_normal())
    assert got == pytest.approx(scipy.stats.norm.ppf(quantile), abs=2e-3)


def _released(difference, lam):
    """Chi-square as the authors' code has it, which is positive again below -4."""
    return lam * jnp.maximum(difference + difference**2 / 4, 0.0) - (1.0 - lam) * difference


def test_chi_square_on_a_narrow_q_is_what_was_released():
    """N(0, 1), lambda 0.8: both 0.86."""
    for loss in (fdvl.chi_square_loss, _released):
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
    got = minimiser(lambda u: fdvl.chi_square_loss(u, 0.9), wide)
    assert got == pytest.approx(expected, abs=0.01)
    assert minimiser(lambda u: _released(u, 0.9), wide) == pytest.approx(1.8, abs=0.05)


@pytest.mark.parametrize("divergence", fdvl.DIVERGENCES)
def test_towards_one_lambda_gives_the_maximum(divergence):
    q = jnp.asarray([0.0, 1.0, 3.0])
    got = minimiser(lambda u: LOSSES[divergence](u, 0.999), q)
    assert got == pytest.approx(3.0, abs=0.01)


def test_losses_by_hand():
    """lambda 0.8, u = (2, -6): 0.8 * 2 - 0.2 * 2 and 1.2; with the square 0.8 * 3 - 0.4 and 1.2."""
    u = jnp.array([2.0, -6.0])
    np.testing.assert_allclose(fdvl.total_variation_loss(u, 0.8), [1.2, 1.2], rtol=1e-5)
    np.testing.assert_allclose(fdvl.chi_square_loss(u, 0.8), [2.0, 1.2], rtol=1e-5)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("divergence", fdvl.DIVERGENCES)
def test_losses_of_one_update_by_hand(batch, divergence):
    config = fdvl.Config(actor=SMALL, critic=SMALL, divergence=divergence, lam=0.7, huber=0.5)
    state = jax.jit(fdvl.init, static_argnums=0)(config, jax.random.key(0), batch)
    after, metrics = jax.jit(fdvl.update, static_argnums=0)(config, state, batch)
    both = np.concatenate([batch["observations"], batch["actions"]], axis=1)
    q = np.asarray(apply_ensemble(Scalar(SMALL), state.target_critic, both)).min(axis=0)
    u = q - np.asarray(apply(Scalar(SMALL), state.params["value"], batch["observations"]))
    upper = np.maximum(u, 0.0)
    if divergence == "chi_square":
        upper = upper + upper**2 / 4
    expected = np.mean(0.7 * upper - 0.3 * u)
    assert float(metrics["value_loss"]) == pytest.approx(expected, rel=1e-4)

    next_v = apply(Scalar(SMALL), after.params["value"], batch["next_observations"])
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_v)
    d = np.abs(np.asarray(apply_ensemble(Scalar(SMALL), state.params["critic"], both)) - target)
    loss = np.where(d < 0.5, d**2 / 2, 0.5 * (d - 0.25)).mean(axis=1).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("divergence", fdvl.DIVERGENCES)
def test_it_learns_its_maximum_and_beats_the_behaviour_in_a_bandit(divergence):
    """V(0) of Q = -a^2, a uniform: with total variation minus the square of the 25 % quantile of
    |a|, -1/16; with chi-square what minimises the loss over those Q."""
    net = NetConfig(hidden=(32, 32))
    config = fdvl.Config(
        net,
        net,
        divergence=divergence,
        lam=0.8,
        temperature=30.0,
        actor_lr=3e-3,
        critic_lr=3e-3,
        polyak=0.05,
    )
    q = -jnp.square(jnp.linspace(-1.0, 1.0, 10_001))
    expected = minimiser(lambda u: LOSSES[divergence](u, 0.8), q)
    if divergence == "total_variation":
        assert expected == pytest.approx(-1 / 16, abs=1e-3)
    state = trained_on_match(fdvl, config)
    assert value_at_zero(config, state) == pytest.approx(expected, abs=0.03)
    assert_it_acts_well_on_match(fdvl, config, state)
