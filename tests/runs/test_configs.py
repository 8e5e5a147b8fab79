import json

import pytest

from robo_rl import agents
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import RECIPES, Recipe
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import configs


@pytest.mark.parametrize(
    "config",
    [
        *(agent.Config() for agent in agents.AGENTS.values()),
        *RECIPES.values(),
        OfflineLoop(seeds=3),
        OnlineLoop(env_steps=7),
        agents.sac.Config(critic=NetConfig(hidden=(7,), layer_norm="after")),
        Recipe(options=(("critics", 2), ("initial_log_std", -1.0))),
    ],
)
def test_every_config_survives_json(config):
    text = json.dumps(configs.to_json(config))
    assert configs.from_json(type(config), json.loads(text)) == config


def test_unknown_fields_list_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no field widths; known: activation, arch, encoder, hidden"
    ):
        configs.from_json(NetConfig, {"widths": [3]})


def test_values_are_checked_on_the_way_in():
    with pytest.raises(ValueError, match=r"NetConfig\.activation"):
        configs.from_json(NetConfig, {"activation": "x"})
