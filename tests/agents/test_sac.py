import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, cql, iql, sac
from robo_rl.learn.batches import batch_of
from robo_rl.nn import distributions
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
CONFIG = sac.Config(actor=SMALL, critic=NORMED, critics=3, subset=2)
INIT = jax.jit(sac.init, static_argnums=0)
UPDATE = jax.jit(sac.update, static_argnums=0)
IQL_INIT = jax.jit(iql.init, static_argnums=0)
IQL_UPDATE = jax.jit(iql.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


def _largest_move(before, after):
    moves = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    return max(jax.tree.leaves(moves))


@quick
def test_critic_loss_of_one_update_by_hand(batch):
    """With as many targets as critics the subset is all of them; the action has no spread."""
    config = dataclasses.replace(CONFIG, subset=3, log_std_min=-20.0, initial_log_std=-20.0)
    state = INIT(config, jax.random.key(0), batch)
    _, metrics = UPDATE(config, state, batch)
    critic = Scalar(NORMED)
    actor = Actor(SMALL, 2, "state", -20.0)
    mean, _ = apply(actor, state.params["actor"], batch["next_observations"])
    next_q = apply_ensemble(critic, state.target_critic, batch["next_observations"], jnp.tanh(mean))
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_q).min(axis=0)
    q = apply_ensemble(critic, state.params["critic"], batch["observations"], batch["actions"])
    expected = np.mean((np.asarray(q) - target) ** 2)
    assert float(metrics["critic_loss"]) == pytest.approx(expected, rel=1e-4)


