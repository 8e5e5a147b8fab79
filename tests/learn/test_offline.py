import dataclasses
import itertools

import jax
import numpy as np
import pytest

from robo_rl.agents import bc, iql, qc, td3bc
from robo_rl.data.chunks import chunk
from robo_rl.data.returns import n_step
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline, probe
from robo_rl.learn.monitor import NonFiniteLoss
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import trees
from tests.learn.memory import Memory
from tests.probe_envs import Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))
BC = bc.Config(actor=SMALL)
IQL = iql.Config(actor=SMALL, critic=SMALL)
LOOP = OfflineLoop(steps=40, batch_size=16, log_every=10, checkpoint_every=20)


@pytest.fixture(scope="module")
def data():
    return collect(Reach(), 30, reach_expert, noise=0.3)


def _assert_equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_reports_and_checkpoints_come_when_they_should(data):
    memory = Memory()
    offline.train(bc, BC, data, dataclasses.replace(LOOP, steps=45), monitor=memory)
    assert [row["step"] for row in memory.rows] == [10, 20, 30, 40, 45]
    assert sorted(memory.saved) == [20, 40, 45]


def test_n_step_rows_are_those_of_the_data_module(data):
    loop = dataclasses.replace(LOOP, n_step=3)
    state = offline.train(iql, IQL, data, loop)
    stretched = n_step(data, 3, IQL.discount)
    _assert_equal(state, offline.train(iql, IQL, stretched, LOOP))


def test_chunks_are_those_of_the_data_module(data):
    config = qc.Config(flow=SMALL, critic=SMALL, samples=2, flow_steps=2)
    loop = dataclasses.replace(LOOP, chunk=3, normalise=False)
    state = offline.train(qc, config, data, loop)
    assert state.params["flow"]["mean"]["bias"].shape == (3 * 2,)
    rows = chunk(data, 3, config.discount, short=True)
    plain = dataclasses.replace(loop, chunk=1)
    _assert_equal(state, offline.train(qc, config, rows, plain))
    with pytest.raises(ValueError, match="its own n-step window"):
        OfflineLoop(chunk=3, n_step=3)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data):
    whole = Memory()
    expected = offline.train(iql, IQL, data, LOOP, monitor=whole)
    cut = Memory(kill_after=20)
    with pytest.raises(KeyboardInterrupt):
        offline.train(iql, IQL, data, LOOP, monitor=cut)
    template = offline.initial_state(iql, IQL, data, LOOP)
    state = trees.unflatten(template, cut.saved[20])
    rest = Memory()
    got = offline.train(iql, IQL, data, LOOP, monitor=rest, start=(20, state))
    _assert_equal(expected, got)
    assert cut.rows + rest.rows == whole.rows


def test_data_on_the_host_gives_the_same_run_as_data_on_the_device(data):
    expected = offline.train(iql, IQL, data, LOOP)
    got = offline.train(iql, IQL, data, dataclasses.replace(LOOP, device_bytes=0))
    _assert_equal(expected, got)


def test_seeds_in_one_program_equal_separate_runs(data):
    loop = dataclasses.replace(LOOP, seed=5, seeds=3)
    memory = Memory()
    many = offline.train(iql, IQL, data, loop, monitor=memory)
    for index in range(3):
        alone = Memory()
        single = dataclasses.replace(loop, seed=5 + index, seeds=1)
        expected = trees.flatten(offline.train(iql, IQL, data, single, monitor=alone))
        got = trees.flatten(offline.seed_state(many, index))
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
        for together, apart in zip(memory.rows, alone.rows, strict=True):
            for name in ("v", "probe_data_q", "probe_td_error"):
                expected = pytest.approx(apart[name], rel=1e-2, abs=1e-3)
                assert together[f"seed{5 + index}/{name}"] == expected
    means = [np.mean([row[f"seed{seed}/v"] for seed in (5, 6, 7)]) for row in memory.rows]
    np.testing.assert_allclose([row["v"] for row in memory.rows], means, rtol=1e-9)


