"""Recorded steps taken again: does the environment, put into the state, do what was recorded?"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from robo_rl.data.checks.machines import (
    CannotPutError,
    Machine,
    Shown,
    machine_of,
    quiet_simulator,
    shown_by,
)
from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.state_replay import Replayed, ReplaySkippedError
from robo_rl.data.checks.view import Gap, View
from robo_rl.data.provenance import Provenance
from robo_rl.data.report import Confidence, Finding, Place, Severity, finding

_FAR = 0.25  # of a usual change; simulators of other versions stay below
_EXACT = 0.02  # the same simulator stays below 0.01
_SAME_SIMULATOR = 1e-3  # in the middle
_SAME_RATE = 0.01
_TURNED = 1e-2  # in any number
_REWARD_FAR, _REWARD_EXACT = 1e-2, 2e-3
_OFTEN = 0.1
_TOO_OFTEN = 0.5  # then ends and rewards of the few that agree say nothing of the rest
_REFUTING = 0.98
_LEAST_REFUTING = 20
_PER_EPISODE = 4
_LOST = 20  # states sought in vain; then none will be found
_NONE = {
    "reward": "none is stored that fits its episode and hangs on nothing that does not show",
    "terminated": "none is stored that fits its episode",
}
_BASIS = "the environment was put into recorded states and given the recorded actions"
# What the environment's own steps show to be no defect, by what must agree.
_OF_MOTION = frozenset(
    {
        *("action_lag", "action_inverted", "actions_swapped", "columns_swapped"),
        *("time_reversed", "unordered", "rate_mixed", "frames_dropped", "units_mixed"),
        *("frozen", "rows_repeated", "last_repeated", "rows_zero"),
        *("column_constant", "column_stuck", "sentinel"),
        *("spikes", "jump_suspected", "reset_inside"),
    }
)
_OF_SINGLE_STEPS = frozenset({"spikes", "jump_suspected", "reset_inside"})
_OF_REWARDS = frozenset({"reward_lag", "reward_constant", "reward_spike"})
_OF_ENDS = frozenset({"limit_terminated"})


class Steps:
    """A sample of steps, taken again in one environment.

    Raises ReplaySkippedError where the environment cannot be put into the recorded states.
    """

    def __init__(
        self, sample: Sample, env: Any, samples: int, seed: int, provenance: Provenance | None
    ):
        self._sample = sample
        self._name = type(env.unwrapped).__name__
        self._rng = np.random.default_rng(seed)
        self._hz = None if provenance is None else provenance.control_hz
        self._free = provenance is not None and provenance.reward.source == "none"
        try:
            with quiet_simulator():
                env.reset(seed=0)
                self._machine: Machine = machine_of(env.unwrapped)
                self._shown: Shown = shown_by(self._machine, env.action_space, self._rng)
                self._views = self._usable_views()
                self._cut = self._lost = 0
                self._taken = self._take(self._pick(samples))
        except (CannotPutError, ReplaySkippedError) as error:
            raise ReplaySkippedError(str(error)) from error
        except Exception as error:  # whatever an environment of anyone's raises
            raise ReplaySkippedError(self._failed(error)) from error
        if not self._taken:
            raise ReplaySkippedError(self._unput())
        self._judge(self._taken)

    def _failed(self, error: Exception) -> str:
        return f"{self._name} failed: {str(error) or type(error).__name__}"

    def _unput(self) -> str:
        if self._lost:
            return f"no state of {self._name} shows the recorded observations"
        if self._cut:
            return f"all steps begin with numbers that {self._name} cuts"
        return "no episode has states and actions as the environment has them"

    def _usable_views(self) -> dict[int, View]:
        width = len(self._shown.judged)
        return {
            view.number: view
            for view in self._sample.views
            if view.vector is not None and view.moves is not None and view.vector.shape[1] == width
        }

    def _take(self, steps: Iterable[tuple[View, int]]) -> list["_Step"]:
        out: list[_Step] = []
        for view, step in steps:
            taken = self._again(view, step)
            if taken is not None:
                out.append(taken)
            elif self._lost > _LOST and not out:
                break
        return out

    def _again(self, view: View, step: int) -> "_Step | None":
        """Put the state, act once; None where it cannot be put."""
        state = self._state(view, step)
        if state is None:
            return None
        once = self._acted(view, step, state)
        if not self._holds_state(view) and not once.off.max(initial=0.0) <= _TURNED:
            # At a joint's limit it matters how often the joint has turned.
            tried = [self._acted(view, step, other) for other in self._shown.turned(state)]
            return min(
                [once, *tried], key=lambda one: float(np.nan_to_num(one.off, nan=np.inf).sum())
            )
        return once

    def _acted(self, view: View, step: int, state: np.ndarray) -> "_Step":
        assert view.vector is not None
        assert view.moves is not None
        here, there = (row.astype(np.float64) for row in view.vector[step : step + 2])
        self._machine.put(state)
        reached, reward, ended = self._machine.act(np.asarray(view.moves[step], np.float64))
        followed = self._shown.followed
        change, off = abs(there - here)[followed], abs(there - reached)[followed]
        return _Step(view, step, change, off, reward, ended)

    def _state(self, view: View, step: int) -> np.ndarray | None:
        """From infos where these hold it, else from the observation."""
        assert view.vector is not None
        if self._holds_state(view):
            parts = [view.infos[name][step].reshape(-1) for name in ("qpos", "qvel")]
            return np.concatenate(parts).astype(np.float64)
        row = view.vector[step].astype(np.float64)
        if self._is_cut(row[None])[0]:
            return None
        state_shown = self._shown.state(row, self._rng)
        self._lost += state_shown is None
        return state_shown

    def _is_cut(self, rows: np.ndarray) -> np.ndarray:
        """(N,) bool, rows with a number that the environment shows no larger."""
        return np.asarray((abs(rows) >= self._shown.cut * (1.0 - 1e-6)).any(axis=1))

    def _holds_state(self, view: View) -> bool:
        sizes = [view.infos[n][0].size for n in ("qpos", "qvel") if n in view.infos]
        return len(sizes) == 2 and sum(sizes) == len(self._machine.rest)

    def _pick(self, samples: int) -> list[tuple[View, int]]:
        """Steps spread over all episodes, an eighth of them first steps, an eighth last ones."""
        usable: list[tuple[View, int]] = []
        for view in self._views.values():
            assert view.vector is not None
            known = _finite_steps(view)
            if not self._holds_state(view):
                cut = known & self._is_cut(view.vector[:-1])
                self._cut += int(cut.sum())
                known &= ~cut
            usable += [(view, step) for step in np.flatnonzero(known).tolist()]
        return [usable[i] for i in _spread(usable, samples, self._rng)]

    def _judge(self, steps: list["_Step"]) -> None:
        """Set what is usual and what is far, from the sampled steps."""
        self._usual = np.percentile([step.change for step in steps], 90, axis=0)
        off = np.array([self._off(step) for step in steps])
        self._same = float(np.median(off)) <= _SAME_SIMULATOR
        self._limit = _EXACT if self._same else _FAR
        self._tolerance = _REWARD_EXACT if self._same else _REWARD_FAR
        self._agreed = [s for s, far in zip(steps, off, strict=True) if far <= self._limit]
        self._far = [s for s, far in zip(steps, off, strict=True) if not far <= self._limit]
        self._paid = [s for s in self._agreed if not np.isnan(s.stored_reward) and self._still(s)]
        with quiet_simulator():
            self._unpaid = [s for s in self._paid if not self._pays(s)]
        self._flagged = [s for s in self._agreed if s.view.terminations is not None]
        self._ended = [s for s in self._flagged if s.ended != s.stored_end]

    def _off(self, step: "_Step") -> float:
        """The largest distance, in usual changes; NaN counts as endless."""
        return float(self._distances(step)[self._shown.judged[self._shown.followed]].max())

    def _distances(self, step: "_Step") -> np.ndarray:
        off = step.off / np.maximum(self._usual, 1e-9)
        return np.where(np.isnan(off), np.inf, off)

    def _still(self, step: "_Step") -> bool:
        """Whether what does not show, and would change the reward, stood still in this step."""
        return self._shown.pays or bool((self._distances(step) <= self._limit).all())

    def _pays(self, step: "_Step") -> bool:
        if self._near(step.stored_reward, step.reward):
            return True
        # Contact forces hang on what the solver began from: with a step of run-up it is the same.
        if not step.step:
            return False
        assert step.view.moves is not None
        before = self._state(step.view, step.step - 1)
        if before is None:
            return False
        self._machine.put(before)
        for row in (step.step - 1, step.step):
            _, reward, _ = self._machine.act(np.asarray(step.view.moves[row], np.float64))
        return self._near(step.stored_reward, reward)

    def _near(self, stored: float, again: float) -> bool:
        return abs(stored - again) <= self._tolerance * (1.0 + abs(again))

    def replayed(self) -> Replayed:
        """What was found, and what not looked at."""
        count = len(self._taken)
        findings = {"step": self._steps_differ()}
        total = sum(view.steps for view in self._sample.views)
        said = f"{count} steps were taken again, out of {self._sample.reason}"
        if self._cut or self._lost:
            said += f"; {self._cut + self._lost} others begin with what {self._name} does not show"
        gaps = {} if self._sample.whole and count == total else {"step": Gap(said)}
        if len(self._far) > _TOO_OFTEN * count:
            why = f"{len(self._far)} of {count} steps are not the environment's"
            return Replayed(
                findings,
                gaps | {name: Gap(why, whole=True) for name in ("reward", "terminated")},
            )
        for name, judged in (("reward", self._paid), ("terminated", self._flagged)):
            if not judged:
                gaps[name] = Gap(_NONE[name], whole=True)
            elif len(judged) < total or not self._sample.whole:
                gaps[name] = Gap(f"{len(judged)} steps were judged, out of {self._sample.reason}")
        findings["terminated"] = self._ends_differ()
        if self._free:
            gaps["reward"] = Gap("the dataset is reward-free", whole=True)
        else:
            findings["reward"] = self._rewards_differ()
        return Replayed(findings, gaps)

    def refutes(self, told: Finding) -> bool:
        """Whether what the environment itself does shows that a suspicion is none."""
        if len(self._agreed) < min(_LEAST_REFUTING, self._sample_steps()):
            return False
        if not self._same or len(self._agreed) < _REFUTING * len(self._taken):
            return False
        if told.code == "rate_differs":
            period_s = self._machine.period_s
            if not period_s or not self._hz:
                return False
            return abs(period_s * self._hz - 1.0) < _SAME_RATE
        if told.code in _OF_MOTION:
            again = self._near_places(told.places)
            wrong = any(self._off(step) > self._limit for step in again)
            return not wrong and (bool(again) or told.code not in _OF_SINGLE_STEPS)
        if told.code in _OF_REWARDS | _OF_ENDS:
            odd = self._unpaid if told.code in _OF_REWARDS else self._ended
            seen = self._paid if told.code in _OF_REWARDS else self._flagged
            again = self._near_places(told.places)
            with quiet_simulator():
                wrong = any(
                    not self._pays(step)
                    if told.code in _OF_REWARDS
                    else step.ended != step.stored_end
                    for step in again
                )
            free = told.code in _OF_REWARDS and (self._free or len(seen) < len(self._agreed))
            return bool(seen) and not odd and not wrong and not free
        return False

    def _sample_steps(self) -> int:
        return sum(view.steps for view in self._sample.views)

    def _near_places(self, places: Iterable[Place]) -> list["_Step"]:
        """The steps to and from some rows, or a few of an episode, taken again."""
        steps: list[tuple[View, int]] = []
        for number, row in places:
            view = self._views.get(number)
            if view is None:
                continue
            rows = np.arange(view.steps)
            near = (
                self._rng.permutation(rows)[:_PER_EPISODE]
                if row is None
                else rows[max(row - 1, 0) : row + 1]
            )
            steps += [(view, step) for step in near.tolist()]
        with quiet_simulator():
            return self._take(steps)

    def _steps_differ(self) -> list[Finding]:
        if not self._far:
            return []
        share = len(self._far) / len(self._taken)
        middle = float(np.median([self._off(step) for step in self._far]))
        sure = share > 0.4 or self._same
        return finding(
            Severity.WARNING,
            "step_differs",
            "the environment, put into a recorded state and given its action, goes elsewhere; by "
            f"{middle:.2g} times a usual change in the middle",
            [step.place for step in self._far],
            len(self._taken),
            "if the recording is of a real machine or of another version of the environment, this "
            "is how far they are apart; else states and actions do not belong together",
            Confidence.HIGH if sure else Confidence.MEDIUM if share > _OFTEN else Confidence.LOW,
            _BASIS + (f"; {len(self._agreed)} steps agree exactly" if self._same else ""),
        )

    def _rewards_differ(self) -> list[Finding]:
        if not self._unpaid:
            return []
        first = self._unpaid[0]
        often = len(self._unpaid) > 0.5 * len(self._paid)
        return finding(
            Severity.ERROR if often else Severity.WARNING,
            "reward_differs",
            "stored rewards are not the environment's, whose steps these are: "
            f"{first.stored_reward:g} stored, {first.reward:g} computed at "
            f"{first.place[0]}:{first.place[1]}",
            [step.place for step in self._unpaid],
            len(self._paid),
            "relabel the rewards with the environment that will be learned, or fix the environment "
            "named in the dataset",
            Confidence.HIGH if self._same or often else Confidence.MEDIUM,
            basis=_BASIS,
        )

    def _ends_differ(self) -> list[Finding]:
        return finding(
            Severity.ERROR,
            "terminated_differs",
            "terminated is not what the environment says",
            [step.place for step in self._ended],
            len(self._flagged),
            "mark time limits as truncated and ends of the task as terminated; a wrong mark "
            "teaches wrong values there",
            basis=_BASIS,
        )


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step as recorded and as taken again."""

    view: View
    step: int
    change: np.ndarray
    off: np.ndarray  # how far the recorded next state is from the one that was reached
    reward: float
    ended: bool

    @property
    def place(self) -> tuple[int, int]:
        return self.view.number, self.step

    @property
    def stored_reward(self) -> float:
        rewards = self.view.rewards
        return float("nan") if rewards is None else float(rewards[self.step])

    @property
    def stored_end(self) -> bool:
        ends = self.view.terminations
        return ends is not None and bool(ends[self.step])


