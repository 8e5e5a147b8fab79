"""Time and units, from the laws between positions and velocities: mixed rates, dropped frames,
reversed episodes, degrees among radians, columns that changed places."""

import itertools

import numpy as np

from robo_rl.data.checks.laws import STRICT, StateLaws
from robo_rl.data.checks.motion import Motion, two_groups
from robo_rl.data.report import Confidence, Finding, Place, Severity, finding

_CLEAR = 1.3  # of `two_groups`; sound recordings stay below 0.8
_FEW, _FEW_CLEAR = 20, 3.0  # with few episodes, chance alone makes gaps
_UNITS = {float(np.rad2deg(1.0)): "degrees for radians", 1000.0: "a thousandth (mm for m)"}
_UNIT_MATCH = 0.15
_DOUBLE = (1.6, 2.6)  # a step that goes as far as two
_DOUBLE_SHARE = 0.03
# Just twice as far: against the steps between once and twice as far. Where no frame is missing,
# these are at most a quarter of those.
_PEAK, _VALLEY, _PEAK_SHARE = (1.8, 2.2), (1.3, 1.7), 0.35
_ZERO_EXPLAINED = 0.7
_EVEN = (
    0.2  # of the middle, between the 10th and the 90th percentile; angles by their sine reach 0.25
)
_TIGHT = 0.08  # the same, within each of two rates; angles by their sine reach 0.1
_MOST_RATE = 20.0  # beyond, it is another unit and not another rate


def clear(values: np.ndarray) -> np.ndarray | None:
    """Which of some numbers (N,) make up the smaller of two clear groups; None for one group."""
    count = int(np.isfinite(values).sum())
    if count < 6:
        return None
    how, upper = two_groups(values)
    if how < (_CLEAR if count >= _FEW else _FEW_CLEAR):
        return None
    lower = np.isfinite(values) & ~upper
    return upper if upper.sum() <= lower.sum() else lower


def time_findings(motion: Motion, laws: StateLaws) -> list[Finding]:
    """`time_reversed`, `rate_mixed`, or `frames_dropped` where an episode's own clock is odd."""
    if not len(laws.strict):
        return []
    even = _even(laws)
    turned = clear(_pace(laws, even)) if len(even) else None
    if turned is not None and -1.3 < _ratio_of(_pace(laws, even), turned) < -0.75:
        return _reversed(motion, turned, len(even))
    pace = _pace(laws, laws.strict)
    few = clear(pace)
    if few is not None:
        ratio = _ratio_of(pace, few)
        factor = max(ratio, 1.0 / ratio) if ratio > 0.0 else 0.0
        tight = _spread_of(pace[few]) < _TIGHT and _spread_of(pace[~few]) < _TIGHT
        if tight and 1.3 < factor < _MOST_RATE:
            return _mixed(motion, few, factor)
    return _dropped(motion, laws)


def _even(laws: StateLaws) -> np.ndarray:
    """Columns whose law has one slope in all episodes, but for its sign: as velocities have, and
    a sine and its cosine have not."""
    even = []
    for column in laws.strict.tolist():
        low, middle, high = np.nanpercentile(abs(laws.slope(column)), (10, 50, 90))
        if high - low < _EVEN * middle:
            even.append(column)
    return np.array(even, np.int64)


def _ratio_of(pace: np.ndarray, few: np.ndarray) -> float:
    return float(np.nanmedian(pace[few]) / np.nanmedian(pace[~few]))


def _spread_of(pace: np.ndarray) -> float:
    low, middle, high = np.nanpercentile(pace, (10, 50, 90))
    return float((high - low) / max(abs(middle), 1e-9))


def _pace(laws: StateLaws, columns: np.ndarray) -> np.ndarray:
    """(N,) how fast each episode goes by all laws, 1 as usual; negative when backwards."""
    slopes = np.stack([laws.slope(column) for column in columns.tolist()], axis=1)
    slopes /= np.nanmedian(abs(slopes), axis=0)
    # A law may go either way by nature; what counts is that all turn together.
    signs = np.sign(np.nan_to_num(slopes))
    first = signs[:, np.isfinite(slopes).sum(axis=0).argmax()]
    slopes *= np.where((signs * first[:, None]).sum(axis=0) < 0.0, -1.0, 1.0)
    known = np.isfinite(slopes).any(axis=1)
    pace = np.full(len(slopes), np.nan)
    pace[known] = np.nanmedian(slopes[known], axis=1)
    return pace


def _reversed(motion: Motion, few: np.ndarray, laws: int) -> list[Finding]:
    return finding(
        Severity.WARNING,
        "time_reversed",
        "positions move against their velocities in some episodes, as if played backwards",
        _places(motion, few),
        len(motion.courses),
        "reverse the order of their states, or drop them",
        Confidence.HIGH if laws > 2 else Confidence.MEDIUM,
        f"{laws} laws between columns have the other sign there, none in between",
    )


