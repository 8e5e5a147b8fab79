import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import calql, cql, sac
from robo_rl.learn.batches import batch_of
from robo_rl.learn.supply import supply
from robo_rl.nn import optimise
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(8, 8))
CONFIG = cql.Config(actor=SMALL, critic=SMALL, samples=3)
CALIBRATED = calql.Config(actor=SMALL, critic=SMALL, samples=3)
INIT = jax.jit(cql.init, static_argnums=0)
UPDATE = jax.jit(cql.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


def _q(params, obs, actions):
    return np.asarray(apply_ensemble(Scalar(SMALL), params, obs, actions))


@quick
def test_losses_of_one_update_add_up(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    _, metrics = UPDATE(CONFIG, state, batch)
    total = float(metrics["td_loss"]) + 5.0 * float(metrics["regulariser"])
    assert float(metrics["critic_loss"]) == pytest.approx(total, rel=1e-5)
    off, _ = UPDATE(dataclasses.replace(CONFIG, weight=0.0), state, batch)
    plain, _ = UPDATE(CONFIG, state, batch)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(off.params["critic"]),
            jax.tree.leaves(plain.params["critic"]),
            strict=True,
        )
    )


@quick
@pytest.mark.parametrize(("agent", "config"), [(cql, CONFIG), (calql, CALIBRATED)])
def test_blocks_of_rows_change_nothing_but_the_order_of_sums(agent, config, batch, monkeypatch):
    """As many blocks as rows, against one."""
    batch = {**batch, "returns": jnp.zeros(len(batch["rewards"]))}
    state = jax.jit(agent.init, static_argnums=0)(config, jax.random.key(0), batch)

    def updated(block):
        monkeypatch.setattr(cql, "_BLOCK", block)
        return jax.jit(lambda state, batch: agent.update(config, state, batch))(state, batch)

    (whole, metrics), (cut, of_blocks) = updated(10**9), updated(1)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], of_blocks[name], rtol=1e-4, atol=1e-6)
    for a, b in zip(
        jax.tree.leaves(whole.opt["critic"]), jax.tree.leaves(cut.opt["critic"]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "samples", "blocks"),
    [(256, 30, 8), (256, 3, 1), (12, 768, 12), (10, 768, 10), (7, 384, 1), (9, 256, 3), (1, 1, 1)],
)
def test_rows_are_cut_into_equal_blocks_that_the_caches_hold(rows, samples, blocks, monkeypatch):
    """768 sampled actions fit: 256 rows of 30 are 10 times as many, 8 is the next that divides."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert cql._blocks(rows, samples) == blocks
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cql._blocks(rows, samples) == 1


@quick
def test_the_multiplier_rises_above_the_gap_and_falls_below_it():
    """By Adam's first step, which is as long as its rate."""
    config = dataclasses.replace(CONFIG, lagrange=True, gap=3.0, multiplier_lr=0.01)
    start = jnp.zeros(())
    opt = {"multiplier": optimise.adam_init(start)}
    state = sac.State({"multiplier": start}, {}, opt, None, None, None)
    for regulariser, moved in ((4.0, 0.01), (2.0, -0.01), (3.0, 0.0)):
        after = cql._multiplier_step(config, state, jnp.asarray(regulariser))
        assert float(after.params["multiplier"]) == pytest.approx(moved, rel=1e-3)
        assert int(after.opt["multiplier"].count) == 1


@quick
def test_without_the_regulariser_it_is_sac(batch):
    """Up to the draws of the next action, which have no say where every row terminated."""
    ended = {**batch, "masks": np.zeros(8, np.float32)}
    config = dataclasses.replace(CONFIG, weight=0.0)
    plain = sac.Config(**{f.name: getattr(config, f.name) for f in dataclasses.fields(sac.Common)})
    state = INIT(config, jax.random.key(0), ended)
    after, _ = UPDATE(config, state, ended)
    rest = {k: v for k, v in state.params.items() if k != "multiplier"}
    opt = {k: v for k, v in state.opt.items() if k != "multiplier"}
    expected, _ = sac.update(plain, dataclasses.replace(state, params=rest, opt=opt), ended)
    for name in rest:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            after.params[name],
            expected.params[name],
        )


def _assert_same(first, second):
    """But for the order of sums, which another program may choose."""
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-9)


@quick
def test_a_clipped_regulariser_pushes_nothing(batch):
    """Bounds above any value it takes: a constant, whose gradient is none."""
    config = dataclasses.replace(CONFIG, clip_low=1e3, clip_high=1e4)
    state = INIT(config, jax.random.key(0), batch)
    clipped, metrics = UPDATE(config, state, batch)
    off, _ = UPDATE(dataclasses.replace(config, weight=0.0), state, batch)
    assert float(metrics["regulariser"]) == pytest.approx(1e3)
    jax.tree.map(_assert_same, clipped.params["critic"], off.params["critic"])