@quick
@pytest.mark.parametrize(("actor_q", "reduce"), [("mean", np.mean), ("min", np.min)])
def test_actor_loss_by_hand(batch, actor_q, reduce):
    """alpha log pi - Q, with alpha = 0.5, on the critics after their step; deterministic limit."""
    config = dataclasses.replace(
        CONFIG,
        actor_q=actor_q,
        initial_temperature=0.5,
        bc_weight=2.0,
        log_std_min=-20.0,
        initial_log_std=-20.0,
    )
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    mean, _ = apply(Actor(SMALL, 2, "state"), state.params["actor"], batch["observations"])
    action = np.tanh(np.asarray(mean))
    q = apply_ensemble(Scalar(NORMED), after.params["critic"], batch["observations"], action)
    climbed = reduce(np.asarray(q), axis=0).mean()
    distance = np.sum((action - batch["actions"]) ** 2, axis=1).mean()
    expected = -0.5 * float(metrics["entropy"]) - climbed + 2.0 * distance
    assert float(metrics["actor_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["bc_distance"]) == pytest.approx(distance, rel=1e-4)


@quick
def test_the_entropy_bonus_of_the_target_is_an_option(batch):
    """A hot policy raises the targets by alpha times the next entropy, and only if asked to."""
    hot = dataclasses.replace(CONFIG, initial_temperature=100.0)
    state = INIT(hot, jax.random.key(0), batch)
    _, without = UPDATE(hot, state, batch)
    _, having = UPDATE(dataclasses.replace(hot, backup_entropy=True), state, batch)
    assert float(having["critic_loss"]) > 100.0 * float(without["critic_loss"])


@quick
def test_no_gradient_leaks_between_actor_critic_and_temperature(batch):
    """A rate of 1e-30 stops one network; if it also fed another's gradient that would show."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    base, _ = UPDATE(CONFIG, state, batch)
    slow, _ = UPDATE(dataclasses.replace(CONFIG, actor_lr=1e-30, temperature_lr=0.0), state, batch)
    assert _largest_move(base.params["critic"], slow.params["critic"]) == 0.0
    assert _largest_move(state.params["actor"], slow.params["actor"]) < 1e-12
    assert _largest_move(state.params["temperature"], slow.params["temperature"]) == 0.0
    stiff, _ = UPDATE(dataclasses.replace(CONFIG, critic_lr=1e-30), state, batch)
    assert _largest_move(state.params["critic"], stiff.params["critic"]) < 1e-12
    assert _largest_move(state.params["actor"], stiff.params["actor"]) > 1e-6


@quick
def test_critic_only_updates_leave_actor_and_temperature_bit_identical(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    after, metrics = UPDATE(dataclasses.replace(CONFIG, train_actor=False), state, batch)
    assert _largest_move(state.params["actor"], after.params["actor"]) == 0.0
    assert _largest_move(state.params["temperature"], after.params["temperature"]) == 0.0
    assert _largest_move(state.params["critic"], after.params["critic"]) > 0.0
    assert "actor_loss" not in metrics


@quick
def test_an_update_is_utd_critic_steps_and_one_actor_step(batch):
    config = dataclasses.replace(CONFIG, utd=4)
    after, _ = UPDATE(config, INIT(config, jax.random.key(0), batch), batch)
    counts = {name: int(opt.count) for name, opt in after.opt.items()}
    assert counts == {"actor": 1, "critic": 4, "temperature": 1}


@quick
@pytest.mark.parametrize(("rows", "seen"), [("last", slice(4, 8)), ("all", slice(0, 8))])
def test_the_actor_steps_on_the_last_slice_or_on_all_rows(batch, rows, seen):
    """Told by the distance to the rows' actions, which the critics do not move."""
    config = dataclasses.replace(CONFIG, utd=2, actor_rows=rows)
    state = INIT(config, jax.random.key(0), batch)
    _, metrics = UPDATE(config, state, batch)
    own = sac.act(config, state, batch["observations"], jax.random.key(0))
    squares = np.square(own - batch["actions"]).sum(axis=1)
    assert float(metrics["bc_distance"]) == pytest.approx(float(squares[seen].mean()), rel=1e-5)


def test_rows_that_do_not_divide_into_slices_are_refused(batch):
    config = dataclasses.replace(CONFIG, utd=3)
    with pytest.raises(ValueError, match="8 rows do not divide into utd = 3"):
        sac.update(config, sac.init(config, jax.random.key(0), batch), batch)


@quick
def test_the_subset_varies_from_step_to_step(batch):
    """Critics with far-apart targets: the minimum over one of five betrays which was drawn."""
    config = dataclasses.replace(
        CONFIG, critics=5, subset=1, discount=1.0, critic_lr=1e-9, actor_lr=1e-9, polyak=1e-9
    )
    state = INIT(config, jax.random.key(0), batch)
    offsets = jnp.arange(5.0)[:, None] * 100.0
    target = {**state.target_critic, "out": {**state.target_critic["out"], "bias": offsets}}
    state = dataclasses.replace(state, target_critic=target)
    losses = set()
    for _ in range(12):
        state, metrics = UPDATE(config, state, batch)
        losses.add(round(float(metrics["critic_loss"]), -3))
    assert len(losses) >= 3


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = sac.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: sac.update(config, c, batch), state, None, length=steps)


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 64, [0.0], 1.0),
        (TwoSteps(), 32, [-1.0], 0.5),
        (Endless(), 16, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
)
def test_values_of_probe_environments(env, episodes, obs, expected):
    config = sac.Config(
        SMALL, NetConfig(hidden=(16, 16)), critics=2, discount=0.5, polyak=0.1, critic_lr=1e-2
    )
    state, _ = _run(config, batch_of(collect(env, episodes)), 400)
    q = apply_ensemble(
        Scalar(config.critic), state.params["critic"], jnp.array([obs]), jnp.zeros((1, 1))
    )
    np.testing.assert_allclose(q[:, 0], expected, atol=0.08)


def test_it_solves_a_contextual_bandit_and_holds_its_entropy_target():
    config = sac.Config(
        NetConfig(hidden=(32, 32)),
        NetConfig(hidden=(32, 32), layer_norm="before"),
        critics=2,
        actor_lr=3e-3,
        critic_lr=3e-3,
        temperature_lr=1e-2,
        target_entropy_per_dim=-0.5,
        initial_temperature=0.1,
    )
    state, metrics = _run(config, batch_of(collect(Match(), 256)), 1500)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    np.testing.assert_allclose(sac.act(config, state, obs, jax.random.key(0)), obs / 2, atol=0.15)
    assert float(metrics["entropy"][-300:].mean()) == pytest.approx(-0.5, abs=0.1)


