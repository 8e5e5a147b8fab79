import functools

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.agents import bc, flowbc
from robo_rl.nn.networks import NetConfig

NET = NetConfig(hidden=(32, 32), activation="gelu")
CONFIG = flowbc.Config(flow=NET, learning_rate=3e-3)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _samples(agent, config, batch, steps):
    """2000 explored actions after `steps` updates on one batch of one state."""
    state = agent.init(config, jax.random.key(0), batch)
    state, _ = jax.lax.scan(
        lambda carry, _: agent.update(config, carry, batch), state, None, length=steps
    )
    obs = jnp.zeros((2000, 1))
    return agent.act(config, state, obs, jax.random.key(1), explore=True)


def test_two_modes_stay_two_where_a_gaussian_makes_one_of_them():
    """Actions -0.7 and 0.7: half of the flow's samples is at each, the Gaussian's are around 0."""
    batch = {
        "observations": np.zeros((256, 1), np.float32),
        "actions": np.where(np.arange(256) % 2, 0.7, -0.7).astype(np.float32)[:, None],
    }
    flow = np.asarray(_samples(flowbc, CONFIG, batch, 800))
    gaussian = np.asarray(
        _samples(bc, bc.Config(actor=NET, likelihood="gaussian", learning_rate=1e-3), batch, 500)
    )
    assert np.mean(np.abs(np.abs(flow) - 0.7) < 0.2) > 0.75
    assert 0.4 < np.mean(flow > 0.0) < 0.6
    # A Gaussian of mean 0 and standard deviation 0.7 has 22 % within 0.2 of 0.
    assert np.mean(np.abs(gaussian) < 0.2) > 0.15
    assert np.mean(np.abs(flow) < 0.2) < 0.07


def test_the_flow_depends_on_the_state():
    """Actions are s / 2 exactly: samples follow, whatever their noise."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1.0, 1.0, (256, 1)).astype(np.float32)
    batch = {"observations": obs, "actions": obs / 2}
    state = flowbc.init(CONFIG, jax.random.key(0), batch)
    run = jax.jit(
        lambda s: jax.lax.scan(lambda c, _: flowbc.update(CONFIG, c, batch), s, None, length=800)[0]
    )
    seen = jnp.linspace(-0.8, 0.8, 9)[:, None]
    got = flowbc.act(CONFIG, run(state), seen, jax.random.key(3))
    np.testing.assert_allclose(got, seen / 2, atol=0.2)
