import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn.apply import apply, apply_ensemble, init_ensemble, init_params, subset
from robo_rl.nn.networks import Actor, NetConfig, Scalar

KEY = jax.random.key(0)


def test_one_hidden_unit_by_hand():
    """relu(2 * 3 + 1) = 7; then 7 * 0.5 - 1 = 2.5."""
    net = Scalar(NetConfig(hidden=(1,)))
    params = init_params(net, KEY, jnp.zeros((1, 1)))
    params["trunk"]["Dense_0"] = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])}
    params["out"] = {"kernel": jnp.array([[0.5]]), "bias": jnp.array([-1.0])}
    np.testing.assert_allclose(apply(net, params, jnp.array([[3.0]])), [2.5])


@pytest.mark.parametrize(
    ("hidden", "arch"), [((4,), "mlp"), ((4, 3), "mlp"), ((4,), "simba"), ((4, 4), "bro")]
)
def test_inputs_whose_axes_broadcast_give_what_repeated_ones_give(hidden, arch):
    """Values and gradients of three actions a state, with states as they are or three times."""
    net = Scalar(NetConfig(hidden=hidden, arch=arch))
    obs, actions = jax.random.normal(KEY, (5, 1, 2)), jax.random.normal(KEY, (5, 3, 4))
    repeated = jnp.repeat(obs, 3, axis=1)
    params = init_ensemble(net, KEY, 2, obs[:, 0], actions[:, 0])

    def total(params, obs):
        q = apply_ensemble(net, params, obs, actions)
        return jnp.sum(jnp.sin(q)), q

    (grads, q), (expected, expected_q) = (
        jax.grad(total, has_aux=True)(params, x) for x in (obs, repeated)
    )
    assert q.shape == (2, 5, 3)
    near = 1e-5 if arch == "mlp" else 1e-4  # LayerNorm of four features enlarges what is rounded
    np.testing.assert_allclose(q, expected_q, rtol=near, atol=near / 10)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=10 * near, atol=near), grads, expected
    )


def test_inputs_with_unequal_axes_are_an_error_and_not_a_guess():
    net = Scalar(NetConfig(hidden=(4,)))
    with pytest.raises(ValueError, match=r"equally many axes, got \[\(3, 2\), \(3, 3, 4\)\]"):
        init_params(net, KEY, jnp.zeros((3, 2)), jnp.zeros((3, 3, 4)))


@pytest.mark.parametrize(("position", "mean"), [("before", None), ("after", 0.0)])
def test_layer_norm_stands_before_or_after_the_activation(position, mean):
    """After it the features have mean 0; before it relu cuts the negative half away."""
    trunk = NetConfig(hidden=(64,), layer_norm=position).trunk()
    x = jax.random.normal(KEY, (5, 3))
    features = np.asarray(apply(trunk, init_params(trunk, KEY, x), x))
    if mean is None:
        assert features.min() == 0.0
    else:
        np.testing.assert_allclose(features.mean(axis=-1), mean, atol=1e-6)


def test_no_layer_norm_means_no_scale_parameters():
    trunk = NetConfig(hidden=(4, 4)).trunk()
    assert set(init_params(trunk, KEY, jnp.zeros((1, 2)))) == {"Dense_0", "Dense_1"}


def test_orthogonal_kernels_have_gain_sqrt_two():
    trunk = NetConfig(hidden=(8,), kernel_init="orthogonal").trunk()
    kernel = np.asarray(init_params(trunk, KEY, jnp.zeros((1, 8)))["Dense_0"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 2.0 * np.eye(8), atol=1e-5)


def test_fan_avg_kernels_are_uniform_within_the_glorot_bound():
    trunk = NetConfig(hidden=(200,)).trunk()
    kernel = np.asarray(init_params(trunk, KEY, jnp.zeros((1, 100)))["Dense_0"]["kernel"])
    bound = np.sqrt(6.0 / 300.0)
    assert 0.98 * bound < np.abs(kernel).max() <= bound


def test_zero_output_gain_makes_the_first_mean_zero():
    actor = Actor(NetConfig(hidden=(8,)), 3, output_gain=0.0)
    x = jax.random.normal(KEY, (4, 2))
    mean, _ = apply(actor, init_params(actor, KEY, x), x)
    np.testing.assert_array_equal(mean, np.zeros((4, 3)))


@pytest.mark.parametrize("std", ["shared", "state"])
def test_the_first_spread_is_the_initial_one(std):
    actor = Actor(NetConfig(hidden=(8,)), 3, std=std, initial_log_std=-1.5)
    x = jax.random.normal(KEY, (4, 2))
    _, log_std = apply(actor, init_params(actor, KEY, x), x)
    np.testing.assert_array_equal(log_std, np.full((4, 3), -1.5, np.float32))


def test_an_ensemble_equals_its_members_one_by_one():
    net = Scalar(NetConfig(hidden=(16, 16), layer_norm="before"))
    x, a = jax.random.normal(KEY, (7, 3)), jax.random.normal(KEY, (7, 2))
    params = init_ensemble(net, KEY, 5, x, a)
    together = apply_ensemble(net, params, x, a)
    assert together.shape == (5, 7)
    for member in range(5):
        alone = apply(net, jax.tree.map(lambda leaf, m=member: leaf[m], params), x, a)
        np.testing.assert_allclose(together[member], alone, atol=1e-5)
    assert len({float(q[0]) for q in together}) == 5


def test_subset_picks_members():
    net = Scalar(NetConfig(hidden=(4,)))
    x = jnp.ones((2, 3))
    params = init_ensemble(net, KEY, 4, x)
    chosen = apply_ensemble(net, subset(params, jnp.array([3, 1])), x)
    np.testing.assert_allclose(chosen, apply_ensemble(net, params, x)[jnp.array([3, 1])], atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()},
        {"hidden": (0,)},
        {"activation": "x"},
        {"layer_norm": "x"},
        {"kernel_init": "x"},
    ],
)
def test_wrong_shapes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"NetConfig.{next(iter(wrong))}"):
        NetConfig(**wrong)
