"""Rewards, ends and observations against those that the recovered environment gives to the
stored states."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.checks.machines import machine_of, of_state_alone, quiet_simulator
from robo_rl.data.checks.sample import Sample
from robo_rl.data.checks.view import Gap, View
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import SHOWN, Confidence, Finding, Severity, finding
from robo_rl.quiet import quiet

_ATOL = 1e-4
# A recorder may take the tool's place a physics step apart from the joints.
_SHARE = 0.05
_SWITCH = 0.2  # of the rows at one value: contact and the like, which a restored scene lacks
_COMPUTED = "computed again by the dataset's environment from infos['qpos'] and infos['qvel']"


class ReplaySkippedError(Exception):
    """States cannot be replayed; the text says why."""


class EnvDiffersError(Exception):
    """The environment that the dataset names cannot hold its states; the text says why."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a replay found, by the name of the check, and what it could not look at."""

    findings: dict[str, list[Finding]]
    gaps: dict[str, Gap]


@contextlib.contextmanager
def environment(dataset: Dataset, env: Any) -> Iterator[Any]:
    """`env`, or the one that the dataset names. Raises ReplaySkippedError where there is none."""
    with quiet():
        if env is not None:
            yield env
            return
        recovered = _recover(dataset)
        try:
            yield recovered
        finally:
            recovered.close()


def _recover(dataset: Dataset) -> Any:
    spec = dataset.env_spec
    if spec is None:
        raise ReplaySkippedError("the dataset names no environment")
    try:
        if spec.entry_point is None:
            return gymnasium.make(spec.id, disable_env_checker=True, **spec.kwargs)
        return gymnasium.make(spec, disable_env_checker=True)
    except Exception as error:
        raise ReplaySkippedError(f"environment {spec.id} cannot be made: {error}") from error


def env_findings(dataset: Dataset, env: Any) -> list[Finding]:
    """The environment's spaces against the dataset's."""
    problems = []
    for name in ("observation_space", "action_space"):
        own, stored = getattr(env, name, None), getattr(dataset, name)
        if own is None:
            continue
        if _shapes(own) != _shapes(stored):
            problems.append(f"its {name} has {_shapes(own)}, the dataset's {_shapes(stored)}")
    if not problems:
        return []
    return [differs("; ".join(problems))]


def differs(problem: str) -> Finding:
    """The data were not recorded in the environment that is named."""
    return Finding(
        Severity.ERROR,
        "env_differs",
        f"the environment named in the dataset is not the one that was recorded: {problem}",
        1,
        1,
        (),
        "name the environment that was recorded (env_spec in metadata.json), or record again; "
        "what is learned here would be judged there",
        basis="the environment was made",
    )


def replay_states(dataset: Dataset, sample: Sample, env: Any, samples: int, seed: int) -> Replayed:
    """Compare a sample of steps: ends, steps where the reward changes, and any.

    Raises ReplaySkippedError when there is nothing to put the states from or into, and
    EnvDiffersError when the environment refuses the recorded states.
    """
    if not any({"qpos", "qvel"} <= view.infos.keys() for view in sample.views):
        raise ReplaySkippedError("no infos['qpos'] and infos['qvel'] to put the state from")
    unwrapped = env.unwrapped
    if not hasattr(unwrapped, "set_state"):
        raise ReplaySkippedError(f"{type(unwrapped).__name__} has no set_state(qpos, qvel)")
    env.reset(seed=0)
    picked, total = _pick(sample, samples, np.random.default_rng(seed))
    comparison = _Comparison(unwrapped, dataset, sample.views, _lasting(env, seed))
    for view, step in picked:
        comparison.step(view, step)
    gaps = comparison.unseen()
    if len(picked) < total or not sample.whole:
        part = f"{len(picked)} steps of {total} were replayed, from {sample.reason}"
        gaps = {name: gaps.get(name, Gap(part)) for name in ("reward", "terminated", "observation")}
    return Replayed(comparison.findings(len(picked)), gaps)


def _lasting(env: Any, seed: int) -> np.ndarray | None:
    # Of an environment that is no such machine, or fails as one, all is compared.
    with contextlib.suppress(Exception), quiet_simulator():
        machine = machine_of(env.unwrapped)
        return of_state_alone(machine, env.action_space, np.random.default_rng(seed))
    return None


