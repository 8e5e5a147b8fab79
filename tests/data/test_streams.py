"""Several buffers that are read as one."""

import numpy as np
import pytest

from robo_rl.data.replay import ReplayBuffer, take_row
from robo_rl.data.streams import Streams
from tests.probe_envs import Reach, collect


def _row(env, t, end=False):
    """Step t of environment env: the reward says which, the action too."""
    value = np.float32(100 * env + t)
    return {
        "observations": np.array([value]),
        "actions": np.array([value]),
        "rewards": value,
        "next_observations": np.array([value + 1], np.float32),
        "terminated": False,
        "truncated": end,
    }


def _streams(lengths=(2, 12, 6), capacity=20, end=4):
    """Interleaved, in episodes of `end` steps."""
    streams = Streams([ReplayBuffer(capacity, _row(0, 0)) for _ in lengths])
    for t in range(max(lengths)):
        for env, length in enumerate(lengths):
            if t < length:
                streams.add(env, _row(env, t, t % end == end - 1))
    return streams


def test_every_row_of_every_environment_is_as_likely():
    batch = _streams().sample(np.random.default_rng(0), 40_000)
    values, counts = np.unique(batch["rewards"], return_counts=True)
    assert values.tolist() == [0, 1, *range(100, 112), *range(200, 206)]
    np.testing.assert_allclose(counts, 2_000, rtol=0.1)


def test_windows_stay_in_the_stream_of_their_environment():
    """Three steps of reward, cut where the episode or the environment's stream ends."""
    batch = _streams().sample(np.random.default_rng(0), 500, n_step=3, discount=0.5)
    first = batch["observations"][:, 0]
    left = {0: 2, 1: 4, 2: 4}  # environment 0 is at its second step, no episode of it has ended
    for value, total, discount, end in zip(
        first, batch["rewards"], batch["discounts"], batch["next_observations"][:, 0], strict=True
    ):
        env, t = divmod(int(value), 100)
        newest = {0: 2, 1: 12, 2: 6}[env] - t
        steps = min(3, left[env] - t % left[env], newest)
        assert total == sum(0.5**k * (value + k) for k in range(steps))
        assert discount == 0.5**steps
        assert end == value + steps


def test_chunks_and_next_actions_stay_there_too():
    streams, rng = _streams(), np.random.default_rng(0)
    chunks = streams.sample(rng, 3_000, chunk=3)["actions"]
    np.testing.assert_array_equal(np.diff(chunks, axis=1), 1.0)
    starts, counts = np.unique(chunks[:, 0], return_counts=True)
    assert starts.tolist() == [100, 101, 104, 105, 108, 109, 200, 201]
    np.testing.assert_allclose(counts, 375, rtol=0.25)
    batch = streams.sample(rng, 500, next_actions=True)
    t = batch["actions"][:, 0] % 100
    last = batch["truncated"] | np.isin(batch["actions"][:, 0], [1, 205])
    assert t.max() == 11
    np.testing.assert_array_equal(
        batch["next_actions"][:, 0], batch["actions"][:, 0] + np.where(last, 0, 1)
    )


def test_one_stream_draws_as_its_buffer_would():
    data = collect(Reach(), 20)
    buffer = ReplayBuffer.from_transitions(data)
    streams = Streams.from_transitions(data, 1, len(data["rewards"]))
    for more in ({}, {"n_step": 3}, {"chunk": 4}, {"next_actions": True}):
        first = buffer.sample(np.random.default_rng(3), 30, **more)
        second = streams.sample(np.random.default_rng(3), 30, **more)
        assert first.keys() == second.keys()
        for name, value in first.items():
            np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert streams.state_dict().keys() == buffer.state_dict().keys()


def test_offline_rows_are_dealt_out_in_equal_blocks():
    data = collect(Reach(), 5)
    total = len(data["rewards"])
    streams = Streams.from_transitions(data, 3, 50)
    sizes = [len(streams[index]) for index in range(3)]
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1
    drawn = streams.sample(np.random.default_rng(0), 50 * total)["observations"]
    assert len(np.unique(drawn, axis=0)) == len(np.unique(data["observations"], axis=0))
    assert len(Streams.from_transitions({k: v[:1] for k, v in data.items()}, 3, 50)) == 1
    with pytest.raises(ValueError, match="capacity 10 is less than"):
        Streams.from_transitions(data, 3, 10)


def test_a_rollout_has_the_newest_rows_of_each_once():
    streams = _streams((6, 6), end=4)
    assert streams.fresh == 12
    rollout = streams.take_rollout(8)
    assert rollout["rewards"].tolist() == [2, 3, 4, 5, 102, 103, 104, 105]
    assert rollout["ends"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"in \[1, 0\], the number that is fresh, got 1"):
        streams.take_rollout(1)
    streams.add(1, _row(1, 6))
    assert streams.take_rollout(1)["rewards"].tolist() == [106]


def test_shares_of_a_rollout_follow_who_had_rows():
    rollout = _streams((2, 9), end=4).take_rollout(10)
    assert rollout["rewards"].tolist() == [0, 1, *range(101, 109)]


@pytest.mark.parametrize("lengths", [(9,), (2, 12, 6)])
def test_loaded_streams_go_on_as_the_saved_ones(lengths):
    saved, loaded = _streams(lengths), _streams((1,) * len(lengths))
    loaded.load_state_dict(saved.state_dict())
    assert loaded.fresh == saved.fresh
    for streams in (saved, loaded):
        streams.add(0, _row(0, 50))
    first, second = (s.sample(np.random.default_rng(0), 50, 3) for s in (saved, loaded))
    np.testing.assert_array_equal(first["rewards"], second["rewards"])
    first, second = (s.take_rollout(len(s))["rewards"] for s in (saved, loaded))
    np.testing.assert_array_equal(first, second)


def test_streams_of_another_number_are_not_loaded():
    with pytest.raises(ValueError, match="saved with 1 environments, this run has 3"):
        _streams().load_state_dict(_streams((3,)).state_dict())
    with pytest.raises(ValueError, match="saved with 3 environments, this run has 1"):
        _streams((3,)).load_state_dict(_streams().state_dict())


def test_dicts_of_observations_are_put_together():
    row = {**_row(0, 0), "observations": {"state": np.zeros(2), "image": np.zeros((2, 2, 1))}}
    row["next_observations"] = row["observations"]
    streams = Streams([ReplayBuffer(4, row) for _ in range(2)])
    for env in range(2):
        seen = {"state": np.full(2, env), "image": np.full((2, 2, 1), env)}
        streams.add(env, {**row, "observations": seen, "rewards": np.float32(env)})
    batch = streams.sample(np.random.default_rng(0), 20)
    np.testing.assert_array_equal(batch["observations"]["state"][:, 0], batch["rewards"])
    np.testing.assert_array_equal(batch["observations"]["image"][:, 0, 0, 0], batch["rewards"])
    assert take_row(batch, 0)["observations"]["image"].shape == (2, 2, 1)
