"""One episode as the checks see it: whatever fits together, whatever else does not."""

import collections
import dataclasses
import functools
from typing import Any, Protocol

import numpy as np

from robo_rl.data.episodes import Episode, named_arrays
from robo_rl.data.report import Finding

_LARGEST = float(np.finfo(np.float32).max)
BLOCK = 16_384  # rows looked at together, so that long episodes need no large temporaries


class EpisodeCheck(Protocol):
    """A check that is shown one episode after the other and keeps little of each."""

    name: str

    def see(self, view: "View") -> None:
        """Look at the next episode."""

    def findings(self) -> list[Finding]:
        """What was found in all of them."""

    def gap(self) -> "Gap | None":
        """What could not be looked at; None when all was."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """What a check did not look at, and why."""

    reason: str
    whole: bool = False
    """Nothing at all was looked at."""


@dataclasses.dataclass(frozen=True)
class View:
    """The arrays of an episode that fit its number of steps. A misfit hides one array only."""

    number: int
    episode: Episode
    steps: int
    misfits: dict[str, list[str]]
    """What is wrong, by the array's name, see `Episode.misfits`."""

    @functools.cached_property
    def observations(self) -> dict[str, np.ndarray]:
        """Arrays of T + 1 rows, by name."""
        return self._fitting(named_arrays("observations", self.episode.observations))

    @functools.cached_property
    def infos(self) -> dict[str, np.ndarray]:
        """Arrays of T + 1 rows, by their own names."""
        named = {f"infos[{name!r}]": name for name in self.episode.infos}
        return {
            own: np.asarray(self.episode.infos[own])
            for name, own in named.items()
            if name not in self.misfits
        }

    @functools.cached_property
    def actions(self) -> np.ndarray | None:
        """(T, ...)."""
        return self._fitting({"actions": np.asarray(self.episode.actions)}).get("actions")

    @functools.cached_property
    def rewards(self) -> np.ndarray | None:
        """(T,)."""
        return self._fitting({"rewards": np.asarray(self.episode.rewards)}).get("rewards")

    @functools.cached_property
    def terminations(self) -> np.ndarray | None:
        """(T,) bool, whatever the stored type."""
        return self._flags("terminations")

    @functools.cached_property
    def truncations(self) -> np.ndarray | None:
        """(T,) bool, whatever the stored type."""
        return self._flags("truncations")

    @functools.cached_property
    def vector(self) -> np.ndarray | None:
        """(T + 1, D) all observations that are vectors of reals, side by side in their order.

        None when there are none or one of them does not fit.
        """
        names = named_arrays("observations", self.episode.observations)
        if any(name not in self.observations for name in names):
            return None
        reals = [
            array.reshape(len(array), -1)
            for array in self.observations.values()
            if array.dtype.kind == "f" and array.ndim <= 2
        ]
        if not reals:
            return None
        return reals[0] if len(reals) == 1 else np.concatenate(reals, axis=1)

    @functools.cached_property
    def moves(self) -> np.ndarray | None:
        """(T, A) actions that are real vectors, else None."""
        actions = self.actions
        if actions is None or not self.steps or actions.dtype.kind != "f" or actions.ndim > 2:
            return None
        return actions.reshape(self.steps, -1)

    @functools.cached_property
    def extents(self) -> dict[str, tuple[float, float]]:
        """Least and greatest of all numbers wider than a byte, by the array's name; NaN where one
        is NaN."""
        arrays = dict(self.observations)
        arrays |= {f"infos[{name!r}]": array for name, array in self.infos.items()}
        for name, array in (("actions", self.actions), ("rewards", self.rewards)):
            if array is not None:
                arrays[name] = array
        return {
            name: (float(array.min()), float(array.max()))
            for name, array in arrays.items()
            if array.size and array.dtype.kind in "iuf" and array.dtype.itemsize > 1
        }

    def _fitting(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array for name, array in arrays.items() if name not in self.misfits}

    def _flags(self, name: str) -> np.ndarray | None:
        array = np.asarray(getattr(self.episode, name))
        if array.shape != (self.steps,) or array.dtype.kind not in "biuf":
            return None
        return array.astype(bool, copy=False)


def view_of(number: int, episode: Episode) -> View:
    """Judge how many steps the episode has by what most of its arrays say."""
    lengths = [len(np.atleast_1d(episode.rewards)), len(np.atleast_1d(episode.actions))]
    lengths += [len(np.atleast_1d(flag)) for flag in (episode.terminations, episode.truncations)]
    states = named_arrays("observations", episode.observations).values()
    lengths += [len(np.atleast_1d(array)) - 1 for array in states]
    steps = max(collections.Counter(lengths).most_common(1)[0][0], 0)
    return View(number, episode, steps, episode.misfits(steps))


def measurable(array: np.ndarray) -> bool:
    """Whether all numbers are finite and small enough to be squared."""
    if array.dtype.itemsize <= 4:
        return bool(np.isfinite(array).all())
    return bool((abs(array) <= _LARGEST).all())


def common_width(widths: Any) -> int:
    """The most frequent of some widths; 0 for none."""
    counted = collections.Counter(widths)
    return int(counted.most_common(1)[0][0]) if counted else 0
