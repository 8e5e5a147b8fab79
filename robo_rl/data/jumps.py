"""Jumps between consecutive states that no dynamics can make: resets hidden inside episodes."""

import itertools

import numpy as np

from robo_rl.data.episodes import Episode, named_arrays
from robo_rl.data.provenance import Provenance, StateLayout
from robo_rl.data.report import SHOWN, Finding, Severity

# A soft position servo may overshoot its velocity limit for a moment; a reset is no moment.
_VELOCITY_SLACK = 1.25
_ARM_SLACK_RAD = 0.02
# The strongest push, in m/s^2, that a gripper or a fall gives to a body within one period.
_OBJECT_ACCELERATION = 40.0
# A step is suspect when a quarter of the numbers jerk this many times harder than in nearly all
# other steps. Without resets, recordings of OGBench's cube oracles stay below 1.5; over resets
# into another episode their median is 4 to 27.
_SUSPECT_RATIO = 2.5
_USUAL_PERCENTILE = 99.0

Place = tuple[int, int | None]


def find_jumps(whole: list[tuple[int, Episode]], provenance: Provenance | None) -> list[Finding]:
    """Findings `jump` (past a physical bound), `jump_suspected` (far from all other steps) and
    `seam` (a jump into the first state of the next episode)."""
    impossible = _physical(whole, provenance)
    suspected = {place for place in _statistical(whole) if place not in impossible}
    seams = {place for place in _seams(whole) if place in impossible or place in suspected}
    steps = sum(len(episode) for _, episode in whole)
    reset = "cut the episode there; a reset was recorded as a step"
    out: list[Finding] = []
    for severity, code, message, places, advice in (
        (
            Severity.ERROR,
            "jump",
            "the state moves further in one step than the limits and velocities allow",
            impossible - seams,
            reset,
        ),
        (
            Severity.WARNING,
            "jump_suspected",
            f"a quarter of the state jerks over {_SUSPECT_RATIO:g} times as hard as usual",
            suspected - seams,
            f"look at these steps. If they are resets, {reset}",
        ),
        (
            Severity.ERROR,
            "seam",
            "the last state of the episode is the first of the next one",
            seams,
            "an auto-reset overwrote it: record the final observation, or drop the last step and "
            "mark the one before as truncated",
        ),
    ):
        if places:
            shown = tuple(sorted(places)[:SHOWN])
            out.append(Finding(severity, code, message, len(places), steps, shown, advice))
    return out


def _physical(
    whole: list[tuple[int, Episode]], provenance: Provenance | None
) -> set[tuple[int, int]]:
    if provenance is None or provenance.layout is None or not provenance.control_hz:
        return set()
    period_s = 1.0 / provenance.control_hz
    places: set[tuple[int, int]] = set()
    for index, episode in whole:
        bad = _arm_jumps(episode, provenance.layout, period_s)
        bad |= _object_jumps(episode, provenance.layout, period_s)
        places |= {(index, step) for step in np.flatnonzero(bad).tolist()}
    return places


def _arm_jumps(episode: Episode, layout: StateLayout, period_s: float) -> np.ndarray:
    joints = slice(layout.arm_qpos, layout.arm_qpos + len(layout.velocity_rad_s))
    qpos = episode.infos.get("qpos")
    if qpos is None or joints.stop == joints.start or qpos.shape[1] < joints.stop:
        return np.zeros(len(episode), bool)
    bound = np.asarray(layout.velocity_rad_s) * period_s * _VELOCITY_SLACK + _ARM_SLACK_RAD
    return np.asarray((np.abs(np.diff(qpos[:, joints], axis=0)) > bound).any(axis=1))


def _object_jumps(episode: Episode, layout: StateLayout, period_s: float) -> np.ndarray:
    bad = np.zeros(len(episode), bool)
    qpos, qvel = episode.infos.get("qpos"), episode.infos.get("qvel")
    if qpos is None or qvel is None:
        return bad
    for position, velocity in zip(layout.object_qpos, layout.object_qvel, strict=True):
        moved_m = np.linalg.norm(np.diff(qpos[:, position : position + 3], axis=0), axis=1)
        speed = np.linalg.norm(qvel[:, velocity : velocity + 3], axis=1)
        fastest = np.maximum(speed[:-1], speed[1:]) + _OBJECT_ACCELERATION * period_s
        bad |= moved_m > fastest * period_s
    return bad


def _statistical(whole: list[tuple[int, Episode]]) -> set[tuple[int, int]]:
    states = [(index, _state(episode)) for index, episode in whole]
    known = [(index, state) for index, state in states if state is not None and len(state) > 2]
    if not known or len({state.shape[1] for _, state in known}) != 1:
        return set()
    jerks = np.concatenate([_jerks(state) for _, state in known])
    scale, active = _usual(jerks)
    if active.sum() < 2:  # one number alone may be a switch
        return set()
    suspect = np.percentile(jerks[:, active] / scale[active], 75.0, axis=1) > _SUSPECT_RATIO
    places: set[tuple[int, int]] = set()
    start = 0
    for index, state in known:
        stop = start + len(state) - 1
        places |= {(index, step) for step in np.flatnonzero(suspect[start:stop]).tolist()}
        start = stop
    return places


def _jerks(state: np.ndarray) -> np.ndarray:
    """How much each move (T, D) differs from the moves before and after it, whichever is nearer.

    Fast motion lasts for several steps and so differs little; a reset stands alone.
    """
    change = np.abs(np.diff(state, n=2, axis=0))
    before = np.concatenate([change[:1], change])
    after = np.concatenate([change, change[-1:]])
    return np.asarray(np.minimum(before, after))


def _usual(jerks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A hard but usual jerk of each number (D,), and which numbers move at all (D,)."""
    scale = np.ones(jerks.shape[1])
    active = np.zeros(jerks.shape[1], bool)
    for column in range(jerks.shape[1]):
        # Standing still is no measure of how something moves.
        moving = jerks[:, column][jerks[:, column] > 1e-6 * jerks[:, column].max()]
        active[column] = 20 * len(moving) > len(jerks)
        if len(moving):
            scale[column] = np.percentile(moving, _USUAL_PERCENTILE)
    return scale, active


def _state(episode: Episode) -> np.ndarray | None:
    state = episode.infos.get("qpos")
    if state is None and isinstance(episode.observations, np.ndarray):
        state = episode.observations
    if state is None or state.ndim != 2 or state.dtype.kind != "f" or not np.isfinite(state).all():
        return None
    return np.asarray(state, np.float64)


def _seams(whole: list[tuple[int, Episode]]) -> set[tuple[int, int]]:
    """Last steps whose outcome is the very first observation of the following episode."""
    places: set[tuple[int, int]] = set()
    for (index, episode), (following_index, following) in itertools.pairwise(whole):
        if following_index != index + 1:
            continue
        here = named_arrays("observations", episode.observations)
        there = named_arrays("observations", following.observations)
        if here.keys() == there.keys() and all(
            np.array_equal(here[name][-1], there[name][0]) for name in here
        ):
            places.add((index, len(episode) - 1))
    return places