class _Comparison:
    """Collects steps at which the environment disagrees."""

    def __init__(
        self, unwrapped: Any, dataset: Dataset, views: tuple[View, ...], lasting: np.ndarray | None
    ) -> None:
        self._env = unwrapped
        self._lasting = lasting  # (O,) bool, what the state alone shows; None for all
        self._views = views
        self._spreads: np.ndarray | None = None
        provenance = dataset.provenance
        # Reward and end judge the state after the step, or the one before it.
        self._after = 0 if provenance is not None and provenance.reward.timing == "pre" else 1
        self._own = provenance is None or provenance.reward.source == "environment"
        self.gaps: dict[str, Gap] = {}
        kind = type(unwrapped).__name__
        free = provenance is not None and provenance.reward.source == "none"
        self._reward = _reward_hook(unwrapped)
        if free:
            self._reward = None
        if self._reward is None:
            why = "the dataset is reward-free" if free else f"{kind} has no reward_of_state()"
            self.gaps["reward"] = Gap(why, whole=True)
        self._terminated: Callable[[], Any] | None
        self._terminated = getattr(unwrapped, "terminated_of_state", None)
        if self._terminated is None:
            self.gaps["terminated"] = Gap(f"{kind} has no terminated_of_state()", whole=True)
        self._observe = _observation_hook(unwrapped)
        if self._observe is None:
            self.gaps["observation"] = Gap(f"{kind} has no observation_of_state()", whole=True)
        self._rewards: list[tuple[int, int, float, float]] = []
        self._ends: list[tuple[int, int, bool]] = []
        self._observations: list[tuple[int, int]] = []
        self._columns: set[int] = set()
        self._judged: set[str] = set()

    def step(self, view: View, step: int) -> None:
        """Compare all that the environment says of one step."""
        self._set_state(view, step + self._after)
        if self._reward is not None and view.rewards is not None:
            again, stored = float(self._reward()), float(view.rewards[step])
            if not abs(again - stored) <= _ATOL:
                self._rewards.append((view.number, step, stored, again))
        if self._terminated is not None and view.terminations is not None:
            ended = bool(self._terminated())
            if ended != bool(view.terminations[step]):
                self._ends.append((view.number, step, ended))
        self._judged |= {
            name
            for name, array in (("reward", view.rewards), ("terminated", view.terminations))
            if array is not None
        }
        self._see_observation(view, step + self._after)

    def _see_observation(self, view: View, row: int) -> None:
        stored = view.observations.get("observations")
        if self._observe is None:
            return
        if stored is None or stored.ndim != 2:
            self.gaps["observation"] = Gap("the observations are not one vector")
            return
        again = np.asarray(self._observe(), np.float64).reshape(-1)
        if again.shape != stored.shape[1:]:
            what = f"the environment's state shows {again.size} numbers, {stored.shape[1]} stored"
            self.gaps["observation"] = Gap(what)
            return
        slack = _ATOL * (1.0 + abs(again)) + _SHARE * self._spread(stored.shape[1])
        wrong = ~(abs(again - stored[row]) <= slack)
        if self._lasting is not None and self._lasting.shape == wrong.shape:
            wrong &= self._lasting
        if wrong.any():
            self._observations.append((view.number, row))
            self._columns |= set(np.flatnonzero(wrong).tolist())

    def _spread(self, width: int) -> np.ndarray:
        """(D,) of each number; without end for switches, which a restored scene need not show."""
        if self._spreads is None:
            rows = np.concatenate(
                [
                    view.observations["observations"]
                    for view in self._views
                    if view.observations.get("observations", np.empty(0)).shape[1:] == (width,)
                ]
            )
            low, high = np.percentile(rows, (5, 95), axis=0)
            # One that never changes is no switch: the environment must show the same.
            switch = [_SWITCH < _most_frequent(column) < 1.0 for column in rows.T]
            self._spreads = np.where(switch, np.inf, high - low)
        return self._spreads

    def _set_state(self, view: View, row: int) -> None:
        """`set_state` gets the infos that its parameters name."""
        kind = type(self._env).__name__
        arguments = {}
        for parameter in inspect.signature(self._env.set_state).parameters.values():
            if parameter.name in view.infos:
                arguments[parameter.name] = view.infos[parameter.name][row]
            elif parameter.default is inspect.Parameter.empty:
                raise ReplaySkippedError(f"{kind}.set_state needs infos[{parameter.name!r}]")
        try:
            self._env.set_state(**arguments)
        except Exception as error:  # whatever an environment of anyone's raises
            said = str(error) or type(error).__name__
            raise EnvDiffersError(f"{kind} cannot be put into a recorded state: {said}") from error

    def unseen(self) -> dict[str, Gap]:
        """Gaps, and what no episode has an array of that fits."""
        why = Gap("none is stored that fits its episode", whole=True)
        return dict.fromkeys({"reward", "terminated"} - self._judged, why) | self.gaps

    def findings(self, of: int) -> dict[str, list[Finding]]:
        """`reward_differs`, `terminated_differs` and `observation_differs`."""
        first = ""
        if self._rewards:
            number, step, stored, again = self._rewards[0]
            first = f": {stored:g} stored, {again:g} computed at {number}:{step}"
        flags = ""
        if self._ends:
            number, step, ended = self._ends[0]
            flags = f": at {number}:{step} it does {'' if ended else 'not '}end the task"
        columns = sorted(self._columns)[: 2 * SHOWN]
        return {
            "reward": finding(
                Severity.ERROR,
                "reward_differs",
                f"stored rewards are not the environment's{first}",
                [(number, step) for number, step, _, _ in self._rewards],
                of,
                "relabel the rewards with the environment that will be learned, or fix the "
                "environment named in the dataset",
                basis=_COMPUTED,
            ),
            "terminated": finding(
                Severity.ERROR if self._own else Severity.WARNING,
                "terminated_differs",
                f"terminated is not what the environment says{flags}",
                [(number, step) for number, step, _ in self._ends],
                of,
                "mark time limits as truncated and ends of the task as terminated; a wrong mark "
                "teaches wrong values there",
                basis=_COMPUTED,
            ),
            "observation": finding(
                Severity.WARNING,
                "observation_differs",
                f"observations are not what the environment shows of the state, columns {columns}",
                list(self._observations),
                of,
                "if noise or other units were not put there on purpose, write the observations "
                "again from infos['qpos'] and infos['qvel']",
                Confidence.HIGH,
                basis=_COMPUTED,
            ),
        }


