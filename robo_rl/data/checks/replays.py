"""All that the dataset's environment is asked: states put into it, and steps taken again."""

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium

from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.state_replay import (
    EnvDiffersError,
    Replayed,
    ReplaySkippedError,
    differs,
    env_findings,
    environment,
    replay_states,
)
from robo_rl.data.checks.step_replay import Steps
from robo_rl.data.checks.view import Gap
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import Finding

NAMES = ("environment", "reward", "terminated", "observation", "step")
Judged = dict[str, tuple[list[Finding], Gap | None]]


class Replays:
    """What the environment said, by the name of the check; and what it says of suspicions."""

    def __init__(self, judged: Judged, steps: Steps | None = None):
        self.judged = judged
        self._steps = steps

    def without_refuted(self, findings: list[Finding]) -> list[Finding]:
        """Those that the environment's own steps do not show to be none."""
        if self._steps is None:
            return findings
        return [one for one in findings if not self._steps.refutes(one)]


@contextlib.contextmanager
def replays(
    dataset: Dataset, sample: Sample, env: Any, samples: int, seed: int
) -> Iterator[Replays]:
    """Ask the environment, and keep it open to be asked of suspicions."""
    with contextlib.ExitStack() as stack:
        try:
            if not samples:
                raise ReplaySkippedError("switched off")
            made = stack.enter_context(environment(dataset, env))
        except ReplaySkippedError as reason:
            yield Replays(_skipped(str(reason)))
            return
        yield _asked(dataset, sample, made, samples, seed)


def _adds_goal(dataset: Dataset, env: Any) -> bool:
    """Whether the data are of a goal-conditioned environment that tells its goal in `info` only."""
    shown = dataset.observation_space
    if not isinstance(shown, gymnasium.spaces.Dict) or set(shown.spaces) != {"goal", "observation"}:
        return False
    own = getattr(env, "observation_space", None)
    return isinstance(own, gymnasium.spaces.Box) and own.shape == shown["observation"].shape


def _skipped(reason: str, wrong: list[Finding] | None = None) -> Judged:
    judged: Judged = {name: ([], Gap(reason, whole=True)) for name in NAMES}
    if wrong is not None:
        judged["environment"] = wrong, None
    return judged


def _asked(dataset: Dataset, sample: Sample, env: Any, samples: int, seed: int) -> Replays:
    if _adds_goal(dataset, env):
        return Replays(_skipped("the data show the goal beside what the environment itself shows"))
    wrong = env_findings(dataset, env)
    if wrong:
        return Replays(_skipped("the environment is not the one that was recorded", wrong))
    try:
        by_states: Replayed | str = replay_states(dataset, sample, env, samples, seed)
    except EnvDiffersError as error:
        return Replays(_skipped(str(error), [differs(str(error))]))
    except ReplaySkippedError as reason:
        by_states = str(reason)
    steps: Steps | None = None
    try:
        steps = Steps(sample, env, samples, seed, dataset.provenance)
        by_steps: Replayed | str = steps.replayed()
    except ReplaySkippedError as reason:
        by_steps = str(reason)
    judged: Judged = {"environment": ([], None)}
    for name in NAMES[1:]:
        judged[name] = _better(name, by_states, by_steps)
    return Replays(judged, steps)


def _better(
    name: str, by_states: Replayed | str, by_steps: Replayed | str
) -> tuple[list[Finding], Gap | None]:
    """A state shows more than a step does; where it shows nothing, the step's word counts."""
    reasons = []
    # No state tells of a step, and steps begin with what observations show.
    for replayed in (by_states, by_steps):
        if isinstance(replayed, str):
            reasons.append(replayed)
            continue
        gap = replayed.gaps.get(name)
        if gap is not None and gap.whole:
            reasons.append(gap.reason)
        elif name in replayed.findings:
            return replayed.findings[name], gap
    return [], Gap(", and ".join(dict.fromkeys(reasons)), whole=True)