def test_metrics_are_means_over_the_updates_since_the_last_report(data):
    fine, coarse = Memory(), Memory()
    every = dataclasses.replace(LOOP, log_every=1, checkpoint_every=20)
    offline.train(bc, BC, data, every, monitor=fine)
    offline.train(bc, BC, data, LOOP, monitor=coarse)
    losses = np.reshape([row["actor_loss"] for row in fine.rows], (4, 10))
    np.testing.assert_allclose(
        [row["actor_loss"] for row in coarse.rows], losses.mean(axis=1), rtol=1e-5
    )


def test_the_critics_are_probed_as_they_are_at_the_report(data):
    """The data have fewer rows than a probe takes: it is all of them."""
    memory = Memory()
    state = offline.train(iql, IQL, data, LOOP, monitor=memory)
    assert len(data["rewards"]) < probe.ROWS
    q = iql.q_values(IQL, state, data["observations"], data["actions"])
    assert memory.rows[-1]["probe_data_q"] == pytest.approx(float(q.mean()), rel=1e-4)
    without = Memory()
    offline.train(bc, BC, data, LOOP, monitor=without)
    assert not [name for name in without.rows[-1] if name.startswith("probe")]


@pytest.mark.parametrize("device_bytes", [0, 2**30])
def test_a_number_that_overflows_stops_the_run_and_names_term_and_rows(data, device_bytes):
    broken = {**data, "rewards": data["rewards"].copy()}
    broken["rewards"][7] = 3e38
    memory = Memory()
    loop = dataclasses.replace(LOOP, batch_size=4, steps=4000, device_bytes=device_bytes)
    with pytest.raises(NonFiniteLoss, match=r"critic_loss.*Its batch was finite") as caught:
        offline.train(iql, IQL, broken, loop, monitor=memory)
    assert 7 in caught.value.rows
    assert "critic_loss" in caught.value.terms
    for step, saved in memory.saved.items():
        assert step <= caught.value.step
        for name, value in saved.items():
            assert np.isfinite(value).all(), name


@pytest.mark.parametrize(
    ("agent", "config", "rows"),
    [(iql, IQL, 4), (td3bc, td3bc.Config(actor=SMALL, critic=SMALL, critics=2, utd=3), 12)],
)
def test_an_update_reads_a_batch_for_each_of_its_critic_steps(
    data, agent, config, rows, monkeypatch
):
    """An agent without slices takes one."""
    drawn, shapes = [], []

    def source(_data, _loop, size):
        drawn.append(size)
        raise KeyboardInterrupt

    def update(config, state, batch):
        shapes.append(batch["actions"].shape)
        return state, {}

    monkeypatch.setattr(offline, "_Source", source)
    monkeypatch.setattr(agent, "update", update)
    loop = dataclasses.replace(LOOP, batch_size=4)
    offline.check(agent, config, data, loop)
    assert shapes == [(rows, 2)]
    with pytest.raises(KeyboardInterrupt):
        offline.train(agent, config, data, loop, start=(0, {}))
    assert drawn == [rows]


def test_what_is_not_finite_in_a_batch_is_named_by_array_and_row():
    batch = {"rewards": np.array([0.0, np.nan]), "masks": np.ones(2)}
    error = str(NonFiniteLoss(3, ["critic_loss"], np.array([5, 7]), batch))
    assert error.startswith("update 3: critic_loss not finite. The batch's rewards are not finite")
    assert "in rows [7]" in error