def _most_frequent(column: np.ndarray) -> float:
    """The share of the most frequent value."""
    _, counts = np.unique(column, return_counts=True)
    return float(counts.max()) / len(column)


def _reward_hook(unwrapped: Any) -> Callable[[], Any] | None:
    hook = getattr(unwrapped, "reward_of_state", None)
    # OGBench's single-task manipulation environments compute it from the simulator's state.
    if hook is None and getattr(unwrapped, "_reward_task_id", None) is not None:
        hook = getattr(unwrapped, "compute_reward", None)
    return hook


def _observation_hook(unwrapped: Any) -> Callable[[], Any] | None:
    for name in ("observation_of_state", "_get_obs"):
        hook: Callable[[], Any] | None = getattr(unwrapped, name, None)
        if hook is not None:
            return hook
    return None


def _pick(
    sample: Sample, samples: int, rng: np.random.Generator
) -> tuple[list[tuple[View, int]], int]:
    """Steps to replay in order, and how many there are to choose from."""
    usable = [
        (view, step)
        for view in sample.views
        if {"qpos", "qvel"} <= view.infos.keys()
        for step in np.flatnonzero(_finite_states(view)).tolist()
    ]
    ends = [i for i, (view, step) in enumerate(usable) if step == view.steps - 1]
    changes = [
        i
        for i, (view, step) in enumerate(usable)
        if step and view.rewards is not None and view.rewards[step] != view.rewards[step - 1]
    ]
    near = rng.permutation(np.asarray(changes, np.int64))[: samples // 2]
    last = rng.permutation(np.asarray(ends, np.int64))[: samples // 8]
    chosen = np.union1d(near, last)
    rest = np.setdiff1d(np.arange(len(usable)), chosen)
    far = rng.permutation(rest)[: samples - len(chosen)]
    return [usable[i] for i in np.union1d(chosen, far).astype(np.int64).tolist()], len(usable)


def _finite_states(view: View) -> np.ndarray:
    """(T,) bool, steps with finite states on both sides; `finite` tells of the others."""
    known = np.ones(view.steps + 1, bool)
    for name in ("qpos", "qvel"):
        known &= np.isfinite(view.infos[name].reshape(view.steps + 1, -1)).all(axis=1)
    return known[1:] & known[:-1]


def _shapes(space: Any) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _shapes(inner) for name, inner in sorted(space.spaces.items())}
    return getattr(space, "n", None) or space.shape
