import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import dynamics, optimise
from robo_rl.nn.networks import NetConfig

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = NetConfig((32,), activation="silu")
KEY = jax.random.key(0)
INIT = jax.jit(dynamics.init, static_argnums=(0, 2))
STEP = jax.jit(dynamics.step, static_argnums=0)


def test_negative_log_likelihood_by_hand():
    """Change off by 2 at std 1, reward off by 1 at std 2, ended where even odds were given."""
    got = dynamics.negative_log_likelihood(
        mean=jnp.array([[1.0, 0.0]]),
        log_std=jnp.array([[0.0, math.log(2.0)]]),
        goes_on=jnp.array([0.0]),
        target=jnp.array([[3.0, 1.0]]),
        masks=jnp.array([0.0]),
    )
    expected = 0.5 * 4 + 0.5 * 0.25 + math.log(2.0) + math.log(2 * math.pi) + math.log(2.0)
    np.testing.assert_allclose(got, [expected], rtol=1e-6)


@functools.cache
def _fitted():
    """Two members on x' = x + (x - 2 a) / 4, a reward of a, and an end where x > 0."""
    x, a = jnp.meshgrid(jnp.linspace(-1.0, 1.0, 20), jnp.linspace(-1.0, 1.0, 20))
    x, a = x.reshape(-1, 1), a.reshape(-1, 1)
    following = x + (x - 2 * a) / 4
    batch = {"actions": a, "rewards": a[:, 0], "masks": (x[:, 0] < 0.0).astype(jnp.float32)}
    params = INIT(NET, KEY, 2, x[:1], a[:1])

    def step(carry, _):
        params, opt, metrics = optimise.gradient_step(
            lambda members: dynamics.loss(NET, members, x, following, batch), *carry, 3e-3
        )
        return (params, opt), metrics

    start = params, optimise.adam_init(params)
    (params, _), metrics = jax.jit(lambda s: jax.lax.scan(step, s, None, length=1500))(start)
    return params, metrics


def test_a_linear_system_is_learned():
    params, metrics = _fitted()
    assert float(metrics["model_mse"][-1]) < 1e-3
    obs, actions = jnp.array([[-0.5], [0.5]]), jnp.array([[0.5], [-0.2]])
    for seed in range(4):
        following, reward, goes_on = STEP(NET, params, obs, actions, jax.random.key(seed))
        np.testing.assert_allclose(following, [[-0.875], [0.725]], atol=0.1)
        np.testing.assert_allclose(reward, [0.5, -0.2], atol=0.1)
        np.testing.assert_allclose(goes_on, [1.0, 0.0], atol=0.1)


def test_a_step_is_a_draw_of_one_member():
    """Zero kernels leave the biases: member 0 goes up by 1, member 1 down by 1, std e^-7."""
    params = jax.tree.map(jnp.zeros_like, INIT(NET, KEY, 2, jnp.zeros((1, 1)), jnp.zeros((1, 1))))
    params["mean"]["bias"] = jnp.array([[1.0, 5.0], [-1.0, 5.0]])
    params["log_std"]["bias"] = jnp.full((2, 2), -100.0)
    keys = jax.random.split(KEY, 40)
    obs, actions = jnp.zeros((2, 1)), jnp.zeros((2, 1))
    draws = [STEP(NET, params, obs, actions, key) for key in keys]
    following, reward, goes_on = (np.stack(column) for column in zip(*draws, strict=True))
    np.testing.assert_allclose(np.abs(following), 1.0, atol=0.01)
    np.testing.assert_allclose(reward, 5.0, atol=0.01)
    np.testing.assert_allclose(goes_on, 0.5)
    # All rows of a step are the same member's, steps are not.
    np.testing.assert_array_equal(np.sign(following[:, 0]), np.sign(following[:, 1]))
    assert 8 < int(np.sum(following[:, 0, 0] > 0.0)) < 32
    assert len(np.unique(following)) == following.size


def test_the_spread_is_bounded_and_still_has_a_gradient():
    params = INIT(NET, KEY, 2, jnp.zeros((1, 1)), jnp.zeros((1, 1)))

    @jax.jit
    @jax.value_and_grad
    def log_std(bias):
        moved = {**params, "log_std": {**params["log_std"], "bias": jnp.full((2, 2), bias)}}
        module = dynamics.Dynamics(NET, 1)
        member = jax.tree.map(lambda leaf: leaf[0], moved)
        return module.apply({"params": member}, jnp.zeros(1), jnp.zeros(1))[1][0]

    for bias, bound in ((-12.0, dynamics.LOG_STD_MIN), (6.0, dynamics.LOG_STD_MAX)):
        value, slope = log_std(bias)
        assert float(value) == pytest.approx(bound, abs=0.02)
        assert float(slope) > 0.0


def _exact(obs, actions, key):
    return obs + actions, jnp.ones(obs.shape[0])


def _score(act, model, horizon, q=lambda obs, actions: -jnp.sum(obs**2, axis=-1)):
    obs = jnp.array([[1.0], [-2.0]])
    return float(dynamics.am_q(q, act, model, obs, horizon, KEY))


def test_am_q_by_hand_ranks_policies_in_an_exact_model():
    """x' = x + a, Q = -x^2 from 1 and -2: halving x gives 1, 1/4, 1/16 of the first value."""
    better, worse = (
        _score(lambda obs, k=gain: -k * obs, _exact, horizon=3) for gain in (0.5, -0.5)
    )
    assert better == pytest.approx(-2.5 * (1 + 0.25 + 0.0625) / 3)
    assert worse == pytest.approx(-2.5 * (1 + 2.25 + 5.0625) / 3)
    assert _score(lambda obs: -0.5 * obs, _exact, horizon=1) == pytest.approx(-2.5)


def test_after_the_end_of_an_episode_values_are_zero():
    """Odds of going on of 1/2 at each step: 1, 1/2, 1/4 of a value that stays."""

    def model(obs, actions, key):
        return obs, jnp.full(obs.shape[0], 0.5)

    assert _score(jnp.zeros_like, model, 3) == pytest.approx(-2.5 * (1 + 0.5 + 0.25) / 3)


def test_a_roll_out_stops_before_what_is_not_finite():
    """The row at 1 goes on to 3 and 5; that at -2 breaks at its first step: -35/3 and -4."""

    def model(obs, actions, key):
        return jnp.where(obs > 0.0, obs + 2.0, jnp.nan), jnp.ones(obs.shape[0])

    assert _score(jnp.zeros_like, model, 3) == pytest.approx((-35 / 3 - 4) / 2)
