import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import optimise


def test_first_adam_step_is_the_learning_rate_against_the_sign():
    params = {"w": jnp.array([1.0, 1.0])}
    state = optimise.adam_init(params)
    stepped, _ = optimise.adam_step(params, {"w": jnp.array([5.0, -0.1])}, state, 0.1)
    np.testing.assert_allclose(stepped["w"], [0.9, 1.1], atol=1e-5)


def test_weight_decay_pulls_without_a_gradient():
    params = {"w": jnp.array([2.0])}
    stepped, _ = optimise.adam_step(
        params, {"w": jnp.zeros(1)}, optimise.adam_init(params), 0.1, weight_decay=0.5
    )
    np.testing.assert_allclose(stepped["w"], [2.0 - 0.1 * 0.5 * 2.0], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    """(3, 4) has norm 5; clipped to 1 it is (0.6, 0.8), whose tenth is Adam's first moment."""
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    _, state = optimise.adam_step(params, grads, optimise.adam_init(params), 0.1, clip_norm=1.0)
    np.testing.assert_allclose([state.mu["a"][0], state.mu["b"][0]], [0.06, 0.08], rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_blocks_of_rows_give_the_gradient_of_all_of_them(blocks):
    """mean((w x - y)^2) has gradient 2 mean(x (w x - y)): at w = 2, x = 1..6, y = 1."""
    rows = {"x": jnp.arange(1.0, 7.0), "y": jnp.ones(6)}

    def loss(params, rows):
        error = params["w"] * rows["x"] - rows["y"]
        return jnp.mean(jnp.square(error)), {"error": jnp.mean(error)}

    grads, metrics = optimise.gradient_in_blocks(loss, {"w": jnp.asarray(2.0)}, rows, blocks)
    assert float(grads["w"]) == pytest.approx(2 * (2 * 91 - 21) / 6)
    assert float(metrics["error"]) == pytest.approx(6.0)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (50, 0.5), (100, 0.0), (500, 0.0)])
def test_cosine_goes_to_zero_and_stays(step, expected):
    assert float(optimise.cosine(1.0, jnp.asarray(step), 100)) == pytest.approx(expected, abs=1e-6)


def test_cosine_without_decay_is_constant():
    assert optimise.cosine(0.3, jnp.asarray(10**6), 0) == 0.3


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (25, 0.75), (100, 0.0), (500, 0.0)])
def test_linear_goes_to_zero_and_stays(step, expected):
    assert float(optimise.linear(1.0, jnp.asarray(step), 100)) == pytest.approx(expected)
    assert optimise.linear(0.3, jnp.asarray(step), 0) == 0.3


def test_polyak_by_hand():
    moved = optimise.polyak({"w": jnp.array(10.0)}, {"w": jnp.array(2.0)}, 0.25)
    assert float(moved["w"]) == 4.0


def test_all_finite_sees_one_nan():
    tree = {"a": jnp.ones(3), "n": jnp.array(4), "b": jnp.array([1.0, jnp.nan])}
    assert not bool(optimise.all_finite(tree))
    assert bool(optimise.all_finite({**tree, "b": jnp.zeros(2)}))
