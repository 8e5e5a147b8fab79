"""A run's policy as a folder that runs with NumPy alone."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl import files
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.learn.contract import Agent, State
from robo_rl.nn import policies
from robo_rl.runs import configs, samples
from robo_rl.runs import export as exporting
from robo_rl.runs.specs import ActionSpec, ObservationSpec
from robo_rl.workflow import environment
from robo_rl.workflow.exported import Exported
from robo_rl.workflow.run import Run, load_run


def export(
    source: "str | os.PathLike[str] | Run",
    out: str | os.PathLike[str] | None = None,
    *,
    step: int | None = None,
) -> Exported:
    """Write a run's policy, the newest by default; into `policy` within the run by default.

    Raises NotExportable for a policy that NumPy cannot compute, ParityError where it computes
    something else.
    """
    run = load_run(source)
    folder = run.path / "policy" if out is None else pathlib.Path(out)
    number = run.directory.checkpoints.latest() if step is None else step
    interface = exporting.Interface(
        rate_hz=run.directory.config.get("rate_hz"),
        observation=ObservationSpec.of(run.spaces),
        action=ActionSpec.of(run.spaces),
        chunk=run.chunk,
        meta={
            "env": None if run.env is None else run.env.to_json(),
            "spaces": configs.to_json(run.spaces),
            "references": run.directory.config.get("references", {}),
            **environment.arm_of(run.env),
            "run": run.path.name,
            "step": number,
        },
    )
    state = run.state(step)
    exporting.check_exportable(run.agent.policy(run.config, state))
    difference = export_state(folder, run.agent, run.config, state, probes(run), interface)
    return Exported(folder, difference)


@contextlib.contextmanager
def at_hand(source: "str | os.PathLike[str] | Run", step: int | None = None) -> Iterator[Exported]:
    """A run's policy, exported into it; or, for so long, elsewhere if nothing can be written there.

    Raises what `export` does.
    """
    run = load_run(source)
    with contextlib.ExitStack() as stack:
        try:
            exported = export(run, step=step)
        except OSError as error:
            if error.errno not in files.NO_ROOM | files.NOT_OURS:
                raise
            aside = stack.enter_context(tempfile.TemporaryDirectory(prefix="robo_rl-policy-"))
            exported = export(run, pathlib.Path(aside) / "policy", step=step)
        yield exported


def export_state(
    folder: pathlib.Path,
    agent: Agent,
    config: Any,
    state: State,
    observations: np.ndarray,
    interface: exporting.Interface,
) -> float:
    """Export the policy of a state; how far NumPy is from JAX at most, on observations (B, O)."""
    key = jax.random.key(0)
    policy = agent.policy(config, state)
    exporting.check_exportable(policy)
    noise = policies.noise(policy, key, observations.shape[:-1])

    def act(observations: np.ndarray) -> np.ndarray:
        return np.asarray(agent.act(config, state, jnp.asarray(observations), key))

    return exporting.export(
        folder,
        policy,
        interface,
        act=act,
        observations=observations,
        load=NumpyPolicy.load,
        noise=None if noise is None else np.asarray(noise),
    )


def probes(run: Run) -> np.ndarray:
    """Observations (N, O) for the check of parity: no data are needed where the run kept some."""
    sample = samples.read(run.path)
    if sample is not None and sample.probes is not None:
        return sample.probes
    if run.view is not None:
        return exporting.probe_observations(np.asarray(run.transitions()["observations"]))
    arrays, _ = run.directory.checkpoints.read(run.directory.checkpoints.latest())
    lived = [
        v for k, v in arrays.items() if k.startswith("buffer/") and k.endswith("/observations")
    ]
    return exporting.probe_observations(np.concatenate(lived))
