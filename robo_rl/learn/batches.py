"""What agents learn from: the keys of a batch, and arrays as agents read them.

A batch is a mapping of arrays that share a leading batch axis B:

- `observations`, `next_observations` (B, O); `actions` (B, A) in [-1, 1]; `rewards` (B,)
- For agents whose capabilities say `images`, observations may also be an image (B, H, W, C) of
  bytes, or a flat dict of named vectors and images.
- `masks` (B,): 1 - terminated. A time limit keeps its bootstrap.
- `discounts` (B,), optional: the factor on the bootstrap of n-step rows, in place of
  `config.discount`. With n-step rows, `next_observations` and `masks` are those n steps on.
- `succeeded` (B,), from the online loop: 1 where the row's episode is over and reached its goal.

Rows of chunked data are n-step rows whose `actions` (B, H * A) hold the H actions of the window one
after the other. To an agent they are one action in a larger box.

- `valid` (B, H), to agents whose capabilities say `short_chunks`: 1 at the steps of a chunk that
  are within its episode. Where one is 0 the action is no datum, nor is the row a transition.

An agent that cannot do without one of these names it in `Capabilities.needs`:

- `next_actions` (B, A): what was done at `next_observations`; `robo_rl.learn.supply` adds it
- `returns` (B,): discounted sum of the rewards from this step to the end of its episode; likewise
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
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rl.data.frames import FrameStack
from robo_rl.learn.controllers import LABELS

Transitions = Mapping[str, Any]
"""Arrays, or for observations dicts of arrays; see `robo_rl.data.transitions`."""

BATCH_KEYS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "masks",
    "discounts",
    "valid",
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
"""Of those, what `robo_rl.learn.supply` can take from whole episodes."""


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
