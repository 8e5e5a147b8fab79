import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robo_rl.agents import iql
from robo_rl.learn.batches import batch_of
from robo_rl.nn import policies
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(16, 16))
CONFIG = iql.Config(actor=SMALL, critic=SMALL)
INIT = jax.jit(iql.init, static_argnums=0)
UPDATE = jax.jit(iql.update, static_argnums=0)


def _q(params, batch):
    return apply_ensemble(Scalar(SMALL), params, batch["observations"], batch["actions"])


@pytest.mark.usefixtures("quick_compile")
def test_losses_of_one_update_by_hand(batch):
    """Each loss rebuilt from the networks before the update, in the order V, actor, Q."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    after, metrics = UPDATE(CONFIG, state, batch)
    q = np.asarray(_q(state.target_critic, batch)).min(axis=0)
    v = np.asarray(apply(Scalar(SMALL), state.params["value"], batch["observations"]))
    u = q - v
    value_loss = np.mean(np.where(u < 0, 0.3, 0.7) * u**2)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-4)

    new_v = np.asarray(apply(Scalar(SMALL), after.params["value"], batch["observations"]))
    weight = np.minimum(np.exp(3.0 * (q - new_v)), 100.0)
    mean = np.asarray(policies.mean_action(SMALL, state.params["actor"], batch["observations"]))
    log_prob = scipy.stats.norm.logpdf(batch["actions"], mean, 1.0).sum(axis=1)
    assert float(metrics["actor_loss"]) == pytest.approx(-np.mean(weight * log_prob), rel=1e-4)

    next_v = np.asarray(apply(Scalar(SMALL), after.params["value"], batch["next_observations"]))
    target = batch["rewards"] + 0.99 * batch["masks"] * next_v
    critic_loss = np.mean((np.asarray(_q(state.params["critic"], batch)) - target) ** 2, axis=1)
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss.sum(), rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_discounts_of_the_batch_replace_the_config(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    _, plain = UPDATE(dataclasses.replace(CONFIG, discount=0.5), state, batch)
    halves = {**batch, "discounts": np.full(8, 0.5, np.float32)}
    _, given = UPDATE(CONFIG, state, halves)
    assert float(plain["critic_loss"]) == float(given["critic_loss"])


@pytest.mark.usefixtures("quick_compile")
def test_each_step_moves_its_own_network_only(batch):
    """With Adam, any gradient moves a leaf by about its learning rate: 0 is no gradient at all."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    actor_only, _ = UPDATE(dataclasses.replace(CONFIG, critic_lr=1e-30), state, batch)
    assert _moved(state, actor_only) == {"actor"}
    critics_only, _ = UPDATE(dataclasses.replace(CONFIG, actor_lr=1e-30), state, batch)
    assert _moved(state, critics_only) == {"critic", "value"}


def _moved(before, after):
    """Names of the networks of which a kernel or bias moved by more than rounding."""
    distance = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before.params, after.params)
    return {name for name, tree in distance.items() if max(jax.tree.leaves(tree)) > 1e-12}


@pytest.mark.usefixtures("quick_compile")
def test_no_gradient_flows_into_the_weights_of_the_actor_loss(batch):
    """Value and critics after an update do not depend on the temperature, which only weighs."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    cold, _ = UPDATE(dataclasses.replace(CONFIG, temperature=0.0), state, batch)
    hot, _ = UPDATE(dataclasses.replace(CONFIG, temperature=10.0), state, batch)
    for name in ("critic", "value"):
        for a, b in zip(
            jax.tree.leaves(cold.params[name]), jax.tree.leaves(hot.params[name]), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("quick_compile")
def test_targets_follow_by_polyak(batch):
    config = dataclasses.replace(CONFIG, polyak=0.25)
    state = INIT(config, jax.random.key(0), batch)
    after, _ = UPDATE(config, state, batch)
    old, new, target = (
        np.asarray(tree["out"]["kernel"])
        for tree in (state.target_critic, after.params["critic"], after.target_critic)
    )
    np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = iql.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: iql.update(config, c, batch), state, None, length=steps)[0]


def _train(config, data, steps):
    return _run(config, batch_of(data), steps)


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 64, [0.0], 1.0),
        (TwoSteps(), 32, [-1.0], 0.5),
        (Endless(), 16, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
)
def test_values_of_probe_environments(env, episodes, obs, expected):
    config = dataclasses.replace(CONFIG, discount=0.5, polyak=0.1, critic_lr=1e-2)
    state = _train(config, collect(env, episodes), 400)
    v = apply(Scalar(SMALL), state.params["value"], jnp.array([obs]))
    q = apply_ensemble(Scalar(SMALL), state.params["critic"], jnp.array([obs]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(v, expected, atol=0.05)
    np.testing.assert_allclose(q[:, 0], expected, atol=0.05)


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    config = iql.Config(
        NetConfig((32, 32)),
        NetConfig((32, 32)),
        expectile=0.9,
        temperature=30.0,
        actor_lr=3e-3,
        critic_lr=3e-3,
        polyak=0.05,
    )
    state = _train(config, collect(Match(), 512), 800)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = iql.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.15)
