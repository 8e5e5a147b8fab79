"""Chunks that run past the end of an episode: cloned as far as they go, never a critic's target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import AGENTS, flowbc, fql, iql, qc
from robo_rl.learn import offline
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn import flow
from robo_rl.nn.networks import NetConfig
from tests.probe_envs import Reach, collect

SMALL = NetConfig(hidden=(8, 8))
CONFIGS = {
    "flowbc": flowbc.Config(flow=SMALL, flow_steps=2),
    "fql": fql.Config(flow=SMALL, actor=SMALL, critic=SMALL, flow_steps=2),
    "qc": qc.Config(flow=SMALL, critic=SMALL, flow_steps=2, samples=2),
}
CASES = pytest.mark.parametrize("name", sorted(CONFIGS))


@pytest.fixture
def short(batch):
    """Two dimensions are a chunk of two steps, of which half of the rows have the first only."""
    valid = np.ones((8, 2), np.float32)
    valid[4:, 1] = 0.0
    return {**batch, "valid": valid}


def _updated(name, batch):
    agent, config = AGENTS[name], CONFIGS[name]
    state = agent.init(config, jax.random.key(0), batch)
    state, metrics = jax.jit(agent.update, static_argnums=0)(config, state, batch)
    params = state.params if name != "flowbc" else {"flow": state.flow}
    return params, metrics


def test_those_say_so_that_can_leave_out_what_is_not_there():
    able = {name for name, agent in AGENTS.items() if agent.CAPABILITIES.short_chunks}
    assert able == set(CONFIGS)


def test_the_loss_of_the_flow_is_that_of_the_valid_steps_by_hand(short):
    obs, actions = jnp.asarray(short["observations"]), jnp.asarray(short["actions"])
    params = flow.init(SMALL, jax.random.key(0), obs, actions)
    noise, times = 0.5 * jnp.ones((8, 2)), jnp.full((8, 1), 0.25)
    got = flow.matching_loss(SMALL, params, obs, actions, noise, times, short["valid"])
    velocity = flow.head(SMALL, params, obs, 0.75 * noise + 0.25 * actions, times)
    error = np.square(np.asarray(velocity) - (short["actions"] - 0.5))
    assert float(got) == pytest.approx((error[:4].sum() + error[4:, 0].sum()) / 16, rel=1e-5)


@pytest.mark.parametrize("name", ["fql", "qc"])
def test_the_critics_see_whole_chunks_only(name, short):
    """The rewards of rows that are cut short move nothing; those of the others do."""
    params, metrics = _updated(name, short)
    cut, whole = short["rewards"].copy(), short["rewards"].copy()
    cut[4:] += 5.0
    whole[:4] += 5.0
    same, _ = _updated(name, {**short, "rewards": cut})
    jax.tree.map(np.testing.assert_array_equal, params["critic"], same["critic"])
    _, other = _updated(name, {**short, "rewards": whole})
    assert float(other["critic_loss"]) != float(metrics["critic_loss"])


@CASES
def test_a_batch_of_whole_chunks_is_a_batch_without_a_mask(name, batch):
    _, metrics = _updated(name, batch)
    _, masked = _updated(name, {**batch, "valid": np.ones((8, 2), np.float32)})
    for key, value in metrics.items():
        np.testing.assert_allclose(masked[key], value, rtol=1e-6, err_msg=key)


def test_the_offline_loop_gives_them_to_agents_that_can_take_them():
    """In episodes of three or four steps, chunks of three: all states, or those of whole chunks."""
    data, loop = collect(Reach(), 6), OfflineLoop(chunk=3)
    able = offline._rows(qc, CONFIGS["qc"], data, loop, None)
    assert len(able["rewards"]) == len(able["valid"]) == len(data["rewards"])
    unable = offline._rows(iql, iql.Config(), data, loop, None)
    assert "valid" not in unable
    assert len(unable["rewards"]) == int(able["valid"][:, -1].sum()) < len(data["rewards"])
