"""What agents need and transitions lack, taken from their episodes or asked of a teacher."""

from typing import Any

import numpy as np

from robo_rl.data.returns import monte_carlo_returns
from robo_rl.data.transitions import following_actions
from robo_rl.learn.batches import SUPPLIED, Transitions
from robo_rl.learn.contract import Agent, name_of, needs, setting
from robo_rl.learn.controllers import LABELS, Controller, labels


def supply(
    agent: Agent, config: Any, transitions: Transitions, teacher: Controller | None = None
) -> Transitions:
    """Transitions with what the agent needs, taken from their episodes where it is not there.

    What a teacher would do is asked of `teacher`; `ROLLOUT_KEYS` are left to the online loop.

    Returns are discounted by `config.discount`; with `config.endless_returns`, an episode that was
    cut by time and paid the same at every step is taken to go on for ever. Raises ValueError where
    the transitions do not say which rows are an episode, or where returns lack an episode's end.
    """
    transitions = _taught(agent, config, transitions, teacher)
    lacking = [key for key in SUPPLIED if key in needs(agent) and key not in transitions]
    if not lacking:
        return transitions
    unknown = {"episode_id", "terminated", "truncated"} - transitions.keys()
    if unknown:
        raise ValueError(
            f"{name_of(agent)} needs {', '.join(lacking)} of whole episodes; "
            f"the transitions lack {', '.join(sorted(unknown))}"
        )
    out = dict(transitions)
    if "next_actions" in lacking:
        out["next_actions"] = following_actions(out)
    if "returns" in lacking:
        _check_whole(out)
        out["returns"] = monte_carlo_returns(
            out["rewards"],
            out["terminated"],
            out["truncated"],
            config.discount,
            endless=setting(config, "endless_returns", False),
        )
    return out


def _taught(
    agent: Agent, config: Any, transitions: Transitions, teacher: Controller | None
) -> Transitions:
    lacking = [key for key in needs(agent) if key in LABELS and key not in transitions]
    if not lacking:
        return transitions
    if "teacher_actions" in transitions:  # labelled already, by a deterministic teacher
        spread = np.full_like(transitions["teacher_actions"], np.log(config.teacher_std))
        return {**transitions, "teacher_log_std": spread}
    if teacher is None:
        raise ValueError(
            f"{name_of(agent)} learns from a teacher, and none was given; nor "
            "do the transitions have teacher_actions"
        )
    size = np.asarray(transitions["actions"]).shape[-1]
    found = labels(teacher, transitions["observations"], size, config.teacher_std)
    return {**transitions, **found}


def _check_whole(transitions: Transitions) -> None:
    episode = np.asarray(transitions["episode_id"])
    last = np.append(episode[1:] != episode[:-1], True)
    ended = np.asarray(transitions["terminated"], bool) | np.asarray(transitions["truncated"], bool)
    open_ended = episode[last & ~ended]
    if len(open_ended):
        raise ValueError(
            f"returns need whole episodes: {len(open_ended)} of {int(last.sum())}, the first of "
            f"them episode {open_ended[0]}, end neither terminated nor truncated; leave them out"
        )