def test_arrays_within_observations_are_named_and_the_first_eight_rows_shown():
    rows = np.arange(10, 19)
    image = np.zeros((9, 2, 2))
    image[:, 1, 0] = np.inf
    batch = {"rewards": np.ones(9), "observations": {"state": np.ones((9, 3)), "image": image}}
    error = str(NonFiniteLoss(3, ["q"], rows, batch))
    shown = "[10, 11, 12, 13, 14, 15, 16, 17, ...] (9)"
    assert f"batch's observations/image are not finite in rows {shown} of the data" in error
    image[3] = 0.0
    shown = "[10, 11, 12, 14, 15, 16, 17, 18] (8)"
    assert f"not finite in rows {shown} of the data" in str(NonFiniteLoss(3, ["q"], rows, batch))
    image[:] = 0.0
    assert "Its batch was finite: rows [10, 11," in str(NonFiniteLoss(3, ["q"], rows, batch))


def test_of_several_seeds_the_one_that_diverged_is_named_with_its_rows():
    class Draws:
        data = {"rewards": np.zeros(1000)}

        def chosen(self, step):
            return np.array([[1, 2], [3, 4], [5, 6]]) + 10 * step

    loss = np.zeros((3, 3))
    loss[1, 2] = np.nan
    with pytest.raises(NonFiniteLoss, match=r"^update 5: critic_loss of seed 2 not") as caught:
        offline._guard(4, {"q": np.zeros((3, 3)), "critic_loss": loss}, np.array(False), Draws())
    assert caught.value.rows.tolist() == [55, 56]


def test_several_seeds_are_counted_from_the_first():
    loop = dataclasses.replace(LOOP, seed=4, seeds=2)
    means = offline._means({"q": np.array([[1.0, 2.0], [3.0, 8.0]])}, loop)
    assert means == {"q": 3.5, "seed4/q": 2.0, "seed5/q": 5.0}
    alone = dataclasses.replace(loop, seeds=1)
    assert offline._means({"v": np.ones(2), "q": np.array([1.0, 2.0])}, alone) == {
        "q": 1.5,
        "v": 1.0,
    }


def test_a_seed_has_one_key_for_its_parameters_and_another_for_its_rows():
    """The same in every version, and beside other seeds."""
    parts = [jax.random.key_data(jax.random.split(jax.random.key(seed))) for seed in (4, 5)]
    many = offline._keys(dataclasses.replace(LOOP, seed=4, seeds=2))
    alone = offline._keys(dataclasses.replace(LOOP, seed=5))
    for index in range(2):
        expected = np.stack([part[index] for part in parts])
        np.testing.assert_array_equal(jax.random.key_data(many[index]), expected)
        np.testing.assert_array_equal(jax.random.key_data(alone[index]), expected[1])


def test_every_row_can_be_drawn_and_those_of_an_update_are_its_own():
    keys = offline._keys(dataclasses.replace(LOOP, seeds=2))[1]
    drawn = np.asarray(offline._draw(keys, 7, 3, 100))
    assert drawn.shape == (2, 100)
    assert [sorted(set(rows)) for rows in drawn.tolist()] == [[0, 1, 2]] * 2
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(offline._draw(keys[1], 7, 3, 100), drawn[1])
    assert not np.array_equal(offline._draw(keys, 8, 3, 100), drawn)


def test_data_of_just_the_size_that_the_device_takes_stay_on_it():
    data = {"rewards": np.zeros(5, np.float32), "actions": np.zeros((5, 2), np.float32)}
    for size, stays in ((60, True), (59, False)):
        source = offline._Source(data, dataclasses.replace(LOOP, device_bytes=size), 3)
        resident, gathered = source.batches(np.arange(2))
        assert (resident is not None, gathered is None) == (stays, stays)
    assert gathered["actions"].shape == (2, 3, 2)


def test_a_diverging_run_of_several_seeds_names_the_seed(data):
    with pytest.raises(NonFiniteLoss, match="of seed"):
        offline.train(
            iql,
            dataclasses.replace(IQL, critic_lr=1e30),
            data,
            dataclasses.replace(LOOP, seeds=2),
        )


