import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import shift
from robo_rl.nn.shift import Shift

pytestmark = pytest.mark.usefixtures("quick_compile")

IMAGE = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)  # [[0, 1], [2, 3]]


def _batch(rows=200):
    image = np.tile(np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1), (rows, 1, 1, 1))
    observations = {"image": image, "state": np.ones((rows, 2), np.float32)}
    return {
        "observations": observations,
        "next_observations": dict(observations),
        "rewards": np.zeros(rows, np.float32),
    }


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((1, 1), [[0, 1], [2, 3]]),
        ((0, 1), [[0, 1], [0, 1]]),
        ((2, 1), [[2, 3], [2, 3]]),
        ((1, 0), [[0, 0], [2, 2]]),
        ((2, 2), [[3, 3], [3, 3]]),
    ],
)
def test_crops_by_hand(offset, expected):
    """Of a 2 x 2 image padded by one pixel; the offset in the middle is the identity."""
    got = shift.crop(jnp.asarray(IMAGE), jnp.array(offset), 1)
    np.testing.assert_array_equal(got[..., 0], expected)


def test_every_output_is_one_of_the_81_crops_and_all_of_them_come():
    batch = _batch(2000)
    moved = shift.shifted(Shift(pad=4), jax.random.key(0), batch)
    padded = np.pad(batch["observations"]["image"][0, ..., 0], 4, mode="edge")
    crops = {padded[i : i + 6, j : j + 6].tobytes() for i in range(9) for j in range(9)}
    assert len(crops) == 81
    images = np.asarray(moved["observations"]["image"])
    assert images.dtype == np.uint8
    assert {image[..., 0].tobytes() for image in images} == crops
    np.testing.assert_array_equal(moved["observations"]["state"], batch["observations"]["state"])
    np.testing.assert_array_equal(moved["rewards"], batch["rewards"])


def test_the_next_observation_is_shifted_by_a_draw_of_its_own_unless_paired():
    apart, paired = (
        shift.shifted(Shift(pad=2, paired=paired), jax.random.key(0), _batch())
        for paired in (False, True)
    )
    for moved, same in ((apart, False), (paired, True)):
        now, later = (moved[f"{name}observations"]["image"] for name in ("", "next_"))
        assert np.array_equal(now, later) == same


def test_one_coin_a_batch():
    """A quarter of 200 batches of one row, and within a batch all rows or none."""
    config, batch = Shift(pad=3, probability=0.25), _batch(2)
    run = jax.jit(jax.vmap(lambda key: shift.shifted(config, key, batch)["observations"]["image"]))
    keys = jax.random.split(jax.random.key(1), 400)
    moved = (np.asarray(run(keys)) != batch["observations"]["image"]).any(axis=(2, 3, 4))
    # A row that is shifted stays where it is in one of 49 cases.
    assert 0.15 < moved.mean() < 0.35
    assert np.mean(moved[:, 0] == moved[:, 1]) > 0.95


def test_vectors_and_pad_0_are_left_alone():
    batch = {"observations": jnp.ones((2, 3)), "next_observations": jnp.ones((2, 3))}
    assert shift.shifted(Shift(), jax.random.key(0), batch) is batch
    images = _batch()
    assert shift.shifted(Shift(pad=0), jax.random.key(0), images) is images


@pytest.mark.parametrize("wrong", [{"pad": -1}, {"probability": 0.0}, {"probability": 1.5}])
def test_a_wrong_value_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"Shift.{next(iter(wrong))}"):
        Shift(**wrong)
