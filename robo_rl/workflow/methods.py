"""What there is to train with, and every setting of it."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from robo_rl import agents
from robo_rl.learn import recipes
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.networks import NetConfig
from robo_rl.plugins import PluginError
from robo_rl.workflow import settings

_FIXED = ("about", "agent", "start")
"""What makes a recipe what it is: no option changes that."""
_OF_IMAGES = re.compile(r"^shift\.|\bencoder\.")


def report(name: str = "") -> str:
    """All methods, a line each, or one agent or recipe with its settings."""
    if not name:
        return "\n".join(_overview())
    found: list[str] = []
    if name in recipes.RECIPES and name not in agents.AGENTS:
        return "\n".join(_recipe(name))
    try:
        found += _agent(name)
    except PluginError as error:
        raise ValueError(f"{error}. Recipes: {', '.join(sorted(recipes.RECIPES))}") from error
    if name in recipes.RECIPES:
        found += ["", *_recipe(name)]
    return "\n".join(found)


def tuned(recipe: Recipe, config: Any, options: tuple[str, ...]) -> tuple[Recipe, Any]:
    """The recipe, and the agent's config, with NAME=VALUE settings of either.

    Args:
        recipe: what fixes some settings itself; an option goes before that.
        config: the agent's, before `recipe.configure`.
        options: of the recipe or of the agent.
    """
    own = [setting.name for setting in of_recipe(recipe)]
    mine = [option for option in options if option.partition("=")[0] in own]
    recipe = settings.with_options(recipe, mine)
    values = settings.parsed(config, [option for option in options if option not in mine], own)
    inner = {name: value for name, value in values.items() if "." in name}
    for name in inner:
        if recipe.start != "fresh" and isinstance(getattr(config, name.split(".")[0]), NetConfig):
            raise ValueError(
                f"option (--option) {name}: networks are those of the run that is finetuned"
            )
    fixed = {**dict(recipe.options), **{k: v for k, v in values.items() if k not in inner}}
    recipe = settings.with_values(recipe, {"options": tuple(fixed.items())})
    return recipe, settings.with_values(config, inner)


def of_recipe(recipe: Recipe) -> list[settings.Setting]:
    """What can be set of it."""
    return [item for item in settings.settings(recipe) if item.name not in _FIXED]


def _overview() -> Iterator[str]:
    yield "Agents, for robo-rl train DATASET --agent NAME:"
    for name in agents.names():
        yield _entry(name, _about(agents.get(name)), 19)
    yield ""
    yield "Recipes, for robo-rl finetune RUN --recipe NAME:"
    for name, recipe in sorted(recipes.RECIPES.items()):
        yield _entry(name, recipe.about, 19)
    yield ""
    yield "robo-rl methods NAME tells the settings that --option NAME=VALUE changes."


_START = {
    "fresh": "begins anew",
    "learned": "begins from what the run's agent has learned",
    "continued": "of the run goes on",
}


def _agent(name: str) -> Iterator[str]:
    yield f"agent {name}: {_about(agents.get(name))}"
    yield f"robo-rl train DATASET --agent {name} --option NAME=VALUE ..."
    images = agents.get(name).CAPABILITIES.images
    for setting in settings.settings(agents.get(name).Config()):
        if images or not _OF_IMAGES.search(setting.name):
            yield _setting(setting)
    with_it = [key for key, recipe in sorted(recipes.RECIPES.items()) if recipe.agent == name]
    if with_it:
        yield f"recipes: {', '.join(with_it)}"


def _recipe(name: str) -> Iterator[str]:
    recipe = recipes.get(name)
    yield f"recipe {name}: {recipe.about}"
    yield f"Agent {recipe.agent or 'of the run'} {_START[recipe.start]}."
    yield f"robo-rl finetune RUN --recipe {name} --option NAME=VALUE ..."
    for setting in of_recipe(recipe):
        yield _setting(setting)
    if recipe.options:
        fixed = ", ".join(f"{key}={settings.shown(value)}" for key, value in recipe.options)
        yield f"of the agent it sets {fixed}"
    yield f"and any setting of the agent, see robo-rl methods {recipe.agent or 'NAME'}"


def _about(module: Any) -> str:
    """The first paragraph of a module's docstring."""
    return " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())


def _setting(setting: settings.Setting) -> str:
    return _entry(f"{setting.name}={settings.shown(setting.default)}", setting.text, 34)


def _entry(name: str, text: str, indent: int) -> str:
    """A name, and its text in a column of its own."""
    width = max(60, min(100, shutil.get_terminal_size().columns))
    head = f"  {name} ".ljust(indent)
    if len(head) > indent:
        head += "\n" + " " * indent
    lines = textwrap.wrap(" ".join(text.split()), width - indent) or [""]
    return (head + ("\n" + " " * indent).join(lines)).rstrip()
