"""Whether an agent can learn from what it is given, before anything begins."""

import sys
from collections.abc import Mapping
from typing import Any

from robo_rl.learn.batches import ROLLOUT_KEYS
from robo_rl.learn.contract import Agent, name_of, needs
from robo_rl.nn.observations import is_image, named, structured


def check_observations(agent: Agent, observations: Any) -> None:
    """ValueError where an agent that reads vectors only is given `readable` images or a dict."""
    if agent.CAPABILITIES.images or not structured(observations):
        return
    parts = ", ".join(
        f"{name} {'(an image)' if is_image(part) else '(a vector)'}"
        for name, part in named(observations).items()
    )
    able = sorted(name for name, other in _siblings(agent).items() if other.CAPABILITIES.images)
    raise ValueError(
        f"{name_of(agent)} reads one vector (O,), the observations are {parts}; "
        f"give it a vector, or use an agent that reads images: {', '.join(able) or 'none here'}"
    )


def _siblings(agent: Agent) -> Mapping[str, Agent]:
    """The agents of the package that this one is in; this room imports none of them."""
    package = sys.modules.get(agent.__name__.rpartition(".")[0])
    found: Mapping[str, Agent] = vars(package).get("AGENTS", {}) if package else {}
    return found


def check_offline(agent: Agent) -> None:
    """Raise ValueError for an agent that cannot learn without the online loop."""
    rollout = [key for key in needs(agent) if key in ROLLOUT_KEYS]
    if rollout:
        raise ValueError(
            f"{name_of(agent)} learns from rollouts of its own policy, and a "
            f"dataset has no {', '.join(rollout)}; train another agent on it and finetune that "
            "with a recipe that has a rollout"
        )
