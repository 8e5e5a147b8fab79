import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import qc
from robo_rl.learn.batches import batch_of
from robo_rl.nn import critics, flow, policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(16, 16))
NORMED = NetConfig(hidden=(16, 16), layer_norm="after")
CONFIG = qc.Config(flow=SMALL, critic=NORMED, samples=3, flow_steps=4)
INIT = jax.jit(qc.init, static_argnums=0)
UPDATE = jax.jit(qc.update, static_argnums=0)


def _each(params, *inputs):
    return np.asarray(apply_ensemble(Scalar(NORMED), params, *inputs))


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("aggregate", ["mean", "min"])
def test_the_target_values_the_sample_that_the_online_critics_choose(batch, aggregate):
    config = dataclasses.replace(CONFIG, aggregate=aggregate)
    over = {"mean": np.mean, "min": np.min}[aggregate]
    state = INIT(config, jax.random.key(0), batch)
    # Targets that order the samples the other way round: only their values may count.
    apart = jax.tree.map(lambda x: -x, state.target_critic)
    state = dataclasses.replace(state, target_critic=apart)
    _, metrics = UPDATE(config, state, batch)

    next_key = jax.random.split(state.key, 3)[2]
    noise = jax.random.normal(next_key, (8, 3, 2))
    next_q = []
    for row in range(8):
        obs = jnp.tile(batch["next_observations"][row], (3, 1))
        samples = flow.integrate(SMALL, state.params["flow"], obs, noise[row], 4)
        best = int(over(_each(state.params["critic"], obs, samples), axis=0).argmax())
        next_q.append(over(_each(apart, obs, samples), axis=0)[best])
    target = batch["rewards"] + 0.99 * batch["masks"] * np.array(next_q)
    error = _each(state.params["critic"], batch["observations"], batch["actions"]) - target
    assert float(metrics["critic_loss"]) == pytest.approx(np.mean(error**2), rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_acting_takes_the_sample_that_the_critics_value_most(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    obs, key = batch["observations"], jax.random.key(5)
    noise = jax.random.normal(key, (8, 3, 2))
    actions, scores = qc.policy(CONFIG, state).candidates(obs, noise)
    expected = np.asarray(actions)[np.arange(8), np.asarray(scores).argmax(axis=1)]
    np.testing.assert_allclose(qc.act(CONFIG, state, obs, key), expected, atol=1e-6)


@pytest.mark.usefixtures("quick_compile")
def test_rewards_move_the_critics_and_never_the_flow(batch):
    """The policy is cloned: nothing that the critics learn changes its samples."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    one, _ = UPDATE(CONFIG, state, batch)
    other, _ = UPDATE(CONFIG, state, {**batch, "rewards": batch["rewards"] + 10.0})
    one, other = (UPDATE(CONFIG, new, batch)[0] for new in (one, other))
    jax.tree.map(np.testing.assert_array_equal, one.params["flow"], other.params["flow"])
    kernels = (new.params["critic"]["out"]["kernel"] for new in (one, other))
    assert not np.array_equal(*kernels)


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
    state = qc.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: qc.update(config, c, batch), state, None, length=steps)[0]


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
    actions = jnp.linspace(-0.8, 0.8, 5)[:, None]
    q = critics.q(NORMED, state.params["critic"], "mean", rows, actions)
    np.testing.assert_allclose(q, expected, atol=0.15)


def test_the_best_of_many_samples_is_near_the_best_action():
    """Uniform actions, reward -(a - s / 2)^2: the flow is uniform, its best sample is at s / 2."""
    net = NetConfig(hidden=(32, 32), activation="gelu")
    config = qc.Config(flow=net, critic=net, samples=16, flow_steps=4, learning_rate=3e-3)
    state = _run(config, batch_of(collect(Match(), 256)), 500)
    obs = jnp.tile(jnp.linspace(-0.8, 0.8, 9)[:, None], (100, 1))
    key = jax.random.key(0)
    error = np.abs(np.asarray(qc.act(config, state, obs, key) - obs / 2))
    assert error.mean() < 0.15
    single = policies.sample(qc.policy(config, state).flow, obs, key)
    assert float(jnp.mean(jnp.abs(single - obs / 2))) > 0.35
