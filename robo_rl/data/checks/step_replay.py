"""Recorded steps taken again: does the environment, put into the state, do what was recorded?"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.state_replay import Replayed, ReplaySkippedError
from robo_rl.data.checks.view import Gap, View
from robo_rl.data.report import Confidence, Finding, Place, Severity, finding

_PROBES = 6
_HIDDEN = 3  # numbers of the state that may not show, such as a walker's way along the track
_FAR = 0.25  # of a usual change; simulators of other versions stay below
_OFTEN = 0.1
_CUT_ROWS = 3
_REWARD_TOLERANCE = 1e-2
_BASIS = "the environment was put into recorded states and given the recorded actions"


def replay_steps(sample: Sample, env: Any, samples: int, seed: int) -> Replayed:
    """Take a sample of steps again in a MuJoCo environment of Gymnasium's kind.

    Raises ReplaySkippedError where the environment cannot be put into the recorded states.
    """
    unwrapped = env.unwrapped
    if not _steppable(unwrapped):
        name = type(unwrapped).__name__
        raise ReplaySkippedError(
            f"no infos['qpos'] and infos['qvel'] to put the state from, and {name} does not go on "
            "from set_state(qpos, qvel)"
        )
    try:
        with _quiet_simulator():
            again = _taken_again(sample, env, samples, seed)
    except ReplaySkippedError:
        raise
    except Exception as error:  # whatever an environment of anyone's raises
        said = str(error) or type(error).__name__
        raise ReplaySkippedError(f"{type(unwrapped).__name__} failed: {said}") from error
    findings = _findings(again)
    part = Gap(f"{len(again)} steps of {sample.reason} were taken again")
    total = sum(view.steps for view in sample.views)
    gaps = {} if sample.whole and len(again) == total else dict.fromkeys(findings, part)
    return Replayed(findings, gaps)


def _taken_again(sample: Sample, env: Any, samples: int, seed: int) -> list["_Step"]:
    env.reset(seed=0)
    shown = _shown(env.unwrapped, np.random.default_rng(seed))
    views = [
        view
        for view in sample.views
        if view.vector is not None and view.moves is not None and view.vector.shape[1] == shown.size
    ]
    picked = _pick(views, samples, np.random.default_rng(seed)) if views else []
    if not picked:
        raise ReplaySkippedError("no episode has states and actions as the environment has them")
    return [_Step.taken(env.unwrapped, shown, view, step) for view, step in picked]


@contextlib.contextmanager
def _quiet_simulator() -> Iterator[None]:
    """Keep MuJoCo from writing a log file into the working folder where a state is impossible."""
    import mujoco

    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Which numbers of an observation (O,) are which of the state's (nq + nv,); -1 for none."""

    state_of: np.ndarray
    rest: np.ndarray  # the state to put what does not show from
    size: int

    def state(self, observation: np.ndarray) -> np.ndarray:
        state = self.rest.copy()
        known = self.state_of >= 0
        state[self.state_of[known]] = observation[known]
        return state


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step as recorded and as taken again."""

    place: Place
    change: np.ndarray
    off: np.ndarray  # how far the recorded next state is from the one that was reached
    rewards: tuple[float, float]
    ends: tuple[bool, bool]

    @classmethod
    def taken(cls, env: Any, shown: _Shown, view: View, step: int) -> "_Step":
        """Put the state, act once."""
        assert view.vector is not None
        assert view.moves is not None
        here, there = (row.astype(np.float64) for row in view.vector[step : step + 2])
        state = shown.state(here)
        env.set_state(state[: env.model.nq], state[env.model.nq :])
        action = np.asarray(view.moves[step], np.float64)
        observation, reward, terminated, _, _ = env.step(action)
        known = shown.state_of >= 0
        stored = float("nan") if view.rewards is None else float(view.rewards[step])
        ended = False if view.terminations is None else bool(view.terminations[step])
        return cls(
            (view.number, step),
            (there - here)[known],
            (there - np.asarray(observation, np.float64).reshape(-1))[known],
            (stored, float(reward)),
            (ended, bool(terminated)),
        )


def _steppable(env: Any) -> bool:
    hooks = all(hasattr(env, name) for name in ("set_state", "do_simulation", "_get_obs", "model"))
    return hooks and list(inspect.signature(env.set_state).parameters) == ["qpos", "qvel"]


def _shown(env: Any, rng: np.random.Generator) -> _Shown:
    """Find out by putting states at random which of their numbers an observation repeats."""
    rest = np.concatenate([env.init_qpos, env.init_qvel]).astype(np.float64)
    states, observations = [], []
    for _ in range(_PROBES):
        state = rest + rng.uniform(-0.1, 0.1, len(rest))
        env.set_state(state[: env.model.nq], state[env.model.nq :])
        # Quaternions are brought to unit length; what was put is what stands there now.
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
        observations.append(np.asarray(env._get_obs(), np.float64).reshape(-1))
    same = np.isclose(np.array(observations)[:, :, None], np.array(states)[:, None], atol=1e-9)
    equal = same.all(axis=0)
    state_of = np.where(equal.any(axis=1), equal.argmax(axis=1), -1)
    shown = _Shown(state_of, rest, len(state_of))
    hidden = np.setdiff1d(np.arange(len(rest)), state_of)
    if len(hidden) and (len(hidden) > _HIDDEN or _matter(env, shown, hidden, rng)):
        raise ReplaySkippedError(
            f"{len(hidden)} numbers of the state of {type(env).__name__} do not show in "
            "observations"
        )
    return shown


def _matter(env: Any, shown: _Shown, hidden: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether what does not show changes what comes next; how far a walker has come does not."""
    known = shown.state_of >= 0
    for _ in range(_PROBES):
        state = shown.rest + rng.uniform(-0.1, 0.1, len(shown.rest))
        reached = []
        for moved in (0.0, 0.3):
            state[hidden] = shown.rest[hidden] + moved
            env.set_state(state[: env.model.nq], state[env.model.nq :])
            reached.append(np.asarray(env.step(np.zeros(env.action_space.shape))[0])[known])
        if not np.allclose(reached[0], reached[1], atol=1e-3):
            return True
    return False


