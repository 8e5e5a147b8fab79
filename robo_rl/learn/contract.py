"""What an agent is to the loops: a config class and pure functions in a module.

A batch is a mapping of arrays that share a leading batch axis B:

- `observations`, `next_observations` (B, O); `actions` (B, A) in [-1, 1]; `rewards` (B,)
- `masks` (B,): 1 - terminated. A time limit keeps its bootstrap.
- `discounts` (B,), optional: the factor on the bootstrap of n-step rows, in place of
  `config.discount`. With n-step rows, `next_observations` and `masks` are those n steps on.
- `succeeded` (B,), from the online loop: 1 where the row's episode is over and reached its goal.

Rows of chunked data are n-step rows whose `actions` (B, H * A) hold the H actions of the window one
after the other. To an agent they are one action in a larger box.

Agents never see files, environments, robots, loggers or clocks. The caller jits, scans and vmaps.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.policies import Policy

State = Any
"""A pytree with everything that `update` changes and `act` needs."""
Transitions = Mapping[str, np.ndarray]

BATCH_KEYS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "masks",
    "discounts",
    "succeeded",
)


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


def batch_of(transitions: Transitions) -> dict[str, np.ndarray]:
    """The keys that agents read. `terminated` and `truncated` have become `masks` by now."""
    return {key: transitions[key] for key in BATCH_KEYS if key in transitions}
