"""Learning methods, one module each: a config and pure functions over pytrees."""

from collections.abc import Mapping

from robo_rl.agents import (
    awac,
    bc,
    calql,
    cql,
    distill,
    flowbc,
    fql,
    ifql,
    iql,
    qc,
    rebrac,
    residual,
    sac,
    td3bc,
)
from robo_rl.learn.contract import Agent

AGENTS: Mapping[str, Agent] = {
    "awac": awac,
    "bc": bc,
    "calql": calql,
    "cql": cql,
    "distill": distill,
    "flowbc": flowbc,
    "fql": fql,
    "ifql": ifql,
    "iql": iql,
    "qc": qc,
    "rebrac": rebrac,
    "residual": residual,
    "sac": sac,
    "td3bc": td3bc,
}


def get(name: str) -> Agent:
    """The agent called `name`; an unknown name lists the known ones."""
    if name not in AGENTS:
        raise ValueError(f"no agent is called {name!r}; known: {', '.join(sorted(AGENTS))}")
    return AGENTS[name]
