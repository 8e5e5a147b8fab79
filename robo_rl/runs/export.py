"""Export: a policy as plain arrays and a description, whose NumPy form is checked against JAX.

The folder is read by `robo_rl.hardware.runtime.policy`, which this room does not import: the caller
passes its loader, so that what is checked is what will run.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl import files
from robo_rl.nn import policies
from robo_rl.nn.apply import ENCODER, Params
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.policies import (
    BestOfNPolicy,
    CorrectionPolicy,
    FamilyPolicy,
    FlowPolicy,
    OneStepPolicy,
    Policy,
    ResidualPolicy,
    TanhPolicy,
)
from robo_rl.nn.trunks import LAYER_NORM_EPSILON
from robo_rl.runs import trees

FORMAT = 1
TOLERANCE = 1e-5


class ParityError(RuntimeError):
    """The exported policy does not compute what the trained one does."""


class NotExportable(ValueError):
    """A policy that the NumPy runtime cannot compute."""


class Runnable(Protocol):
    """What a loader returns."""

    def compute(self, observation: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions (..., A) for observations (..., O), and noise where the policy is stochastic."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """What the policy reads and writes on the robot."""

    rate_hz: float | None
    """None where nobody knows it."""
    observation: Sequence[str] = ()
    """Name of every entry, if known."""
    action: Sequence[str] = ()
    chunk: int = 1
    """H, the actions that the policy computes at once, to be played in order."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Environment, arm spec digest, run, step: whatever a deployment should check or show."""

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
        difference = _difference(policy, act, load(aside), observations, noise)
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


def check_exportable(policy: Policy) -> None:
    """NotExportable where the policy reads more than a vector: NumPy's runtime has no encoder."""
    mean = _base(policy).normaliser.mean
    if isinstance(mean, Mapping):
        read = sorted({*mean, *_base(policy).params.get(ENCODER, {})})
        raise NotExportable(
            f"export: this policy reads {', '.join(read)} by an encoder; an exported policy runs "
            "with NumPy alone, which has perceptrons on one vector only. Act with it in JAX, by "
            "the agent's `act` on the run's checkpoint"
        )


def describe(policy: Policy, interface: Interface) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of `policy.json` and `arrays.npz`."""
    check_exportable(policy)
    base = _base(policy)
    arrays = _layers("policy", base.net, base.params, "mean")
    arrays["normaliser/mean"] = np.asarray(base.normaliser.mean, np.float32)
    arrays["normaliser/std"] = np.asarray(base.normaliser.std, np.float32)
    width = int(base.params["mean"]["bias"].size)
    if width % interface.chunk:
        raise ValueError(f"export: {width} numbers do not divide into {interface.chunk} actions")
    description: dict[str, Any] = {
        "format": FORMAT,
        "kind": _KINDS[type(policy)],
        "rate_hz": interface.rate_hz,
        "observation": {
            "size": int(arrays["normaliser/mean"].size),
            "names": list(interface.observation),
        },
        "action": {
            "size": width // interface.chunk,
            "chunk": interface.chunk,
            "names": list(interface.action),
            "low": -1.0,
            "high": 1.0,
        },
        "policy": _about(base.net),
        "meta": dict(interface.meta),
    }
    if isinstance(base, FlowPolicy):
        description["policy"]["steps"] = base.steps
    if isinstance(policy, ResidualPolicy):
        correction = policy.correction
        arrays |= _layers("correction", correction.net, correction.params, "mean")
        description["correction"] = {**_about(correction.net), "scale": policy.scale}
    if isinstance(policy, CorrectionPolicy):
        description["scale"] = policy.scale
    if isinstance(policy, FamilyPolicy):
        balance = policy.balance
        arrays |= _layers("balance", balance.net, balance.params, "mean")
        description["balance"] = {
            **_about(balance.net),
            "low": policy.low,
            "high": policy.high,
            "code_size": policy.code_size,
        }
    if isinstance(policy, BestOfNPolicy):
        members = int(policy.critic["out"]["bias"].shape[0])
        for member in range(members):
            params = jax.tree.map(lambda leaf, m=member: leaf[m], policy.critic)
            arrays |= _layers(f"critic/{member}", policy.critic_net, params, "out")
        description["samples"] = policy.samples
        description["critic"] = {
            **_about(policy.critic_net),
            "members": members,
            "aggregate": policy.aggregate,
        }
    for name in ("observation", "action"):
        names, size = description[name]["names"], description[name]["size"]
        if names and len(names) != size:
            raise ValueError(f"export: {len(names)} {name} names for {size} entries")
    description["sha256"] = trees.digest(arrays)
    return description, arrays


_KINDS: Mapping[type, str] = {
    TanhPolicy: "tanh_mlp",
    ResidualPolicy: "residual",
    CorrectionPolicy: "correction",
    FamilyPolicy: "family",
    OneStepPolicy: "one_step",
    FlowPolicy: "flow",
    BestOfNPolicy: "best_of_n",
}


def _base(policy: Policy) -> TanhPolicy | OneStepPolicy | FlowPolicy:
    """The network that the first action comes from."""
    if isinstance(policy, ResidualPolicy):
        return policy.base
    if isinstance(policy, CorrectionPolicy):
        return policy.correction
    if isinstance(policy, FamilyPolicy):
        return policy.policy
    return policy.flow if isinstance(policy, BestOfNPolicy) else policy


def _about(net: NetConfig) -> dict[str, Any]:
    return {
        "hidden": list(net.hidden),
        "activation": net.activation,
        "layer_norm": net.layer_norm,
        "epsilon": LAYER_NORM_EPSILON,
    }


def _layers(name: str, net: NetConfig, params: Params, last: str) -> dict[str, np.ndarray]:
    """Trunk and the layer called `last`."""
    trunk = params["trunk"]
    out: dict[str, np.ndarray] = {}
    count = len(net.hidden)
    for index in range(count + 1):
        dense = trunk[f"Dense_{index}"] if index < count else params[last]
        out[f"{name}/{index}/kernel"] = np.asarray(dense["kernel"], np.float32)
        out[f"{name}/{index}/bias"] = np.asarray(dense["bias"], np.float32)
        if index < count and net.layer_norm != "none":
            norm = trunk[f"LayerNorm_{index}"]
            out[f"{name}/{index}/norm_scale"] = np.asarray(norm["scale"], np.float32)
            out[f"{name}/{index}/norm_shift"] = np.asarray(norm["bias"], np.float32)
    return out


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
    if isinstance(policy, BestOfNPolicy):
        assert noise is not None
        choices = policies.candidates(policy, jnp.asarray(observations), jnp.asarray(noise))
        return max(_off_best(actions, *map(np.asarray, choices)) for actions in (expected, *got))
    return float(np.max([np.abs(actions - expected) for actions in got]))


def _off_best(actions: np.ndarray, candidates: np.ndarray, scores: np.ndarray) -> float:
    """How far actions (B, A) are from the best of candidates (B, N, A).

    Rounding decides between candidates with nearly the same score (B, N). So an action may be any
    of them; its distance to it counts, and by how much that one scores below the best, relative to
    scores above 1.
    """
    distance = np.abs(candidates - actions[:, None]).max(axis=-1)
    nearest = distance.argmin(axis=-1)
    top = scores.max(axis=-1)
    missed = top - np.take_along_axis(scores, nearest[:, None], axis=-1)[:, 0]
    return float(np.maximum(distance.min(axis=-1), missed / np.maximum(1.0, np.abs(top))).max())
