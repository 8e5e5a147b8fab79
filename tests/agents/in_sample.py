"""What the tests of the in-sample methods share: scalar fits, and V in a bandit of known values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from robo_rl.learn.batches import batch_of
from robo_rl.nn.apply import apply
from robo_rl.nn.networks import Scalar
from tests.probe_envs import Match, collect


def standard_normal(count=200_001):
    """The quantiles of N(0, 1): a sample without sampling error."""
    return jnp.asarray(scipy.stats.norm.ppf((np.arange(count) + 0.5) / count), jnp.float32)


def minimiser(loss, samples, low=-50.0, high=50.0):
    """The v of the least mean of a convex `loss` of samples - v, by bisection of its slope."""
    # The samples are an argument: as a constant they would be compiled into the program.
    slope = jax.jit(jax.grad(lambda v, x: jnp.mean(loss(x - v))))
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope(middle, samples) > 0.0 else (middle, high)
    return 0.5 * (low + high)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def run(agent, config, batch, steps):
    """The state after updates on the same rows."""
    state = agent.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: agent.update(config, c, batch), state, None, length=steps)[0]


@functools.cache
def trained_on_match(agent, config, steps=400):
    """The state after training on `Match`, where Q(s, a) = -(a - s / 2)^2 and a is uniform."""
    return run(agent, config, batch_of(collect(Match(), 512)), steps)


def value_at_zero(config, state):
    """V(0) on `Match`, that is of -a^2 for a uniform in [-1, 1]."""
    return float(apply(Scalar(config.critic), state.params["value"], jnp.zeros((1, 1)))[0])


def assert_it_acts_well_on_match(agent, config, state):
    """Uniform actions have a mean of 0; the best action is s / 2."""
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = agent.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.15)
