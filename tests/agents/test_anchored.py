import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import anchored, bc, iql
from robo_rl.nn import policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
CONFIG = anchored.Config(actor=SMALL, critic=NORMED, critics=3, utd=1)
UPDATE = jax.jit(anchored.update, static_argnums=0)
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
def test_the_whole_policy_starts_as_the_base_and_leaves_it_only_where_it_is_told_to(offline, batch):
    bc_config, base = offline
    learned = bc.learned(bc_config, base)
    config = dataclasses.replace(CONFIG, exploration_std=0.0, actor_lr=1e-2)
    state = anchored.warm_start(config, jax.random.key(0), learned, batch)
    obs, key = batch["observations"], jax.random.key(1)
    expected = bc.act(bc_config, base, obs, key)
    np.testing.assert_array_equal(anchored.act(config, state, obs, key), expected)

    def distance(config):
        after = state
        for _ in range(30):
            after, metrics = UPDATE(config, after, batch)
        assert _largest_move(state.base, after.base) == 0.0
        return float(metrics["correction"])

    free = distance(config)
    near = distance(dataclasses.replace(config, anchor_weight=100.0))
    assert near < 0.3 * free


@quick
def test_what_succeeded_is_imitated_and_the_rest_is_kept_near_the_base(batch):
    """Two rows: one of an episode that reached the goal, one of an episode that did not. The actor
    has left the base, so that both terms count."""
    config = anchored.Config(
        actor=SMALL,
        critic=NORMED,
        critics=2,
        utd=1,
        anchor_weight=3.0,
        success_weight=4.0,
    )
    state = anchored.init(config, jax.random.key(0), batch)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, state.params["actor"])
    state = dataclasses.replace(state, params={**state.params, "actor": moved})
    two = {name: value[:2] for name, value in batch.items()}
    two["succeeded"] = np.array([1.0, 0.0], np.float32)
    after, metrics = UPDATE(config, state, two)
    base = np.asarray(policies.mean_action(SMALL, state.base, two["observations"]))
    action = np.asarray(policies.mean_action(SMALL, moved, two["observations"]))
    q = apply_ensemble(Scalar(NORMED), after.params["critic"], two["observations"], action)
    own = 4.0 * np.sum(np.square(action[0] - two["actions"][0]))
    kept = 3.0 * np.sum(np.square(action[1] - base[1]))
    expected = (own + kept) / action.size - float(q.mean())
    assert float(metrics["actor_loss"]) == pytest.approx(expected, rel=1e-4)


@quick
def test_targets_are_bounded_where_the_returns_are_known(batch):
    """Bounds so tight that every target is 0.25."""
    config = dataclasses.replace(CONFIG, target_low=0.25 - 1e-6, target_high=0.25 + 1e-6)
    state = anchored.init(config, jax.random.key(0), batch)
    _, metrics = UPDATE(config, state, batch)
    q = apply_ensemble(
        Scalar(NORMED), state.params["critic"], batch["observations"], batch["actions"]
    )
    expected = np.mean((np.asarray(q) - 0.25) ** 2)
    assert float(metrics["critic_loss"]) == pytest.approx(expected, rel=1e-3)


@quick
def test_learned_critics_come_along_with_their_targets_and_moments(batch):
    old_config = iql.Config(actor=SMALL, critic=NORMED, critics=2)
    old = iql.init(old_config, jax.random.key(3), batch)
    old, _ = jax.jit(iql.update, static_argnums=0)(old_config, old, batch)
    learned = iql.learned(old_config, old)
    config = anchored.adopt(anchored.Config(actor=SMALL, utd=1), learned)
    assert (config.critics, config.subset, config.critic) == (2, 2, NORMED)
    state = anchored.warm_start(config, jax.random.key(0), learned, batch)
    assert _largest_move(state.params["critic"], old.params["critic"]) == 0.0
    assert _largest_move(state.target["critic"], old.target_critic) == 0.0
    assert int(state.opt["critic"].count) == 1
    fresh = anchored.warm_start(config, jax.random.key(0), learned, batch, reset=("optimiser",))
    assert int(fresh.opt["critic"].count) == 0
    assert _largest_move(fresh.params["critic"], old.params["critic"]) == 0.0
    fresh = anchored.warm_start(config, jax.random.key(0), learned, batch, reset=("critic",))
    assert _largest_move(fresh.params["critic"], old.params["critic"]) > 0.0
    with pytest.raises(ValueError, match="2 critics"):
        anchored.warm_start(
            dataclasses.replace(config, critics=3), jax.random.key(0), learned, batch
        )


@quick
def test_the_target_of_the_actor_catches_up_with_all_critic_steps_of_an_update(batch):
    """Two steps of a half are one of three quarters."""
    config = dataclasses.replace(CONFIG, utd=2, polyak=0.5, actor_lr=1e-2)
    state = anchored.init(config, jax.random.key(0), batch)
    after, _ = UPDATE(config, state, batch)
    old, new, target = (
        np.asarray(tree["actor"]["mean"]["kernel"])
        for tree in (state.target, after.params, after.target)
    )
    np.testing.assert_allclose(target, 0.25 * old + 0.75 * new, atol=1e-6)
    assert not np.array_equal(old, new)
