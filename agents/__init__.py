"""Learning methods, one module each: a config and pure functions over pytrees."""

from collections.abc import Mapping

from robo_rl.agents import (
    bc,
    flowbc,
    fql,
    ifql,
    iql,
    qc,
    residual,
    sac,
)
from robo_rl.learn.contract import Agent

AGENTS: Mapping[str, Agent] = {
    "bc": bc,
    "flowbc": flowbc,
    "fql": fql,
    "ifql": ifql,
    "iql": iql,
    "qc": qc,
    "residual": residual,
    "sac": sac,
}


def get(name: str) -> Agent:
    """The agent called `name`; an unknown name lists the known ones."""
    if name not in AGENTS:
        raise ValueError(f"no agent is called {name!r}; known: {', '.join(sorted(AGENTS))}")
    return AGENTS[name]
