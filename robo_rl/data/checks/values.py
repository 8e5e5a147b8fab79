"""Values that no sensor shows: marks for what is missing, rows of nothing, stuck numbers."""

from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.motion import Motion
from robo_rl.data.checks.view import View
from robo_rl.data.report import SHOWN, Confidence, Finding, Place, Severity, finding

_MARKS = 5  # rows with it
_MOST_MARKED = 0.5
_FAR = 10.0  # times the range of nine tenths of all others
_STUCK_STEPS, _STUCK_SHARE = 10, 0.2
_REPEATS = 0.02  # of the rows at one value
_SPIKE = 100.0  # times the range of nearly all rewards
_FEW = 0.01
_LARGEST = float(np.finfo(np.float32).max)
_NARROW = 3


def value_findings(views: Sequence[View], motion: Motion) -> list[Finding]:
    """`sentinel`, `column_stuck` and `rows_zero`."""
    return [*_sentinels(motion), *_stuck(motion), *_rows_zero(views)]


def _sentinels(motion: Motion) -> list[Finding]:
    rows = np.concatenate([course.states for course in motion.raw])
    marks: dict[int, float] = {}
    for column in motion.columns.tolist():
        for value in (rows[:, column].min(), rows[:, column].max()):
            marked = rows[:, column] == value
            if not _MARKS <= marked.sum() < _MOST_MARKED * len(rows):
                continue
            low, middle, high = np.percentile(rows[~marked, column], (5, 50, 95))
            if (
                high > low
                and _flows(rows[~marked, column])
                and abs(value - middle) > _FAR * (high - low)
            ):
                marks[column] = float(value)
    places: list[Place] = [
        (course.number, step)
        for course in motion.raw
        for step in np.flatnonzero(
            np.any([course.states[:, column] == value for column, value in marks.items()], axis=0)
        ).tolist()
    ]
    said = ", ".join(
        f"{value:g} in number {column}" for column, value in list(marks.items())[:SHOWN]
    )
    return finding(
        Severity.WARNING,
        "sentinel",
        f"one value far from all others recurs exactly, as a mark for what is missing: {said}",
        places,
        len(rows),
        "drop these rows or fill in what was there; the mark outweighs all else in a loss",
        Confidence.MEDIUM,
        f"{_FAR:g} times the range of nine tenths of the others away",
    )


def _flows(values: np.ndarray) -> bool:
    """Whether no value is there again and again, as those of switches and contact forces are."""
    _, counts = np.unique(values, return_counts=True)
    return bool(len(counts)) and counts.max() <= max(2.0, _REPEATS * len(values))


def _stuck(motion: Motion) -> list[Finding]:
    """Single numbers that stop to change; of a thing that lies still, several do."""
    since = [_since(course.states) for course in motion.raw]
    kept = [
        np.where(len(course.states) - 1 - start >= _least(course.states), start, len(course.states))
        for course, start in zip(motion.raw, since, strict=True)
    ]
    places: list[Place] = []
    columns: list[int] = []
    for column in motion.columns.tolist():
        moving = np.concatenate(
            [c.states[: rows[column], column] for c, rows in zip(motion.raw, kept, strict=True)]
        )
        if not len(moving) or not _flows(moving):
            continue
        found = [
            (course.number, int(rows[column]))
            for course, rows in zip(motion.raw, kept, strict=True)
            if rows[column] < len(course.states)
            and (rows[motion.columns] < len(course.states)).sum() == 1
            # A bound is where others stop as well.
            and (moving == course.states[-1, column]).sum() <= 1
        ]
        if found:
            columns.append(column)
            places += found
    return finding(
        Severity.WARNING,
        "column_stuck",
        f"numbers {columns[: 2 * SHOWN]} stop to change while all others go on",
        places,
        len(motion.raw),
        "right for a thing that lies still to the last digit; else a sensor got stuck",
        Confidence.LOW,
        "equal to the last digit from there to the end of the episode, alone in that",
    )


def _since(states: np.ndarray) -> np.ndarray:
    """(D,) the row from which on each number never changes."""
    same = states[1:] == states[:-1]
    return np.asarray(len(same) - np.cumprod(same[::-1], axis=0).sum(axis=0))


def _least(states: np.ndarray) -> float:
    return max(_STUCK_STEPS, _STUCK_SHARE * (len(states) - 1))


def _rows_zero(views: Sequence[View]) -> list[Finding]:
    places: list[Place] = []
    rows = 0
    for view in views:
        if view.vector is None or view.vector.shape[1] < _NARROW:
            continue
        rows += len(view.vector)
        places += [(view.number, i) for i in np.flatnonzero(~view.vector.any(axis=1)).tolist()]
    if len(places) > 0.5 * rows:
        return []
    return finding(
        Severity.WARNING,
        "rows_zero",
        "rows in which all numbers are exactly 0",
        places,
        rows,
        "right where the machine is at rest at its zero; else these rows were never written",
        Confidence.LOW,
        "read off the sample",
    )


def reward_spikes(views: Sequence[View]) -> list[Finding]:
    """`reward_spike`: a few rewards far beyond all others, and not at an end of the task."""
    known = [view for view in views if view.rewards is not None and view.terminations is not None]
    if not known:
        return []
    every = np.concatenate([np.asarray(view.rewards, np.float64) for view in known])
    every = every[abs(every) <= _LARGEST]  # what is beyond is told by `finite`
    if not len(every):
        return []
    low, middle, high = np.percentile(every, (1, 50, 99))
    limit = _SPIKE * max(high - low, abs(middle))
    if not limit > 0.0:
        return []
    places: list[Place] = [
        (view.number, step)
        for view in known
        for step in np.flatnonzero(
            (abs(np.asarray(view.rewards, np.float64) - middle) > limit)
            & (abs(np.asarray(view.rewards, np.float64)) <= _LARGEST)
            & ~np.asarray(view.terminations)
        ).tolist()
    ]
    if len(places) > max(1.0, _FEW * len(known)):
        return []
    return finding(
        Severity.WARNING,
        "reward_spike",
        "single rewards far beyond all others, and not at an end of the task",
        places,
        len(every),
        "look at what computes the rewards; one such reward outweighs thousands in a return",
        Confidence.MEDIUM,
        f"{_SPIKE:g} times the range of nearly all rewards away, and their middle",
    )
