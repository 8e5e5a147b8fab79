"""Learning methods, one module each: a config and pure functions over pytrees."""

from collections.abc import Mapping

from robo_rl.agents import (
    anchored,
    awac,
    bc,
    calql,
    cql,
    distill,
    famo2o,
    fdvl,
    flowbc,
    fql,
    hnpg,
    ifql,
    iql,
    plugins,
    ppo,
    qc,
    rebrac,
    recoil,
    residual,
    sac,
    td3bc,
    unio4,
    xql,
)
from robo_rl.learn.contract import Agent

AGENTS: Mapping[str, Agent] = {
    "anchored": anchored,
    "awac": awac,
    "bc": bc,
    "calql": calql,
    "cql": cql,
    "distill": distill,
    "famo2o": famo2o,
    "fdvl": fdvl,
    "flowbc": flowbc,
    "fql": fql,
    "hnpg": hnpg,
    "ifql": ifql,
    "iql": iql,
    "ppo": ppo,
    "qc": qc,
    "rebrac": rebrac,
    "recoil": recoil,
    "residual": residual,
    "sac": sac,
    "td3bc": td3bc,
    "unio4": unio4,
    "xql": xql,
}
_HOMES = {name: agent.__name__ for name, agent in AGENTS.items()}


def get(name: str) -> Agent:
    """An agent by its name, by that of an installed entry point, or by the path of a file.

    `name` is one of `AGENTS`, one of the entry points of the group "robo_rl.agents", `mine.py` for
    a file that is an agent, `mine.py:Name` for a class or namespace in it, or what `describe` gave.
    An unknown name lists the known ones.
    """
    return plugins.get(name, _HOMES)


def describe(name: str) -> str:
    """What a run records of the agent that `get(name)` gives, for `get` to find the same one again.

    The name itself; of a file its absolute path and the SHA-256 of its content, so that `get`
    refuses a file that has changed since.
    """
    return plugins.describe(name, _HOMES)
