"""An exported policy: a folder of plain arrays and a description, run with NumPy alone.

The folder holds `policy.json` (what to compute, on what, in which environment and at which rate)
and `arrays.npz` (without pickle). The digest in the description covers both; a folder that does
not match is refused. `robo_rl.hardware.runtime.kinds` says how an action comes about.

Where `action.chunk` is H > 1, the network's action is H actions of the robot, to be played in
order.
"""

import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_rl.hardware.runtime import files
from robo_rl.hardware.runtime.files import ARRAYS, DESCRIPTION, FORMAT, PolicyError, digest
from robo_rl.hardware.runtime.kinds import KINDS, Parts, build_kind
from robo_rl.hardware.runtime.networks import float32
from robo_rl.hardware.runtime.specs import ActionSpec, ObservationSpec

__all__ = [
    "ARRAYS",
    "DESCRIPTION",
    "FORMAT",
    "KINDS",
    "NotFinite",
    "NumpyPolicy",
    "PolicyError",
    "digest",
]


class NotFinite(ValueError):
    """An observation with a number that is not finite as float32."""


class NumpyPolicy:
    """A policy that acts with NumPy alone. The goal, where there is one, is in the observation.

    `compute` is a pure function. `act` is for control: it plays chunks of actions open loop and
    draws the noise of a stochastic policy, both from the last `reset` on. Called, it acts in
    the environment's own bounds.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """From parts that `load` has read, or export is about to write."""
        self.description = description
        self.observation = ObservationSpec.from_json(description["observation"])
        self.action = ActionSpec.from_json(description["action"])
        self.observation_size = self.observation.size
        self.action_size = self.action.size
        self.chunk = self.action.chunk
        """H, the actions that are computed at once."""
        rate = description["rate_hz"]
        self.rate_hz = None if rate is None else float(rate)
        """Of control; None where the environment has no rate."""
        self._mean = float32(arrays, "normaliser/mean", (self.observation_size,))
        self._std = float32(arrays, "normaliser/std", (self.observation_size,))
        if not (self._std > 0.0).all():
            raise PolicyError("normaliser/std must be > 0")
        width = self.chunk * self.action_size
        self._kind = build_kind(Parts(description, arrays, self.observation_size, width))
        self.kind = self._kind.name
        self.reset()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "NumpyPolicy":
        """Read and verify an exported policy."""
        path = pathlib.Path(folder)
        try:
            return cls(*files.read(path))
        except FileNotFoundError as error:
            raise PolicyError(
                f"{path} is not an exported policy: {error.filename} is missing; "
                "make one with `robo-rl export RUN`"
            ) from error
        except KeyError as error:
            raise PolicyError(f"policy in {path} is damaged: it lacks {error}") from error
        except (
            ValueError,
            TypeError,
            AttributeError,  # a list where an object belongs
            OSError,
            EOFError,
            RecursionError,
            OverflowError,
            NotImplementedError,  # an archive of a kind that Python cannot read
            zipfile.BadZipFile,
        ) as error:
            raise PolicyError(f"policy in {path} is damaged: {error}; export it again") from error

    def reset(self, seed: int = 0) -> None:
        """An episode begins: drop what is left of a chunk, draw noise from `seed` on."""
        self._queue: list[np.ndarray] = []
        self._rng = np.random.default_rng(seed)

    def act(self, observation: npt.ArrayLike | Mapping[str, Any]) -> np.ndarray:
        """The next action (..., A), float32 in [-1, 1]: of the chunk under way, or of a new one.

        The observation is a vector (..., O), or a Dict that `observation.flatten` knows. Noise is
        NumPy's `default_rng(seed).standard_normal` in float32, seeded by `reset`. Raises
        NotFinite, before noise is drawn, for an observation that is not.
        """
        if not self._queue:
            if isinstance(observation, Mapping):
                observation = self.observation.flatten(observation)
            vector = self._vector(observation)
            x, rows = self._standardised(vector), vector.shape[:-1]
            shape = self.noise_shape(rows)
            noise = None if shape is None else self._rng.standard_normal(shape, np.float32)
            actions = self._kind.compute(x, vector, noise)
            actions = actions.reshape(*rows, self.chunk, self.action_size)
            self._queue = list(np.moveaxis(actions, -2, 0))
        return self._queue.pop(0)

    def __call__(self, observation: npt.ArrayLike | Mapping[str, Any]) -> np.ndarray:
        """`act` (..., A) between the bounds of the environment's actions, and of their type."""
        return self.action.scaled(self.act(observation))

    def noise_shape(self, rows: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the noise for `rows` of observations; None for a deterministic policy."""
        return self._kind.noise_shape(rows)

    def compute(self, observation: npt.ArrayLike, noise: np.ndarray | None = None) -> np.ndarray:
        """Chunks (..., H * A) in [-1, 1], float32, for observations (..., O) and their noise."""
        vector = self._vector(observation)
        expected = self.noise_shape(vector.shape[:-1])
        if (None if noise is None else noise.shape) != expected:
            raise ValueError(
                f"NumpyPolicy.compute: noise of a {self.kind} policy must be {expected}, "
                f"got {None if noise is None else noise.shape}"
            )
        drawn = None if noise is None else np.asarray(noise, np.float32)
        return self._kind.compute(self._standardised(vector), vector, drawn)

    def _vector(self, observation: npt.ArrayLike) -> np.ndarray:
        """Numbers (..., O) as they came."""
        try:
            vector = np.asarray(observation)
        except ValueError as error:
            raise ValueError(f"NumpyPolicy: observation is no array: {error}") from error
        if vector.dtype.kind not in "fiub":
            raise ValueError(f"NumpyPolicy: observation must be numbers, got {vector.dtype}")
        if vector.shape[-1:] != (self.observation_size,):
            raise ValueError(
                f"NumpyPolicy: observation must be (..., {self.observation_size}), "
                f"got {vector.shape}"
            )
        return vector

    def _standardised(self, vector: np.ndarray) -> np.ndarray:
        """(..., O) in float32, finite: what is not would come out as an action that is not."""
        with np.errstate(over="ignore", invalid="ignore"):
            x: np.ndarray = (np.asarray(vector, np.float32) - self._mean) / self._std
        if not np.isfinite(x).all():
            wrong = np.argwhere(~np.isfinite(x))[0]
            raise NotFinite(
                "NumpyPolicy: observation must be finite as float32, entry "
                f"{', '.join(map(str, wrong))} is {vector[tuple(wrong)]}"
            )
        return x