def test_observations_are_standardised_by_the_statistics_of_the_data(data):
    state = offline.initial_state(bc, BC, data, LOOP)
    obs = data["observations"].astype(np.float64)
    np.testing.assert_allclose(state.normaliser.mean, obs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state.normaliser.std, obs.std(axis=0), rtol=1e-5)
    raw = offline.initial_state(bc, BC, data, dataclasses.replace(LOOP, normalise=False))
    np.testing.assert_array_equal(raw.normaliser.std, np.ones(2))
    wide = offline.initial_state(bc, BC, data, dataclasses.replace(LOOP, min_std=7.0))
    np.testing.assert_array_equal(wide.normaliser.std, np.full(2, 7.0))


def test_evaluations_join_the_metrics_at_their_steps_and_at_the_end(data):
    memory, counter = Memory(), itertools.count()
    loop = dataclasses.replace(LOOP, evaluate_every=30)
    offline.train(
        bc, BC, data, loop, monitor=memory, evaluate=lambda _: {"success": float(next(counter))}
    )
    found = {row["step"]: row["success"] for row in memory.rows if "success" in row}
    assert found == {30: 0.0, 40: 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"log_every": 0},
        {"checkpoint_every": 15},
        {"evaluate_every": 15},
        {"evaluate_every": -10},
        {"checkpoint_every": 0},
        {"seeds": 0},
        {"seed": -1},
        {"n_step": 0},
        {"chunk": 0},
        {"chunk": 2, "n_step": 2},
        {"frames": 0},
    ],
)
def test_a_wrong_loop_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"OfflineLoop.{next(iter(wrong))}"):
        dataclasses.replace(LOOP, **wrong)


def test_arrays_of_different_lengths_are_refused(data):
    with pytest.raises(ValueError, match="same length"):
        offline.train(bc, BC, {**data, "rewards": data["rewards"][:-1]}, LOOP)


@pytest.mark.parametrize(
    ("agent", "config"),
    [
        (bc, bc.Config(actor=NetConfig((32, 32)), learning_rate=3e-3)),
        (iql, iql.Config(NetConfig((32, 32)), NetConfig((32, 32)), actor_lr=3e-3, critic_lr=3e-3)),
    ],
)
def test_it_learns_to_reach_from_noisy_demonstrations(agent, config):
    demonstrations = collect(Reach(), 150, reach_expert, noise=0.4)
    loop = OfflineLoop(steps=1500, batch_size=128, log_every=500, checkpoint_every=1500)
    state = offline.train(agent, config, demonstrations, loop)
    act = jax.jit(lambda obs: agent.act(config, state, obs, jax.random.key(0)))
    result = evaluate(Reach(), lambda obs: np.asarray(act(obs)), evaluation_seeds(0, 30))
    assert result.success_rate >= 0.9


class Rows:
    """Draws rows 10 * step and the next of data that are all finite."""

    data = {"rewards": np.zeros(1000)}

    def chosen(self, step):
        return np.array([10 * step, 10 * step + 1])


@pytest.mark.parametrize(("values", "step", "terms"), [([0.0, np.nan, 1.0], 4, "critic_loss")])
def test_the_first_update_that_is_not_finite_is_named_with_its_rows(values, step, terms):
    stacked = {"q": np.zeros(3), "critic_loss": np.array(values)}
    with pytest.raises(NonFiniteLoss, match=f"update {step}: {terms}") as caught:
        offline._guard(3, stacked, np.array(True), Rows())
    assert caught.value.step == step
    assert caught.value.rows.tolist() == [40, 41]


def test_parameters_that_are_not_finite_are_named_with_the_last_update():
    with pytest.raises(NonFiniteLoss, match="update 5: parameters") as caught:
        offline._guard(3, {"q": np.zeros(3)}, np.array(False), Rows())
    assert caught.value.rows.tolist() == [50, 51]
    offline._guard(3, {"q": np.zeros(3)}, np.array(True), Rows())
