"""What is used where nobody chose: it changes on purpose, with a line in CHANGELOG.md, or not.

`python -m tests.test_defaults` writes `defaults.json` anew.
"""

import dataclasses
import functools
import importlib
import json
import pathlib

import pytest

from robo_rl.agents import AGENTS
from robo_rl.learn.recipes import RECIPES
from tests.test_architecture import sources

FILE = pathlib.Path(__file__).with_name("defaults.json")
AGREED = json.loads(FILE.read_text(encoding="utf-8"))
FILLED_BY_STEPS = {
    "robo_rl.learn.online.behaviour.LiveEpisode",
    "robo_rl.workflow.quickstart_report.Results",
}
FROZEN_BY_FLAX = "robo_rl.nn."
WRITTEN_BY_DDS = "robo_rl.hardware.bridges.ros_types."


def module_of(source):
    dotted = source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return dotted if source.startswith("robo_rl/") else f"robo_rl.{dotted}"


@functools.cache
def classes():
    """Dotted name -> dataclass, of all rooms but the command line."""
    modules = sorted(module_of(source) for source, _ in sources())
    found = {}
    for name in modules:
        if not name.startswith("robo_rl.launch"):
            module = importlib.import_module(name)
            for each in vars(module).values():
                if isinstance(each, type) and dataclasses.is_dataclass(each):
                    found[f"{each.__module__}.{each.__qualname__}"] = each
    return {name: each for name, each in sorted(found.items()) if name.startswith("robo_rl.")}


def defaults(cls):
    """Field -> repr of what it is where nothing is given."""
    found = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            continue
        text = repr(value)
        if " at 0x" not in text and "function" not in text:
            found[field.name] = text
    return found


@functools.cache
def taken():
    """All that is pinned."""
    found = {name: defaults(cls) for name, cls in classes().items()}
    found |= {f"agent {name}": {"Config()": repr(AGENTS[name].Config())} for name in AGENTS}
    found |= {f"recipe {name}": {"Recipe": repr(recipe)} for name, recipe in RECIPES.items()}
    return {name: values for name, values in found.items() if values}


@pytest.mark.parametrize("name", AGREED)
def test_defaults_are_those_that_were_agreed(name):
    assert taken().get(name) == AGREED[name]


def test_all_defaults_are_agreed_on():
    missing = taken().keys() - AGREED.keys()
    assert not missing, "run python -m tests.test_defaults and look at what it changed"


def test_what_is_agreed_once_cannot_be_changed_in_place():
    loose = {
        name
        for name, cls in classes().items()
        if not cls.__dataclass_params__.frozen
        and not name.startswith((FROZEN_BY_FLAX, WRITTEN_BY_DDS))
    }
    assert loose == FILLED_BY_STEPS


# From the papers' tables and their authors' configurations.
PUBLISHED = {
    "iql": {"discount": 0.99, "polyak": 0.005, "actor_lr": 3e-4, "critic_lr": 3e-4, "critics": 2},
    "cql": {"samples": 10, "discount": 0.99, "polyak": 0.005},
    "fql": {"flow_steps": 10, "discount": 0.99, "polyak": 0.005},
    "ifql": {"samples": 32, "flow_steps": 10, "discount": 0.99, "polyak": 0.005},
    "td3bc": {"alpha": 2.5, "discount": 0.99, "polyak": 0.005},
    "xql": {"discount": 0.99},
}


@pytest.mark.parametrize("agent", PUBLISHED)
def test_an_agent_starts_from_its_papers_settings(agent):
    config = AGENTS[agent].Config()
    assert {name: getattr(config, name) for name in PUBLISHED[agent]} == PUBLISHED[agent]


if __name__ == "__main__":
    FILE.write_text(json.dumps(taken(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
