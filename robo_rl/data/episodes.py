"""The episode: what recorders, collectors and importers hand to the dataset room."""

import dataclasses
from collections.abc import Mapping

import numpy as np

Arrays = np.ndarray | Mapping[str, np.ndarray]
"""One array, or a flat dict of arrays that share their leading axis."""
Scalar = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Episode:
    """T steps and the T + 1 states around them. Nothing is checked before `validate`."""

    observations: Arrays  # (T + 1, ...), also of the state that the last step led to
    actions: np.ndarray  # (T, A), or (T,) when they are discrete
    rewards: np.ndarray  # (T,)
    terminations: np.ndarray  # (T,) bool: the task ended; no value lies beyond
    truncations: np.ndarray  # (T,) bool: the recording ended; value goes on
    infos: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Arrays of T + 1 rows, one per state: `qpos`, `qvel`, `goal`, ..."""
    seed: int | None = None
    metadata: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    def problems(self) -> list[str]:
        """Why the arrays do not fit together; empty when they do."""
        found = [] if len(self) else ["it has no step"]
        return found + [problem for _, problems in self.misfits().items() for problem in problems]

    def misfits(self, steps: int | None = None) -> dict[str, list[str]]:
        """What is wrong with each array that does not fit an episode of `steps` (default: as many
        as there are rewards), by its name: `actions`, `observations['image']`, `infos['qpos']`.
        """
        steps = len(self) if steps is None else steps
        found: dict[str, list[str]] = {}
        for name in ("rewards", "actions", "terminations", "truncations"):
            array = getattr(self, name)
            problems = _rows(name, array, steps)
            shape = np.shape(array)
            if name != "actions" and len(shape) != 1:
                problems.append(f"{name} must have one axis, got shape {shape}")
            dtype = np.asarray(array).dtype
            if name in ("terminations", "truncations") and dtype != np.bool_:
                problems.append(f"{name} must be bool, got {dtype}")
            found[name] = problems
        states = named_arrays("observations", self.observations)
        states |= {f"infos[{name!r}]": array for name, array in self.infos.items()}
        for name, array in states.items():
            found[name] = _rows(name, array, steps + 1)
        return {name: problems for name, problems in found.items() if problems}

    def validate(self, where: str = "episode") -> None:
        """Raises ValueError unless the arrays fit together."""
        found = self.problems()
        if found:
            raise ValueError(f"{where}: {'; '.join(found)}")

    def span(self, start: int, stop: int) -> "Episode":
        """The steps start..stop-1, with the state after the last of them."""
        states = slice(start, stop + 1)
        if isinstance(self.observations, Mapping):
            observations: Arrays = {k: v[states] for k, v in self.observations.items()}
        else:
            observations = self.observations[states]
        return dataclasses.replace(
            self,
            observations=observations,
            actions=self.actions[start:stop],
            rewards=self.rewards[start:stop],
            terminations=self.terminations[start:stop],
            truncations=self.truncations[start:stop],
            infos={name: array[states] for name, array in self.infos.items()},
        )


def named_arrays(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """`arrays` as a dict of arrays, each with a name fit for a message."""
    if isinstance(arrays, Mapping):
        return {f"{name}[{key!r}]": np.asarray(array) for key, array in arrays.items()}
    return {name: np.asarray(arrays)}


def _rows(name: str, array: np.ndarray, expected: int) -> list[str]:
    shape = np.shape(array)
    if not shape or shape[0] != expected:
        return [f"{name} must have {expected} rows, got shape {shape}"]
    if np.asarray(array).dtype.kind not in "biuf":
        return [f"{name} must hold numbers, got {np.asarray(array).dtype}"]
    return []
