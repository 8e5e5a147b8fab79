import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import critics, optimise
from robo_rl.nn.apply import apply_ensemble, init_ensemble
from robo_rl.nn.networks import NetConfig, Scalar

NET = NetConfig(hidden=(4,))
X = jnp.ones((3, 2))


@pytest.fixture
def params():
    """Four members that say 0, 1, 2, 3 at every input."""
    params = init_ensemble(Scalar(NET), jax.random.key(0), 4, X)
    params = jax.tree.map(jnp.zeros_like, params)
    params["out"]["bias"] = jnp.arange(4.0)[:, None]
    return params


def test_the_minimum_is_over_a_subset_that_the_key_draws(params):
    np.testing.assert_array_equal(critics.min_q(NET, params, jax.random.key(0), 4, X), np.zeros(3))
    singles = {float(critics.min_q(NET, params, jax.random.key(k), 1, X)[0]) for k in range(30)}
    assert singles == {0.0, 1.0, 2.0, 3.0}
    pairs = {float(critics.min_q(NET, params, jax.random.key(k), 2, X)[0]) for k in range(30)}
    assert pairs == {0.0, 1.0, 2.0}  # 3 is never the smaller of two


def test_all_members_step_towards_the_target(params):
    """(0 - 2)^2, (1 - 2)^2, 0, (3 - 2)^2 have a mean of 1.5."""
    target = jnp.full(3, 2.0)
    new, opt, metrics = critics.regress(NET, params, optimise.adam_init(params), 0.1, target, X)
    assert float(metrics["critic_loss"]) == 1.5
    assert float(metrics["q"]) == 1.5
    after = apply_ensemble(Scalar(NET), new, X)[:, 0]
    np.testing.assert_allclose(after, [0.1, 1.1, 2.0, 2.9], atol=1e-5)
    assert int(opt.count) == 1
