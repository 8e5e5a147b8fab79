"""Learning methods, one module each: a config and pure functions over pytrees."""

import importlib
import os
import types
from collections.abc import Mapping

from robo_rl.agents import plugins
from robo_rl.learn.contract import Agent
from robo_rl.plugins import modules_of


def _found() -> dict[str, Agent]:
    """The modules of this folder that say what they can do; the others are shared parts."""
    modules = {name: importlib.import_module(path) for name, path in modules_of(__name__).items()}
    return {name: module for name, module in modules.items() if "CAPABILITIES" in vars(module)}


AGENTS: Mapping[str, Agent] = _found()
_HOMES = {name: agent.__name__ for name, agent in AGENTS.items()}


def get(name: str) -> Agent:
    """An agent by its name, by that of an installed entry point, or by the path of a file.

    `name` is one of `AGENTS`, one of the entry points of the group "robo_rl.agents", `mine.py` for
    a file that is an agent, `mine.py:Name` for a class or namespace in it, or what `describe` gave.
    An unknown name lists the known ones.
    """
    return plugins.get(name, _HOMES)


def names() -> tuple[str, ...]:
    """All agents that a name finds: those here, then those of installed packages."""
    return plugins.names(_HOMES)


def describe(name: str) -> str:
    """What a run records of the agent that `get(name)` gives, for `get` to find the same one again.

    The name itself; of a file its absolute path and the SHA-256 of its content, so that `get`
    refuses a file that has changed since.
    """
    return plugins.describe(name, _HOMES)


def called(agent: "str | os.PathLike[str] | Agent") -> str:
    """The name by which `get` finds an agent, of a name, a path or the agent's module itself."""
    if isinstance(agent, (str, os.PathLike)):
        return os.fspath(agent)
    module: object = agent
    if isinstance(module, types.ModuleType):
        if module.__name__ in _HOMES.values():
            return module.__name__.rpartition(".")[2]
        file = getattr(module, "__file__", None)
        if file is not None:
            return os.path.abspath(str(file))
    raise ValueError(
        "agent must be a name that `robo-rl methods` lists, the path of a file such as mine.py, or "
        f"an agent's module such as robo_rl.agents.iql, got {agent!r}"
    )
