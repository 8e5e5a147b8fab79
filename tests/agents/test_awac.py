import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robo_rl.agents import awac
from robo_rl.learn.batches import batch_of
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(8, 8))
CONFIG = awac.Config(actor=SMALL, critic=SMALL)
INIT = jax.jit(awac.init, static_argnums=0)
UPDATE = jax.jit(awac.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


@quick
def test_the_density_is_that_of_a_normal_around_tanh_of_the_mean(batch):
    """At a bound too, where data of arms often are: a squashed normal has none there."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    actor, obs = state.params["actor"], batch["observations"]
    mean, log_std = awac.distribution(CONFIG, actor, obs)
    for actions in (batch["actions"], np.ones_like(batch["actions"])):
        expected = scipy.stats.norm.logpdf(actions, np.asarray(mean), np.exp(log_std)).sum(axis=1)
        np.testing.assert_allclose(awac.log_prob(CONFIG, actor, obs, actions), expected, rtol=1e-4)


@quick
def test_equal_weights_are_cloning(batch):
    """At an inverse temperature of 0 every weight is 1: the loss is -mean log pi(a | s)."""
    config = dataclasses.replace(CONFIG, inverse_temperature=0.0)
    state = INIT(config, jax.random.key(0), batch)
    _, metrics = UPDATE(config, state, batch)
    density = awac.log_prob(config, state.params["actor"], batch["observations"], batch["actions"])
    assert float(metrics["weight"]) == 1.0
    assert float(metrics["actor_loss"]) == pytest.approx(-float(jnp.mean(density)), rel=1e-5)


@quick
def test_each_step_moves_its_own_networks_only(batch):
    """Whatever the actor's rate is, the critics end the same."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    fast, _ = UPDATE(dataclasses.replace(CONFIG, actor_lr=1.0), state, batch)
    slow, _ = UPDATE(CONFIG, state, batch)
    jax.tree.map(np.testing.assert_array_equal, fast.params["critic"], slow.params["critic"])
    assert not np.array_equal(
        fast.params["actor"]["mean"]["bias"], slow.params["actor"]["mean"]["bias"]
    )


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = awac.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: awac.update(config, c, batch), state, None, length=steps)[0]


FAST = {"actor_lr": 3e-3, "critic_lr": 3e-3, "polyak": 0.1, "discount": 0.5}
NET = NetConfig(hidden=(32, 32))


@pytest.mark.parametrize(
    ("env", "obs", "expected"),
    [
        (OneStep(), 0.0, 1.0),
        (TwoSteps(), -1.0, 0.5),
        (TwoSteps(), 1.0, 1.0),
        (Endless(), 0.0, 2.0),
    ],
)
def test_values_of_probe_environments(env, obs, expected):
    state = _run(awac.Config(NET, NET, **FAST), batch_of(collect(env, 64)), 600)
    q = apply_ensemble(Scalar(NET), state.params["critic"], jnp.array([[obs]]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(q, expected, atol=0.1)


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    config = awac.Config(NET, NET, **FAST, inverse_temperature=20.0)
    state = _run(config, batch_of(collect(Match(), 1024)), 1500)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = awac.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.15)
