"""Observations and actions against the bounds of their spaces."""

from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.checks.form import leaf_spaces
from robo_rl.data.checks.view import Gap, View
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import Confidence, Finding, Places, Severity, finding

_TOLERANCE = 1e-6  # float32 of a number near 1
# A clipped or bang-bang policy lives on its bounds, and that is no defect. Nearly always there
# and in between for the rest looks like commands in a larger unit that were cut.
_NEARLY_ALWAYS = 0.8
_SOMETIMES = 0.02
_TINY = 0.025


class BoundsCheck:
    """Actions outside their space are an error, observations outside theirs a warning."""

    name = "bounds"

    def __init__(self, dataset: Dataset) -> None:
        self._action_space = dataset.action_space
        self._limits = {
            name: _Limits(space)
            for name, space in leaf_spaces("observations", dataset.observation_space).items()
            if isinstance(space, gymnasium.spaces.Box)
        }
        box = isinstance(dataset.action_space, gymnasium.spaces.Box)
        self._action_limits = _Limits(dataset.action_space) if box else None
        self._steps = self._left_out = 0
        self._past, self._past_observations = Places(), Places()
        self._largest = 0.0
        self._on: np.ndarray | None = None  # (A,) how often each action was on a bound

    def see(self, view: View) -> None:
        """Compare one episode with both spaces."""
        self._steps += view.steps
        if view.actions is None or view.actions.shape[1:] != self._action_space.shape:
            self._left_out += 1
        else:
            self._see_actions(view, view.actions)
        outside = np.zeros(view.steps + 1, bool)
        for name, limits in self._limits.items():
            array = view.observations.get(name)
            if array is None or array.shape[1:] != limits.shape:
                continue
            if name in view.extents and not limits.hold(*view.extents[name]):
                outside |= limits.past(array).any(axis=1)
        self._past_observations.add_steps(view.number, np.flatnonzero(outside))

    def _see_actions(self, view: View, actions: np.ndarray) -> None:
        if self._action_limits is None:
            wrong = _impossible(actions.reshape(view.steps, -1), self._action_space)
            self._past.add_steps(view.number, np.flatnonzero(wrong))
            return
        if "actions" in view.extents:
            low, high = view.extents["actions"]
            if not self._action_limits.hold(low, high):
                past = self._action_limits.past(actions).any(axis=1)
                self._past.add_steps(view.number, np.flatnonzero(past))
            self._largest = float(np.fmax(self._largest, max(abs(low), abs(high))))
        on = np.count_nonzero(self._action_limits.on(actions), axis=0)
        self._on = on if self._on is None else self._on + on

    def findings(self) -> list[Finding]:
        """`action_past_bound`, `observation_past_bound`, and `action_on_bound` where most are."""
        return [
            *finding(
                Severity.ERROR,
                "action_past_bound",
                "actions outside the action space",
                self._past,
                self._steps,
                "record the action that was executed, or scale the recorded ones into the space",
            ),
            *finding(
                Severity.WARNING,
                "observation_past_bound",
                "observations outside the observation space",
                self._past_observations,
                self._steps,
                "declare the bounds that the sensors have, or find out why they are exceeded",
            ),
            *self._saturated(),
            *self._small(),
        ]

    def _small(self) -> list[Finding]:
        """All actions within a fortieth of what their bounds allow."""
        if self._action_limits is None:
            return []
        used = self._largest / self._action_limits.reach
        if not 0.0 < used < _TINY:
            return []
        return [
            Finding(
                Severity.WARNING,
                "action_small",
                f"no action goes beyond {100 * used:.2g} % of its bounds",
                self._steps,
                self._steps,
                (),
                "if they are in a smaller unit than the space says, scale them; if the policy is "
                "that gentle, all is well",
                Confidence.LOW,
                "the largest of every action in all steps",
            )
        ]

    def _saturated(self) -> list[Finding]:
        if self._on is None or not self._steps:
            return []
        share = self._on / self._steps
        columns = np.flatnonzero((share > _NEARLY_ALWAYS) & (share < 1.0 - _SOMETIMES))
        if not len(columns):
            return []
        shares = ", ".join(f"{100 * share[column]:.0f} % of action {column}" for column in columns)
        return [
            Finding(
                Severity.WARNING,
                "action_on_bound",
                f"actions exactly on a bound nearly always, but not always: {shares}",
                int(self._on[columns].max()),
                self._steps,
                (),
                "if the commands were in a larger unit and were cut, record them in theirs; if the "
                "policy is like that, all is well",
                Confidence.LOW,
                f"more than {100 * _NEARLY_ALWAYS:.0f} % on a bound; policies that clip stay below",
            )
        ]

    def gap(self) -> Gap | None:
        """Actions that do not fit, or a space without bounds."""
        if self._left_out:
            reason = f"actions of {self._left_out} episodes do not fit their space"
            return Gap(reason, whole=False)
        return None


class _Limits:
    """The bounds of a Box, each as far out as float32 may round."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        assert isinstance(space, gymnasium.spaces.Box)
        self.shape = space.shape
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        size = np.maximum(_size(low), _size(high))
        slack = _TOLERANCE * np.maximum(1.0, size)
        self._low, self._high, self._slack = low - slack, high + slack, slack
        self._inner = float(self._low.max(initial=-np.inf)), float(self._high.min(initial=np.inf))
        bounded = np.isfinite(low).all() and np.isfinite(high).all() and size.size
        self.reach = float(size.min()) if bounded and size.min() > 0.0 else np.inf

    def hold(self, low: float, high: float) -> bool:
        """Whether numbers in this range are inside. So is NaN: `finite` tells of it."""
        return not (low < self._inner[0] or high > self._inner[1])

    def past(self, array: np.ndarray) -> np.ndarray:
        """(N, D) bool, beyond a bound."""
        return np.asarray(((array < self._low) | (array > self._high)).reshape(len(array), -1))

    def on(self, array: np.ndarray) -> np.ndarray:
        """(N, D) bool, on a bound, or beyond it."""
        low, high = self._low + 2.0 * self._slack, self._high - 2.0 * self._slack
        low, high = low.astype(array.dtype), high.astype(array.dtype)
        return np.asarray(((array <= low) | (array >= high)).reshape(len(array), -1))


def _size(bound: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(bound), abs(bound), 0.0)


def _impossible(actions: np.ndarray, space: gymnasium.Space[Any]) -> np.ndarray:
    """(T,) bool, actions that are no choice of a discrete space."""
    if isinstance(space, gymnasium.spaces.Discrete):
        first, count = np.array([space.start]), np.array([space.n])
    elif isinstance(space, gymnasium.spaces.MultiDiscrete):
        first, count = space.start.reshape(-1), space.nvec.reshape(-1)
    elif isinstance(space, gymnasium.spaces.MultiBinary):
        first, count = np.array([0]), np.array([2])
    else:
        return np.zeros(len(actions), bool)
    return np.asarray(((actions < first) | (actions >= first + count)).any(axis=1))
