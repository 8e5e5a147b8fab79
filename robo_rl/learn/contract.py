"""What an agent is to the loops: a config class and pure functions in a module, and what it can do.

`init`, `update`, `act` and `policy` are in every agent. The rest of what loops and commands may ask
of one stands in its `CAPABILITIES`: nothing is found out by looking whether a name is there. What
batches hold is in `robo_rl.learn.batches`.

Agents never see files, environments, robots, loggers or clocks. The caller jits, scans and vmaps.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import jax

from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.policies import Learned, Policy

State = Any
"""A pytree with everything that `update` changes and `act` needs."""

Setting: TypeAlias = Literal[
    "discount", "endless_returns", "minibatch", "teacher_std", "train_actor", "utd"
]
"""Fields of a config that the loops read or set, where it has them:

- `discount`: of n-step rows, chunks and returns
- `endless_returns`: whether an episode that time cut is taken to go on for ever
- `minibatch`: a rollout is a multiple of it
- `teacher_std`: spread of a deterministic teacher
- `train_actor`: False holds the actor still while critics learn
- `utd`: critic steps an update, on as many slices of its batch
"""


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What an agent needs, and what it can do beyond the functions that all have."""

    needs: tuple[str, ...] = ()
    """Optional batch keys that it cannot do without, see `robo_rl.learn.batches`."""
    images: bool = False
    """Whether observations may be images, or a dict of images and vectors."""
    short_chunks: bool = False
    """Whether chunks may run past the end of an episode: it leaves out what `valid` says."""
    q_values: Callable[[Any, State, Any, jax.Array], jax.Array] | None = None
    """(config, state, observations, actions) -> mean over its critics (B,). An agent that has it
    is watched by the offline loop (`robo_rl.learn.probe`)."""
    state_values: Callable[[Any, State, Any], jax.Array] | None = None
    """(config, state, observations) -> V (B,), only if its targets bootstrap from a V."""
    learned: Callable[[Any, State], Learned] | None = None
    """(config, state) -> what can start another agent."""
    adopt: Callable[[Any, Learned], Any] | None = None
    """(config, learned) -> the config with the network shapes of what another agent learned."""
    warm_start: Callable[..., State] | None = None
    """(config, key, learned, example_batch, reset=...) -> a state that starts from that."""

    def __post_init__(self) -> None:
        if (self.adopt is None) != (self.warm_start is None):
            raise ValueError("Capabilities: adopt and warm_start go together")
        if self.state_values is not None and self.q_values is None:
            raise ValueError("Capabilities: state_values needs q_values")


class Agent(Protocol):
    """A module of `robo_rl.agents`, or one like it."""

    __name__: str

    Config: Any
    """Frozen, hashable dataclass, validated when it is made."""

    CAPABILITIES: Capabilities

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


def name_of(agent: Agent) -> str:
    """The last part of the module's name: what messages call the agent."""
    return agent.__name__.rpartition(".")[2]


def needs(agent: Agent) -> tuple[str, ...]:
    """Optional batch keys that the agent cannot do without. Raises ValueError for a name."""
    if isinstance(agent, str):
        raise ValueError(
            "the agent must be given itself, such as robo_rl.agents.iql or "
            f"robo_rl.agents.get('iql'), got {agent!r}"
        )
    return agent.CAPABILITIES.needs


def has_setting(config: Any, name: Setting) -> bool:
    """Whether a config declares a setting that the loops know."""
    if not dataclasses.is_dataclass(config):
        return False
    return name in {field.name for field in dataclasses.fields(config)}


def setting(config: Any, name: Setting, default: Any) -> Any:
    """The value of a setting that the loops know; `default` where a config does not declare it."""
    return getattr(config, name) if has_setting(config, name) else default
