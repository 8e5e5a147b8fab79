import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc
from robo_rl.nn.networks import NetConfig

INIT = jax.jit(bc.init, static_argnums=0)
UPDATE = jax.jit(bc.update, static_argnums=0)


def test_squared_error_by_hand():
    """Mean over both axes of (1, 2; 0, 1) squared: 6 / 4."""
    got = bc.squared_error(jnp.zeros((2, 2)), jnp.array([[1.0, 2.0], [0.0, 1.0]]))
    assert float(got) == 1.5


def test_likelihood_by_hand():
    """mean tanh(0) = 0, std 1, action 2: log sqrt(2 pi) + 2."""
    got = bc.negative_log_likelihood(jnp.array([[2.0]]), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    assert float(got) == pytest.approx(0.918939 + 2.0, rel=1e-5)


def _fit(config, obs, actions, steps=400):
    batch = {"observations": obs, "actions": actions}
    state = INIT(config, jax.random.key(0), batch)
    return jax.jit(
        lambda s: jax.lax.scan(lambda c, _: bc.update(config, c, batch), s, None, length=steps)
    )(state)


@pytest.mark.parametrize("likelihood", bc.LIKELIHOODS)
def test_it_learns_the_mean_action_of_the_data(likelihood):
    """Two actions at every state: the regression and the Gaussian find their mean."""
    obs = np.repeat(np.array([[-1.0], [1.0]], np.float32), 2, axis=0)
    actions = np.array([[-0.6], [-0.2], [0.1], [0.5]], np.float32)
    config = bc.Config(NetConfig(hidden=(32,)), likelihood, learning_rate=1e-2)
    state, _ = _fit(config, obs, actions)
    got = bc.act(config, state, jnp.array([[-1.0], [1.0]]), jax.random.key(0))
    np.testing.assert_allclose(got[:, 0], [-0.4, 0.3], atol=0.02)


def test_the_gaussian_learns_the_spread_of_the_data():
    """Deviations of +-0.2 around the mean: std 0.2."""
    obs = np.zeros((4, 1), np.float32)
    actions = np.array([[0.2], [-0.2], [0.2], [-0.2]], np.float32)
    config = bc.Config(NetConfig(hidden=(8,)), "gaussian", learning_rate=1e-2)
    state, metrics = _fit(config, obs, actions, 1000)
    assert float(metrics["std"][-1]) == pytest.approx(0.2, abs=0.01)
    samples = bc.act(config, state, jnp.zeros((4000, 1)), jax.random.key(0), explore=True)
    assert float(samples.std()) == pytest.approx(0.2, abs=0.02)


def test_the_spread_is_bounded():
    obs, actions = np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32)
    config = bc.Config(NetConfig(hidden=(8,)), "gaussian", learning_rate=1e-2, log_std_min=-1.0)
    _, metrics = _fit(config, obs, actions)
    assert float(metrics["std"][-1]) == pytest.approx(np.exp(-1.0), rel=1e-3)


def test_the_learning_rate_decays_to_zero(batch):
    config = bc.Config(NetConfig(hidden=(8,)), decay_steps=5)
    state = INIT(config, jax.random.key(0), batch)
    for _ in range(5):
        state, _ = UPDATE(config, state, batch)
    after, _ = UPDATE(config, state, batch)
    np.testing.assert_array_equal(after.actor["mean"]["kernel"], state.actor["mean"]["kernel"])


def test_weight_decay_shrinks_what_has_no_gradient(batch):
    """A constant observation of zero gives the first kernel no gradient."""
    blind = {**batch, "observations": np.zeros((8, 3), np.float32)}
    config = bc.Config(NetConfig(hidden=(8,)), weight_decay=0.1, learning_rate=0.01)
    state = INIT(config, jax.random.key(0), blind)
    after, _ = UPDATE(config, state, blind)
    before = np.asarray(state.actor["trunk"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(
        after.actor["trunk"]["Dense_0"]["kernel"], before * (1 - 0.01 * 0.1), rtol=1e-6
    )
