import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc
from robo_rl.learn import probe
from robo_rl.learn.contract import Capabilities


@dataclasses.dataclass(frozen=True)
class Config:
    discount: float = 0.5


def _q(config, state, obs, actions):
    return (obs + actions)[..., 0]


def _agent(**more):
    """Q(s, a) = s + a, a policy that always does 0.5."""
    agent = types.ModuleType("fake")  # hashable, as agents are
    agent.CAPABILITIES = Capabilities(q_values=_q, **more)
    agent.act = lambda config, state, obs, key: jnp.full_like(obs, 0.5)
    return agent


DATA = {
    "observations": np.array([[0.0], [2.0]], np.float32),
    "actions": np.array([[1.0], [0.0]], np.float32),
    "rewards": np.array([1.0, 0.0], np.float32),
    "next_observations": np.array([[2.0], [4.0]], np.float32),
    "masks": np.array([1.0, 0.0], np.float32),
}


def _measured(agent, data=DATA):
    drawn = _drawn(agent, data, 0, jax.random.key(0))
    return {name: float(value) for name, value in probe.measure(agent, Config(), 0, drawn).items()}


def _drawn(agent, data, seed, keys):
    def gather(rows):
        return {name: np.asarray(value)[rows] for name, value in data.items()}

    return probe.draw(agent, gather, len(data["rewards"]), seed, keys)


def test_measures_by_hand():
    """Q of the data 1 and 2; targets 1 + 0.5 (2 + 0.5) = 2.25 and 0; Q of the policy 0.5, 2.5."""
    assert _measured(_agent()) == {
        "probe_td_error": (1.25**2 + 2.0**2) / 2,
        "probe_data_q": 1.5,
        "probe_policy_gap": 0.0,
        "probe_target_std": 1.125,
    }


def test_targets_bootstrap_from_v_where_the_agent_has_one_and_by_the_discounts_of_the_rows():
    agent = _agent(state_values=lambda config, state, obs: 10.0 * obs[..., 0])
    assert _measured(agent)["probe_td_error"] == (10.0**2 + 2.0**2) / 2  # 1 + 0.5 * 20 = 11
    rows = {**DATA, "discounts": np.array([0.1, 0.1], np.float32)}
    assert _measured(agent, rows)["probe_td_error"] == pytest.approx((2.0**2 + 2.0**2) / 2)


def test_the_rows_are_the_seeds_own_and_are_not_drawn_twice():
    data = {name: np.arange(3000, dtype=np.float32) for name in ("rewards", "masks")}
    first, again, other = (
        np.asarray(_drawn(_agent(), data, seed, jax.random.key(0)).batch["rewards"])
        for seed in (0, 0, 1)
    )
    assert len(np.unique(first)) == probe.ROWS
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_an_agent_without_critics_is_not_measured():
    assert _drawn(bc, DATA, 0, jax.random.key(0)) is None
    assert probe.measure(bc, bc.Config(), 0, None) == {}


def test_seeds_trained_together_are_measured_each_on_its_own_rows():
    data = {name: np.tile(value, (1500, *(1,) * (value.ndim - 1))) for name, value in DATA.items()}
    data["rewards"] = np.arange(3000, dtype=np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    many = _drawn(_agent(), data, 7, keys)
    together = probe.measure(_agent(), Config(), np.zeros(2), many)
    for index in range(2):
        alone = _drawn(_agent(), data, 7 + index, keys[index])
        for name, value in probe.measure(_agent(), Config(), np.zeros(()), alone).items():
            np.testing.assert_allclose(together[name][index], value, rtol=1e-5)
    assert len(set(np.asarray(together["probe_td_error"]).tolist())) == 2


def test_chunks_that_their_episode_cuts_short_are_not_measured():
    """As if the second row were not there: Q of the data 1, of the policy 0.5, target 2.25."""
    rows = {**DATA, "valid": np.array([[1.0, 1.0], [1.0, 0.0]], np.float32)}
    assert _measured(_agent(), rows) == {
        "probe_td_error": 1.25**2,
        "probe_data_q": 1.0,
        "probe_policy_gap": -0.5,
        "probe_target_std": 0.0,
    }
