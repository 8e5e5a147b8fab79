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


def get(name: str) -> Agent:
    """The agent called `name`; an unknown name lists the known ones."""
    if name not in AGENTS:
        raise ValueError(f"no agent is called {name!r}; known: {', '.join(sorted(AGENTS))}")
    return AGENTS[name]
