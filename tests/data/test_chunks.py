import numpy as np
import pytest

from robo_rl.data.chunks import chunk
from robo_rl.data.replay import ReplayBuffer
from tests.data.test_replay import EXAMPLE, step


def _flat(lengths, *, terminated=()):
    """Episodes of so many steps; transition n pays n and acts n. Ends are time-outs otherwise."""
    rows, number = [], 0
    for episode, length in enumerate(lengths):
        for position in range(length):
            last = position == length - 1
            end = last and episode in terminated
            rows.append(step(number, terminated=end, truncated=last and not end))
            rows[-1] |= {"masks": np.float32(not end), "episode_id": episode}
            number += 1
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def test_a_chunk_holds_its_actions_their_discounted_rewards_and_what_follows():
    """Four steps, chunks of three, discount 1/2: 0 + 1/2 + 2/4 and 1 + 2/2 + 3/4."""
    rows = chunk(_flat([4], terminated=[0]), 3, 0.5)
    np.testing.assert_array_equal(rows["actions"], [[0, 1, 2], [1, 2, 3]])
    np.testing.assert_allclose(rows["rewards"], [1.0, 2.75])
    np.testing.assert_allclose(rows["discounts"], 0.125)
    np.testing.assert_array_equal(rows["observations"][:, 0], [0, 1])
    np.testing.assert_array_equal(rows["next_observations"][:, 0], [3, 4])
    np.testing.assert_array_equal(rows["masks"], [1.0, 0.0])


def test_windows_past_an_end_are_dropped_and_those_that_end_there_are_kept():
    rows = chunk(_flat([3, 2, 4], terminated=[2]), 3, 1.0)
    np.testing.assert_array_equal(rows["observations"][:, 0], [0, 5, 6])
    np.testing.assert_array_equal(rows["masks"], [1.0, 1.0, 0.0])  # a time-out keeps its bootstrap


def test_a_window_runs_on_where_the_recording_goes_on_after_a_success():
    """Row 2 of six terminated. Its rewards end there, its actions do not, and nothing follows."""
    flat = _flat([6])
    flat["terminated"][2], flat["masks"][2] = True, 0.0
    rows = chunk(flat, 3, 0.5)
    np.testing.assert_array_equal(rows["actions"], np.arange(4)[:, None] + np.arange(3))
    np.testing.assert_allclose(rows["rewards"], [1.0, 2.0, 2.0, 3.0 + 4 / 2 + 5 / 4])
    np.testing.assert_array_equal(rows["masks"], [0.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(rows["next_observations"][:, 0], [3, 3, 3, 6])
    buffer = ReplayBuffer.from_transitions({k: v for k, v in flat.items() if k != "masks"})
    drawn = buffer.sample(np.random.default_rng(0), 50, discount=0.5, chunk=3)
    assert set(drawn["observations"][:, 0]) == {0, 1, 2, 3}
    for row, start in enumerate(drawn["observations"][:, 0].astype(int)):
        for name in ("actions", "rewards", "next_observations", "masks"):
            np.testing.assert_allclose(drawn[name][row], rows[name][start], err_msg=name)


def test_chunks_of_one_step_are_the_transitions():
    flat = _flat([3, 2], terminated=[1])
    rows = chunk(flat, 1, 0.9)
    for name, value in flat.items():
        np.testing.assert_array_equal(rows[name], value, err_msg=name)
    np.testing.assert_allclose(rows["discounts"], 0.9)


def test_a_chunk_longer_than_every_episode_is_refused():
    with pytest.raises(ValueError, match="no episode has 5 steps"):
        chunk(_flat([3, 4]), 5, 0.9)


def test_the_replay_buffer_draws_the_same_chunks():
    flat = _flat([3, 2, 5], terminated=[2])
    buffer = ReplayBuffer.from_transitions({k: v for k, v in flat.items() if k != "masks"})
    drawn = buffer.sample(np.random.default_rng(0), 200, discount=0.5, chunk=3)
    expected = chunk(flat, 3, 0.5)
    assert set(drawn["observations"][:, 0]) == set(expected["observations"][:, 0])
    for row, start in enumerate(drawn["observations"][:, 0]):
        (at,) = np.flatnonzero(expected["observations"][:, 0] == start)
        for name in ("actions", "rewards", "next_observations", "masks", "discounts"):
            np.testing.assert_allclose(drawn[name][row], expected[name][at], err_msg=name)


def test_a_buffer_without_a_whole_chunk_says_so():
    buffer = ReplayBuffer(8, EXAMPLE)
    for number in range(4):
        buffer.add(step(number, truncated=True))
    with pytest.raises(ValueError, match="use a shorter chunk"):
        buffer.sample(np.random.default_rng(0), 4, chunk=2)
    with pytest.raises(ValueError, match="its own n-step window"):
        buffer.sample(np.random.default_rng(0), 4, n_step=2, chunk=2)


def test_short_chunks_hold_what_there_is_of_the_last_states_of_an_episode():
    """Three steps, then two; chunks of three. What is not there repeats the last action."""
    rows = chunk(_flat([3, 2], terminated=[0]), 3, 0.5, short=True)
    np.testing.assert_array_equal(rows["observations"][:, 0], np.arange(5))
    np.testing.assert_array_equal(
        rows["valid"], [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]
    )
    np.testing.assert_array_equal(
        rows["actions"], [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 4, 4], [4, 4, 4]]
    )
    np.testing.assert_allclose(rows["rewards"], [1.0, 2.0, 2.0, 3.0 + 4 / 2, 4.0])
    np.testing.assert_array_equal(rows["masks"], [0.0, 0.0, 0.0, 1.0, 1.0])
    whole = chunk(_flat([3, 2], terminated=[0]), 3, 0.5)
    for name, value in whole.items():
        np.testing.assert_array_equal(rows[name][:1], value, err_msg=name)


def test_the_replay_buffer_draws_the_same_short_chunks_also_where_it_has_wrapped():
    flat = _flat([3, 2, 5], terminated=[2])
    buffer = ReplayBuffer(8, EXAMPLE)  # of the ten steps, the oldest two are gone
    for row in range(10):
        buffer.add({name: flat[name][row] for name in EXAMPLE})
    drawn = buffer.sample(np.random.default_rng(0), 200, discount=0.5, chunk=3, short=True)
    expected = chunk(flat, 3, 0.5, short=True)
    assert set(drawn["observations"][:, 0]) == set(range(2, 10))
    for row, start in enumerate(drawn["observations"][:, 0].astype(int)):
        for name in ("actions", "valid", "rewards", "next_observations", "masks", "discounts"):
            np.testing.assert_allclose(drawn[name][row], expected[name][start], err_msg=name)
