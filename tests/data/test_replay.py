import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rl.data.episodes import Episode
from robo_rl.data.replay import ReplayBuffer, symmetric_sample
from robo_rl.data.returns import n_step

EXAMPLE = {
    "observations": np.zeros(1, np.float32),
    "actions": np.zeros(1, np.float32),
    "rewards": np.float32(0),
    "next_observations": np.zeros(1, np.float32),
    "terminated": False,
    "truncated": False,
}


def step(number, *, terminated=False, truncated=False, **more):
    """Transition `number`: from state n to n + 1, reward n."""
    return {
        "observations": np.array([number], np.float32),
        "actions": np.array([number], np.float32),
        "rewards": float(number),
        "next_observations": np.array([number + 1], np.float32),
        "terminated": terminated,
        "truncated": truncated,
        **more,
    }


def everything(buffer, n=1, discount=0.5):
    """All rows in storage order, through the same path as a sample."""

    class Every:
        def integers(self, high, size):
            return np.arange(size) % high

    return buffer.sample(Every(), len(buffer), n, discount)


def test_a_sample_holds_what_was_added():
    buffer = ReplayBuffer(8, EXAMPLE)
    for number in range(5):
        buffer.add(step(number))
    batch = buffer.sample(np.random.default_rng(0), 64)
    assert batch["observations"].shape == (64, 1)
    np.testing.assert_array_equal(batch["observations"][:, 0], batch["rewards"])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], batch["rewards"] + 1)
    assert set(batch["rewards"]) == {0, 1, 2, 3, 4}
    assert batch["rewards"].dtype == np.float32
    np.testing.assert_array_equal(batch["masks"], 1.0)


def test_the_oldest_is_overwritten():
    buffer = ReplayBuffer(3, EXAMPLE)
    for number in range(5):
        buffer.add(step(number))
    assert len(buffer) == 3
    assert set(everything(buffer)["rewards"]) == {2, 3, 4}


def test_terminated_masks_and_truncated_bootstraps():
    buffer = ReplayBuffer(8, EXAMPLE)
    buffer.add(step(0, terminated=True))
    buffer.add(step(1, truncated=True))
    buffer.add(step(2))
    batch = everything(buffer)
    np.testing.assert_array_equal(batch["masks"], [0, 1, 1])
    np.testing.assert_array_equal(batch["terminated"], [True, False, False])
    np.testing.assert_array_equal(batch["truncated"], [False, True, False])


