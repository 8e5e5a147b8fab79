import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn.apply import apply, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar

KEY = jax.random.key(0)
X = jnp.array([[3.0, 1.0]])
EYE = jnp.eye(2)


def _dense(kernel):
    return {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}


def _norm():
    return {"scale": jnp.ones(2), "bias": jnp.zeros(2)}


def test_a_simba_block_by_hand():
    """(3, 1) is normed to (1, -1); of the two wide units one sees 1, the other relu(-1) = 0. The
    first adds 4 to the second feature: (3, 5), normed (-1, 1)."""
    trunk = NetConfig(hidden=(2,), arch="simba(expansion=1)").trunk()
    params = {
        "entry": _dense(EYE),
        "block_0": {
            "norm": _norm(),
            "wide": _dense(EYE),
            "narrow": _dense(jnp.array([[0.0, 4.0], [9.0, 9.0]])),
        },
        "norm": _norm(),
    }
    shapes = jax.tree.map(jnp.shape, init_params(trunk, KEY, X))
    assert shapes == jax.tree.map(jnp.shape, params)
    np.testing.assert_allclose(apply(trunk, params, X), [[-1.0, 1.0]], rtol=1e-5)


def test_a_bro_block_by_hand():
    """(3, 1) is normed to (1, -1), relu (1, 0). In the block (1, 0) is normed to (1, -1), relu
    (1, 0), turned to (0, 1), normed (-1, 1) and added: (0, 1)."""
    trunk = NetConfig(hidden=(2,), arch="bro").trunk()
    params = {
        "entry": _dense(EYE),
        "norm": _norm(),
        "block_0": {
            "first": _dense(EYE),
            "first_norm": _norm(),
            "second": _dense(EYE[::-1]),
            "second_norm": _norm(),
        },
    }
    shapes = jax.tree.map(jnp.shape, init_params(trunk, KEY, X))
    assert shapes == jax.tree.map(jnp.shape, params)
    np.testing.assert_allclose(apply(trunk, params, X), [[0.0, 1.0]], atol=1e-5)


def test_a_simba_block_is_four_times_as_wide_inside_and_he_initialised():
    """A He-normal kernel has a spread of sqrt(2 / inputs)."""
    params = init_params(NetConfig(hidden=(128,), arch="simba").trunk(), KEY, jnp.zeros((1, 64)))
    entry = np.asarray(params["entry"]["kernel"])
    np.testing.assert_allclose(entry @ entry.T, np.eye(64), atol=1e-5)  # orthogonal, gain 1
    wide, narrow = (np.asarray(params["block_0"][name]["kernel"]) for name in ("wide", "narrow"))
    assert (wide.shape, narrow.shape) == ((128, 512), (512, 128))
    np.testing.assert_allclose(wide.std(), np.sqrt(2 / 128), rtol=0.02)
    np.testing.assert_allclose(narrow.std(), np.sqrt(2 / 512), rtol=0.02)


@pytest.mark.parametrize("arch", ["simba", "bro"])
def test_hidden_gives_the_number_of_blocks_and_the_activation_acts(arch):
    net = NetConfig(hidden=(8, 8, 8), arch=arch)
    params = init_params(Scalar(net), KEY, X)
    blocks = [name for name in params["trunk"] if name.startswith("block_")]
    assert sorted(blocks) == ["block_0", "block_1", "block_2"]
    other = NetConfig(hidden=(8, 8, 8), arch=arch, activation="tanh")
    assert apply(Scalar(net), params, X) != apply(Scalar(other), params, X)


@pytest.mark.parametrize("arch", ["simba", "bro"])
def test_an_actor_stands_on_any_trunk(arch):
    actor = Actor(NetConfig(hidden=(8,), arch=arch), 3, std="state", output_gain=0.0)
    mean, log_std = apply(actor, init_params(actor, KEY, X), X)
    np.testing.assert_array_equal((mean, log_std), np.zeros((2, 1, 3)))


@pytest.mark.parametrize("arch", ["simba", "bro"])
def test_blocks_of_unequal_widths_are_refused(arch):
    with pytest.raises(ValueError, match=f"{arch}: .* all must be equal.*got \\(8, 4\\)"):
        NetConfig(hidden=(8, 4), arch=arch)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet", "one of mlp, simba, bro, or a module of your own as path/to/mine.py:Module"),
        ("simba(width=3)", "simba takes no width in brackets; it takes: expansion"),
        ("bro(hidden=3)", "bro takes no hidden in brackets; it takes: nothing"),
        ("simba(expansion=0)", "expansion must be >= 1, got 0"),
        ("simba(2)", "settings need names"),
        ("simba(expansion=2", "has no closing bracket"),
    ],
)
def test_an_architecture_that_is_not_there_is_refused(arch, message):
    with pytest.raises(ValueError, match=message):
        NetConfig(arch=arch)
