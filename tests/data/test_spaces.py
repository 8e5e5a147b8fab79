"""What a learner sees of spaces: one order of observations, actions in [-1, 1], plain refusals."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from robo_rl.data.spaces import SpaceError, Spaces, vectors
from robo_rl.runs import configs

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)


def uneven():
    return spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 1.0]), dtype=np.float64)


def test_actions_are_scaled_per_dimension_and_back_exactly_at_the_ends():
    both = Spaces.of(VECTOR, uneven())
    ends = np.array([[-1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(both.from_unit(ends), [[-2.0, 0.0], [4.0, 1.0]])
    assert both.from_unit(ends).dtype == np.float64
    np.testing.assert_array_equal(both.to_unit(np.array([[1.0, 0.25]])), [[0.0, -0.5]])


@given(st.lists(st.floats(-1.0, 1.0, width=32), min_size=2, max_size=2))
def test_scaling_there_and_back_changes_nothing_but_rounding(action):
    both = Spaces.of(VECTOR, uneven())
    scaled = both.from_unit(np.array(action))
    assert uneven().contains(scaled)
    np.testing.assert_allclose(both.to_unit(scaled), action, atol=1e-6)


def test_actions_of_the_unit_box_pass_bit_for_bit():
    both = Spaces.of(VECTOR, UNIT)
    action = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    np.testing.assert_array_equal(both.from_unit(action), action)
    np.testing.assert_array_equal(both.to_unit(action), action)
    assert both.unit


def test_a_number_that_cannot_move_stays_where_it_is():
    box = spaces.Box(np.array([-1.0, 0.3]), np.array([1.0, 0.3]), dtype=np.float64)
    both = Spaces.of(VECTOR, box)
    np.testing.assert_array_equal(both.from_unit(np.array([0.0, 0.7])), [0.0, 0.3])
    np.testing.assert_array_equal(both.to_unit(np.array([0.5, 0.3])), [0.5, 0.0])


def test_a_dict_of_vectors_is_one_vector_in_the_order_of_the_space():
    box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    shown = spaces.Dict({"z": box, "a": spaces.Dict({"b": box, "n": spaces.Box(0, 1, ())})})
    both = Spaces.of(shown, UNIT)
    assert both.observation == tuple((k, v.shape) for k, v in _leaves(shown))
    seen = {"z": np.array([1.0, 2.0]), "a": {"b": np.array([3.0, 4.0]), "n": np.float32(5.0)}}
    expected = np.concatenate([np.ravel(value) for value in _values(shown, seen)])
    np.testing.assert_array_equal(both.read(seen), expected)
    rows = {"z": np.zeros((7, 2)), "a/b": np.zeros((7, 2)), "a/n": np.ones(7)}
    assert both.read(rows).shape == (7, 5)
    assert both.observation_space().shape == (5,)
    assert both.flattened


def _leaves(space, prefix=""):
    for name, inner in space.spaces.items():
        if isinstance(inner, spaces.Dict):
            yield from _leaves(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, inner


def _values(space, value):
    for name, inner in space.spaces.items():
        if isinstance(inner, spaces.Dict):
            yield from _values(inner, value[name])
        else:
            yield value[name]


def test_an_order_travels_as_json():
    shown = spaces.Dict({"goal": VECTOR, "image": spaces.Box(0, 255, (8, 8, 3), np.uint8)})
    both = Spaces.of(shown, uneven())
    assert configs.from_json(Spaces, configs.to_json(both)) == both
    assert not both.flattened
    assert set(both.read({"image": np.zeros((8, 8, 3)), "goal": 1, "other": 2})) == {
        "goal",
        "image",
    }


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (spaces.Discrete(2), "Discrete"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (spaces.MultiBinary(2), "MultiBinary"),
        (spaces.Box(-1, 1, (2, 2)), r"shape \(2, 2\).*vector"),
        (spaces.Box(-1, 1, ()), r"shape \(\).*vector"),
        (spaces.Box(-np.inf, np.inf, (2,)), "no bounds.*finite low and high"),
        (spaces.Box(np.array([-1, -np.inf]), np.array([1, 1]), dtype=np.float64), "number 1 "),
        (spaces.Box(0, 9, (2,), np.int32), "int32.*float32"),
        (spaces.Tuple([UNIT]), "a Tuple .*join its parts"),
    ],
)
def test_actions_that_no_method_gives_are_refused_in_a_sentence(action, message):
    with pytest.raises(SpaceError, match=f"dataset x: actions.*{message}"):
        Spaces.of(VECTOR, action, "dataset x")


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), "channels first"),
        (spaces.Box(0, 255, (4, 3, 64, 64), np.uint8), "of one frame"),
        (spaces.Box(0, 255, (64, 64), np.uint8), "height, width"),
        (spaces.Box(0.0, 1.0, (64, 64, 3), np.float32), "images of float32.*convert them"),
        (spaces.Box(-1, 1, (4, 4), np.float32), "one vector"),
        (spaces.Box(-1, 1, (), np.float32), "one vector"),
        (spaces.Discrete(4), "Box of numbers"),
        (spaces.Dict({"a": spaces.Discrete(4)}), r"\['a'\].*Box of numbers"),
        (spaces.Dict({"a": spaces.Box(0, 255, (3, 64, 64), np.uint8)}), r"\['a'\].*channels"),
        (spaces.Dict({}), "empty Dict"),
        (spaces.Text(4), "Box of numbers"),
    ],
)
def test_observations_that_would_train_wrongly_are_refused(observation, message):
    with pytest.raises(SpaceError, match=f"env y: observations.*{message}"):
        Spaces.of(observation, UNIT, "env y")


def test_images_are_taken_as_they_are():
    for shape in ((64, 64, 3), (84, 84, 1), (48, 64, 12)):
        image = spaces.Box(0, 255, shape, np.uint8)
        both = Spaces.of(image, UNIT)
        assert both.observation_shape == shape
        assert both.read(np.ones(shape, np.uint8)).dtype == np.uint8


def test_an_image_has_64_channels_at_most():
    most = spaces.Box(0, 255, (84, 84, 64), np.uint8)
    assert Spaces.of(most, UNIT).observation_shape == (84, 84, 64)
    with pytest.raises(SpaceError, match="bytes of shape"):
        Spaces.of(spaces.Box(0, 255, (84, 84, 65), np.uint8), UNIT)


def test_data_outside_of_their_own_box_are_named():
    both = Spaces.of(VECTOR, UNIT)
    rows = {
        "observations": np.zeros((4, 3)),
        "next_observations": np.zeros((4, 3)),
        "actions": np.array([[0.0, 1.0], [1.0000001, 0.0], [0.0, -180.0], [0.0, 90.0]]),
    }
    with pytest.raises(SpaceError, match=r"data: 2 of 4 actions .*up to 180, first in row 2"):
        vectors(rows, both, "data")
    rows["actions"] = rows["actions"][:2].repeat(2, axis=0)
    assert vectors(rows, both, "data")["actions"].dtype == np.float32


def test_what_differs_between_two_homes_is_told():
    mine = Spaces.of(VECTOR, UNIT)
    assert mine.differences(Spaces.of(VECTOR, UNIT)) == []
    (said,) = mine.differences(Spaces.of(VECTOR, spaces.Box(-2.0, 2.0, (2,))))
    assert "[-1, 1] (2 numbers) against [-2, 2] (2)" in said
    other = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
    assert "(3,) against (5,)" in mine.differences(Spaces.of(other, UNIT))[0]