class TestWarmStart:
    @pytest.fixture
    def offline(self, batch, quick_compile):
        """IQL after three updates, with four critics."""
        config = iql.Config(actor=SMALL, critic=NORMED, critics=4)
        state = IQL_INIT(config, jax.random.key(0), batch)
        for _ in range(3):
            state, _ = IQL_UPDATE(config, state, batch)
        return config, state

    @pytest.mark.parametrize("std", sac.STDS)
    def test_actor_critics_targets_and_moments_are_those_of_the_offline_agent(
        self, offline, batch, std
    ):
        iql_config, old = offline
        learned = iql.learned(iql_config, old)
        config = sac.adopt(sac.Config(std=std), learned)
        assert (config.actor, config.critic, config.critics) == (SMALL, NORMED, 4)
        new = sac.warm_start(config, jax.random.key(1), learned, batch)
        obs, key = batch["observations"], jax.random.key(0)
        np.testing.assert_array_equal(
            sac.act(config, new, obs, key), iql.act(iql_config, old, obs, key)
        )
        assert _largest_move(new.params["critic"], old.params["critic"]) == 0.0
        assert _largest_move(new.target_critic, old.target_critic) == 0.0
        assert _largest_move(new.opt["critic"], old.opt["critic"]) == 0.0
        assert int(new.opt["actor"].count) == 3
        for name in ("trunk", "mean"):
            assert _largest_move(new.opt["actor"].mu[name], old.opt["actor"].mu[name]) == 0.0
        _, log_std = apply(Actor(SMALL, 2, std), new.params["actor"], obs)
        np.testing.assert_allclose(
            log_std, np.tile(old.params["actor"]["log_std"], (8, 1)), rtol=1e-6
        )
        after, _ = UPDATE(config, new, batch)
        assert int(after.opt["critic"].count) == 4
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(old))

    @pytest.mark.usefixtures("quick_compile")
    def test_an_agent_of_the_same_kind_hands_on_spread_and_temperature_too(self, batch):
        """As WSRL's, which is one agent offline and online: its warm-up is the policy learned."""
        cql_config = cql.Config(
            actor=SMALL, critic=NORMED, critics=2, samples=2, initial_temperature=0.3
        )
        old = cql.init(cql_config, jax.random.key(0), batch)
        for _ in range(3):
            old, _ = jax.jit(cql.update, static_argnums=0)(cql_config, old, batch)
        learned = cql.learned(cql_config, old)
        config = sac.adopt(sac.Config(), learned)
        new = sac.warm_start(config, jax.random.key(1), learned, batch)
        obs, key = batch["observations"], jax.random.key(0)
        np.testing.assert_array_equal(
            sac.act(config, new, obs, key, explore=True),
            cql.act(cql_config, old, obs, key, explore=True),
        )
        for part in ("actor", "critic", "temperature"):
            assert _largest_move(new.params[part], old.params[part]) == 0.0
            assert _largest_move(new.opt[part], old.opt[part]) == 0.0
        shared = sac.warm_start(
            dataclasses.replace(config, std="shared"), jax.random.key(1), learned, batch
        )
        np.testing.assert_array_equal(shared.params["actor"]["log_std"], 0.0)

    def test_what_reset_names_starts_fresh(self, offline, batch):
        iql_config, old = offline
        learned = iql.learned(iql_config, old)
        config = sac.adopt(sac.Config(), learned)
        fresh = sac.init(config, jax.random.key(1), batch)
        new = sac.warm_start(config, jax.random.key(1), learned, batch, reset=("critic",))
        assert _largest_move(new.params["critic"], fresh.params["critic"]) == 0.0
        assert int(new.opt["critic"].count) == 0
        new = sac.warm_start(config, jax.random.key(1), learned, batch, reset=("actor",))
        assert _largest_move(new.params["actor"], fresh.params["actor"]) == 0.0
        new = sac.warm_start(config, jax.random.key(1), learned, batch, reset=("optimiser",))
        assert _largest_move(new.params["critic"], old.params["critic"]) == 0.0
        assert (int(new.opt["critic"].count), int(new.opt["actor"].count)) == (0, 0)
        with pytest.raises(ValueError, match="reset must be one of actor, critic, optimiser"):
            sac.warm_start(config, jax.random.key(1), learned, batch, reset=("value",))

    @pytest.mark.usefixtures("quick_compile")
    def test_behaviour_cloning_gives_the_actor_and_the_config_its_spread(self, batch):
        bc_config = bc.Config(actor=SMALL)
        old = bc.init(bc_config, jax.random.key(0), batch)
        learned = bc.learned(bc_config, old)
        config = sac.adopt(sac.Config(initial_log_std=-2.0, critics=2), learned)
        new = sac.warm_start(config, jax.random.key(1), learned, batch)
        obs = batch["observations"]
        np.testing.assert_array_equal(
            sac.act(config, new, obs, jax.random.key(0)),
            bc.act(bc_config, old, obs, jax.random.key(0)),
        )
        _, log_std = apply(Actor(SMALL, 2, "state"), new.params["actor"], obs)
        np.testing.assert_array_equal(log_std, np.full((8, 2), -2.0, np.float32))

    def test_networks_of_other_shapes_are_refused(self, offline, batch):
        learned = iql.learned(*offline)
        with pytest.raises(ValueError, match=r"use sac\.adopt"):
            sac.warm_start(sac.Config(), jax.random.key(0), learned, batch)
        config = dataclasses.replace(sac.adopt(sac.Config(), learned), critics=5)
        with pytest.raises(ValueError, match="4 critics"):
            sac.warm_start(config, jax.random.key(0), learned, batch)


