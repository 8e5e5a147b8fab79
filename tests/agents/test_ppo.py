import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import ppo


def test_generalised_advantages_by_hand():
    """Terminated after two rows, then one row cut by time, then one cut by the rollout's end.

    With a discount of 0.5 and a lambda of 0.5, the deltas are 1 + 0.5 * 2 - 1 = 1,
    2 + 0 - 2 = 0 (terminated: no bootstrap), 3 + 0.5 * 4 - 1 = 4 and 1 + 0.5 * 6 - 2 = 2.
    """
    rewards = jnp.array([1.0, 2.0, 3.0, 1.0])
    values = jnp.array([1.0, 2.0, 1.0, 2.0])
    next_values = jnp.array([2.0, 9.0, 4.0, 6.0])
    masks, ends = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 1.0])
    got = ppo.gae(rewards, values, next_values, masks, ends, 0.5, 0.5)
    np.testing.assert_allclose(got, [1.0, 0.0, 4.0, 2.0])
    joined = ppo.gae(rewards, values, next_values, masks, jnp.zeros(4), 0.5, 0.5)
    np.testing.assert_allclose(joined, [1.28125, 1.125, 4.5, 2.0])


def test_advantages_of_lambda_one_are_the_return_less_the_value():
    """1 + 0.5 * (2 + 0.5 * (4 + 0.5 * 8)) = 4: only the last row bootstraps."""
    rewards, values = jnp.array([1.0, 2.0, 4.0]), jnp.array([7.0, -3.0, 5.0])
    next_values, ends = jnp.array([-3.0, 5.0, 8.0]), jnp.array([0.0, 0.0, 1.0])
    got = ppo.gae(rewards, values, next_values, jnp.ones(3), ends, 0.5, 1.0)
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
    value, slope = jax.value_and_grad(ppo.clipped_surrogate)(log_prob, old, advantage, 0.2)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(slope) == pytest.approx(ratio * advantage if moves else 0.0, rel=1e-5)
