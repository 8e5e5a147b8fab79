"""Episodes that are there twice: exactly, nearly, or the beginning of another."""

import hashlib
from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.view import Gap, View, measurable, view_of
from robo_rl.data.episodes import Episode, named_arrays
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import SHOWN, Confidence, Finding, Place, Severity, finding

_ROWS = 16  # of an episode, in its fingerprint
_REMEMBERED = 200_000  # episodes
_START_STEPS = 3
_COMPARED = 8  # neighbours in the order of a random direction
_NEAR = 1e-3  # of a column's spread


class CopiesCheck:
    """Remembers a fingerprint of each episode; what collides is read again and compared."""

    name = "duplicates"

    def __init__(self, dataset: Dataset, sample: Sequence[View]) -> None:
        self._dataset = dataset
        self._spread = _start_spread(sample)
        self._seen = self._left_out = 0
        self._first: dict[bytes, int] = {}
        self._suspects: list[tuple[int, int]] = []
        self._starts: list[tuple[int, np.ndarray]] = []
        self._digest = hashlib.blake2b(digest_size=16)

    def see(self, view: View) -> None:
        """Remember one episode."""
        key = _fingerprint(view)
        self._digest.update(key)
        self._digest.update(b"" if view.rewards is None else _few_rows(view.rewards))
        if view.actions is None or not view.observations or self._seen >= _REMEMBERED:
            self._left_out += 1
            return
        self._seen += 1
        if key in self._first:
            self._suspects.append((view.number, self._first[key]))
        else:
            self._first[key] = view.number
            start = _start(view)
            if start is not None:
                self._starts.append((view.number, start))

    def findings(self) -> list[Finding]:
        """`duplicate`, and `near_copy` for the rest."""
        places: list[Place] = []
        copies: list[str] = []
        for number, first in self._suspects:
            if _equal(self._read(number), self._read(first)):
                places.append((number, None))
                copies.append(f"{number} equals {first}")
        exact = f"episodes with the observations and actions of another: {_some(copies)}"
        near, said = self._near()
        return [
            *finding(
                Severity.ERROR,
                "duplicate",
                exact,
                places,
                self._seen,
                "drop the copies; they weigh double and leak between training and validation",
            ),
            *finding(
                Severity.WARNING,
                "near_copy",
                f"episodes that go as another does: {_some(said)}",
                near,
                self._seen,
                "drop them, unless a simulator was meant to replay the same actions; they weigh "
                "double and leak between training and validation",
                Confidence.HIGH,
                f"read again: states and actions agree within {_NEAR:g} of their spread",
            ),
        ]

    def _near(self) -> tuple[list[Place], list[str]]:
        if not self._near_known():
            return [], []
        numbers = np.array([number for number, _ in self._starts])
        rows = np.stack([start for _, start in self._starts])
        assert self._spread is not None
        # Where all begin alike, what moves later on says what is near.
        rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 0.1 * self._spread)
        along = rows @ np.random.default_rng(0).normal(size=rows.shape[1])
        order = np.argsort(along, kind="stable")
        pairs: set[tuple[int, int]] = set()
        for step in range(1, min(_COMPARED, len(order) - 1) + 1):
            here, there = order[:-step], order[step:]
            close = np.flatnonzero(abs(along[here] - along[there]) < 1.0)
            for one in close.tolist():
                a, b = here[one], there[one]
                if abs(rows[a] - rows[b]).max() < _NEAR:
                    pairs.add((int(max(numbers[a], numbers[b])), int(min(numbers[a], numbers[b]))))
        places: dict[int, str] = {}
        for late, early in sorted(pairs):
            if late not in places:
                kind = _kinship(self._read(late), self._read(early))
                if kind:
                    places[late] = f"{late} is {kind} {early}"
        return [(number, None) for number in sorted(places)], [places[n] for n in sorted(places)]

    def _near_known(self) -> bool:
        """Whether the starts of episodes can be compared."""
        sizes = {len(start) for _, start in self._starts}
        return self._spread is not None and sizes == {len(self._spread)}

    def _read(self, number: int) -> Episode:
        ((_, episode),) = self._dataset.numbered_episodes([number])
        return episode

    def digest(self) -> str:
        """Of a few rows of every episode that was shown, in order."""
        return self._digest.hexdigest()

    def gap(self) -> Gap | None:
        """Episodes that are not whole, too many to remember, or too short to be nearly alike."""
        if self._seen + self._left_out == 1:
            return Gap("there is one episode, and none to compare it with", whole=True)
        reasons = []
        if self._left_out:
            said = f"{self._left_out} episodes were not compared (misfits, or past {_REMEMBERED})"
            reasons.append(said)
        exact = len(self._first) - (len(self._starts) if self._near_known() else 0)
        if exact:
            reasons.append(
                f"near copies were not looked for in {exact} episodes of under {2 * _START_STEPS} "
                "steps or without a vector of reals and actions"
            )
        return Gap("; ".join(reasons), not self._seen) if reasons else None


