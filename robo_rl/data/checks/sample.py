"""A sample of a dataset that fits into memory, for what must be known beforehand."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from robo_rl.data.checks.view import View, view_of
from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.minari_read import Dataset

_EPISODES = 200
_BYTES = 16 * 2**20
_READ_BYTES = 96 * 2**20  # of pictures, too
_EPISODE_BYTES = 4 * 2**20


@dataclasses.dataclass(frozen=True)
class Sample:
    """Episodes spread over the dataset, long ones by their beginning."""

    views: tuple[View, ...]
    whole: bool
    """Whether these are all episodes, whole."""
    reason: str
    """What was taken, where that is not all."""


def draw(dataset: Dataset, count: int) -> Sample:
    """Up to 200 of `count` episodes and 16 MiB, images left out."""
    numbers = np.unique(np.linspace(0, count - 1, min(count, _EPISODES)).astype(np.int64))
    # In any order, so that those read before the limit are spread over the dataset too.
    numbers = np.random.default_rng(0).permutation(numbers)
    views: list[View] = []
    steps = used = read = 0
    cut = False
    for number, episode in dataset.numbered_episodes(numbers.tolist(), lambda *_: None):
        bare = _without_images(episode)
        if not len(bare):
            continue
        size = _bytes(bare)
        if size > _EPISODE_BYTES:
            cut, keep = True, max(1, int(len(bare) * _EPISODE_BYTES / size))
            bare, size = _copied(bare.span(0, keep)), _EPISODE_BYTES
        views.append(view_of(number, bare))
        steps += len(bare)
        used, read = used + size, read + _bytes(episode)
        if used > _BYTES or read > _READ_BYTES:
            break
    views.sort(key=lambda view: view.number)
    whole = len(views) == count and not cut
    shown = f"{len(views)} of {count} episodes, {steps} steps"
    return Sample(tuple(views), whole, shown + (", long ones by their beginning" if cut else ""))


def _without_images(episode: Episode) -> Episode:
    """Bytes of pictures are replaced by nothing; all else stays."""
    observations = episode.observations
    if isinstance(observations, np.ndarray):
        small: Arrays = observations if observations.ndim <= 2 else observations[:, :0, :0].copy()
        return dataclasses.replace(episode, observations=small, infos=_small(episode.infos))
    small = {k: v if v.ndim <= 2 else v[:, :0, :0].copy() for k, v in observations.items()}
    return dataclasses.replace(episode, observations=small, infos=_small(episode.infos))


def _small(infos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in infos.items() if array.ndim <= 2}


def _copied(episode: Episode) -> Episode:
    """Its own arrays, so that the long ones can be let go."""
    observations = episode.observations
    return dataclasses.replace(
        episode,
        observations=observations.copy()
        if isinstance(observations, np.ndarray)
        else {k: v.copy() for k, v in observations.items()},
        actions=episode.actions.copy(),
        rewards=episode.rewards.copy(),
        terminations=episode.terminations.copy(),
        truncations=episode.truncations.copy(),
        infos={k: v.copy() for k, v in episode.infos.items()},
    )


def _bytes(episode: Episode) -> int:
    observations = episode.observations
    states = [observations] if isinstance(observations, np.ndarray) else list(observations.values())
    arrays = [*states, episode.actions, episode.rewards, *episode.infos.values()]
    return sum(array.nbytes for array in arrays)