def test_the_newest_come_in_the_order_of_time_with_their_ends():
    """3T 4 | 5 6t 7 of a ring of 6 whose seam is between them; `|` is a cut."""
    buffer = ReplayBuffer(6, EXAMPLE)
    for number in range(8):
        buffer.add(step(number, terminated=number == 3, truncated=number == 6))
        if number == 4:
            buffer.cut()
    newest = buffer.newest(5, discount=0.5)
    np.testing.assert_array_equal(newest["rewards"], [3, 4, 5, 6, 7])
    np.testing.assert_array_equal(newest["ends"], [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(newest["masks"], [0, 1, 1, 1, 1])
    for rows in (0, 7):
        with pytest.raises(ValueError, match=r"newest: rows must be in \[1, 6\]"):
            buffer.newest(rows)


def test_n_step_windows_by_hand():
    """0 1 2T | 3 4t | 5 6 with n = 3 at 0.5; 6 is the newest, and 5's window stops at it."""
    buffer = ReplayBuffer(16, EXAMPLE)
    for number in range(7):
        buffer.add(step(number, terminated=number == 2, truncated=number == 4))
    batch = everything(buffer, n=3)
    np.testing.assert_allclose(
        batch["rewards"],
        [0 + 0.5 + 0.25 * 2, 1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4, 5 + 0.5 * 6, 6],
    )
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [3, 3, 3, 5, 5, 7, 7])
    np.testing.assert_array_equal(batch["masks"], [0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(batch["discounts"], [0.125, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5])


def test_n_step_windows_follow_the_ring_over_its_seam_but_not_past_the_newest():
    """Capacity 4 after 0..5: rows hold 4 5 2 3; 3 is followed by 4, 5 by nothing."""
    buffer = ReplayBuffer(4, EXAMPLE)
    for number in range(6):
        buffer.add(step(number))
    batch = everything(buffer, n=2, discount=1.0)
    np.testing.assert_array_equal(batch["observations"][:, 0], [4, 5, 2, 3])
    np.testing.assert_array_equal(batch["rewards"], [4 + 5, 5, 2 + 3, 3 + 4])


def test_a_cut_separates_what_nothing_ended():
    buffer = ReplayBuffer(8, EXAMPLE)
    buffer.add(step(0))
    buffer.cut()
    buffer.add(step(10))
    buffer.add(step(11))
    batch = everything(buffer, n=2, discount=1.0)
    np.testing.assert_array_equal(batch["rewards"], [0, 21, 11])
    np.testing.assert_array_equal(batch["masks"], [1, 1, 1])


@pytest.mark.parametrize("ended", [True, False])
def test_what_the_end_of_an_episode_tells_is_written_into_its_rows_only(ended):
    buffer = ReplayBuffer(4, {**EXAMPLE, "succeeded": np.float32(0.0)})
    for number in range(6):  # the first episode loses its start to the ring
        last = number == 3 or (ended and number == 5)
        buffer.add({**step(number, truncated=last), "succeeded": np.float32(0.0)})
    buffer.fill_episode("succeeded", np.float32(1.0))
    batch = everything(buffer, n=1, discount=1.0)
    np.testing.assert_array_equal(batch["observations"][:, 0], [4, 5, 2, 3])
    np.testing.assert_array_equal(batch["succeeded"], [1, 1, 0, 0])


def test_a_value_for_every_step_is_written_in_the_order_of_the_steps():
    buffer = ReplayBuffer(4, {**EXAMPLE, "returns": np.float32(0.0)})
    for number in range(6):
        buffer.add({**step(number, truncated=number == 0), "returns": np.float32(0.0)})
    buffer.fill_episode("returns", np.array([5.0, 4.0, 3.0, 2.0, 1.0]))  # of steps 1 to 5
    batch = everything(buffer, n=1, discount=1.0)
    np.testing.assert_array_equal(batch["observations"][:, 0], [4, 5, 2, 3])
    np.testing.assert_array_equal(batch["returns"], [2, 1, 4, 3])


@pytest.mark.parametrize(("n", "expected"), [(1, [1, 1, 4, 4]), (2, [1, 1, 4, 4])])
def test_next_actions_are_those_of_the_step_after_the_window(n, expected):
    buffer = ReplayBuffer(8, EXAMPLE)
    for number in (0, 1, 3, 4):
        buffer.add({**step(number, truncated=number == 1), "actions": np.float32([number])})
    rng = np.random.default_rng(0)
    batch = buffer.sample(rng, 64, n_step=n, next_actions=True)
    pairs = dict(zip(batch["actions"][:, 0], batch["next_actions"][:, 0], strict=True))
    assert pairs == dict(zip([0, 1, 3, 4], expected, strict=True))
    with pytest.raises(ValueError, match="without next_actions"):
        buffer.sample(rng, 4, chunk=2, next_actions=True)


def test_one_long_stream_in_a_full_ring_does_not_bite_its_tail():
    buffer = ReplayBuffer(3, EXAMPLE)
    for number in range(3):
        buffer.add(step(number))
    batch = everything(buffer, n=5, discount=1.0)
    np.testing.assert_array_equal(batch["rewards"], [0 + 1 + 2, 1 + 2, 2])


streams = st.lists(
    st.sampled_from(["go", "go", "go", "terminated", "truncated", "cut"]), max_size=60
)


@given(streams, st.integers(1, 12), st.integers(1, 6), st.floats(0.1, 1.0))
def test_windows_equal_a_slow_reference(events, capacity, n, discount):
    """Every window, against a walk over the full history with its ends."""
    buffer = ReplayBuffer(capacity, EXAMPLE)
    history = []
    for number, event in enumerate(events):
        terminated, truncated = event == "terminated", event == "truncated"
        history.append((number, terminated, event != "go"))
        buffer.add(step(number, terminated=terminated, truncated=truncated))
        if event == "cut":
            buffer.cut()
    if not history:
        return
    batch = everything(buffer, n, discount)
    assert len(buffer) == min(capacity, len(events))
    assert set(batch["observations"][:, 0]) == set(range(len(events))[-capacity:])
    for row, start in enumerate(batch["observations"][:, 0].astype(int)):
        total, factor, last = 0.0, 1.0, start
        for number, _, ends in history[start : start + n]:
            total += factor * number
            factor *= discount
            last = number
            if ends:
                break
        assert batch["rewards"][row] == pytest.approx(total, rel=1e-4, abs=1e-4)
        assert batch["discounts"][row] == pytest.approx(factor, rel=1e-4)
        assert batch["next_observations"][row, 0] == last + 1
        assert batch["masks"][row] == 1.0 - history[last][1]


@given(streams, st.integers(1, 12), st.integers(0, 59))
def test_a_restored_buffer_goes_on_exactly(events, capacity, split):
    def play(buffer, numbers):
        for number in numbers:
            event = events[number]
            buffer.add(
                step(number, terminated=event == "terminated", truncated=event == "truncated")
            )
            if event == "cut":
                buffer.cut()

    straight = ReplayBuffer(capacity, EXAMPLE)
    play(straight, range(len(events)))
    first = ReplayBuffer(capacity, EXAMPLE)
    split = min(split, len(events))
    play(first, range(split))
    second = ReplayBuffer(capacity, EXAMPLE)
    second.load_state_dict(first.state_dict())
    play(second, range(split, len(events)))
    a, b = straight.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    for key, array in a.items():
        np.testing.assert_array_equal(array, b[key])
    if len(straight):
        x = straight.sample(np.random.default_rng(3), 32, 3)
        y = second.sample(np.random.default_rng(3), 32, 3)
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


def test_state_of_another_buffer_is_refused():
    state = ReplayBuffer(4, EXAMPLE).state_dict()
    with pytest.raises(ValueError, match="saved with capacity 4, this buffer has 5"):
        ReplayBuffer(5, EXAMPLE).load_state_dict(state)
    wider = {**EXAMPLE, "actions": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=r"actions must be float32 \(0, 2\)"):
        ReplayBuffer(4, wider).load_state_dict(state)
    more = {**EXAMPLE, "returns": np.float32(0)}
    with pytest.raises(ValueError, match=r"expected the arrays.*returns"):
        ReplayBuffer(4, more).load_state_dict(state)


def test_a_state_dict_does_not_change_with_the_buffer():
    buffer = ReplayBuffer(2, EXAMPLE)
    buffer.add(step(1))
    state = buffer.state_dict()
    buffer.add(step(2))
    buffer.add(step(3))
    np.testing.assert_array_equal(state["data/rewards"], [1])


@pytest.mark.parametrize("capacity", [2, 5, 64])
def test_an_added_episode_equals_its_steps(capacity, episode):
    one, two = episode(0, 7), episode(1, 4, terminated=True)
    example = {
        **EXAMPLE,
        "observations": np.zeros(4, np.float32),
        "next_observations": np.zeros(4, np.float32),
        "actions": np.zeros(2, np.float32),
    }
    whole, stepwise = ReplayBuffer(capacity, example), ReplayBuffer(capacity, example)
    for e in (one, two):
        whole.add_episode(e)
        for t in range(len(e)):
            stepwise.add(
                {
                    "observations": e.observations[t],
                    "actions": e.actions[t],
                    "rewards": e.rewards[t],
                    "next_observations": e.observations[t + 1],
                    "terminated": e.terminations[t],
                    "truncated": e.truncations[t],
                }
            )
    # A longer episode than the ring leaves its end, perhaps at another place of the ring.
    a, b = everything(whole, 3), everything(stepwise, 3)
    order_a, order_b = np.lexsort(a["actions"].T), np.lexsort(b["actions"].T)
    for key in a:
        np.testing.assert_array_equal(a[key][order_a], b[key][order_b])


def test_an_added_episode_can_bring_its_returns():
    buffer = ReplayBuffer(8, {**EXAMPLE, "returns": np.float32(0)})
    episode = Episode(
        observations=np.arange(4.0)[:, None],
        actions=np.zeros((3, 1)),
        rewards=np.array([1.0, 2.0, 4.0]),
        terminations=np.array([False, False, True]),
        truncations=np.zeros(3, bool),
    )
    buffer.add_episode(episode, discount=0.5)
    np.testing.assert_allclose(everything(buffer)["returns"], [3, 4, 4])
    with pytest.raises(ValueError, match=r"the episode lacks \['returns'\]"):
        buffer.add_episode(episode)


def test_a_dataset_becomes_a_buffer_with_its_seams(write, clean):
    transitions = write(clean).transitions()
    buffer = ReplayBuffer.from_transitions(transitions, capacity=200)
    expected = n_step(transitions, 4, 0.9)
    batch = everything(buffer, 4, 0.9)
    for key in ("rewards", "next_observations", "masks", "discounts", "truncated"):
        np.testing.assert_allclose(batch[key], expected[key], rtol=1e-6, err_msg=key)
    with pytest.raises(ValueError, match="capacity 10 is less than the 180 rows"):
        ReplayBuffer.from_transitions(transitions, capacity=10)


def test_a_buffer_of_a_dataset_goes_on_with_new_steps(write, clean):
    transitions = write(clean).transitions()
    last = {key: transitions[key][-1] for key in EXAMPLE}
    last["truncated"] = transitions["truncated"][-1]
    buffer = ReplayBuffer.from_transitions(transitions)
    buffer.add({**last, "rewards": 100.0, "terminated": False, "truncated": False})
    assert len(buffer) == 180
    batch = everything(buffer, 3, 1.0)
    assert batch["rewards"][0] == 100.0
    assert batch["rewards"][-1] == pytest.approx(transitions["rewards"][-1])


def test_dicts_of_observations_are_kept_as_dicts():
    observation = {"image": np.zeros((2, 2), np.uint8), "state": np.zeros(3)}
    example = {**EXAMPLE, "observations": observation, "next_observations": observation}
    buffer = ReplayBuffer(4, example)
    seen = {"image": np.full((2, 2), 7, np.uint8), "state": np.ones(3)}
    buffer.add({**step(0), "observations": seen, "next_observations": seen})
    batch = buffer.sample(np.random.default_rng(0), 3, n_step=2)
    assert batch["observations"]["image"].dtype == np.uint8
    assert batch["next_observations"]["image"].shape == (3, 2, 2)
    np.testing.assert_array_equal(batch["observations"]["state"], np.ones((3, 3)))
    other = ReplayBuffer(4, example)
    other.load_state_dict(buffer.state_dict())
    np.testing.assert_array_equal(
        other.sample(np.random.default_rng(0), 1)["observations"]["image"], [seen["image"]]
    )
    with pytest.raises(ValueError, match=r"observations must be a dict with \['image', 'state'\]"):
        buffer.add(step(0))


def test_symmetric_samples_interleave_offline_and_online():
    offline, online = ReplayBuffer(4, EXAMPLE), ReplayBuffer(4, {**EXAMPLE, "extra": 0.0})
    for number in range(4):
        offline.add(step(number))
        online.add(step(10 + number, extra=1.0))
    batch = symmetric_sample(np.random.default_rng(0), 64, offline, online)
    assert len(batch["rewards"]) == len(batch["actions"]) == 64
    assert (batch["rewards"][0::2] < 10).all()
    assert (batch["rewards"][1::2] >= 10).all()
    assert "extra" not in batch
    np.testing.assert_array_equal(batch["next_observations"][:, 0], batch["rewards"] + 1)
    with pytest.raises(ValueError, match="batch must be even"):
        symmetric_sample(np.random.default_rng(0), 5, offline, online)
    wide = ReplayBuffer(4, {**EXAMPLE, "actions": np.zeros(2)})
    wide.add({**step(0), "actions": np.zeros(2)})
    with pytest.raises(ValueError, match=r"actions is \(1,\) offline and \(2,\) online"):
        symmetric_sample(np.random.default_rng(0), 4, offline, wide)


@pytest.mark.parametrize("batch", [-2, 0, 1, 3])
def test_symmetric_batches_are_of_pairs(batch):
    buffers = [ReplayBuffer(4, EXAMPLE) for _ in range(2)]
    for buffer in buffers:
        buffer.add(step(1))
    for pairs in (1, 2, 5):
        rows = symmetric_sample(np.random.default_rng(0), 2 * pairs, *buffers)
        assert len(rows["rewards"]) == 2 * pairs
    with pytest.raises(ValueError, match=f"batch must be even and >= 2, got {batch}"):
        symmetric_sample(np.random.default_rng(0), batch, *buffers)


def test_symmetric_samples_look_ahead_in_both_halves():
    """Rewards 0, 1, 2 at a half each step: 0 + 0.5 x 1 + 0.25 x 2 = 1 from the first step on."""
    buffers = [ReplayBuffer(4, EXAMPLE) for _ in range(2)]
    for number in range(3):
        buffers[0].add(step(number, terminated=number == 2))
        buffers[1].add(step(10 + number, terminated=number == 2))
    rows = symmetric_sample(np.random.default_rng(0), 64, *buffers, n_step=3, discount=0.5)
    returns = dict(zip(rows["observations"][:, 0].tolist(), rows["rewards"].tolist(), strict=True))
    assert returns == {0: 1.0, 1: 2.0, 2: 2.0, 10: 18.5, 11: 17.0, 12: 12.0}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        ReplayBuffer(0, EXAMPLE)
    with pytest.raises(ValueError, match=r"lacks \['rewards'\]"):
        ReplayBuffer(1, {k: v for k, v in EXAMPLE.items() if k != "rewards"})
    buffer = ReplayBuffer(2, EXAMPLE)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match=r"actions must be \(1,\), got \(2,\)"):
        buffer.add({**step(0), "actions": np.zeros(2)})
    with pytest.raises(ValueError, match="lacks 'truncated'"):
        buffer.add({k: v for k, v in step(0).items() if k != "truncated"})
    assert len(buffer) == 0
    buffer.add(step(0))
    with pytest.raises(ValueError, match="n_step must be >= 1"):
        buffer.sample(np.random.default_rng(0), 1, n_step=0)


def test_ends_stay_apart_from_recording_to_mask(write, episode):
    """One episode of each kind through dataset, buffer and batch: the mask knows which is which."""
    ended, stopped = episode(0, 5, terminated=True), episode(1, 5)
    dataset = write([ended, stopped])
    stored = dataset.episodes()
    assert [bool(e.terminations[-1]) for e in stored] == [True, False]
    assert [bool(e.truncations[-1]) for e in stored] == [False, True]
    flat = dataset.transitions()
    np.testing.assert_array_equal(flat["masks"], [1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    for n in (1, 3):
        batch = everything(ReplayBuffer.from_transitions(flat), n)
        reaches_end = np.arange(5) >= 5 - n
        np.testing.assert_array_equal(batch["masks"][:5], 1.0 - reaches_end)
        np.testing.assert_array_equal(batch["masks"][5:], 1.0)
        np.testing.assert_array_equal(batch["terminated"][:5], reaches_end)
        np.testing.assert_array_equal(batch["truncated"][5:], reaches_end)


def test_an_episode_must_fit(episode):
    buffer = ReplayBuffer(4, EXAMPLE)
    with pytest.raises(ValueError, match=r"observations must be \(1,\), got \(4,\)"):
        buffer.add_episode(episode(0))
    with pytest.raises(ValueError, match="rewards must have"):
        buffer.add_episode(dataclasses.replace(episode(0), rewards=np.zeros((3, 1))))
