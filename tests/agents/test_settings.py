"""A config has only settings that act: each one, moved, changes a program or what it is fed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from robo_rl.agents import AGENTS
from robo_rl.learn.recipes import RECIPES
from robo_rl.learn.supply import supply
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.shift import Shift
from tests.agents.test_contract import CONFIGS, EYE
from tests.probe_envs import Endless, collect

WORDS = (
    *("mean", "min", "last", "all", "state", "shared", "learned", "unit", "forward", "reverse"),
    *("mse", "gaussian", "uniform", "balance", "total_variation", "chi_square"),
)
MODES = {
    "log_std_min": {"bc": {"likelihood": "gaussian"}},
    "log_std_max": {"bc": {"likelihood": "gaussian"}},
    "gap": {"cql": {"lagrange": True}, "calql": {"lagrange": True}},
    "multiplier_lr": {"cql": {"lagrange": True}, "calql": {"lagrange": True}},
    "decay_to": {"rebrac": {"decay_steps": 5}},
}
"""Settings of a mode, as their docstrings say, and by agent what puts it into that mode."""
CASES = [(name, field.name) for name in AGENTS for field in dataclasses.fields(AGENTS[name].Config)]
RECIPE_CASES = [(name, option) for name, recipe in RECIPES.items() for option, _ in recipe.options]


def _moves(value):
    """Other values that a setting may have; not all of them suit every setting."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, value + 2, value // 2]
    if isinstance(value, float):
        return [0.7 * value + 0.013, 0.5 * value, value - 0.25]
    if isinstance(value, str):
        return [word for word in WORDS if word != value]
    if value is None:
        return [0.125]
    if isinstance(value, Shift):
        return [Shift(1)]
    assert isinstance(value, NetConfig)
    return [dataclasses.replace(value, hidden=(5,))]


@functools.cache
def _batch(rows, images):
    rng = np.random.default_rng(0)
    columns = ("rewards", "returns", "masks", "expert", "ends", "offline", "succeeded")
    wide = ("actions", "next_actions", "teacher_actions", "teacher_log_std")
    batch = {name: np.ones(rows, np.float32) for name in columns}
    batch |= {name: np.zeros((rows, 2), np.float32) for name in wide}
    for name in ("observations", "next_observations"):
        batch[name] = np.zeros((rows, 3), np.float32)
        if images:
            batch[name] = rng.integers(0, 256, (rows, 6, 6, 2), np.uint8)
    return batch


@functools.cache
def _shapes(name, config, images):
    batch = _batch(2560 if name == "ppo" else 40, images)
    init = functools.partial(AGENTS[name].init, config)
    return batch, jax.eval_shape(init, jax.random.key(0), batch)


@functools.cache
def _computed(name, config, images, part):
    """One program of an agent, with its constants, or what it is fed."""
    agent, key = AGENTS[name], jax.random.key(0)
    batch, state = _shapes(name, config, images)
    if part == "food":
        return _supplied(agent, config)
    if part == "update":
        program = jax.make_jaxpr(functools.partial(agent.update, config))(state, batch)
    elif part == "init":
        program = jax.make_jaxpr(functools.partial(agent.init, config))(key, batch)
    else:
        act = functools.partial(agent.act, config, explore=part == "explore")
        program = jax.make_jaxpr(act)(state, batch["observations"], key)
    return str(program), [np.asarray(value).tobytes() for value in program.consts]


def _same(name, config, other, images):
    return all(
        _computed(name, config, images, part) == _computed(name, other, images, part)
        for part in ("update", "init", "act", "explore", "food")
    )


def _supplied(agent, config):
    rows = {**collect(Endless(), 2), "expert": np.ones(8), "teacher_actions": np.zeros((8, 1))}
    rows = supply(agent, config, rows)
    return {name: np.asarray(value).tobytes() for name, value in rows.items()}


def _assert_it_acts(name, config, field, images=False):
    """Of the values that the config takes, one at least changes what is computed."""
    refused = []
    for value in _moves(getattr(config, field)):
        try:
            same = _same(name, config, dataclasses.replace(config, **{field: value}), images)
        except ValueError as error:
            refused.append(str(error))
            continue
        assert not same, f"{name}.Config.{field} = {value} changes nothing"
        return
    pytest.fail(f"{name}.Config.{field} takes no other value: {refused}")


@pytest.mark.parametrize(("name", "field"), CASES)
def test_every_setting_of_an_agent_acts(name, field):
    config = dataclasses.replace(CONFIGS[name], **MODES.get(field, {}).get(name, {}))
    images = field == "shift"
    if images:
        nets = {
            item.name: dataclasses.replace(getattr(config, item.name), encoder=EYE)
            for item in dataclasses.fields(config)
            if isinstance(getattr(config, item.name), NetConfig)
        }
        config = dataclasses.replace(config, **nets)
    _assert_it_acts(name, config, field, images)


@pytest.mark.parametrize(("name", "option"), RECIPE_CASES)
def test_what_a_recipe_sets_of_its_agent_acts(name, option):
    recipe = RECIPES[name]
    _assert_it_acts(recipe.agent, recipe.configure(CONFIGS[recipe.agent]), option)
