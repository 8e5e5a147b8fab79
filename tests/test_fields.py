import dataclasses

import numpy as np
import pytest

from robo_rl.agents import AGENTS
from robo_rl.judge.selection import Protocol
from robo_rl.learn.recipes import RECIPES, Recipe
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.shift import Shift

CONFIGS = {
    **{name: agent.Config for name, agent in AGENTS.items()},
    **{kind.__name__: kind for kind in (NetConfig, EncoderConfig, Shift, Recipe, Protocol)},
}
WRONG = {
    int: (1.5, "2", None, True, float("nan")),
    float: ("0.5", True, [0.5]),
    bool: ("yes", 1, None),
    str: (3, None),
    tuple: ((1.5,), "64", 64),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_setting_takes_another_kind_of_value(name):
    kind = CONFIGS[name]
    for field in dataclasses.fields(kind):
        held = getattr(kind(), field.name)
        for wrong in WRONG.get(type(held), ()):
            if field.name in ("arch", "options"):
                continue
            with pytest.raises(ValueError, match=rf"\.{field.name} must be "):
                kind(**{field.name: wrong})
        if dataclasses.is_dataclass(held):
            with pytest.raises(ValueError, match=rf"\.{field.name} must be a \w+\.\w+, got 'x'"):
                kind(**{field.name: "x"})


def test_lists_and_numpy_scalars_become_what_a_config_can_keep():
    net = NetConfig(hidden=[64, np.int64(32)])
    assert net.hidden == (64, 32)
    assert {type(width) for width in net.hidden} == {int}
    assert hash(net) == hash(NetConfig(hidden=(64, 32)))
    assert NetConfig(hidden=np.array([64, 32])) == net
    config = AGENTS["iql"].Config(critics=np.int64(3), discount=np.float64(0.5))
    assert (type(config.critics), type(config.discount)) == (int, float)


def test_whole_numbers_are_numbers_and_none_stays_where_it_may_stand():
    assert AGENTS["iql"].Config(discount=1).discount == 1
    assert dataclasses.replace(RECIPES["wsrl"]) == RECIPES["wsrl"]
