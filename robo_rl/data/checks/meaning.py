"""Checks of meaning, on a sample: does what fits together mean what it says?"""

from robo_rl.data.checks import actions, clocks, labels, still, values
from robo_rl.data.checks.laws import action_effects, state_laws
from robo_rl.data.checks.motion import Motion, motion_of
from robo_rl.data.checks.replays import Judged, Replays
from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.view import Gap
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import Finding

# States that do not go on from each other tell nothing of what actions do.
_STATES_UNFIT = {"unordered", "time_reversed", "frozen", "rows_repeated"}
_OF_MOTION = ("still", "spikes", "actions", "order", "clock", "units")


def judge(dataset: Dataset, sample: Sample, replayed: Replays | None = None) -> Judged:
    """Findings and gap of every check, by its name."""
    part = None if sample.whole else Gap(f"looked at {sample.reason}")
    replayed = replayed or Replays({})
    told, unknown = labels.label_findings(dataset, sample.views)
    found: Judged = {"labels": (replayed.without_refuted(told), _gap(part, unknown))}
    motion = motion_of(sample.views)
    if isinstance(motion, str):
        return found | {name: ([], Gap(motion, whole=True)) for name in _OF_MOTION}
    if part is None and len(motion.courses) < len(sample.views):
        part = Gap(f"looked at {len(motion.courses)} of {len(sample.views)} episodes")
    provenance = dataset.provenance
    rate = None if provenance is None else provenance.control_hz
    laws = state_laws(motion)
    told, unknown = still.still_findings(sample.views, motion)
    found["still"] = ([*told, *values.value_findings(sample.views, motion)], _gap(part, unknown))
    found["spikes"] = (still.spike_findings(motion), part)
    found["order"] = (actions.order_findings(motion, laws), part)
    no_law = Gap("no number follows another as a position does its velocity", whole=True)
    clock = clocks.time_findings(motion, laws)
    units = clocks.unit_findings(motion, laws, rate, paced=bool(clock))
    if any(one.code == "units_mixed" for one in units):
        # In two units, a step seems to go further than its velocity says.
        clock = [one for one in clock if one.code != "frames_dropped"]
    clock += clocks.swapped_columns(motion, laws)
    found["clock"] = (clock, part if len(laws.strict) else no_law)
    found["units"] = (units, part)
    found = {name: (replayed.without_refuted(told), gap) for name, (told, gap) in found.items()}
    seen = {one.code for findings, _ in found.values() for one in findings}
    told, gap = _actions(motion, part, sorted(seen & _STATES_UNFIT))
    found["actions"] = replayed.without_refuted(told), gap
    if any(one.code == "action_lag" for one in found["actions"][0]):
        # A reward that counts the action seems late with it.
        told, gap = found["labels"]
        found["labels"] = [one for one in told if one.code != "reward_lag"], gap
    return found


def _gap(part: Gap | None, unknown: list[str]) -> Gap | None:
    """What of a check was not looked at, with what no check of the sample looked at."""
    reasons = ([] if part is None else [part.reason]) + unknown
    return Gap("; ".join(reasons)) if reasons else None


def _actions(
    motion: Motion, part: Gap | None, unfit: list[str]
) -> tuple[list[Finding], Gap | None]:
    if unfit:
        return [], Gap(f"no motion to hold actions against: {', '.join(unfit)}", whole=True)
    effects = action_effects(motion)
    if effects is None:
        return [], Gap("the actions are no vectors of reals", whole=True)
    rows = sum(len(course.actions) for course in motion.courses)
    inputs = len(motion.columns) + 3 * motion.courses[0].actions.shape[1]
    if rows < 2 * actions.ROWS_PER_INPUT * inputs:
        return [], Gap(f"{rows} steps are too few for {inputs} numbers", whole=True)
    lag, blind = actions.lag_findings(motion)
    findings = [
        *lag,
        *actions.inverted_actions(motion, effects),
        *actions.exchanged_actions(motion, effects),
    ]
    return findings, _gap(part, [] if blind is None else [blind])
