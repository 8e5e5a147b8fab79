"""Over- or underfitting, told from the curves of an offline run (Kumar et al., 2021).

"A Workflow for Offline Model-Free Robotic RL", arXiv:2109.10813: with a low TD error, Q on the data
that rises and then falls says that the critics overfit, and the checkpoint to take is the one at
the peak; a TD error that stays high, or a policy that the critics keep preferring to the data, says
that they underfit. The curves are those of `robo_rl.learn.probe`. The paper judges by eye: the
thresholds here are ours, each with its reason, and a verdict names the figures that it rests on.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

OVERFITTING, UNDERFITTING, FITS, UNCLEAR = "overfitting", "underfitting", "fits", "unclear"

PROBED = ("probe_td_error", "probe_data_q", "probe_policy_gap", "probe_target_std")
OPTIONAL = ("regulariser", "bound_rate")
"""Of conservative methods, logged by their updates."""

MIN_POINTS = 10
"""Fewer reports have no shape: a rise, a peak and a fall need some three points each."""
SMOOTHING = 0.1
"""Share of the run that is averaged: shorter than any trend worth acting on."""
TD_LOW = 0.5
"""TD error as a share of the targets' variance. Above, the critics explain less of the targets than
they miss: their other curves say nothing yet. Critics that fit come well below 0.3."""
LARGE_GAP = 1.0
"""Policy's Q less the data's, in spreads of the targets. A better policy is worth more than the
data, but one spread is the difference between good and bad rows of the data themselves."""
LEAST_RISE = 0.1
"""Of the whole range of Q on the data: a smaller rise before a fall is noise of the start."""
LEAST_FALL = 0.2
"""Of the rise, that must be lost again: less is the usual overshoot of bootstrapped values."""
DIP = 0.1
"""Of the range: smaller wiggles do not end a fall when it is followed back to its peak."""
STILL_FALLING = 0.1
"""Share of the fall that its last third must have; an even one has a third. A Q that fell and
settled was too high before: that is convergence."""


@dataclasses.dataclass(frozen=True)
class Curves:
    """What a run logged for one seed, arrays (T,)."""

    steps: np.ndarray
    td_error: np.ndarray
    data_q: np.ndarray
    policy_gap: np.ndarray
    target_std: np.ndarray
    regulariser: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """One word, the step whose checkpoint to take, and why."""

    kind: str
    step: int
    """The last one unless overfitting."""
    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}; {self.advice}"


def curves(rows: Sequence[Mapping[str, float]]) -> dict[str, Curves]:
    """Curves by seed name ("seed3"), or by "" for a run of one seed; empty where none were logged.

    `rows` are those of `metrics.jsonl`.
    """
    found: dict[str, Curves] = {}
    names = {name for row in rows for name in row}
    many = sorted(
        (name.rpartition("/")[0] for name in names if re.fullmatch(r"seed\d+/probe_data_q", name)),
        key=lambda seed: int(seed.removeprefix("seed")),
    )
    for seed in many or [""]:
        prefix = f"{seed}/" if seed else ""
        wanted = [prefix + name for name in PROBED]
        points = [row for row in rows if all(name in row for name in wanted)]
        if not points:
            continue
        td_error, data_q, policy_gap, target_std = (
            np.array([row[name] for row in points]) for name in wanted
        )
        regulariser = None
        if all(f"{prefix}regulariser" in row for row in points):
            regulariser = np.array([row[f"{prefix}regulariser"] for row in points])
        steps = np.array([int(row["step"]) for row in points])
        found[seed] = Curves(steps, td_error, data_q, policy_gap, target_std, regulariser)
    return found


def judge(run: Curves) -> Diagnosis:
    """The verdict on one seed's curves."""
    points = len(run.steps)
    last = int(run.steps[-1])
    if points < MIN_POINTS:
        return Diagnosis(
            UNCLEAR,
            last,
            f"{points} of the {MIN_POINTS} reports that a verdict takes",
            "train longer",
        )
    why = _underfits(run)
    if why:
        return Diagnosis(
            UNDERFITTING, last, why, "train longer, optimise better, or take larger networks"
        )
    data_q = smooth(run.data_q)
    peak = fall_from(data_q)
    if peak is None:
        return Diagnosis(
            FITS,
            last,
            f"the TD error is low ({_td_share(run):.2f} of the targets' variance) and Q on the "
            "data does not fall",
            f"take the last checkpoint (step {last})",
        )
    if not _rose(data_q, peak):
        return Diagnosis(
            UNCLEAR,
            last,
            "Q on the data has only fallen, and still does",
            "where rewards are negative, train on until it settles; where they are not, values "
            "cannot be below zero: the method is too pessimistic for these data",
        )
    step = int(run.steps[peak])
    return Diagnosis(
        OVERFITTING,
        step,
        f"the TD error is low ({_td_share(run):.2f} of the targets' variance), and Q on the data "
        f"rose to {data_q[peak]:.3g} at step {step} and has fallen to {data_q[-1]:.3g} since",
        f"take the last checkpoint at or before step {step}, or regularise the critics more",
    )


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean (T,) over `SMOOTHING` of the points, 3 at least; fewer at the ends."""
    half = max(1, round(SMOOTHING * len(values) / 2))
    return np.array([np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def fall_from(values: np.ndarray) -> int | None:
    """Index of the peak from which a smooth curve (T,) falls until its end; None if it does not.

    Of equal peaks, the latest.
    """
    span = float(np.ptp(values))
    peak = len(values) - 1
    for index in range(len(values) - 1, -1, -1):
        if values[index] > values[peak]:
            peak = index
        elif values[peak] - values[index] > DIP * span:
            break
    fall = values[peak] - values[-1]
    behind = len(values) - 1 - peak
    if behind < 3 or fall <= DIP * span:
        return None
    if _rose(values, peak) and fall < LEAST_FALL * (values[peak] - values[: peak + 1].min()):
        return None
    last_third = values[peak + 2 * behind // 3] - values[-1]
    return peak if last_third >= STILL_FALLING * fall else None


def _rose(values: np.ndarray, peak: int) -> bool:
    rise = values[peak] - values[: peak + 1].min()
    return bool(rise >= LEAST_RISE * np.ptp(values))


def _td_share(run: Curves) -> float:
    """The smooth TD error at the end, as a share of the targets' variance."""
    return float(smooth(run.td_error)[-1] / _spread(run) ** 2)


def _spread(run: Curves) -> float:
    """That of the targets at the end; where they are all alike, 1 % of their size in its place."""
    level = 0.01 * float(np.max(np.abs(run.data_q)))
    return max(float(np.hypot(smooth(run.target_std)[-1], level)), 1e-6)


def _underfits(run: Curves) -> str:
    """Why the critics underfit, or nothing."""
    share = _td_share(run)
    if share > TD_LOW:
        return f"the TD error is still {share:.2f} of the targets' variance"
    gap, spread = smooth(run.policy_gap)[-1], _spread(run)
    if gap > LARGE_GAP * spread:
        return (
            f"the critics value the policy's actions {gap:.3g} above the data's, more than the "
            f"spread {spread:.3g} of the targets"
        )
    if run.regulariser is not None:
        pushed = smooth(run.regulariser)
        if pushed[-1] > 0.0 and pushed[-1] >= pushed[0]:
            return (
                f"the regulariser does not go down ({pushed[0]:.3g} to {pushed[-1]:.3g}): other "
                "actions are still rated above the data's"
            )
    return ""
