"""Jumps between consecutive states that no dynamics can make: resets hidden inside episodes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.view import BLOCK, Gap, View, common_width, measurable
from robo_rl.data.provenance import Provenance, StateLayout
from robo_rl.data.report import Confidence, Finding, Places, Severity, finding

# A soft position servo may overshoot its velocity limit for a moment; a reset is no moment.
_VELOCITY_SLACK = 1.25
_ARM_SLACK_RAD = 0.02
# The strongest push, in m/s^2, that a gripper or a fall gives to a body within one period.
_OBJECT_ACCELERATION = 40.0
# A step is suspect when a quarter of the numbers jerk this many times harder than in nine of ten
# moving steps, and go a tenth of their spread at once. Quantiles stay what they are up to a seam
# in every twentieth step.
_SUSPECT_RATIO = 8.0
_SUSPECT_MARGIN = 5.0
_USUAL_PERCENTILE = 90.0
_BUSY_PERCENTILE = 95.0
_LEAST_MOVE = 0.1
# A row in mid-episode is a start when it lies as near to the starts as they do, all numbers
# together, where other states are this many nats less likely to.
_START_NATS = 12.0
_START_SPREADS = 3.5
_FAR_SPREADS = 35.0
_LEAST_STARTS = 8
_FIRST_LOOK = 4
_LEAST_ROWS = 60


@dataclasses.dataclass(frozen=True)
class Usual:
    """How the D numbers of a state move when nothing is wrong, from a sample."""

    source: str  # "observations" or "qpos"
    jerk: np.ndarray  # (D,) beyond which a step is suspect in this number
    move: np.ndarray  # (D,) least change to count
    needed: int  # numbers that must be suspect at once
    start: np.ndarray  # (2, D) middle and spread of the first states
    start_tells: np.ndarray  # (D,) how much likelier the value of a first state is than of others
    start_known: bool  # whether starts are so alike that they can be told from the rest


class JumpsCheck:
    """Physical bounds where the provenance names them, else what is far from all other steps."""

    name = "jumps"

    def __init__(self, sample: Sequence[View], provenance: Provenance | None) -> None:
        self._provenance = provenance
        self._usual = _usual(sample)
        self._steps = self._seen = self._left_out = 0
        self._impossible, self._suspected, self._resets, self._seams = (Places() for _ in range(4))
        self._before: tuple[View, bool, bool] | None = None
        self._bounded = False  # whether limits and speeds tell of resets

    def see(self, view: View) -> None:
        """Judge each step of one episode."""
        if not view.steps:
            self._left_out += 1
            return
        self._steps += view.steps
        physical = self._physical(view)
        self._bounded |= physical is not None
        suspect, reset, looked = self._unusual(view)
        self._seen += looked
        self._left_out += not looked and physical is None
        impossible = np.zeros(view.steps, bool) if physical is None else physical
        suspect &= ~impossible
        reset &= ~impossible & ~suspect
        last = bool(impossible[-1]), bool(suspect[-1])
        self._impossible.add_steps(view.number, np.flatnonzero(impossible[:-1]))
        self._suspected.add_steps(view.number, np.flatnonzero(suspect[:-1]))
        self._resets.add_steps(view.number, np.flatnonzero(reset))
        self._close(view)
        self._before = (view, *last)

    def _close(self, following: View | None) -> None:
        """Sort in the last step of the episode before, now that the next one is known."""
        if self._before is None:
            return
        view, impossible, suspect = self._before
        place = view.number, view.steps - 1
        if (impossible or suspect) and following is not None and _meets(view, following):
            self._seams.add(*place)
        elif impossible:
            self._impossible.add(*place)
        elif suspect:
            self._suspected.add(*place)
        self._before = None

    def findings(self) -> list[Finding]:
        """`jump`, `jump_suspected`, `reset_inside` and `seam`."""
        self._close(None)
        cut = "cut the episode there; a reset was recorded as a step"
        return [
            *finding(
                Severity.ERROR,
                "jump",
                "the state moves further in one step than the limits and velocities allow",
                self._impossible,
                self._steps,
                cut,
                basis="velocity limits and speeds that the dataset names",
            ),
            *finding(
                Severity.WARNING,
                "jump_suspected",
                f"a quarter of the state jerks over {_SUSPECT_RATIO:g} times as hard as usual",
                self._suspected,
                self._steps,
                f"look at these steps. If they are resets, {cut}",
                Confidence.MEDIUM,
                "far from nine tenths of all steps; a crash or a wall can do it too",
            ),
            *finding(
                Severity.WARNING,
                "reset_inside",
                "the state is at once one that episodes begin with",
                self._resets,
                self._steps,
                f"look at these steps. If they are resets, {cut}",
                Confidence.MEDIUM,
                "as near to the first states as these are to each other, in every number",
            ),
            *finding(
                Severity.ERROR,
                "seam",
                "the last state of the episode is the first of the next one",
                self._seams,
                self._steps,
                "an auto-reset overwrote it: record the final observation, or drop the last step "
                "and mark the one before as truncated",
            ),
        ]

    def gap(self) -> Gap | None:
        """Images only, too little data, episodes that do not fit, starts that tell nothing."""
        if not self._seen:
            reason = (
                "no vector of reals in observations or infos['qpos'] that moves in enough steps"
            )
            bounded = self._steps > 0 and not self._left_out
            return Gap(reason, whole=not bounded)
        reasons = []
        if self._left_out:
            reasons.append(f"{self._left_out} episodes have no state as the others have it")
        if not self._bounded and self._usual is not None and not self._usual.start_known:
            reasons.append(
                "returns to a first state cannot be told: episodes are too few or begin too "
                "differently"
            )
        return Gap("; ".join(reasons)) if reasons else None

    def _physical(self, view: View) -> np.ndarray | None:
        provenance = self._provenance
        if provenance is None or provenance.layout is None or not provenance.control_hz:
            return None
        period_s = 1.0 / provenance.control_hz
        arm = _arm_jumps(view, provenance.layout, period_s)
        objects = _object_jumps(view, provenance.layout, period_s)
        return objects if arm is None else arm if objects is None else arm | objects

    def _unusual(self, view: View) -> tuple[np.ndarray, np.ndarray, bool]:
        """Suspect steps, resets, and whether this could be judged."""
        suspect, reset = np.zeros(view.steps, bool), np.zeros(view.steps, bool)
        usual = self._usual
        state = None if usual is None else _state(view, usual.source)
        if usual is None or state is None or state.shape[1] != len(usual.jerk) or len(state) < 3:
            return suspect, reset, False
        limit, least = (part.astype(state.dtype) for part in (usual.jerk, usual.move))
        for start in range(0, view.steps, BLOCK):
            # One move more on each side, so that blocks do not show.
            low, high = max(start - 1, 0), min(start + BLOCK + 2, len(state))
            rows = state[low:high]
            moves = np.diff(rows, axis=0)
            hard = _jerks(moves) > limit
            if hard.any():
                hard &= abs(moves) > least
                many = np.count_nonzero(hard, axis=1) >= usual.needed
                stop = min(start + BLOCK, view.steps)
                suspect[start:stop] = many[start - low : start - low + stop - start]
            if usual.start_known:
                reset[low : low + len(rows) - 1] |= _starting(rows, usual)
        return suspect, reset, True


def _starting(rows: np.ndarray, usual: Usual) -> np.ndarray:
    """(T,) bool, steps that lead to a first state from one that is far from any."""
    out = np.zeros(len(rows) - 1, bool)
    # Nearly no row is near in its first few numbers: only those are looked at in all.
    few = np.argsort(-usual.start_tells)[:_FIRST_LOOK]
    near = (abs(rows[:, few] - usual.start[0, few]) < _START_SPREADS * usual.start[1, few]).all(1)
    for step in (np.flatnonzero(near[1:] & ~near[:-1])).tolist():
        away = abs((rows[step : step + 2] - usual.start[0]) / usual.start[1]).max(axis=1)
        out[step] = away[1] < _START_SPREADS and away[0] > _FAR_SPREADS
    return out


def _usual(sample: Sequence[View]) -> Usual | None:
    """From the observations, or from qpos where these are images."""
    for source in ("observations", "qpos"):
        states = [state for view in sample if (state := _state(view, source)) is not None]
        width = common_width(state.shape[1] for state in states)
        states = [
            state.astype(np.float64)
            for state in states
            if state.shape[1] == width and len(state) > 2 and measurable(state)
        ]
        if states and (found := _usual_of(source, states)) is not None:
            return found
    return None


def _usual_of(source: str, states: list[np.ndarray]) -> Usual | None:
    moves = [np.diff(state, axis=0) for state in states]
    jerks = np.concatenate([_jerks(move) for move in moves])
    rows = np.concatenate(states)
    scale = np.full(jerks.shape[1], np.inf)
    for column in range(jerks.shape[1]):
        # Standing still is no measure of how something moves.
        moving = jerks[:, column][jerks[:, column] > 1e-6 * jerks[:, column].max()]
        if 20 * len(moving) > len(jerks):
            scale[column] = np.percentile(moving, _USUAL_PERCENTILE)
    active = int(np.isfinite(scale).sum())
    if len(jerks) < _LEAST_ROWS:  # nothing is far from nine tenths of so few
        return None
    if active < 2:  # one number alone may be a switch
        return None
    needed = max(2, -(-active // 4))
    worst = np.partition(jerks / scale, -needed, axis=1)[:, -needed]
    ratio = max(_SUSPECT_RATIO, _SUSPECT_MARGIN * float(np.percentile(worst, _BUSY_PERCENTILE)))
    start, tells = _starts(rows, states)
    known = len(states) >= _LEAST_STARTS and float(tells.sum()) > _START_NATS
    spread = np.percentile(rows, 95, axis=0) - np.percentile(rows, 5, axis=0)
    return Usual(source, ratio * scale, _LEAST_MOVE * spread / 3.3, needed, start, tells, known)


def _starts(rows: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Middle and spread (2, D) of the first states, and in nats how unlike the others (D,)."""
    first = np.stack([state[0] for state in states])
    spread = np.maximum(rows.std(axis=0), 1e-12)
    own = np.maximum(first.std(axis=0), 0.02 * spread)
    return np.stack([first.mean(axis=0), own]), np.log(spread / own).clip(0.0)


