"""Do the arrays fit together, fit the spaces and the metadata, and stay finite for the learner?"""

from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.checks.view import Gap, View
from robo_rl.data.episodes import named_arrays
from robo_rl.data.minari_read import Dataset, needs_minari
from robo_rl.data.report import Finding, Places, Severity, finding

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT32 = np.iinfo(np.int32)


def count_findings(dataset: Dataset, episodes: int, steps: int) -> list[Finding]:
    """The metadata's counts against what is in the file."""
    stored = dataset.stored_episodes()
    said = dataset.metadata.get("total_steps")
    problems: list[str] = []
    if stored is not None and stored != dataset.total_episodes:
        problems.append(f"{dataset.total_episodes} episodes are counted, {stored} are stored")
    if said is not None and int(said) != steps and episodes == dataset.total_episodes:
        problems.append(f"{said} steps are counted, {steps} are stored")
    if not problems:
        return []
    advice = (
        "learners read as many episodes as are counted: set total_episodes and total_steps in "
        "metadata.json right, or write the dataset again"
    )
    message = f"the metadata do not count what is stored: {'; '.join(problems)}"
    return [Finding(Severity.ERROR, "counts", message, len(problems), 2, (), advice)]


def counts_gap(dataset: Dataset) -> Gap | None:
    """Why episodes could not be counted in the file."""
    if dataset.stored_episodes() is None:
        return Gap("only steps were counted: this storage does not tell how many episodes it has")
    return None


class LengthsCheck:
    """T steps with T + 1 states, in every array."""

    name = "lengths"

    def __init__(self) -> None:
        self._seen = 0
        self._places = Places()
        self._first = ""

    def see(self, view: View) -> None:
        """Collect the misfits."""
        self._seen += 1
        problems = [problem for found in view.misfits.values() for problem in found]
        problems = problems if view.steps else ["it has no step", *problems]
        if problems:
            self._first = self._first or f"episode {view.number}: {'; '.join(problems)}"
            self._places.add(view.number)

    def findings(self) -> list[Finding]:
        """One for all episodes with a misfit."""
        return finding(
            Severity.ERROR,
            "lengths",
            f"arrays do not fit together; {self._first}",
            self._places,
            self._seen,
            "T steps need T actions, rewards and end flags (bool), and T + 1 observations and "
            "infos; record the state after the last step too. Training refuses such a dataset",
        )

    def gap(self) -> Gap | None:
        """None."""
        return None


class SpacesCheck:
    """Shapes, types and keys of observations and actions against the declared spaces."""

    name = "spaces"

    def __init__(self, dataset: Dataset) -> None:
        self._spaces = {
            **leaf_spaces("observations", dataset.observation_space),
            **leaf_spaces("actions", dataset.action_space),
        }
        self._decoded = needs_minari(dataset)
        self._seen = 0
        self._shapes, self._halves = Places(), Places()
        self._first: list[str] = []

    def see(self, view: View) -> None:
        """Compare one episode."""
        self._seen += 1
        arrays = named_arrays("observations", view.episode.observations)
        arrays["actions"] = np.asarray(view.episode.actions)
        problems = [f"{name} is missing" for name in self._spaces.keys() - arrays.keys()]
        problems += [f"{name} is in no space" for name in arrays.keys() - self._spaces.keys()]
        half = False
        for name in arrays.keys() & self._spaces.keys():
            space, array = self._spaces[name], arrays[name]
            if array.shape[1:] != (space.shape or ()):
                problems.append(f"{name} has rows of {array.shape[1:]}, not {space.shape}")
            wanted = np.dtype(space.dtype)
            if _other_kind(array.dtype, wanted):
                problems.append(f"{name} is stored as {array.dtype}, not {wanted}")
            half |= array.dtype == np.float16 and wanted.itemsize > 2
        if problems:
            self._note(view.number, problems)
        if half:
            self._halves.add(view.number)

    def _note(self, number: int, problems: list[str]) -> None:
        self._shapes.add(number)
        self._first = self._first or [f"episode {number}: {'; '.join(sorted(problems))}"]

    def findings(self) -> list[Finding]:
        """`space_differs`, and `half_precision` where only digits were lost."""
        return [
            *finding(
                Severity.ERROR,
                "space_differs",
                f"arrays are not of the declared spaces; {''.join(self._first)}",
                self._shapes,
                self._seen,
                "declare the spaces that were recorded, or write these episodes again in those "
                "that are declared; a learner takes the stored numbers as they are",
            ),
            *finding(
                Severity.WARNING,
                "half_precision",
                "numbers are stored with three digits (float16) where the space has more",
                self._halves,
                self._seen,
                "record float32: small motions are lost in the rounding",
            ),
        ]

    def gap(self) -> Gap | None:
        """Decoding gives the space's own types, whatever was stored."""
        return Gap("types as decoded by Minari, not as stored") if self._decoded else None