@quick
def test_the_multiplier_moves_only_where_it_is_asked_for(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    still, _ = UPDATE(CONFIG, state, batch)
    assert float(still.params["multiplier"]) == 0.0
    config = dataclasses.replace(CONFIG, lagrange=True, gap=-100.0)
    moved, metrics = UPDATE(config, state, batch)
    assert float(metrics["multiplier"]) == 1.0
    assert float(moved.params["multiplier"]) > 0.0


@quick
def test_the_best_of_several_next_actions_is_no_worse_than_any(batch):
    config = dataclasses.replace(CONFIG, max_target_backup=True, samples=50)
    state = INIT(config, jax.random.key(0), batch)
    obs = jnp.asarray(batch["next_observations"])
    best = cql._next_q(config, state, obs, jax.random.key(1))
    for seed in range(5):
        one = cql._next_q(CONFIG, state, obs, jax.random.key(seed))
        assert (np.asarray(best) >= np.asarray(one) - 0.05).all()


@quick
def test_the_returns_bound_what_the_policy_is_worth_but_not_uniform_actions(batch):
    sampled = jnp.array([[[-5.0, 1.0, -5.0]]])  # here, ahead, anywhere
    raised, metrics = cql._calibrated(sampled, jnp.array([-2.0]), 2)
    np.testing.assert_array_equal(raised, [[[-2.0, 1.0, -5.0]]])
    assert float(metrics["bound_rate"]) == 0.5
    low = {**batch, "returns": np.full(8, -1e30, np.float32)}
    state = INIT(CONFIG, jax.random.key(0), batch)
    calibrated = jax.jit(calql.update, static_argnums=0)(CALIBRATED, state, low)[0]
    jax.tree.map(_assert_same, calibrated.params, UPDATE(CONFIG, state, batch)[0].params)


@quick
def test_returns_of_the_batch_leave_cql_alone(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    with_returns = {**batch, "returns": np.full(8, 9.0, np.float32)}
    first, second = (UPDATE(CONFIG, state, rows)[0].params for rows in (batch, with_returns))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _run(agent, config, batch, steps):
    state = agent.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: agent.update(config, c, batch), state, None, length=steps)[0]


PROBE = {
    "actor": NetConfig(hidden=(16, 16)),
    "critic": NetConfig(hidden=(16, 16)),
    "samples": 4,
    "discount": 0.5,
    "polyak": 0.1,
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
}


@pytest.mark.parametrize(
    ("env", "obs", "expected"),
    [(OneStep(), 0.0, 1.0), (TwoSteps(), -1.0, 0.5), (TwoSteps(), 1.0, 1.0)],
)
def test_values_of_probe_environments_with_a_light_regulariser(env, obs, expected):
    config = cql.Config(**PROBE, weight=0.0)
    state = _run(cql, config, batch_of(collect(env, 64)), 600)
    q = apply_ensemble(
        Scalar(config.critic), state.params["critic"], jnp.array([[obs]]), jnp.zeros((1, 1))
    )
    np.testing.assert_allclose(q, expected, atol=0.1)


def test_actions_that_the_data_lack_are_worth_less_than_those_they_have():
    """`OneStep` pays 1 for any action; the data only know 0.5. SAC sees no difference."""
    data = batch_of(collect(OneStep(), 64, lambda obs: np.full(1, 0.5, np.float32)))
    actions = jnp.array([[0.5], [-0.9]])
    seen = {}
    for weight in (0.0, 1.0):
        state = _run(cql, cql.Config(**PROBE, weight=weight), data, 600)
        net = Scalar(NetConfig(hidden=(16, 16)))
        known, unknown = np.mean(
            apply_ensemble(net, state.params["critic"], jnp.zeros((2, 1)), actions), axis=0
        )
        seen[weight] = known - unknown
    assert seen[1.0] > 1.0
    assert abs(seen[0.0]) < 0.7


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    config = calql.Config(**{**PROBE, "samples": 2}, weight=0.1)
    data = batch_of(supply(calql, config, collect(Match(), 512)))
    state = _run(calql, config, data, 1500)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = calql.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.2)


@quick
@pytest.mark.parametrize("seen", [None, 2.0], ids=["cql", "calql"])
def test_the_regulariser_of_a_critic_step_by_hand(batch, seen):
    """Critics that say 0 everywhere leave log sum exp(bound - log density): of the policy's actions
    at s and at s', whose values the returns bound, and of uniform ones, of density 1 / 4."""
    config = CONFIG if seen is None else CALIBRATED
    rows = batch if seen is None else {**batch, "returns": np.full(8, seen, np.float32)}
    state = INIT(config, jax.random.key(0), batch)
    zero = jax.tree.map(jnp.zeros_like, state.params["critic"])
    state = dataclasses.replace(state, params={**state.params, "critic": zero})
    key = jax.random.key(5)
    _, metrics = cql.critic_step(config, state, rows, key)

    _, _, here_key, next_key = jax.random.split(key, 4)
    actor = state.params["actor"]
    _, here = cql._from_policy(config, actor, jnp.asarray(batch["observations"]), here_key)
    _, ahead = cql._from_policy(config, actor, jnp.asarray(batch["next_observations"]), next_key)
    of_policy = np.exp((seen or 0.0) - np.concatenate([here, ahead], axis=1)).sum(axis=1)
    expected = np.log(of_policy + 3 * 4.0).mean()
    assert float(metrics["regulariser"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["policy_q"]) == (seen or 0.0)
    assert float(metrics["q"]) == 0.0