def _pick(views: list[View], samples: int, rng: np.random.Generator) -> list[tuple[View, int]]:
    """Steps anywhere, an eighth of them the last of an episode."""
    ends_of_scale = _ends_of_scale(views)
    usable = [
        (view, step)
        for view in views
        for step in np.flatnonzero(_known_rows(view, ends_of_scale)).tolist()
    ]
    last = [i for i, (view, step) in enumerate(usable) if step == view.steps - 1]
    ends = rng.permutation(np.asarray(last, np.int64))[: samples // 8]
    rest = rng.permutation(np.setdiff1d(np.arange(len(usable)), ends))[: samples - len(ends)]
    return [usable[i] for i in np.union1d(ends, rest).astype(np.int64).tolist()]


def _ends_of_scale(views: list[View]) -> np.ndarray:
    """(2, O) least and greatest numbers that occur again and again: speeds are often cut there."""
    rows = np.concatenate([view.vector for view in views if view.vector is not None])
    ends = np.stack([rows.min(axis=0), rows.max(axis=0)])
    times = (rows[:, None] == ends).sum(axis=0)
    often = (times >= _CUT_ROWS) & (times < 0.5 * len(rows))
    return np.where(often, ends, np.nan)


def _known_rows(view: View, ends_of_scale: np.ndarray) -> np.ndarray:
    """(T,) bool, steps that begin with numbers that are finite and were not cut."""
    assert view.vector is not None
    assert view.moves is not None
    finite = np.isfinite(view.vector).all(axis=1)
    cut = (view.vector[:, None] == ends_of_scale).any(axis=(1, 2))
    return np.asarray(finite[1:] & finite[:-1] & ~cut[:-1] & np.isfinite(view.moves).all(axis=1))


def _findings(steps: list[_Step]) -> dict[str, list[Finding]]:
    usual = np.percentile(abs(np.array([step.change for step in steps])), 90, axis=0)
    off = abs(np.array([step.off for step in steps])) / np.maximum(usual, 1e-9)
    far = ~(off <= _FAR).all(axis=1)
    if far.mean() > _OFTEN:
        return {"step": _steps_differ(steps, far, off), "reward": [], "terminated": []}
    # Rewards and ends are only judged where the step itself is the environment's.
    agreed = [step for step, wrong in zip(steps, far, strict=True) if not wrong]
    paid = [step for step in agreed if not _near(*step.rewards)]
    ended = [step for step in agreed if step.ends[0] != step.ends[1]]
    return {
        "step": [],
        "reward": _rewards_differ(paid, len(agreed)) if len(paid) > _OFTEN * len(agreed) else [],
        "terminated": finding(
            Severity.ERROR,
            "terminated_differs",
            "terminated is not what the environment says",
            [step.place for step in ended],
            len(agreed),
            "mark time limits as truncated and ends of the task as terminated; a wrong mark "
            "teaches wrong values there",
            basis=_BASIS,
        ),
    }


def _near(stored: float, again: float) -> bool:
    return abs(stored - again) <= _REWARD_TOLERANCE * (1.0 + abs(again)) or np.isnan(stored)


def _steps_differ(steps: list[_Step], far: np.ndarray, off: np.ndarray) -> list[Finding]:
    share = float(far.mean())
    return finding(
        Severity.WARNING,
        "step_differs",
        "the environment, put into a recorded state and given its action, goes elsewhere; by "
        f"{float(np.median(off[far].max(axis=1))):.2g} times a usual change in the middle",
        [step.place for step, wrong in zip(steps, far, strict=True) if wrong],
        len(steps),
        "if the recording is of a real machine or of another version of the environment, this is "
        "how far they are apart; else states and actions do not belong together",
        Confidence.HIGH if share > 0.4 else Confidence.MEDIUM,
        _BASIS,
    )


def _rewards_differ(paid: list[_Step], of: int) -> list[Finding]:
    (number, step), (stored, again) = paid[0].place, paid[0].rewards
    return finding(
        Severity.ERROR if len(paid) > 0.5 * of else Severity.WARNING,
        "reward_differs",
        f"stored rewards are not the environment's, whose steps these are: {stored:g} stored, "
        f"{again:g} computed at {number}:{step}",
        [one.place for one in paid],
        of,
        "relabel the rewards with the environment that will be learned, or fix the environment "
        "named in the dataset",
        basis=_BASIS,
    )
