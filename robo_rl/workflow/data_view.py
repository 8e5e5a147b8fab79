"""Which part of a dataset a method learns from, and on which scales."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rl.data.episodes import Arrays
from robo_rl.data.errors import DatasetError
from robo_rl.data.identity import Identity, identify, reopen
from robo_rl.data.locate import locate_dataset
from robo_rl.data.minari_io import Dataset, open_dataset
from robo_rl.data.spaces import Spaces, vectors
from robo_rl.data.transitions import take
from robo_rl.learn.batches import Transitions


@dataclasses.dataclass(frozen=True)
class DataView:
    """A dataset as a method sees it. Rewards are `reward_scale * (r + reward_offset) + shift`."""

    dataset: str
    successful_only: bool = False
    """Keep the episodes in which the goal was reached."""
    reward_offset: float = 0.0
    """Added to the data's rewards, they are those of the environment."""
    reward_scale: float = 1.0
    """Of the method; rewards of the environment get it too, as they do the shift."""
    reward_shift: float = 0.0
    expert: str = ""
    """Another dataset, whose episodes come on top and are marked as an expert's."""

    def identities(self) -> dict[str, Any]:
        """The identity of each dataset by its name, as JSON."""
        names = [self.dataset, *([self.expert] if self.expert else [])]
        return {name: identify(open_dataset(name, download=True)).to_json() for name in names}

    def load(
        self, spaces: Spaces | None = None, identities: Mapping[str, Any] | None = None
    ) -> Transitions:
        """The transitions with `episode_id`, as a learner reads them.

        Args:
            spaces: of the run; None reads those of the dataset.
            identities: of the datasets when the run began; None takes them as they are. Raises
                DatasetChangedError where other data have their place.
        """
        opened = _opened(self.dataset, identities)
        if spaces is None:
            spaces = spaces_of(opened)
        infos = ("success",) if self.successful_only else ()
        rows: dict[str, Any] = dict(opened.transitions(infos=infos))
        if self.successful_only:
            rows = _successful(rows, self.dataset)
        rows = vectors(rows, spaces, f"dataset {self.dataset}")
        if self.expert:
            expert = _opened(self.expert, identities).transitions()
            rows = _with_expert(rows, vectors(expert, spaces, f"dataset {self.expert}"))
        rows["rewards"] = self.rewards(rows["rewards"])
        return rows

    def rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards (N,) on the method's scale."""
        moved = rewards + self.reward_offset
        if (self.reward_scale, self.reward_shift) == (1.0, 0.0):
            return np.asarray(moved)
        return np.asarray(self.reward_scale * moved + self.reward_shift, np.float32)


def name_of(dataset: Dataset) -> str:
    """The name by which `open_dataset` finds this very dataset again: its id, or its folder."""
    try:
        if locate_dataset(dataset.id) == dataset.folder:
            return dataset.id
    except DatasetError:
        pass
    return str(dataset.folder)


def _opened(name: str, identities: Mapping[str, Any] | None) -> Dataset:
    if identities is None or name not in identities:
        return open_dataset(name, download=True)
    return reopen(Identity.from_json(identities[name]))


def spaces_of(dataset: Dataset) -> Spaces:
    """The spaces of a dataset. Raises SpaceError."""
    return Spaces.of(dataset.observation_space, dataset.action_space, f"dataset {dataset.id}")


def return_range(dataset: Dataset) -> float:
    """Largest less smallest return of its episodes. Raises ValueError where all are alike."""
    rows = dataset.transitions()
    ids = np.asarray(rows["episode_id"])
    returns = np.bincount(ids, weights=np.asarray(rows["rewards"], np.float64))
    spread = float(np.ptp(returns))
    if not spread > 0.0:
        raise ValueError(
            f"dataset {dataset.id}: all episodes have the same return; rewards cannot be scaled by "
            "the range of returns (give a number as reward_scale, --reward-scale)"
        )
    return spread


def _successful(rows: Mapping[str, Any], name: str) -> dict[str, Any]:
    reached, episode = rows["next_success"].astype(bool), rows["episode_id"]
    keep = np.flatnonzero(np.isin(episode, np.unique(episode[reached])))
    if not len(keep):
        raise ValueError(f"dataset {name!r} has no successful episode")
    return {key: take(value, keep) for key, value in rows.items()}


def _with_expert(rows: Transitions, expert: Transitions) -> dict[str, np.ndarray]:
    """Both, with `expert` (N,) 0 and 1; episodes keep ids of their own."""
    if isinstance(rows["observations"], Mapping) or isinstance(expert["observations"], Mapping):
        raise ValueError(
            "expert (--expert): both datasets must have flat observations, these are dicts"
        )
    offset = np.max(rows["episode_id"]) + 1
    parts = (
        {**rows, "expert": np.zeros(len(rows["rewards"]), np.float32)},
        {
            **expert,
            "episode_id": expert["episode_id"] + offset,
            "expert": np.ones(len(expert["rewards"]), np.float32),
        },
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def example_rows(spaces: Spaces, length: int, expert: bool = False) -> dict[str, Arrays]:
    """One episode of `length` rows of zeros, cut by time: of it only shapes and types are read."""
    flags = np.zeros(length, bool)
    rows: dict[str, Any] = {
        "observations": spaces.examples(length),
        "actions": np.zeros((length, spaces.action_size), np.float32),
        "rewards": np.zeros(length, np.float32),
        "next_observations": spaces.examples(length),
        "terminated": flags,
        "truncated": np.arange(length) == length - 1,
        "masks": np.ones(length, np.float32),
        "episode_id": np.zeros(length, np.int32),
    }
    if expert:
        rows["expert"] = np.zeros(length, np.float32)
    return rows