def _state(view: View, source: str) -> np.ndarray | None:
    state = view.vector if source == "observations" else view.infos.get("qpos")
    if state is None or state.ndim != 2 or state.dtype.kind != "f":
        return None
    return state


def _jerks(moves: np.ndarray) -> np.ndarray:
    """How much each move (T, D) differs from the moves before and after it, whichever is nearer.

    Fast motion lasts for several steps and so differs little; a reset stands alone.
    """
    if len(moves) < 2:
        return np.zeros_like(moves)
    change = np.abs(np.diff(moves, axis=0))
    out = np.empty_like(moves)
    np.minimum(change[:-1], change[1:], out=out[1:-1])
    out[0], out[-1] = change[0], change[-1]
    return out


def _reaches(rows: np.ndarray, columns: int) -> bool:
    """Whether an array is (T, D) with at least so many columns."""
    return rows.ndim == 2 and rows.shape[1] >= columns


def _arm_jumps(view: View, layout: StateLayout, period_s: float) -> np.ndarray | None:
    joints = slice(layout.arm_qpos, layout.arm_qpos + len(layout.velocity_rad_s))
    qpos = view.infos.get("qpos")
    if qpos is None or joints.stop == joints.start or not _reaches(qpos, joints.stop):
        return None
    bound = np.asarray(layout.velocity_rad_s) * period_s * _VELOCITY_SLACK + _ARM_SLACK_RAD
    return np.asarray((np.abs(np.diff(qpos[:, joints], axis=0)) > bound).any(axis=1))


def _object_jumps(view: View, layout: StateLayout, period_s: float) -> np.ndarray | None:
    qpos, qvel = view.infos.get("qpos"), view.infos.get("qvel")
    if qpos is None or qvel is None or not layout.object_qpos:
        return None
    if not _reaches(qpos, max(layout.object_qpos) + 3):
        return None
    if not _reaches(qvel, max(layout.object_qvel) + 3):
        return None
    bad = np.zeros(view.steps, bool)
    for position, velocity in zip(layout.object_qpos, layout.object_qvel, strict=True):
        moved_m = np.linalg.norm(np.diff(qpos[:, position : position + 3], axis=0), axis=1)
        speed = np.linalg.norm(qvel[:, velocity : velocity + 3], axis=1)
        fastest = np.maximum(speed[:-1], speed[1:]) + _OBJECT_ACCELERATION * period_s
        bad |= moved_m > fastest * period_s
    return bad


def _meets(view: View, following: View) -> bool:
    """Whether the last outcome is the very first observation of the next episode."""
    here, there = view.observations, following.observations
    return (
        following.number == view.number + 1
        and bool(here)
        and here.keys() == there.keys()
        and all(np.array_equal(here[name][-1], there[name][0]) for name in here)
    )
