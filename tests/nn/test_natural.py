import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import natural


def _matrix(size):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(size, size))
    return (root @ root.T + 0.5 * np.eye(size)).astype(np.float32), rng.normal(size=size)


def test_conjugate_gradients_equal_a_dense_solve():
    matrix, b = _matrix(6)
    got = natural.conjugate_gradient(lambda v: matrix @ v, jnp.asarray(b, jnp.float32), 12)
    np.testing.assert_allclose(got, np.linalg.solve(matrix.astype(float), b), rtol=1e-3, atol=1e-4)


def test_no_slope_is_no_direction():
    got = natural.conjugate_gradient(lambda v: 2.0 * v, jnp.zeros(3), 10)
    np.testing.assert_array_equal(got, 0.0)


def _quadratic(matrix):
    return lambda x: 0.5 * jnp.vdot(x - 1.0, matrix @ (x - 1.0))


def test_the_curvature_of_a_divergence_is_its_damped_hessian():
    matrix, v = _matrix(4)
    product = natural.curvature_product(_quadratic(matrix), jnp.ones(4), 0.1)
    v = jnp.asarray(v, jnp.float32)
    np.testing.assert_allclose(product(v), (matrix + 0.1 * np.eye(4)) @ v, rtol=1e-4)


def test_a_step_on_a_plane_is_the_natural_gradient_of_exactly_the_allowed_length():
    """Without damping, sqrt(2 d / g' F^-1 g) F^-1 g has a divergence of d; no halving is needed.

    The bound is a little above d, for rounding: the objective is linear, the divergence quadratic.
    """
    matrix, slope = _matrix(4)
    slope = jnp.asarray(slope, jnp.float32)
    new, metrics = jax.jit(
        lambda start: natural.trust_region_step(
            lambda x: jnp.vdot(slope, x), _quadratic(matrix), start, 0.02, 1e-4, 8
        )
    )(jnp.ones(4))
    direction = np.linalg.solve(matrix + 1e-4 * np.eye(4), np.asarray(slope))
    expected = np.sqrt(0.04 / (direction @ (matrix + 1e-4 * np.eye(4)) @ direction)) * direction
    np.testing.assert_allclose(np.asarray(new) - 1.0, expected, rtol=2e-3)
    assert float(metrics["kl"]) == pytest.approx(0.02, rel=1e-3)
    assert (float(metrics["halvings"]), float(metrics["accepted"])) == (0.0, 1.0)


def test_a_step_that_is_too_long_is_halved():
    """It diverges by 0.66 at 0.2 and by 0.045 at 0.1, both above 0.02; by 0.00375 at 0.05."""
    start = jnp.zeros(1)

    def divergence(x):
        return 0.5 * jnp.sum(x**2) * (1.0 + 800.0 * jnp.sum(x**2))

    new, metrics = natural.trust_region_step(lambda x: x.sum(), divergence, start, 0.02, 0.0)
    np.testing.assert_allclose(new, 0.05, rtol=1e-4)
    assert float(metrics["halvings"]) == 2.0
    assert float(metrics["kl"]) <= 0.02
    stuck, metrics = natural.trust_region_step(
        lambda x: x.sum(), divergence, start, 0.02, 0.0, backtracks=2
    )
    np.testing.assert_array_equal(stuck, 0.0)
    assert (float(metrics["accepted"]), float(metrics["kl"])) == (0.0, 0.0)


def test_no_step_is_taken_where_the_objective_does_not_rise():
    start = jnp.array([0.3])
    flat, metrics = natural.trust_region_step(
        lambda x: 0.0 * x.sum(), lambda x: jnp.sum((x - 0.3) ** 2), start, 0.01
    )
    np.testing.assert_array_equal(flat, start)
    assert float(metrics["accepted"]) == 0.0
