import numpy as np
import pytest

from robo_rl.data.chunks import chunk
from robo_rl.data.frames import history
from robo_rl.data.returns import n_step
from robo_rl.data.transitions import stack_frames


def _transitions(lengths=(3, 1, 4), channels=1):
    """Episode e shows 10 e, 10 e + 1, ... in a 2 x 1 image, one more than it has steps."""
    frames = [np.arange(10 * e, 10 * e + n + 1, dtype=np.uint8) for e, n in enumerate(lengths)]
    images = [
        np.tile(f[:, None, None, None], (1, 2, 1, channels)) + 100 * np.arange(channels)
        for f in frames
    ]
    now = np.concatenate([image[:-1] for image in images]).astype(np.uint8)
    later = np.concatenate([image[1:] for image in images]).astype(np.uint8)
    rows = len(now)
    ids = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.append(ids[1:] != ids[:-1], True)
    state = np.arange(rows, dtype=np.float32)[:, None]
    return {
        "observations": {"camera": now, "state": state},
        "next_observations": {"camera": later, "state": state + 1},
        "actions": state,
        "rewards": np.ones(rows, np.float32),
        "terminated": ends,
        "truncated": np.zeros(rows, bool),
        "masks": 1.0 - ends.astype(np.float32),
        "episode_id": ids,
    }


def _shown(stack):
    return np.asarray(stack)[:, 0, 0].tolist()


def test_stacks_at_the_start_of_episodes_by_hand():
    """The first frame is repeated; the oldest frame comes first."""
    stacked = stack_frames(_transitions((3, 1, 4)), 3)
    assert _shown(stacked["observations"]["camera"]) == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 2],
        [10, 10, 10],
        [20, 20, 20],
        [20, 20, 21],
        [20, 21, 22],
        [21, 22, 23],
    ]
    assert _shown(stacked["next_observations"]["camera"]) == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [10, 10, 11],
        [20, 20, 21],
        [20, 21, 22],
        [21, 22, 23],
        [22, 23, 24],
    ]
    assert stacked["observations"]["state"].shape == (8, 1)


def test_channels_of_one_frame_stay_together():
    stacked = stack_frames(_transitions((2,), channels=2), 2)["observations"]["camera"]
    assert stacked.shape == (2, 2, 1, 4)
    assert _shown(stacked) == [[0, 100, 0, 100], [0, 100, 1, 101]]


def test_frames_are_kept_once_whatever_the_length():
    stacked = stack_frames(_transitions((3, 1, 4)), 3)
    now, later = (stacked[f"{name}observations"]["camera"] for name in ("", "next_"))
    assert now.frames is later.frames
    assert len(now.frames) == 8 + 3  # every step, and the end of each episode


def test_rows_drawn_are_those_of_the_stacks_put_together():
    stack = stack_frames(_transitions((5, 6)), 3)["next_observations"]["camera"]
    whole = np.asarray(stack)
    assert (stack.ndim, stack.shape, stack.dtype) == (4, whole.shape, whole.dtype)
    chosen = np.random.default_rng(0).integers(len(stack), size=(2, 5))
    np.testing.assert_array_equal(stack[chosen], whole[chosen])
    np.testing.assert_array_equal(stack.select(chosen[0])[:], whole[chosen[0]])
    np.testing.assert_array_equal(stack[3], whole[3])


@pytest.mark.parametrize(
    "view", [lambda t: n_step(t, 3, 0.9), lambda t: chunk(t, 2, 0.9)], ids=["n_step", "chunk"]
)
def test_n_step_rows_and_chunks_of_stacks_are_those_of_whole_images(view):
    lazy = stack_frames(_transitions((5, 6)), 3)
    whole = {
        key: {name: np.asarray(part) for name, part in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in lazy.items()
    }
    for name in ("observations", "next_observations"):
        got, expected = (view(rows)[name]["camera"] for rows in (lazy, whole))
        np.testing.assert_array_equal(np.asarray(got), expected)


def test_an_image_that_is_the_whole_observation_is_stacked_too():
    rows = _transitions()
    for name in ("observations", "next_observations"):
        rows[name] = rows[name]["camera"]
    assert stack_frames(rows, 2)["observations"].shape == (8, 2, 1, 2)


def test_rows_that_do_not_follow_each_other_are_refused():
    rows = _transitions((4,))
    rows["observations"]["camera"][2] += 1
    with pytest.raises(ValueError, match="camera of row 2 is not what row 1 led to"):
        stack_frames(rows, 2)
    vectors = dict.fromkeys(("observations", "next_observations"), rows["actions"])
    with pytest.raises(ValueError, match=r"no images .* in \['observations'\]"):
        stack_frames({**rows, **vectors}, 2)
    with pytest.raises(ValueError, match="length must be >= 1"):
        history(np.array([True]), 0)
