import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import apply, encoder
from robo_rl.nn.apply import members, subset
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import Actor, NetConfig, Scalar

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = EncoderConfig(channels=(2, 4), features=5)
NET = NetConfig(hidden=(6,), encoder=TINY)
# One program each, not one for every operation.
init_params = jax.jit(apply.init_params, static_argnums=0)
init_ensemble = jax.jit(apply.init_ensemble, static_argnums=(0, 2))
apply_ensemble = jax.jit(apply.apply_ensemble, static_argnums=0)
features = jax.jit(encoder.features, static_argnums=0)


@pytest.fixture
def observations():
    rng = np.random.default_rng(0)
    return {
        "wrist": rng.integers(0, 256, (3, 9, 12, 2), np.uint8),
        "above": rng.integers(0, 256, (3, 8, 8, 1), np.uint8),
        "state": rng.normal(size=(3, 7)).astype(np.float32),
    }


def test_every_image_has_an_encoder_and_vectors_pass(observations):
    module = encoder.Encoder(TINY)
    params = init_params(module, jax.random.key(0), observations)
    out = features(TINY, {"encoder": params}, observations)
    assert sorted(params) == ["above", "wrist"]
    assert out.shape == (3, 5 + 7 + 5)  # above, state, wrist
    np.testing.assert_array_equal(out[:, 5:12], observations["state"])
    # 9 x 12 becomes 5 x 6, then 3 x 3, of 4 channels.
    assert params["wrist"]["Dense_0"]["kernel"].shape == (3 * 3 * 4, 5)


@pytest.mark.parametrize("lead", [(), (3, 1)])
def test_leading_axes_are_kept(observations, lead):
    params = {"encoder": init_params(encoder.Encoder(TINY), jax.random.key(0), observations)}
    expected = features(TINY, params, observations)
    rows = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]) if lead else x[0], observations)
    got = features(TINY, params, rows)
    np.testing.assert_allclose(got, expected.reshape(*lead, -1) if lead else expected[0], atol=1e-5)


def test_an_image_alone_needs_no_dict(observations):
    image = observations["wrist"]
    params = init_params(Actor(NET, 2), jax.random.key(0), image)
    assert sorted(params) == ["encoder", "mean", "trunk"]
    assert features(TINY, params, image).shape == (3, 5)


def test_bytes_are_scaled_to_one(observations):
    """By hand with one stage of zero kernels but for the biases, nothing of the image is left; with
    a first kernel that passes the centre on, 255 becomes 1."""
    config = EncoderConfig(channels=(1,), features=1)
    module = encoder.Impala(config)
    image = np.full((2, 2, 1), 255, np.uint8)
    params = jax.tree.map(jnp.zeros_like, init_params(module, jax.random.key(0), image))
    params["Conv_0"]["kernel"] = params["Conv_0"]["kernel"].at[1, 1, 0, 0].set(1.0)
    intermediate = module.apply({"params": params}, image, capture_intermediates=True)[1]
    conv = intermediate["intermediates"]["Conv_0"]["__call__"][0]
    np.testing.assert_array_equal(conv, np.ones((2, 2, 1)))


def test_a_vector_is_not_touched():
    vector = jnp.arange(3.0)
    assert encoder.features(TINY, {}, vector) is vector


def test_a_network_reads_features_as_it_reads_the_observations(observations):
    module = Actor(NET, 2)
    params = init_params(module, jax.random.key(0), observations)
    read = features(TINY, params, observations)
    direct, from_features = (apply.apply(module, params, x)[0] for x in (observations, read))
    np.testing.assert_allclose(direct, from_features, rtol=1e-5)


def test_an_ensemble_shares_its_encoder_and_nothing_else(observations):
    module = Scalar(NET)
    action = jnp.zeros((3, 2))
    params = init_ensemble(module, jax.random.key(0), 4, observations, action)
    assert members(params) == 4
    assert params["encoder"]["above"]["Dense_0"]["bias"].shape == (5,)
    assert params["out"]["bias"].shape == (4, 1)
    q = apply_ensemble(module, params, observations, action)
    assert q.shape == (4, 3)
    assert len(np.unique(np.asarray(q)[:, 0])) == 4
    picked = apply_ensemble(module, subset(params, jnp.array([2, 0])), observations, action)
    np.testing.assert_allclose(picked, q[jnp.array([2, 0])], rtol=1e-5)


def test_a_flat_image_is_refused():
    with pytest.raises(ValueError, match=r"an image must be \(\.\.\., H, W, C\), got \(3, 4\)"):
        init_params(encoder.Encoder(TINY), jax.random.key(0), np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize("wrong", [{"channels": ()}, {"blocks": -1}, {"features": 0}])
def test_a_wrong_shape_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"EncoderConfig.{next(iter(wrong))}"):
        EncoderConfig(**wrong)
