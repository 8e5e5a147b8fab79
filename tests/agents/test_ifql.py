import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import ifql
from robo_rl.learn.batches import batch_of
from robo_rl.nn import critics, policies
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(16, 16))
NORMED = NetConfig(hidden=(16, 16), layer_norm="after")
CONFIG = ifql.Config(flow=SMALL, critic=NORMED, samples=3, flow_steps=4)
INIT = jax.jit(ifql.init, static_argnums=0)
UPDATE = jax.jit(ifql.update, static_argnums=0)


def _each(params, *inputs):
    return np.asarray(apply_ensemble(Scalar(NORMED), params, *inputs))


@pytest.mark.usefixtures("quick_compile")
def test_losses_of_one_update_by_hand(batch):
    """Both from the networks before the update: V against the targets' minimum, Q against V."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    apart = jax.tree.map(lambda x: 1.3 * x, state.target_critic)
    state = dataclasses.replace(state, target_critic=apart)
    _, metrics = UPDATE(CONFIG, state, batch)
    obs, actions = batch["observations"], batch["actions"]
    v, next_v = (
        np.asarray(apply(Scalar(NORMED), state.params["value"], batch[name]))
        for name in ("observations", "next_observations")
    )
    u = _each(apart, obs, actions).min(axis=0) - v
    value_loss = np.mean(np.where(u < 0, 0.1, 0.9) * u**2)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-4)
    target = batch["rewards"] + 0.99 * batch["masks"] * next_v
    critic_loss = np.mean((_each(state.params["critic"], obs, actions) - target) ** 2)
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss, rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_acting_takes_the_sample_with_the_highest_minimum_of_the_critics(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    obs, key = batch["observations"], jax.random.key(5)
    noise = jax.random.normal(key, (8, 3, 2))
    actions, _ = ifql.policy(CONFIG, state).candidates(obs, noise)
    many = jnp.broadcast_to(obs[:, None], (8, 3, 3))
    best = _each(state.params["critic"], many, actions).min(axis=0).argmax(axis=1)
    expected = np.asarray(actions)[np.arange(8), best]
    np.testing.assert_allclose(ifql.act(CONFIG, state, obs, key), expected, atol=1e-6)


@pytest.mark.usefixtures("quick_compile")
def test_rewards_move_the_critics_first_then_v_and_never_the_flow(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    one, _ = UPDATE(CONFIG, state, batch)
    other, _ = UPDATE(CONFIG, state, {**batch, "rewards": batch["rewards"] + 10.0})
    assert _differing(one, other) == {"critic"}
    one, other = (UPDATE(CONFIG, new, batch)[0] for new in (one, other))
    assert _differing(one, other) == {"critic", "value"}


def _differing(one, other):
    """Names of the networks with a leaf that differs."""
    same = jax.tree.map(np.array_equal, one.params, other.params)
    return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


@pytest.mark.usefixtures("quick_compile")
def test_discounts_of_the_batch_replace_the_config_and_targets_follow_by_polyak(batch):
    config = dataclasses.replace(CONFIG, discount=0.5, polyak=0.25)
    state = INIT(CONFIG, jax.random.key(0), batch)
    after, plain = UPDATE(config, state, batch)
    _, given = UPDATE(CONFIG, state, {**batch, "discounts": np.full(8, 0.5, np.float32)})
    assert float(plain["critic_loss"]) == pytest.approx(float(given["critic_loss"]), rel=1e-6)
    old, new, target = (
        np.asarray(tree["out"]["kernel"])
        for tree in (state.target_critic, after.params["critic"], after.target_critic)
    )
    np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = ifql.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: ifql.update(config, c, batch), state, None, length=steps)[0]


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 64, [0.0], 1.0),
        (TwoSteps(), 32, [-1.0], 0.5),
        (Endless(), 16, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
    ids=["one_step", "two_steps", "endless"],
)
def test_values_of_probes(env, episodes, obs, expected):
    config = dataclasses.replace(CONFIG, discount=0.5, polyak=0.1, learning_rate=3e-3)
    state = _run(config, batch_of(collect(env, episodes)), 300)
    rows = jnp.asarray([obs] * 5, jnp.float32)
    v = apply(Scalar(NORMED), state.params["value"], rows[:1])
    assert float(v[0]) == pytest.approx(expected, abs=0.15)
    actions = jnp.linspace(-0.8, 0.8, 5)[:, None]
    q = critics.q(NORMED, state.params["critic"], "mean", rows, actions)
    np.testing.assert_allclose(q, expected, atol=0.15)


def test_the_best_of_many_samples_is_near_the_best_action():
    """Uniform actions, reward -(a - s / 2)^2: the flow is uniform, its best sample is at s / 2."""
    net = NetConfig(hidden=(32, 32), activation="gelu")
    config = ifql.Config(flow=net, critic=net, samples=16, flow_steps=4, learning_rate=3e-3)
    state = _run(config, batch_of(collect(Match(), 256)), 500)
    obs = jnp.tile(jnp.linspace(-0.8, 0.8, 9)[:, None], (100, 1))
    key = jax.random.key(0)
    error = np.abs(np.asarray(ifql.act(config, state, obs, key) - obs / 2))
    assert error.mean() < 0.15
    single = policies.sample(ifql.policy(config, state).flow, obs, key)
    assert float(jnp.mean(jnp.abs(single - obs / 2))) > 0.35
