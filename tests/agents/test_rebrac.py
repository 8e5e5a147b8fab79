import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import rebrac
from robo_rl.learn.batches import batch_of
from robo_rl.learn.supply import supply
from robo_rl.nn import policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Match, collect

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="after")
CONFIG = rebrac.Config(actor=SMALL, critic=NORMED, utd=1)
INIT = jax.jit(rebrac.init, static_argnums=0)
UPDATE = jax.jit(rebrac.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def batch(batch):
    return {**batch, "next_actions": batch["actions"][::-1].copy()}


def test_distances_are_sums_over_action_dimensions():
    """An error of 1 in both of two dimensions costs 2, where TD3+BC's mean costs 1."""
    np.testing.assert_array_equal(rebrac.distance(jnp.zeros((3, 2)), jnp.ones((3, 2))), [2.0] * 3)


def test_actor_loss_by_hand():
    """0.3 * mean(2, 0) - mean(2, -4) / mean(2, 4) = 0.3 + 1 / 3."""
    loss, _ = rebrac.actor_loss(
        0.3, jnp.array([2.0, -4.0]), jnp.array([[1.0, 1.0], [0.0, 0.0]]), jnp.zeros((2, 2))
    )
    assert float(loss) == pytest.approx(0.3 + 1 / 3, rel=1e-6)


@pytest.mark.parametrize(("decayed", "expected"), [(0, 0.2), (25, 0.15), (50, 0.1), (900, 0.1)])
def test_the_weight_falls_linearly_to_its_half_and_stays(decayed, expected):
    config = rebrac.Config(actor_bc_weight=0.2, decay_steps=100)
    assert float(rebrac.bc_weight(config, jnp.asarray(decayed))) == pytest.approx(expected)
    assert rebrac.bc_weight(dataclasses.replace(config, decay_steps=0), jnp.asarray(decayed)) == 0.2


@quick
def test_the_decay_starts_where_a_run_is_continued_with_it(batch):
    """Three updates offline, then a fall over four: 1, 3 / 4, 1 / 2 of the weight, and no less."""
    offline = dataclasses.replace(CONFIG, actor_bc_weight=0.4)
    online = dataclasses.replace(offline, decay_steps=4, critic_bc_weight=0.0)
    state = INIT(offline, jax.random.key(0), batch)
    seen = []
    for config in (offline,) * 3 + (online,) * 4:
        state, metrics = UPDATE(config, state, batch)
        seen.append(float(metrics["bc_weight"]))
    np.testing.assert_allclose(seen, [0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.2], rtol=1e-6)


def _q(params, obs, actions):
    return np.asarray(apply_ensemble(Scalar(NORMED), params, obs, actions))


@quick
def test_losses_of_one_update_by_hand(batch):
    """The distance to the next actions is taken off the bootstrap, behind discount and mask."""
    config = dataclasses.replace(
        CONFIG, target_noise=0.0, critic_bc_weight=0.7, actor_bc_weight=0.3
    )
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    next_obs = batch["next_observations"]
    actions = np.asarray(policies.mean_action(SMALL, state.target["actor"], next_obs))
    penalty = np.sum((actions - batch["next_actions"]) ** 2, axis=1)
    next_q = _q(state.target["critic"], next_obs, actions).min(axis=0)
    target = batch["rewards"] + 0.99 * batch["masks"] * (next_q - 0.7 * penalty)
    q = _q(state.params["critic"], batch["observations"], batch["actions"])
    assert float(metrics["critic_loss"]) == pytest.approx(np.mean((q - target) ** 2), rel=1e-4)

    obs = batch["observations"]
    predicted = np.asarray(policies.mean_action(SMALL, state.params["actor"], obs))
    q = _q(after.params["critic"], obs, predicted).min(axis=0)
    distance = np.sum((predicted - batch["actions"]) ** 2, axis=1).mean()
    expected = 0.3 * distance - q.mean() / np.abs(q).mean()
    assert float(metrics["actor_loss"]) == pytest.approx(expected, rel=1e-4)


@quick
def test_without_its_weight_the_critics_penalty_is_gone(batch):
    """Then the next actions of the batch do not matter."""
    off = dataclasses.replace(CONFIG, critic_bc_weight=0.0)
    state = INIT(off, jax.random.key(0), batch)
    other = {**batch, "next_actions": -batch["next_actions"]}
    first, second = (UPDATE(off, state, rows)[0] for rows in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = rebrac.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: rebrac.update(config, c, batch), state, None, length=steps)[0]


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    config = rebrac.Config(
        NetConfig(hidden=(32, 32)),
        NetConfig(hidden=(32, 32), layer_norm="after"),
        utd=1,
        actor_lr=1e-3,
        critic_lr=3e-3,
        polyak=0.05,
    )
    data = supply(rebrac, config, collect(Match(), 1024))
    state = _run(config, batch_of(data), 1500)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = rebrac.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.2)