def _mixed(motion: Motion, few: np.ndarray, ratio: float) -> list[Finding]:
    return finding(
        Severity.WARNING,
        "rate_mixed",
        f"some episodes go {ratio:.2g} times as far in a step for the same velocities as others",
        _places(motion, few),
        len(motion.courses),
        "record all at one control rate, or keep apart what was recorded at another",
        Confidence.MEDIUM,
        "laws between columns have two slopes and nothing in between",
    )


def _dropped(motion: Motion, laws: StateLaws) -> list[Finding]:
    lines = _zero_laws(motion, laws)
    if not lines:
        return []
    paces = [_step_pace(course.states, lines) for course in motion.raw]
    every = np.concatenate([pace[np.isfinite(pace)] for pace in paces])
    usual = float(np.median(every)) if len(every) else 0.0
    if not usual > 0.0 or (abs(every / usual - 1.0) < 0.25).mean() < 0.5:
        return []
    with np.errstate(invalid="ignore"):
        double = [(pace > _DOUBLE[0] * usual) & (pace < _DOUBLE[1] * usual) for pace in paces]
    share = sum(int(one.sum()) for one in double) / len(every)
    counts = [
        int(((every > low * usual) & (every < high * usual)).sum())
        for low, high in (_PEAK, _VALLEY)
    ]
    if share < _DOUBLE_SHARE or counts[0] < _PEAK_SHARE * counts[1]:
        return []
    places: list[Place] = [
        (course.number, step)
        for course, one in zip(motion.raw, double, strict=True)
        for step in np.flatnonzero(one).tolist()
    ]
    return finding(
        Severity.WARNING,
        "frames_dropped",
        "steps that go twice as far as their velocities say: frames are missing, or rates differ",
        places,
        len(every),
        "record every control period, or fill the gaps by the actions that were held",
        Confidence.MEDIUM,
        f"{len(lines)} laws between columns; in sound recordings steps seldom go just twice as far",
    )


Line = tuple[int, int, float, float]
"""Column, its velocity's column, seconds between states, usual change."""


def _zero_laws(motion: Motion, laws: StateLaws) -> list[Line]:
    """Laws that hold without an offset in the units as recorded, as velocities' do."""
    lines: list[Line] = []
    for column in laws.strict.tolist():
        partner = int(laws.partner[column])
        here, there = int(motion.columns[column]), int(motion.columns[partner])
        slope = float(np.nanmedian(laws.slope(column)))
        slope *= float(motion.spread[column] / motion.spread[partner])
        change = np.concatenate([np.diff(course.states[:, here]) for course in motion.raw])
        middle = np.concatenate(
            [(c.states[1:, there] + c.states[:-1, there]) / 2.0 for c in motion.raw]
        )
        size = float((change**2).sum())
        if size and 1.0 - float(((change - slope * middle) ** 2).sum()) / size > _ZERO_EXPLAINED:
            lines.append((here, there, slope, float(change.std())))
    return lines


def _step_pace(states: np.ndarray, lines: list[Line]) -> np.ndarray:
    """(T,) how far each step goes, 1 as far as the velocities say; NaN where all stands still."""
    said = np.stack(
        [k * (states[1:, there] + states[:-1, there]) / (2.0 * std) for _, there, k, std in lines],
        axis=1,
    )
    done = np.stack([np.diff(states[:, here]) / std for here, _, _, std in lines], axis=1)
    size = (said**2).sum(axis=1)
    moving = size > 0.25 * len(lines)
    return np.where(moving, (said * done).sum(axis=1) / np.where(moving, size, 1.0), np.nan)


def unit_findings(
    motion: Motion, laws: StateLaws, control_hz: float | None, paced: bool
) -> list[Finding]:
    """`units_mixed` between episodes or between columns, and `rate_differs` from what is said.

    `paced` says that episodes or steps were found to have clocks of their own.
    """
    lines = _zero_laws(motion, laws)
    periods = np.array([slope for _, _, slope, _ in lines])
    return [
        *_between_episodes(motion, laws, paced),
        *_between_columns(lines),
        *(_rate(periods, control_hz) if not paced else []),
    ]


def _between_episodes(motion: Motion, laws: StateLaws, paced: bool) -> list[Finding]:
    columns: list[int] = []
    odd = np.zeros(len(motion.courses), bool)
    factor = 1.0
    for column in range(len(motion.columns)):
        split = _two_sizes(motion, laws, column)
        if split is not None:
            columns.append(column)
            odd |= split[1]
            factor = max(factor, split[0])
    # All columns at once by a little are a matter of time, see `time_findings`.
    if not columns or (paced and factor < _MOST_RATE):
        return []
    shown = motion.columns[columns].tolist()
    return finding(
        Severity.WARNING,
        "units_mixed",
        f"numbers {shown} are {factor:.3g} times as large in some episodes{_unit(factor)}",
        _places(motion, odd),
        len(motion.courses),
        "bring all episodes to one unit",
        Confidence.HIGH if _unit(factor) else Confidence.MEDIUM,
        "they move in two sizes with nothing in between",
    )


