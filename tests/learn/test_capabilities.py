import pytest

from robo_rl import agents
from robo_rl.learn import online
from robo_rl.learn.contract import Capabilities, has_setting, setting
from robo_rl.learn.recipes import Recipe
from robo_rl.nn import policies
from tests.probe_envs import Reach, collect


def test_what_goes_together_is_declared_together():
    with pytest.raises(ValueError, match="adopt and warm_start go together"):
        Capabilities(adopt=lambda config, learned: config)
    with pytest.raises(ValueError, match="state_values needs q_values"):
        Capabilities(state_values=lambda config, state, observations: observations)


def test_settings_of_the_loops_are_those_that_a_config_declares():
    sac, bc = agents.sac.Config(utd=3), agents.bc.Config()
    assert setting(sac, "utd", 1) == 3
    assert setting(bc, "utd", 1) == 1
    assert not has_setting(bc, "discount")
    assert not has_setting(None, "discount")


def test_an_agent_that_cannot_start_from_anothers_policy_says_so():
    learned = policies.Learned(None, None)
    example = {name: value[:1] for name, value in collect(Reach(), 1).items()}
    recipe = Recipe(agent="iql", start="learned")
    with pytest.raises(ValueError, match=r"iql cannot start from what another agent has learned"):
        online.start_state(agents.iql, agents.iql.Config(), recipe, 0, example, learned)
