"""Export: a policy as plain arrays and a description, whose NumPy form is checked against JAX.

The folder is read by `robo_rl.hardware.policy`, which this room does not import: the caller passes
its loader, so that what is checked is what will run.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from robo_rl.nn.networks import LAYER_NORM_EPSILON
from robo_rl.nn.policies import Policy, ResidualPolicy, TanhPolicy
from robo_rl.runs import files, trees

FORMAT = 1
TOLERANCE = 1e-5


class ParityError(RuntimeError):
    """The exported policy does not compute what the trained one does."""


class Runnable(Protocol):
    """What a loader returns."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (B, A)."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """What the policy reads and writes on the robot."""

    rate_hz: float
    observation: Sequence[str] = ()
    """Name of every entry, if known."""
    action: Sequence[str] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Environment, arm spec digest, run, step: whatever a deployment should check or show."""

    def __post_init__(self) -> None:
        if not self.rate_hz > 0.0:
            raise ValueError(f"Interface.rate_hz must be > 0, got {self.rate_hz}")


def export(
    folder: str | os.PathLike[str],
    policy: Policy,
    interface: Interface,
    *,
    act: Callable[[np.ndarray], np.ndarray],
    observations: np.ndarray,
    load: Callable[[pathlib.Path], Runnable],
) -> float:
    """Write `folder` and return the largest difference to `act` on `observations` (N, O).

    `act` is the trained policy in JAX, `load` reads a folder back. The folder is put in place only
    if no action differs by more than 1e-5; an older export there is replaced.
    """
    target = pathlib.Path(folder)
    if target.exists() and not (target / "policy.json").exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} holds something that is not an exported policy")
    description, arrays = describe(policy, interface)
    aside = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with (aside / "arrays.npz").open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs see allow_pickle here
            file.flush()
            os.fsync(file.fileno())
        files.write_json(aside / "policy.json", description)
        difference = _difference(act, load(aside), observations)
        if not difference <= TOLERANCE:
            raise ParityError(
                f"{target}: the exported policy differs from the trained one by {difference:.2e}, "
                f"allowed {TOLERANCE:.0e}, on {len(observations)} observations"
            )
        shutil.rmtree(target, ignore_errors=True)
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return difference


def probe_observations(observations: np.ndarray, count: int = 1000, seed: int = 0) -> np.ndarray:
    """`count` rows (count, O) for the check: from the data, half of them disturbed."""
    rng = np.random.default_rng(seed)
    rows = np.asarray(observations, np.float32)[rng.integers(len(observations), size=count)]
    noise = rng.normal(size=rows.shape) * observations.std(axis=0)
    noise[: count // 2] = 0.0
    return np.asarray(rows + noise, np.float32)


def describe(policy: Policy, interface: Interface) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of `policy.json` and `arrays.npz`."""
    base = policy.base if isinstance(policy, ResidualPolicy) else policy
    arrays = _layers("policy", base)
    arrays["normaliser/mean"] = np.asarray(base.normaliser.mean, np.float32)
    arrays["normaliser/std"] = np.asarray(base.normaliser.std, np.float32)
    description: dict[str, Any] = {
        "format": FORMAT,
        "kind": "tanh_mlp",
        "rate_hz": interface.rate_hz,
        "observation": {
            "size": int(arrays["normaliser/mean"].size),
            "names": list(interface.observation),
        },
        "action": {
            "size": int(base.params["mean"]["bias"].size),
            "names": list(interface.action),
            "low": -1.0,
            "high": 1.0,
        },
        "policy": _about(base),
        "meta": dict(interface.meta),
    }
    if isinstance(policy, ResidualPolicy):
        arrays |= _layers("correction", policy.correction)
        description["kind"] = "residual"
        description["correction"] = {**_about(policy.correction), "scale": policy.scale}
    for name in ("observation", "action"):
        names, size = description[name]["names"], description[name]["size"]
        if names and len(names) != size:
            raise ValueError(f"export: {len(names)} {name} names for {size} entries")
    description["sha256"] = trees.digest(arrays)
    return description, arrays


def _about(policy: TanhPolicy) -> dict[str, Any]:
    return {
        "hidden": list(policy.net.hidden),
        "activation": policy.net.activation,
        "layer_norm": policy.net.layer_norm,
        "epsilon": LAYER_NORM_EPSILON,
    }


def _layers(name: str, policy: TanhPolicy) -> dict[str, np.ndarray]:
    trunk = policy.params["trunk"]
    out: dict[str, np.ndarray] = {}
    count = len(policy.net.hidden)
    for index in range(count + 1):
        dense = trunk[f"Dense_{index}"] if index < count else policy.params["mean"]
        out[f"{name}/{index}/kernel"] = np.asarray(dense["kernel"], np.float32)
        out[f"{name}/{index}/bias"] = np.asarray(dense["bias"], np.float32)
        if index < count and policy.net.layer_norm != "none":
            norm = trunk[f"LayerNorm_{index}"]
            out[f"{name}/{index}/norm_scale"] = np.asarray(norm["scale"], np.float32)
            out[f"{name}/{index}/norm_shift"] = np.asarray(norm["bias"], np.float32)
    return out


def _difference(
    act: Callable[[np.ndarray], np.ndarray], exported: Runnable, observations: np.ndarray
) -> float:
    """Largest difference over a batch, and one observation at a time as on the robot."""
    expected = np.asarray(act(observations))
    singly = np.stack([exported.act(row) for row in observations])
    both = np.maximum(np.abs(exported.act(observations) - expected), np.abs(singly - expected))
    return float(both.max())
