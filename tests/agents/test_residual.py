import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, iql, residual
from robo_rl.learn.batches import batch_of
from robo_rl.nn import policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser
from tests.probe_envs import Match, collect

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
CONFIG = residual.Config(base=SMALL, actor=SMALL, critic=NORMED, critics=3, utd=1)
UPDATE = jax.jit(residual.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


def _largest_move(before, after):
    moves = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    return max(jax.tree.leaves(moves))


@pytest.fixture
def offline(batch):
    config = bc.Config(actor=SMALL)
    normaliser = Normaliser(jnp.full(3, 0.5, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    return config, bc.init(config, jax.random.key(3), batch, normaliser)


@quick
def test_at_step_zero_it_is_the_base_exactly(offline, batch):
    bc_config, base = offline
    config = residual.adopt(residual.Config(actor=SMALL), bc.learned(bc_config, base))
    state = residual.warm_start(config, jax.random.key(0), bc.learned(bc_config, base), batch)
    key, obs = jax.random.key(1), 5.0 * batch["observations"]
    np.testing.assert_array_equal(
        residual.act(config, state, obs, key), bc.act(bc_config, base, obs, key)
    )


@quick
def test_the_base_never_moves_and_the_correction_stays_within_its_scale(offline, batch):
    bc_config, base = offline
    config = dataclasses.replace(CONFIG, scale=0.1, actor_lr=1.0, exploration_std=0.0)
    state = residual.warm_start(config, jax.random.key(0), bc.learned(bc_config, base), batch)
    frozen = jax.tree.map(np.array, state.base)
    for _ in range(5):
        state, _ = UPDATE(config, state, batch)
    assert _largest_move(frozen, state.base) == 0.0
    obs, key = batch["observations"], jax.random.key(1)
    action = residual.act(config, state, obs, key)
    distance = np.abs(np.asarray(action) - np.asarray(bc.act(bc_config, base, obs, key))).max()
    assert 0.01 < distance <= 0.1 + 1e-6
    assert float(jnp.abs(action).max()) <= 1.0


@quick
def test_losses_of_one_update_by_hand(batch):
    """Without noise the next action is the base; critics see combined actions."""
    config = dataclasses.replace(CONFIG, exploration_std=0.0, subset=3)
    state = residual.init(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    base = policies.mean_action(SMALL, state.base, batch["next_observations"])
    next_q = apply_ensemble(
        Scalar(NORMED), state.target["critic"], batch["next_observations"], base
    )
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_q).min(axis=0)
    q = apply_ensemble(
        Scalar(NORMED), state.params["critic"], batch["observations"], batch["actions"]
    )
    expected = np.mean((np.asarray(q) - target) ** 2)
    assert float(metrics["critic_loss"]) == pytest.approx(expected, rel=1e-4)
    climbed = apply_ensemble(
        Scalar(NORMED),
        after.params["critic"],
        batch["observations"],
        policies.mean_action(SMALL, state.base, batch["observations"]),
    )
    assert float(metrics["actor_loss"]) == pytest.approx(-float(climbed.mean()), rel=1e-4)


@quick
def test_n_step_rows_bring_their_own_discounts(batch):
    state = residual.init(CONFIG, jax.random.key(0), batch)
    _, plain = UPDATE(dataclasses.replace(CONFIG, discount=0.5), state, batch)
    _, given = UPDATE(CONFIG, state, {**batch, "discounts": np.full(8, 0.5, np.float32)})
    assert float(plain["critic_loss"]) == float(given["critic_loss"])


@quick
def test_learned_critics_come_along_with_their_targets_and_moments(batch):
    old_config = iql.Config(actor=SMALL, critic=NORMED, critics=2)
    old = iql.init(old_config, jax.random.key(3), batch)
    old, _ = jax.jit(iql.update, static_argnums=0)(old_config, old, batch)
    learned = iql.learned(old_config, old)
    config = residual.adopt(residual.Config(actor=SMALL, utd=1), learned)
    assert (config.critics, config.subset, config.critic) == (2, 2, NORMED)
    state = residual.warm_start(config, jax.random.key(0), learned, batch)
    assert _largest_move(state.params["critic"], old.params["critic"]) == 0.0
    assert _largest_move(state.target["critic"], old.target_critic) == 0.0
    assert int(state.opt["critic"].count) == 1
    fresh = residual.warm_start(config, jax.random.key(0), learned, batch, reset=("optimiser",))
    assert int(fresh.opt["critic"].count) == 0
    assert _largest_move(fresh.params["critic"], old.params["critic"]) == 0.0
    fresh = residual.warm_start(config, jax.random.key(0), learned, batch, reset=("critic",))
    assert _largest_move(fresh.params["critic"], old.params["critic"]) > 0.0
    with pytest.raises(ValueError, match="2 critics"):
        residual.warm_start(
            dataclasses.replace(config, critics=3), jax.random.key(0), learned, batch
        )


@quick
def test_critic_only_updates_leave_the_correction_bit_identical(batch):
    state = residual.init(CONFIG, jax.random.key(0), batch)
    after, metrics = UPDATE(dataclasses.replace(CONFIG, train_actor=False), state, batch)
    assert _largest_move(state.params["actor"], after.params["actor"]) == 0.0
    assert _largest_move(state.params["critic"], after.params["critic"]) > 0.0
    assert "actor_loss" not in metrics


@quick
def test_exploration_noise_is_clipped(batch):
    config = dataclasses.replace(CONFIG, exploration_std=10.0, noise_clip=0.05)
    state = residual.init(config, jax.random.key(0), batch)
    obs = batch["observations"]
    still = residual.act(config, state, obs, jax.random.key(1))
    noisy = residual.act(config, state, obs, jax.random.key(1), explore=True)
    np.testing.assert_array_less(np.abs(np.asarray(noisy - still)), 0.05 + 1e-6)
    assert float(jnp.abs(noisy - still).max()) > 0.01


def test_a_base_of_another_shape_is_refused(offline, batch):
    with pytest.raises(ValueError, match=r"use residual\.adopt"):
        residual.warm_start(residual.Config(), jax.random.key(0), bc.learned(*offline), batch)


def test_it_corrects_a_base_that_is_off_in_a_contextual_bandit():
    """The base does 0 everywhere; the best action s / 2 is within its reach of 0.5."""
    batch = batch_of(collect(Match(), 256))
    wide = NetConfig(hidden=(32, 32))
    config = residual.Config(
        base=SMALL,
        actor=wide,
        critic=NetConfig(hidden=(32, 32), activation="tanh", layer_norm="before"),
        critics=2,
        utd=1,
        scale=0.5,
        exploration_std=0.0,
        actor_lr=1e-2,
        critic_lr=1e-2,
        clip_norm=0.0,
    )
    state = residual.init(config, jax.random.key(0), batch)
    state = dataclasses.replace(state, base=jax.tree.map(jnp.zeros_like, state.base))

    def step(carry, _):
        return residual.update(config, carry, batch)

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, None, length=800))(state)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = residual.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.1)


@quick
def test_the_target_of_the_actor_catches_up_with_all_critic_steps_of_an_update(batch):
    """Two steps of a half are one of three quarters."""
    config = dataclasses.replace(CONFIG, utd=2, polyak=0.5, actor_lr=1e-2)
    state = residual.init(config, jax.random.key(0), batch)
    after, _ = UPDATE(config, state, batch)
    old, new, target = (
        np.asarray(tree["actor"]["mean"]["kernel"])
        for tree in (state.target, after.params, after.target)
    )
    np.testing.assert_allclose(target, 0.25 * old + 0.75 * new, atol=1e-6)
    assert not np.array_equal(old, new)