def _spread(usable: list[tuple[View, int]], samples: int, rng: np.random.Generator) -> list[int]:
    last = [i for i, (view, step) in enumerate(usable) if step == view.steps - 1]
    first = [i for i, (_, step) in enumerate(usable) if not step]
    chosen = {
        i
        for group in (first, last)
        for i in rng.permutation(np.array(group, np.int64))[: samples // 8].tolist()
    }
    # One of each episode before a second of any: a single bad episode shall show.
    rounds: dict[int, int] = {}
    order = []
    for i in rng.permutation(len(usable)).tolist():
        number = usable[i][0].number
        rounds[number] = rounds.get(number, -1) + 1
        order.append((rounds[number], i))
    for _, i in sorted(order, key=lambda pair: pair[0]):
        if len(chosen) >= samples:
            break
        chosen.add(i)
    return sorted(chosen)


def _finite_steps(view: View) -> np.ndarray:
    """(T,) bool, steps between finite states with a finite action; `finite` tells of others."""
    assert view.vector is not None
    assert view.moves is not None
    finite = np.isfinite(view.vector).all(axis=1)
    for name in ("qpos", "qvel"):
        if name in view.infos:
            finite &= np.isfinite(view.infos[name].reshape(view.steps + 1, -1)).all(axis=1)
    return np.asarray(finite[1:] & finite[:-1] & np.isfinite(view.moves).all(axis=1))
