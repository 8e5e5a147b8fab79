import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from robo_rl.agents import iql, xql
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
INIT = jax.jit(xql.init, static_argnums=0)
UPDATE = jax.jit(xql.update, static_argnums=0)


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 0.5), (2.0, 0.25), (5.0, 0.1)])
def test_the_soft_maximum_of_the_standard_normal(beta, expected):
    """beta log E exp(Q / beta) = 1 / (2 beta). No clip: the tail is what makes it 1 / (2 beta)."""
    got = minimiser(lambda u: xql.gumbel_loss(u, beta, 50.0), standard_normal(), -5.0, 5.0)
    assert got == pytest.approx(expected, abs=3e-3)


def test_the_soft_maximum_of_a_coin():
    """beta 1, Q 0 or log 9 with equal chance: log((1 + 9) / 2) = log 5."""
    coin = jnp.asarray([0.0, np.log(9.0)], jnp.float32)
    got = minimiser(lambda u: xql.gumbel_loss(u, 1.0, 7.0), coin)
    assert got == pytest.approx(np.log(5.0), abs=1e-4)


def test_gumbel_loss_by_hand():
    """u = (2, -4), beta 2: z = (1, -2), m = 1, so (e - 2) / e and (e^-2 + 1) / e."""
    got = xql.gumbel_loss(jnp.array([2.0, -4.0]), 2.0, 7.0)
    np.testing.assert_allclose(got, [1.0 - 2.0 / np.e, (np.exp(-2.0) + 1.0) / np.e], rtol=1e-5)


def test_the_scale_is_at_least_that_of_minus_one():
    """u = -3, beta 1: the maximum is held at -1, so (exp(-3) + 2) * e."""
    got = xql.gumbel_loss(jnp.array([-3.0]), 1.0, 7.0)
    np.testing.assert_allclose(got, [(np.exp(-3.0) + 2.0) * np.e], rtol=1e-5)


def test_the_stable_form_has_the_direction_of_the_plain_one():
    """The slopes of a batch differ by one positive factor, exp(-m)."""
    u = jnp.array([-3.0, -0.5, 0.2, 2.5])
    plain = jax.grad(lambda x: jnp.sum(jnp.exp(x) - x - 1.0))(u)
    stable = jax.grad(lambda x: jnp.sum(xql.gumbel_loss(x, 1.0, 7.0)))(u)
    np.testing.assert_allclose(stable, np.exp(-2.5) * np.asarray(plain), rtol=1e-5)


def test_it_stays_finite_where_the_plain_form_overflows():
    u = jnp.array([1000.0, -1000.0])
    loss, slope = jax.value_and_grad(lambda x: jnp.sum(xql.gumbel_loss(x, 1.0, 200.0)))(u)
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()


def test_clipped_rows_have_no_gradient():
    slope = jax.grad(lambda x: jnp.sum(xql.gumbel_loss(x, 1.0, 7.0)))(jnp.array([8.0, 6.0]))
    assert slope[0] == 0.0
    assert slope[1] > 0.0


def test_with_a_large_beta_it_is_the_squared_error():
    """exp(z) - z - 1 tends to z^2 / 2, so V to the mean."""
    u = np.array([-1.0, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(
        xql.gumbel_loss(u, 1000.0, 7.0), u**2 / (2 * 1000.0**2), rtol=0.01, atol=1e-7
    )
    got = minimiser(lambda x: xql.gumbel_loss(x, 100.0, 7.0), jnp.array([0.0, 1.0, 5.0]))
    assert got == pytest.approx(2.0, abs=0.05)


def test_huber_loss_by_hand():
    """delta 2: 1.5^2 / 2, then 2 (3 - 1) and 2 (10 - 1)."""
    got = xql.huber_loss(jnp.array([1.5, -3.0, 10.0]), 2.0)
    np.testing.assert_allclose(got, [1.125, 4.0, 18.0])
    slope = jax.vmap(jax.grad(lambda x: xql.huber_loss(x, 2.0)))(jnp.array([1.5, -3.0, 10.0]))
    np.testing.assert_allclose(slope, [1.5, -2.0, 2.0])


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("huber", [0.5, 0.0])
def test_losses_of_one_update_by_hand(batch, huber):
    config = xql.Config(actor=SMALL, critic=SMALL, beta=0.5, z_clip=1.0, huber=huber)
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    obs, both = batch["observations"], np.concatenate([batch["observations"], batch["actions"]], 1)
    q = np.asarray(apply_ensemble(Scalar(SMALL), state.target_critic, both)).min(axis=0)
    v = np.asarray(apply(Scalar(SMALL), state.params["value"], obs))
    z = np.minimum((q - v) / 0.5, 1.0)
    expected = np.mean((np.exp(z) - z - 1.0) / np.exp(max(z.max(), -1.0)))
    assert float(metrics["value_loss"]) == pytest.approx(expected, rel=1e-4)

    next_v = apply(Scalar(SMALL), after.params["value"], batch["next_observations"])
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_v)
    u = np.asarray(apply_ensemble(Scalar(SMALL), state.params["critic"], both)) - target
    loss = np.where(np.abs(u) < 0.5, u**2 / 2, 0.5 * (np.abs(u) - 0.25)) if huber else u**2
    assert (np.abs(u) > 0.5).any()
    assert float(metrics["critic_loss"]) == pytest.approx(loss.mean(axis=1).sum(), rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_only_the_losses_of_v_and_q_differ_from_iql(batch):
    """The first actor loss differs by the new V alone: at temperature 0 not at all."""
    ours, theirs = (
        xql.Config(SMALL, SMALL, temperature=0.0),
        iql.Config(SMALL, SMALL, temperature=0.0),
    )
    state = INIT(ours, jax.random.key(0), batch)
    got, metrics = UPDATE(ours, state, batch)
    expected, known = jax.jit(iql.update, static_argnums=0)(theirs, state, batch)
    assert set(metrics) == set(known)
    assert float(metrics["actor_loss"]) == float(known["actor_loss"])
    jax.tree.map(np.testing.assert_array_equal, got.params["actor"], expected.params["actor"])
    assert float(metrics["value_loss"]) != float(known["value_loss"])


def test_it_learns_the_soft_maximum_and_beats_the_behaviour_in_a_bandit():
    """V(0) = beta log of the mean of exp(-a^2 / beta); the plain mean would be -1/3."""
    net = NetConfig(hidden=(32, 32))
    config = xql.Config(
        net, net, beta=0.3, temperature=30.0, actor_lr=3e-3, critic_lr=3e-3, polyak=0.05
    )
    state = trained_on_match(xql, config)
    expected = 0.3 * np.log(scipy.integrate.quad(lambda a: np.exp(-(a**2) / 0.3), 0.0, 1.0)[0])
    assert expected == pytest.approx(-0.219, abs=1e-3)
    assert value_at_zero(config, state) == pytest.approx(expected, abs=0.03)
    assert_it_acts_well_on_match(xql, config, state)
