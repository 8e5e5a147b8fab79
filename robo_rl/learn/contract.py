"""What an agent is to the loops: a config class and pure functions in a module.

A batch is a mapping of arrays that share a leading batch axis B:

- `observations`, `next_observations` (B, O); `actions` (B, A) in [-1, 1]; `rewards` (B,)
- For agents that say `IMAGES = True`, observations may also be an image (B, H, W, C) of bytes, or
  a flat dict of named vectors and images.
- `masks` (B,): 1 - terminated. A time limit keeps its bootstrap.
- `discounts` (B,), optional: the factor on the bootstrap of n-step rows, in place of
  `config.discount`. With n-step rows, `next_observations` and `masks` are those n steps on.
- `succeeded` (B,), from the online loop: 1 where the row's episode is over and reached its goal.

Rows of chunked data are n-step rows whose `actions` (B, H * A) hold the H actions of the window one
after the other. To an agent they are one action in a larger box.

An agent that cannot do without one of these names it in `NEEDS`. The loops `supply` the first two:

- `next_actions` (B, A): what was done at `next_observations`
- `returns` (B,): discounted sum of the rewards from this step to the end of its episode
- `expert` (B,): 1 in the rows of an expert whom the method imitates, else 0
- `teacher_actions` (B, A): what the teacher that the loop was given would do at `observations`
- `teacher_log_std` (B, A): log spread of a Gaussian teacher around them; of one that is
  deterministic, that of `config.teacher_std`

Two come from the online loop only, with a recipe that has a `rollout`. The batch is then the newest
experience of the agent's own policy, in the order of time, each row in one update and never again;
behind it stand the offline rows that the recipe asks for.

- `ends` (B,): 1 where the next row does not follow this one: at the end of an episode, whether
  terminated (mask 0) or cut by time (mask 1), at the last row of the rollout, at offline rows
- `offline` (B,): 1 where the row is of the offline data, and so of another policy

An agent with critics lets the offline loop watch them (`robo_rl.learn.probe`) by declaring

- `q_values(config, state, observations, actions)` (B,): mean over its critics
- `state_values(config, state, observations)` (B,), only if its targets bootstrap from a V

Agents never see files, environments, robots, loggers or clocks. The caller jits, scans and vmaps.
"""

import sys
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from robo_rl.data.frames import FrameStack
from robo_rl.data.returns import monte_carlo_returns
from robo_rl.data.transitions import following_actions
from robo_rl.learn.controllers import LABELS, Controller, labels
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.observations import is_image, named, structured
from robo_rl.nn.policies import Policy

State = Any
"""A pytree with everything that `update` changes and `act` needs."""
Transitions = Mapping[str, Any]
"""Arrays, or for observations dicts of arrays; see `robo_rl.data.transitions`."""

BATCH_KEYS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "masks",
    "discounts",
    "next_actions",
    "returns",
    "expert",
    "succeeded",
    "ends",
    "offline",
    *LABELS,
)
ROLLOUT_KEYS = ("ends", "offline")
"""What only a rollout has."""

SUPPLIED = ("next_actions", "returns")
"""Of those, what `supply` can take from whole episodes."""


class Agent(Protocol):
    """A module of `robo_rl.agents`."""

    __name__: str

    Config: Any
    """Frozen, hashable dataclass, validated when it is made."""

    def init(
        self,
        config: Any,
        key: jax.Array,
        example_batch: Batch,
        normaliser: Normaliser | None = None,
    ) -> State:
        """Fresh state. Only shapes are read from the example; without normaliser: identity."""

    def update(self, config: Any, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One update. Metrics are flat scalars."""

    def act(
        self,
        config: Any,
        state: State,
        observations: jax.Array,
        key: jax.Array,
        explore: bool = False,
    ) -> jax.Array:
        """Actions (..., A) in [-1, 1] for observations (..., O)."""

    def policy(self, config: Any, state: State) -> Policy:
        """`act` without exploration as data for export; a stochastic one draws `policies.noise`."""


def batch_of(transitions: Transitions) -> dict[str, Any]:
    """The keys that agents read. `terminated` and `truncated` have become `masks` by now."""
    return {key: transitions[key] for key in BATCH_KEYS if key in transitions}


def readable(value: Any, lead: int = 1) -> Any:
    """Arrays as agents read them: float32, but for images of bytes (H, W, C) behind `lead` axes.

    A dict stays one, and a `FrameStack` goes on waiting for the rows that are drawn.
    """
    if isinstance(value, Mapping):
        return {name: readable(part, lead) for name, part in value.items()}
    if isinstance(value, FrameStack):
        return value
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == lead + 3:
        return array
    return np.asarray(array, np.float32)


def check_observations(agent: Agent, observations: Any) -> None:
    """ValueError where an agent that reads vectors only is given `readable` images or a dict."""
    if getattr(agent, "IMAGES", False) or not structured(observations):
        return
    parts = ", ".join(
        f"{name} {'(an image)' if is_image(part) else '(a vector)'}"
        for name, part in named(observations).items()
    )
    siblings = getattr(sys.modules.get(agent.__name__.rpartition(".")[0]), "AGENTS", {})
    able = sorted(name for name, other in siblings.items() if getattr(other, "IMAGES", False))
    raise ValueError(
        f"{agent.__name__.rpartition('.')[2]} reads one vector (O,), the observations are {parts}; "
        f"give it a vector, or use an agent that reads images: {', '.join(able) or 'none here'}"
    )


def needs(agent: Agent) -> tuple[str, ...]:
    """Optional batch keys that the agent cannot do without: its `NEEDS`, none by default."""
    return tuple(getattr(agent, "NEEDS", ()))


def check_offline(agent: Agent) -> None:
    """Raise ValueError for an agent that cannot learn without the online loop."""
    rollout = [key for key in needs(agent) if key in ROLLOUT_KEYS]
    if rollout:
        raise ValueError(
            f"{agent.__name__.rpartition('.')[2]} learns from rollouts of its own policy, and a "
            f"dataset has no {', '.join(rollout)}; train another agent on it and finetune that "
            "with a recipe that has a rollout"
        )


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
            f"{agent.__name__.rpartition('.')[2]} needs {', '.join(lacking)} of whole episodes; "
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
            endless=getattr(config, "endless_returns", False),
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
            f"{agent.__name__.rpartition('.')[2]} learns from a teacher, and none was given; nor "
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
