"""Episodes as rows of standardised states and actions, for checks that look at how things move."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.view import View, common_width, measurable

LEAST_EPISODES = 8
LEAST_STEPS = 8
_MOST_COLUMNS = 256
_MOST_ROWS = 30_000


@dataclasses.dataclass(frozen=True)
class Course:
    """One episode: T + 1 states of the columns that vary, T actions."""

    number: int
    states: np.ndarray  # (T + 1, D)
    actions: np.ndarray  # (T, A); A may be 0


@dataclasses.dataclass(frozen=True)
class Motion:
    """What moves, in units of its spread; how it was before is in `raw`."""

    courses: tuple[Course, ...]
    raw: tuple[Course, ...]
    columns: np.ndarray  # (D,) numbers of the varying columns among all
    spread: np.ndarray  # (D,) that these were divided by
    constant: np.ndarray  # numbers of the columns that never vary


def motion_of(views: Sequence[View]) -> Motion | str:
    """The motion in a sample, or why there is none to look at."""
    raw = _courses(views)
    if len(raw) < LEAST_EPISODES:
        return (
            f"{len(raw)} episodes with {LEAST_STEPS} steps and a finite vector of reals; "
            f"this needs {LEAST_EPISODES}"
        )
    states = np.concatenate([course.states for course in raw])
    if states.shape[1] > _MOST_COLUMNS:
        return f"{states.shape[1]} numbers are more than {_MOST_COLUMNS}"
    # Spikes and a few rows in another unit must not decide what one unit is.
    low, middle, high = np.percentile(states, (10, 50, 90), axis=0)
    spread = np.where(high > low, (high - low) / 2.56, states.std(axis=0))
    varies = spread > 1e-9 * (1.0 + abs(middle))
    columns = np.flatnonzero(varies)
    if not len(columns):
        return "no number in the observations varies"
    actions = np.concatenate([course.actions for course in raw])
    centre, size = actions.mean(axis=0), np.maximum(actions.std(axis=0), 1e-12)
    courses = tuple(
        Course(
            course.number,
            (course.states[:, columns] - middle[columns]) / spread[columns],
            (course.actions - centre) / size,
        )
        for course in raw
    )
    return Motion(courses, tuple(raw), columns, spread[columns], np.flatnonzero(~varies))


def _courses(views: Sequence[View]) -> list[Course]:
    whole = [view for view in views if view.vector is not None and view.steps >= LEAST_STEPS]
    width = common_width(_width(view.vector) for view in whole)
    acted = common_width(_width(view.moves) for view in whole)
    whole = [v for v in whole if (_width(v.vector), _width(v.moves)) == (width, acted)]
    every = 1 + sum(view.steps for view in whole) // _MOST_ROWS
    out: list[Course] = []
    for view in whole[::every] if len(whole) > LEAST_EPISODES * every else whole:
        states = np.asarray(view.vector, np.float64)
        moves = np.zeros((view.steps, 0)) if view.moves is None else view.moves
        if measurable(states) and measurable(moves):
            out.append(Course(view.number, states, np.asarray(moves, np.float64)))
    return out


def _width(array: np.ndarray | None) -> int:
    return 0 if array is None else array.shape[1]


def two_groups(values: np.ndarray, least: int = 3) -> tuple[float, np.ndarray]:
    """How clearly some numbers (N,) fall into two groups, and which belong to the upper one.

    The first is the gap between the groups over the larger of their spreads: below 1 for anything
    with one peak, however skew.
    """
    finite = np.isfinite(values)
    order = np.sort(values[finite])
    count = len(order)
    least = max(least, count // 10)
    best, cut = 0.0, np.inf
    for split in range(least, count - least + 1):
        low, high = order[:split], order[split:]
        gap = high[0] - low[-1]
        width = max(low[-1] - low[0], high[-1] - high[0])
        if gap > best * (width + 1e-12):
            best, cut = gap / (width + 1e-12), (high[0] + low[-1]) / 2.0
    return best, finite & (values > cut)
