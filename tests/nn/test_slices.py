import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import slices

BATCH = {"rewards": jnp.arange(6.0), "actions": jnp.arange(12.0).reshape(6, 2)}


def test_a_batch_is_cut_into_consecutive_slices():
    parts = slices.cut(BATCH, 3, "here")
    np.testing.assert_array_equal(parts["rewards"], [[0, 1], [2, 3], [4, 5]])
    assert parts["actions"].shape == (3, 2, 2)
    np.testing.assert_array_equal(slices.last(parts)["actions"], [[8, 9], [10, 11]])
    with pytest.raises(ValueError, match="here: 6 rows do not divide into utd = 4 slices"):
        slices.cut(BATCH, 4, "here")


def test_steps_follow_each_other_with_keys_of_their_own():
    def step(state, batch, key):
        seen = {"sum": jnp.sum(batch["rewards"]), "draw": jax.random.uniform(key)}
        return 10.0 * state + batch["rewards"][0], seen

    state, metrics = slices.scan(
        step, jnp.zeros(()), slices.cut(BATCH, 3, "here"), jax.random.key(0)
    )
    assert float(state) == 24.0  # 0, then 2, then 4
    assert float(metrics["sum"]) == 5.0  # (1 + 5 + 9) / 3
    draws = [float(jax.random.uniform(k)) for k in jax.random.split(jax.random.key(0), 3)]
    assert float(metrics["draw"]) == pytest.approx(np.mean(draws))
