import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import normaliser


def test_standardises_by_the_statistics_of_the_data():
    data = np.array([[0.0, 10.0], [2.0, 30.0]], np.float32)
    np.testing.assert_allclose(normaliser.fit(data)(jnp.asarray(data)), [[-1, -1], [1, 1]])


def test_small_spreads_are_raised_and_constants_only_centred():
    data = np.stack([np.full(4, 7.0), np.array([0.0, 0.0, 2e-3, 2e-3])], axis=1)
    fitted = normaliser.fit(data, min_std=0.05)
    np.testing.assert_allclose(fitted.std, [1.0, 0.05], rtol=1e-6)
    np.testing.assert_allclose(fitted.mean, [7.0, 1e-3], rtol=1e-6)


def test_identity_changes_nothing():
    x = jnp.array([3.0, -4.0])
    np.testing.assert_array_equal(normaliser.identity(2)(x), x)


def test_a_nan_in_the_data_is_named():
    with pytest.raises(ValueError, match=r"entries \[1\]"):
        normaliser.fit(np.array([[0.0, np.nan], [1.0, 2.0]]))


def test_an_empty_or_flat_array_is_refused():
    with pytest.raises(ValueError, match=r"must be \(B, O\)"):
        normaliser.fit(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"must be \(B, O\)"):
        normaliser.fit(np.zeros(3))
