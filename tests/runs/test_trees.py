import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.runs import trees


def test_there_and_back_with_random_keys_and_batches_of_them():
    tree = {
        "a": {"b": jnp.arange(3.0)},
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(1), 4),
        "host": np.array([1, 2], np.int64),
    }
    flat = trees.flatten(tree)
    assert set(flat) == {"a/b", "key", "keys", "host"}
    assert all(isinstance(value, np.ndarray) for value in flat.values())
    template = jax.tree.map(lambda x: x, {**tree, "key": jax.random.key(0)})
    back = trees.unflatten(template, flat)
    assert jax.random.uniform(back["key"]) == jax.random.uniform(jax.random.key(7))
    assert back["keys"].shape == (4,)
    assert back["host"].dtype == np.int64


def test_rest_takes_whatever_is_below_it():
    flat = {"buffer/data/x": np.ones(2), "buffer/n": np.array(3), "w": np.zeros(1)}
    back = trees.unflatten({"buffer": trees.Rest(), "w": np.zeros(1)}, flat)
    assert set(back["buffer"]) == {"data/x", "n"}


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({}, "w is missing"),
        ({"w": np.zeros(3)}, r"w is float64 \(3,\), expected float64 \(2,\)"),
        ({"w": np.zeros(2, np.float32)}, "w is float32"),
        ({"w": np.zeros(2), "v": np.zeros(1)}, "v and no place for it"),
    ],
)
def test_every_difference_to_the_template_is_named(flat, message):
    with pytest.raises(ValueError, match=message):
        trees.unflatten({"w": np.zeros(2)}, flat)


def test_the_digest_sees_names_types_shapes_and_bits():
    base = {"w": np.array([1.0, 2.0])}
    others = [
        {"v": np.array([1.0, 2.0])},
        {"w": np.array([1.0, 2.0], np.float32)},
        {"w": np.array([[1.0, 2.0]])},
        {"w": np.array([1.0, np.nextafter(2.0, 3.0)])},
    ]
    digests = {trees.digest(tree) for tree in (base, *others)}
    assert len(digests) == 5
    assert trees.digest({"w": np.array([1.0, 2.0])}) == trees.digest(base)
