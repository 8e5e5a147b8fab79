"""What a reader of a dataset format is, and what it finds in a file."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium
from gymnasium.envs.registration import EnvSpec

from robo_rl.data.episodes import Episode
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import Provenance


@dataclasses.dataclass(frozen=True)
class Recording:
    """Episodes and what must be known of them to write them down."""

    episodes: Iterable[Episode]
    """Read once, one at a time."""
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    provenance: Provenance
    env: str | EnvSpec | None = None
    """The environment that the episodes were recorded in, where it is known."""
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    card: Card = dataclasses.field(default_factory=Card)


@runtime_checkable
class Reader(Protocol):
    """One format. An instance or a module will do; the options of `read` are keyword arguments."""

    name: str

    def sniff(self, path: pathlib.Path) -> bool:
        """Whether a file or folder is of this format, by a quick look. Never raises."""

    def read(self, path: pathlib.Path, **options: Any) -> Recording:
        """Open it. Raises DatasetError, also later, while the episodes are read."""