def _two_sizes(motion: Motion, laws: StateLaws, column: int) -> tuple[float, np.ndarray] | None:
    """By which factor, and in which episodes, a column is in another unit."""
    if column in laws.strict:
        split = _ratio(np.log10(abs(laws.slope(column)) + 1e-12))
        return split if split is not None and split[0] > 1.3 else None
    # Without a law, what moves little need not be in a large unit: only known factors count, and
    # both the changes and the range must tell the same.
    rows = [course.states[:, column] for course in motion.courses]
    changes = _ratio(np.log10([np.median(abs(np.diff(row))) + 1e-12 for row in rows]))
    ranges = _ratio(np.log10([np.ptp(np.percentile(row, (10, 90))) + 1e-12 for row in rows]))
    if changes is None or ranges is None or not (changes[1] == ranges[1]).all():
        return None
    known = _unit(changes[0], 0.1) and _unit(ranges[0], 0.1)
    return changes if known else None


def _ratio(logs: np.ndarray) -> tuple[float, np.ndarray] | None:
    few = clear(logs)
    if few is None:
        return None
    others = np.isfinite(logs) & ~few
    return 10.0 ** abs(float(np.median(logs[few]) - np.median(logs[others]))), few


def _between_columns(lines: list[Line]) -> list[Finding]:
    """Pairs of a position and its velocity that disagree on the time between two states."""
    for (_, _, one, _), (_, _, other, _) in itertools.combinations(lines, 2):
        ratio = max(one / other, other / one) if one * other > 0.0 else 0.0
        if _unit(ratio):
            longest = max(slope for _, _, slope, _ in lines)
            columns = [here for here, _, slope, _ in lines if slope > longest / 4.0]
            return [
                Finding(
                    Severity.WARNING,
                    "units_mixed",
                    f"numbers {columns} change {ratio:.3g} times as much for their velocities as "
                    f"others do for theirs{_unit(ratio)}",
                    len(columns),
                    len(lines),
                    (),
                    "bring positions and velocities to one unit",
                    Confidence.MEDIUM,
                    f"{len(lines)} laws between positions and velocities",
                )
            ]
    return []


def _rate(periods: np.ndarray, control_hz: float | None) -> list[Finding]:
    if control_hz is None or len(periods) < 3:
        return []
    period = float(np.median(periods))
    if (abs(periods / period - 1.0) < 0.1).sum() < 3 or abs(period * control_hz - 1.0) < 0.2:
        return []
    unit = _unit(period * control_hz)
    said = f"{unit}, or the rate" if unit else ": the rate"
    return [
        Finding(
            Severity.WARNING,
            "rate_differs",
            f"positions change {period * control_hz:.3g} times as much as their velocities at "
            f"{control_hz:g} Hz{said} is {1.0 / period:.3g} Hz",
            len(periods),
            len(periods),
            (),
            "say the control rate that was recorded, or bring positions and velocities to one unit",
            Confidence.MEDIUM,
            f"{len(periods)} laws between positions and velocities agree",
        )
    ]


def _unit(ratio: float, match: float = _UNIT_MATCH) -> str:
    for factor, name in _UNITS.items():
        if abs(ratio / factor - 1.0) < match:
            return f": {name}"
    return ""


def swapped_columns(motion: Motion, laws: StateLaws) -> list[Finding]:
    """`columns_swapped`: two columns that each follow one velocity here and the other's there."""
    count = len(motion.courses)
    best, share = laws.explained.argmax(axis=2), laws.explained.max(axis=2)
    torn: dict[int, tuple[int, int]] = {}
    for column in range(best.shape[1]):
        partners, times = np.unique(
            best[share[:, column] > STRICT - 0.05, column], return_counts=True
        )
        order = times.argsort()[::-1]
        if (
            len(order) > 1
            and times[order[1]] > 0.15 * count
            and times[order[:2]].sum() > 0.6 * count
        ):
            first, second = sorted(partners[order[:2]].tolist())
            torn[column] = (first, second)
    for one, other in itertools.combinations(torn, 2):
        if torn[one] != torn[other]:
            continue
        first, second = torn[one]
        here = laws.explained[:, one, first] > laws.explained[:, one, second]
        there = laws.explained[:, other, first] > laws.explained[:, other, second]
        if (here != there).mean() > 0.9:
            few = here if here.sum() <= (~here).sum() else ~here
            names = motion.columns[[one, other]].tolist()
            return finding(
                Severity.WARNING,
                "columns_swapped",
                f"numbers {names} have changed places in some episodes",
                _places(motion, few),
                count,
                "put them in one order in all episodes",
                Confidence.HIGH,
                "each follows the velocity of the other there, in every episode",
            )
    return []


def _places(motion: Motion, chosen: np.ndarray) -> list[Place]:
    return [(motion.courses[i].number, None) for i in np.flatnonzero(chosen).tolist()]