def test_exploration_samples_the_density_that_the_loss_uses(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    key, obs = jax.random.key(5), batch["observations"]
    mean, log_std = apply(Actor(SMALL, 2, "state"), state.params["actor"], obs)
    expected, _ = distributions.tanh_normal_sample(key, mean, log_std)
    np.testing.assert_allclose(sac.act(CONFIG, state, obs, key, explore=True), expected, atol=1e-6)


@quick
@pytest.mark.parametrize(("log_std", "sign"), [(0.0, 1.0), (-4.0, -1.0)], ids=["wide", "narrow"])
def test_the_entropy_bonus_raises_what_is_random_and_lowers_what_is_not(batch, log_std, sign):
    """Minus the log-density: above 0 for a wide policy, below for a narrow one. At a temperature
    of 100 it is all that the critics are drawn to."""
    hot = dataclasses.replace(CONFIG, initial_temperature=100.0, initial_log_std=log_std)
    state = INIT(hot, jax.random.key(0), batch)
    rows = batch["observations"], batch["actions"]
    plain, bonus = (
        sac.q_values(config, UPDATE(config, state, batch)[0], *rows)
        for config in (hot, dataclasses.replace(hot, backup_entropy=True))
    )
    assert sign * float(jnp.mean(bonus - plain)) > 0.0


@quick
def test_the_target_entropy_is_per_dimension_of_the_action(batch):
    """Two dimensions: an entropy of -1.5 x is above a target of -x each, so the temperature falls;
    it would rise if that were the target of both together."""
    config = dataclasses.replace(CONFIG, initial_log_std=-3.0)
    state = INIT(config, jax.random.key(0), batch)
    entropy = float(UPDATE(config, state, batch)[1]["entropy"])
    assert entropy < -1.0
    config = dataclasses.replace(config, target_entropy_per_dim=entropy / 1.5)
    after, _ = UPDATE(config, state, batch)
    assert float(after.params["temperature"]) < float(state.params["temperature"])
