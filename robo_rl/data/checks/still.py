"""Sensors that stand still: stuck columns, stale rows, frozen stretches; and single wild values."""

from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.motion import Motion
from robo_rl.data.checks.view import View
from robo_rl.data.report import SHOWN, Confidence, Finding, Place, Places, Severity, finding

_STALE_SHARE = 0.02
_FROZEN_STEPS, _FROZEN_SHARE = 10, 0.2
_FROZEN_EPISODES = 0.05
_LAST_SHARE = 0.5
_NARROW = 3
_SPIKE = 10.0  # times the spread between the 5th and the 95th percentile
_APART = 2.0  # a spike goes this much further than all before it
_AT_REST = 0.3  # of the rows at one value: a switch, or a force that is mostly none
_SPIKE_TAIL, _SPIKE_OVER = 99.0, 20.0  # and of what the column does by itself now and then


def still_findings(views: Sequence[View], motion: Motion) -> tuple[list[Finding], list[str]]:
    """`column_constant`, `frozen`, `rows_repeated` and `last_repeated`; and what could not be
    looked for."""
    return [*_constant(motion), *_repeats(views)], _unseen(views)


def _unseen(views: Sequence[View]) -> list[str]:
    left_out = sum(not _repeatable(view) for view in views)
    if not left_out:
        return []
    return [f"rows that repeat were not looked for in {left_out} episodes of under 3 steps"]


def _repeatable(view: View) -> bool:
    return view.vector is not None and view.vector.shape[1] > 0 and view.steps >= 3


def _constant(motion: Motion) -> list[Finding]:
    """Single columns that are always zero among others that move.

    Several side by side are a fixed goal or padding, and a goal is seldom at zero.
    """
    rows = np.concatenate([course.states for course in motion.raw])
    fixed = set(motion.constant.tolist())
    columns = [
        column
        for column in motion.constant.tolist()
        if not rows[:, column].any() and not fixed & {column - 1, column + 1}
    ]
    if not columns:
        return []
    return [
        Finding(
            Severity.WARNING,
            "column_constant",
            f"numbers {columns[: 2 * SHOWN]} of the observations are always 0",
            len(columns),
            rows.shape[1],
            (),
            "right for padding; else a sensor is stuck or unplugged",
            Confidence.LOW,
            f"all {len(rows)} rows of the sample",
        )
    ]


def _repeats(views: Sequence[View]) -> list[Finding]:
    """Rows equal to the one before although the action between them was another than before."""
    frozen, last = Places(), Places()
    stale: list[Place] = []
    steps = episodes = 0
    narrow = False
    for view in views:
        if view.vector is None or not _repeatable(view):
            continue
        narrow |= view.vector.shape[1] < _NARROW
        episodes += 1
        steps += view.steps
        same = (view.vector[1:] == view.vector[:-1]).all(axis=1) & _acting(view)
        runs = _runs(same)
        longest = max((stop - start for start, stop in runs), default=0)
        if longest >= max(_FROZEN_STEPS, _FROZEN_SHARE * view.steps):
            frozen.add(view.number)
        elif same[-1] and same.sum() == 1:
            last.add(view.number, view.steps)
        else:
            stale += [(view.number, step + 1) for step in np.flatnonzero(same).tolist()]
    if frozen.count < _FROZEN_EPISODES * episodes:
        frozen = Places()
    if len(stale) < _STALE_SHARE * steps:
        stale = []
    if last.count < _LAST_SHARE * episodes:
        last = Places()
    # A wall may hold one or two numbers where they are.
    sure = Confidence.LOW if narrow else Confidence.MEDIUM
    return _told(frozen, stale, last, episodes, steps, sure)


def _told(
    frozen: Places,
    stale: list[Place],
    last: Places,
    episodes: int,
    steps: int,
    sure: Confidence,
) -> list[Finding]:
    basis = "all numbers are equal to the last digit while the actions go on"
    return [
        *finding(
            Severity.WARNING,
            "frozen",
            "observations stand still for a fifth of the episode or more while actions go on",
            frozen,
            episodes,
            "cut the episodes where the sensors stopped",
            sure,
            basis,
        ),
        *finding(
            Severity.WARNING,
            "rows_repeated",
            "observations that repeat the row before: sensors slower than the control loop",
            stale,
            steps,
            "record at the rate of the slowest sensor, or interpolate; what repeats teaches that "
            "actions do nothing",
            sure,
            basis,
        ),
        *finding(
            Severity.WARNING,
            "last_repeated",
            "the last observation of an episode repeats the one before",
            last,
            episodes,
            "record the state after the last step",
            Confidence.HIGH if sure is Confidence.MEDIUM else sure,
            basis,
        ),
    ]


def _acting(view: View) -> np.ndarray:
    """(T,) bool, whether an action was given that differs from the one before."""
    if view.moves is None:
        return np.ones(view.steps, bool)
    change = (view.moves[1:] != view.moves[:-1]).any(axis=1)
    return np.concatenate([change[:1], change])


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def spike_findings(motion: Motion) -> list[Finding]:
    """`spikes`: one row far from its neighbours and from all that is usual."""
    states = np.concatenate([course.states for course in motion.courses])
    low, high = np.percentile(states, (5, 95), axis=0)
    away = [_from_neighbours(course.states) for course in motion.courses]
    usual = np.percentile(np.concatenate(away), _SPIKE_TAIL, axis=0)
    limit = np.maximum(_SPIKE * np.maximum(high - low, 1e-9), _SPIKE_OVER * usual)
    limit = np.maximum(limit, _own_tails(states, np.concatenate(away), limit))
    places: list[Place] = []
    columns: set[int] = set()
    for course, far in zip(motion.courses, away, strict=True):
        wild = far > limit
        places += [(course.number, step) for step in np.flatnonzero(wild.any(axis=1)).tolist()]
        columns |= set(motion.columns[wild.any(axis=0)].tolist())
    rows = sum(len(far) for far in away)
    return finding(
        Severity.WARNING,
        "spikes",
        f"single values far from their neighbours, in numbers {sorted(columns)[: 2 * SHOWN]}",
        places,
        rows,
        "drop or repair these rows; one such value outweighs thousands in a loss",
        Confidence.HIGH,
        f"{_SPIKE:g} times the range of nine tenths of all rows away from the rows around",
    )


def _own_tails(states: np.ndarray, away: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(D,) how far numbers go by nature: contact forces are at rest mostly, and then at anything.

    A spike stands apart from all that is usual; a tail goes there in steps.
    """
    out = np.zeros(states.shape[1])
    for column in np.flatnonzero((away > limit).any(axis=0)).tolist():
        _, counts = np.unique(states[:, column], return_counts=True)
        if counts.max() > _AT_REST * len(states):
            out[column] = np.inf
            continue
        far = np.sort(away[:, column])
        first = max(1, int(np.searchsorted(far, limit[column], side="right")))
        apart = np.flatnonzero(far[first:] > _APART * far[first - 1 : -1])
        out[column] = far[first - 1 + apart[0]] if len(apart) else far[-1]
    return out


def _from_neighbours(states: np.ndarray) -> np.ndarray:
    """(T + 1, D) how far each row is from the middle one of itself and the nearest two."""
    rows = np.arange(len(states))
    first = np.clip(rows - 1, 0, len(states) - 3)
    three = np.sort(np.stack([states[first], states[first + 1], states[first + 2]]), axis=0)
    return np.asarray(abs(states - three[1]))