class FiniteCheck:
    """NaN, infinity, and what becomes infinite in float32, as the learner casts it."""

    name = "finite"

    def __init__(self) -> None:
        self._steps = 0
        self._learned, self._casts, self._infos = Places(), Places(), Places()
        self._left_out: set[str] = set()

    def see(self, view: View) -> None:
        """Look for rows that are not finite."""
        self._steps += view.steps
        self._left_out |= view.misfits.keys() - {"terminations", "truncations"}
        bad, cast, bad_infos = (np.zeros(view.steps + 1, bool) for _ in range(3))
        for name, (low, high) in view.extents.items():
            array = _array(view, name)
            if _castable(low, high, array.dtype.kind):
                continue
            rows = array.reshape(len(array), -1)
            if not np.isfinite(rows).all():
                wrong = np.asarray(~np.isfinite(rows).all(axis=1))
                into = bad_infos if name.startswith("infos") else bad
                into[: len(wrong)] |= wrong
            elif not name.startswith("infos"):
                limit = _FLOAT32_MAX if rows.dtype.kind == "f" else float(_INT32.max)
                wrong = np.asarray((np.abs(rows.astype(np.float64)) > limit).any(axis=1))
                cast[: len(wrong)] |= wrong
        for places, mask in (
            (self._learned, bad),
            (self._casts, cast & ~bad),
            (self._infos, bad_infos),
        ):
            places.add_steps(view.number, np.flatnonzero(mask))

    def findings(self) -> list[Finding]:
        """`non_finite` and `overflow` in what is learned from, `non_finite_info` elsewhere."""
        advice = "drop these episodes, or find the sensor or the division that made them"
        return [
            *finding(
                Severity.ERROR,
                "non_finite",
                "NaN or infinity in observations, actions or rewards",
                self._learned,
                self._steps,
                advice,
            ),
            *finding(
                Severity.ERROR,
                "overflow",
                "numbers beyond float32 (integers beyond int32), which the learner casts to",
                self._casts,
                self._steps,
                "they become infinite in training: " + advice,
            ),
            *finding(
                Severity.WARNING,
                "non_finite_info",
                "NaN or infinity in infos",
                self._infos,
                self._steps,
                advice,
            ),
        ]

    def gap(self) -> Gap | None:
        """Arrays that do not fit were not looked into."""
        if not self._left_out:
            return None
        return Gap(f"not looked at where they do not fit: {', '.join(sorted(self._left_out))}")


class EndsCheck:
    """Where episodes end, and by which flag."""

    name = "ends"

    def __init__(self) -> None:
        self._episodes = self._steps = self._left_out = 0
        self._missing, self._early, self._cut, self._both = (Places() for _ in range(4))

    def see(self, view: View) -> None:
        """Look at the flags of one episode."""
        terminated, truncated = view.terminations, view.truncations
        if terminated is None or truncated is None or not view.steps:
            self._left_out += 1
            return
        self._episodes += 1
        self._steps += view.steps
        last = view.steps - 1
        if not (terminated[last] or truncated[last]):
            self._missing.add(view.number, last)
        self._early.add_steps(view.number, np.flatnonzero(terminated[:last]))
        self._cut.add_steps(view.number, np.flatnonzero(truncated[:last]))
        self._both.add_steps(view.number, np.flatnonzero(terminated & truncated))

    def findings(self) -> list[Finding]:
        """Missing, early and contradictory ends."""
        split = "end the episode there, or clear the flag if the task went on"
        return [
            *finding(
                Severity.ERROR,
                "end_missing",
                "episodes that end neither terminated nor truncated",
                self._missing,
                self._episodes,
                "set truncated where the recording stopped, terminated where the task did",
            ),
            *finding(
                Severity.ERROR,
                "terminated_early",
                "terminated in mid-episode: steps follow an end of the task",
                self._early,
                self._steps,
                split,
            ),
            *finding(
                Severity.ERROR,
                "truncated_early",
                "truncated in mid-episode: two recordings in one episode",
                self._cut,
                self._steps,
                split,
            ),
            *finding(
                Severity.WARNING,
                "end_contradictory",
                "both terminated and truncated; learners will take it as terminated",
                self._both,
                self._episodes,
                "right if the task ended on the very step of the time limit; otherwise clear one",
            ),
        ]

    def gap(self) -> Gap | None:
        """Episodes without usable flags."""
        if not self._left_out:
            return None
        return Gap(f"{self._left_out} episodes have no usable end flags", not self._episodes)


def leaf_spaces(name: str, space: gymnasium.Space[Any]) -> dict[str, gymnasium.Space[Any]]:
    """Spaces by the names of `named_arrays`."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return {name: space}
    return {f"{name}[{key!r}]": inner for key, inner in _flat(space)}


def _flat(space: gymnasium.spaces.Dict) -> list[tuple[str, gymnasium.Space[Any]]]:
    out: list[tuple[str, gymnasium.Space[Any]]] = []
    for key, inner in space.spaces.items():
        if isinstance(inner, gymnasium.spaces.Dict):
            out += [(f"{key}/{name}", leaf) for name, leaf in _flat(inner)]
        else:
            out.append((key, inner))
    return out


def _other_kind(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether numbers mean something else: bytes for reals, reals for choices."""
    kinds = {"f": "real", "i": "integer", "u": "integer", "b": "integer"}
    return kinds.get(stored.kind) != kinds.get(wanted.kind) or (
        wanted == np.uint8 and stored != np.uint8
    )


def _castable(low: float, high: float, kind: str) -> bool:
    """Whether numbers in this range are finite to the learner; false for NaN."""
    if kind == "f":
        return low >= -_FLOAT32_MAX and high <= _FLOAT32_MAX
    return low >= _INT32.min and high <= _INT32.max


def _array(view: View, name: str) -> np.ndarray:
    if name in view.observations:
        return view.observations[name]
    infos = {f"infos[{own!r}]": array for own, array in view.infos.items()}
    array = infos[name] if name in infos else getattr(view, name)
    return np.asarray(array)
