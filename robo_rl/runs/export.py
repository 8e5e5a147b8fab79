"""Export: a policy as plain arrays and a description, whose NumPy form is checked against JAX.

The folder is read by `robo_rl.hardware.runtime.policy`, which this room does not import: the caller
passes its loader, so that what is checked is what will run.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from robo_rl import files
from robo_rl.locks import Aside
from robo_rl.nn.apply import ENCODER
from robo_rl.nn.policies import NotExportable, Policy
from robo_rl.nn.portable import NotPortable
from robo_rl.runs import trees
from robo_rl.runs.specs import ActionSpec, ObservationSpec

FORMAT = 2
TOLERANCE = 1e-5


class ParityError(RuntimeError):
    """The exported policy does not compute what the trained one does."""


class Runnable(Protocol):
    """What a loader returns."""

    def compute(self, observation: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions (..., A) for observations (..., O), and noise where the policy is stochastic."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """What the policy reads and writes where it acts."""

    rate_hz: float | None
    """Of control; None where the environment has no rate."""
    observation: ObservationSpec = dataclasses.field(default_factory=ObservationSpec)
    action: ActionSpec = dataclasses.field(default_factory=ActionSpec)
    chunk: int = 1
    """H, the actions that the policy computes at once, to be played in order."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is true of it and a deployment should check or show, as JSON: `environment` (id or
    spec, keywords, step limit, rate), `run`, `step`, and `arm` only where there is one."""

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not self.rate_hz > 0.0:
            raise ValueError(f"Interface.rate_hz must be > 0, got {self.rate_hz}")
        if self.chunk < 1:
            raise ValueError(f"Interface.chunk must be >= 1, got {self.chunk}")


def export(
    folder: str | os.PathLike[str],
    policy: Policy,
    interface: Interface,
    *,
    act: Callable[[np.ndarray], np.ndarray],
    observations: np.ndarray,
    load: Callable[[pathlib.Path], Runnable],
    noise: np.ndarray | None = None,
) -> float:
    """Write `folder` and return the largest difference to `act` on `observations` (N, O).

    `act` is the trained policy in JAX, `load` reads a folder back; `noise` is what `act` draws for
    these observations where it is stochastic (`policies.noise`). The folder is put in place only
    if no action differs by more than 1e-5; an older export there is replaced.
    """
    target = files.absolute(folder)
    if target.exists() and not (target / "policy.json").exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} holds something that is not an exported policy")
    description, arrays = describe(policy, interface)
    with Aside(target.parent, f".{target.name}.exporting-") as aside:
        try:
            with (aside.folder / "arrays.npz").open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # of allow_pickle, in the stubs
                file.flush()
                os.fsync(file.fileno())
            files.write_json(aside.folder / "policy.json", description)
        except OSError as error:
            raise files.refused(f"cannot export to {target}", error) from error
        difference = _difference(policy, act, load(aside.folder), observations, noise)
        if not difference <= TOLERANCE:
            raise ParityError(
                f"{target}: the exported policy differs from the trained one by {difference:.2e}, "
                f"allowed {TOLERANCE:.0e}, on {len(observations)} observations"
            )
        aside.replace(target)
    return difference


def probe_observations(observations: np.ndarray, count: int = 1000, seed: int = 0) -> np.ndarray:
    """`count` rows (count, O) for the check: from the data, half of them disturbed."""
    rng = np.random.default_rng(seed)
    rows = np.asarray(observations, np.float32)[rng.integers(len(observations), size=count)]
    noise = rng.normal(size=rows.shape) * observations.std(axis=0)
    noise[: count // 2] = 0.0
    return np.asarray(rows + noise, np.float32)


def check_exportable(policy: Policy) -> None:
    """NotExportable where the NumPy runtime cannot compute what the policy does."""
    mean = policy.reader.normaliser.mean
    if isinstance(mean, Mapping):
        read = sorted({*mean, *policy.reader.params.get(ENCODER, {})})
        raise NotExportable(
            f"export: this policy reads {', '.join(read)} by an encoder; an exported policy runs "
            "with NumPy alone, on one vector. Act with it in JAX, by the agent's `act` on the "
            "run's checkpoint"
        )
    try:
        policy.describe()
    except NotPortable as error:
        raise NotExportable(f"export: {error}") from error


def describe(policy: Policy, interface: Interface) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of `policy.json` and `arrays.npz`."""
    check_exportable(policy)
    arrays = policy.arrays()
    arrays["normaliser/mean"] = np.asarray(policy.reader.normaliser.mean, np.float32)
    arrays["normaliser/std"] = np.asarray(policy.reader.normaliser.std, np.float32)
    if policy.width % interface.chunk:
        raise ValueError(
            f"export: {policy.width} numbers do not divide into {interface.chunk} actions"
        )
    description: dict[str, Any] = {
        "format": FORMAT,
        "kind": policy.kind,
        "rate_hz": interface.rate_hz,
        "observation": interface.observation.describe(int(arrays["normaliser/mean"].size)),
        "action": {
            **interface.action.describe(policy.width // interface.chunk),
            "chunk": interface.chunk,
        },
        "meta": dict(interface.meta),
        **policy.describe(),
    }
    # As it will be read back: tuples are lists, and what JSON cannot hold is found here.
    description = json.loads(json.dumps(description, allow_nan=False))
    description["sha256"] = _digest(description, arrays)
    return description, arrays


def _digest(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Over both files; `robo_rl.hardware.runtime.files.digest` computes the same."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{trees.digest(arrays)}\n{text}".encode()).hexdigest()


def _difference(
    policy: Policy,
    act: Callable[[np.ndarray], np.ndarray],
    exported: Runnable,
    observations: np.ndarray,
    noise: np.ndarray | None,
) -> float:
    """Largest difference over a batch, and one observation at a time as on the robot."""
    expected = np.asarray(act(observations))
    rows = [None] * len(observations) if noise is None else list(noise)
    singly = np.stack([exported.compute(*pair) for pair in zip(observations, rows, strict=True)])
    got = (exported.compute(observations, noise), singly)
    return policy.distance(observations, noise, expected, got)
