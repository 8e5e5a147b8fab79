import types

import numpy as np
import pytest

from robo_rl.agents import calql, iql, rebrac
from robo_rl.learn.contract import Capabilities, needs
from robo_rl.learn.supply import supply
from tests.probe_envs import Endless, Reach, collect


def test_an_agent_without_needs_gets_what_is_there():
    data = collect(Endless(), 2)
    assert needs(iql) == ()
    assert supply(iql, iql.Config(), data) is data


def test_next_actions_do_not_leak_across_episodes():
    data = collect(Reach(), 3)
    supplied = supply(rebrac, rebrac.Config(), data)
    inside = data["episode_id"][1:] == data["episode_id"][:-1]
    following = supplied["next_actions"][:-1]
    np.testing.assert_array_equal(following[inside], data["actions"][1:][inside])
    np.testing.assert_array_equal(following[~inside], data["actions"][:-1][~inside])


def test_returns_of_an_endless_episode_go_on_for_ever():
    """`Endless` pays 1 a step and is cut after 4: 1 / (1 - 0.5), or 1.875, 1.75, 1.5, 1."""
    data = collect(Endless(), 1)
    endless = supply(calql, calql.Config(discount=0.5), data)["returns"]
    np.testing.assert_allclose(endless, 2.0)
    cut = supply(calql, calql.Config(discount=0.5, endless_returns=False), data)["returns"]
    np.testing.assert_allclose(cut, [1.875, 1.75, 1.5, 1.0])


def test_what_cannot_be_supplied_is_refused_by_name():
    data = collect(Endless(), 2)
    del data["episode_id"]
    with pytest.raises(ValueError, match=r"rebrac needs next_actions.*lack episode_id"):
        supply(rebrac, rebrac.Config(), data)
    open_ended = {**collect(Endless(), 2), "truncated": np.zeros(8, bool)}
    with pytest.raises(ValueError, match="2 of 2, the first of them episode 0"):
        supply(calql, calql.Config(), open_ended)


def test_given_values_are_kept():
    data = {**collect(Endless(), 1), "returns": np.full(4, 7.0)}
    agent = types.SimpleNamespace(__name__="x", CAPABILITIES=Capabilities(("returns",)))
    assert supply(agent, None, data)["returns"] is data["returns"]