def _fingerprint(view: View) -> bytes:
    digest = hashlib.blake2b(str(view.steps).encode(), digest_size=16)
    for array in (*view.observations.values(), view.actions):
        if array is not None:
            digest.update(_few_rows(array))
    return digest.digest()


def _few_rows(array: np.ndarray) -> bytes:
    rows = np.arange(_ROWS) * (len(array) - 1) // (_ROWS - 1)
    return np.ascontiguousarray(array[rows]).tobytes()


def _start(view: View) -> np.ndarray | None:
    """The first few states and actions in one row; None where that is too little to tell."""
    if view.vector is None or view.moves is None or view.steps < 2 * _START_STEPS:
        return None
    parts = (view.vector[: _START_STEPS + 1], view.moves[:_START_STEPS])
    row = np.concatenate([part.astype(np.float64).reshape(-1) for part in parts])
    return row if measurable(row) else None


def _start_spread(sample: Sequence[View]) -> np.ndarray | None:
    """Of each number of `_start`, over the whole of the sampled episodes."""
    known = [view for view in sample if _start(view) is not None]
    spreads = []
    for name, times in (("vector", _START_STEPS + 1), ("moves", _START_STEPS)):
        rows = [np.asarray(getattr(view, name), np.float64) for view in known]
        rows = [row for row in rows if measurable(row)]
        if not rows or len({row.shape[1] for row in rows}) != 1:
            return None
        spread = np.concatenate(rows).std(axis=0)
        # What hardly varies at all, such as the last digit of a unit quaternion, tells nothing.
        least = 0.3 * (float(np.median(spread[spread > 0.0])) if spread.any() else 1.0)
        spreads.append(np.tile(np.maximum(spread, least), times))
    return np.concatenate(spreads)


def _equal(one: Episode, other: Episode) -> bool:
    here, there = (named_arrays("observations", e.observations) for e in (one, other))
    return (
        here.keys() == there.keys()
        and np.array_equal(one.actions, other.actions, equal_nan=one.actions.dtype.kind == "f")
        and all(
            np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f")
            for name in here
        )
    )


def _kinship(late: Episode, early: Episode) -> str:
    """ "nearly", "the beginning of" or the like; empty where the episodes part later on."""
    views = [view_of(0, late), view_of(0, early)]
    steps = min(view.steps for view in views)
    for name in ("vector", "moves"):
        one, other = (getattr(view, name) for view in views)
        if one is None or other is None or one.shape[1] != other.shape[1]:
            return ""
        one, other = one[:steps].astype(np.float64), other[:steps].astype(np.float64)
        spread = np.maximum(one.std(axis=0), 1e-3 * (1.0 + abs(one).max(axis=0)))
        if abs((one - other) / spread).max() > 10 * _NEAR:
            return ""
    if views[0].steps == views[1].steps:
        return "nearly"
    return "the beginning of" if views[0].steps < views[1].steps else "begun by"


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:SHOWN])
