"""OGBench's released `.npz` files. Reads local files; downloads nothing."""

import dataclasses
import difflib
import importlib.metadata
import logging
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium
import numpy as np

from robo_rl import files
from robo_rl.data.episodes import Episode
from robo_rl.data.errors import DatasetCorruptError, DatasetError, DatasetNotFoundError
from robo_rl.data.formats.contract import Recording
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import Provenance, RewardLabel, StateLayout
from robo_rl.data.relabel import AfterSuccess, relabelled
from robo_rl.extras import explained
from robo_rl.quiet import quiet

_log = logging.getLogger(__name__)
_MEMBERS = {"observations.npy", "actions.npy", "terminals.npy"}
_STATE_KEYS = ("qpos", "qvel", "button_states")
_TASKS = range(6)


@dataclasses.dataclass(frozen=True)
class OgbenchFile:
    """The compact layout: N states in a row, `terminals` 1 at the last state of a trajectory."""

    path: pathlib.Path
    observations: np.ndarray  # (N, ...)
    actions: np.ndarray  # (N, ...); the one at a trajectory's last state led nowhere
    terminals: np.ndarray  # (N,) bool
    states: dict[str, np.ndarray]  # qpos, qvel, button_states where the file has them

    def episodes(self) -> Iterator[Episode]:
        """One truncated, reward-free episode per trajectory: play data has no task."""
        start = 0
        for last in np.flatnonzero(self.terminals).tolist():
            rows = slice(start, last + 1)
            steps = last - start
            start = last + 1
            if not steps:
                continue
            truncated = np.zeros(steps, bool)
            truncated[-1] = True
            yield Episode(
                observations=self.observations[rows],
                actions=self.actions[rows][:-1],
                rewards=np.zeros(steps, np.float32),
                terminations=np.zeros(steps, bool),
                truncations=truncated,
                infos={name: array[rows] for name, array in self.states.items()},
            )


class OgbenchReader:
    """The compact layout: N states in a row, `terminals` 1 at the last of each trajectory."""

    name = "ogbench"

    def sniff(self, path: pathlib.Path) -> bool:
        """A zip of arrays with the three names that all of them have."""
        try:
            with zipfile.ZipFile(path) as file:
                return set(file.namelist()) >= _MEMBERS
        except (OSError, zipfile.BadZipFile):
            return False

    def read(
        self,
        path: pathlib.Path,
        env: str | None = None,
        task: int | None = None,
        after_success: AfterSuccess = "split",
    ) -> Recording:
        """The trajectories, reward-free or with the rewards of a task.

        Args:
            path: A `.npz` of any task of OGBench.
            env: OGBench's environment of the file; None: by the file's name.
            task: Single task 1..5 to compute rewards for with OGBench's own `relabel_dataset`, 0
                for its default task; None: reward-free, all zeros.
            after_success: See `relabel.AfterSuccess`.
        """
        if task is not None and task not in _TASKS:
            raise ValueError(
                f"OGBench's tasks are 1 to {_TASKS[-1]}, and 0 for the default one; got {task}"
            )
        stored = read_npz(path)
        base_id = env or environment_of(path.stem)
        name = base_id if task is None else single_task_id(base_id, task)
        made = make_env(name)
        try:
            episodes: Iterable[Episode] = stored.episodes()
            label = RewardLabel(source="none", version="1", detail={"why": "reward-free play data"})
            if task is not None:
                episodes = relabel_single_task(stored, made, name, after_success)
                label = _label(made, name)
            return Recording(
                episodes,
                _observation_space(stored.observations),
                _action_space(made),
                _provenance(stored, made, base_id, label),
                env=name,
                card=Card(description=f"Imported from OGBench's {path.name}."),
            )
        finally:
            made.close()


OGBENCH = OgbenchReader()


def read_npz(path: str | os.PathLike[str]) -> OgbenchFile:
    """Read a released file. Raises DatasetNotFoundError or DatasetCorruptError."""
    file = files.absolute(path)
    if not file.is_file():
        raise DatasetNotFoundError(
            f"no file {file}; OGBench's files are at "
            "https://rail.eecs.berkeley.edu/datasets/ogbench, named like cube-single-play-v0.npz"
        )
    if not zipfile.is_zipfile(file):  # NumPy would take it for a pickle
        raise DatasetCorruptError(
            f"{file} cannot be read: it is no .npz file, or cut short; fetch it again"
        )
    try:
        # OGBench writes plain arrays; a pickled object in such a file is not one of theirs.
        # NumPy leaves a file open that it cannot read, so open it here.
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetCorruptError(f"{file} cannot be read: {error}; fetch it again") from error
    return _checked(file, arrays)


def relabel_single_task(
    stored: OgbenchFile, env: Any, env_id: str, after_success: AfterSuccess = "split"
) -> list[Episode]:
    """Episodes with the rewards and masks of OGBench's `relabel_dataset` for `env`'s task.

    With "split", the transitions are OGBench's, one for one. Judged by the state before each step.
    """
    with quiet(), explained():
        from ogbench.relabel_utils import relabel_dataset  # late: it pulls in MuJoCo

    kept = ~stored.terminals
    dataset = {name: array[kept] for name, array in stored.states.items()}
    missing = "qpos" if "puzzle" not in env_id else "button_states"
    if missing not in dataset:
        raise DatasetError(f"{stored.path} has no {missing}; single-task rewards need it")
    with quiet():
        env.reset(seed=0)
        try:
            relabel_dataset(env_id, env, dataset)
        except ValueError as error:
            raise DatasetError(
                f"OGBench has no single-task reward for {env_id}: {error}"
            ) from error
    if not np.any(dataset["masks"] == 0.0):
        _log.warning(
            "%s: no episode ever reaches the goal of %s; a method that learns from rewards has "
            "nothing to find here, try another task",
            stored.path,
            env_id,
        )
    out: list[Episode] = []
    start = 0
    for episode in stored.episodes():
        rows = slice(start, start + len(episode))
        start += len(episode)
        out += relabelled(
            episode, dataset["rewards"][rows], dataset["masks"][rows] == 0.0, after_success
        )
    return out


def environment_of(dataset_name: str) -> str:
    """`cube-single-play-v0` (or `-val`, or a shard `-v0-003`) -> `cube-single-v0`."""
    parts = dataset_name.split("-")
    versions = [i for i, part in enumerate(parts) if part[:1] == "v" and part[1:].isdigit()]
    kinds = ("play", "noisy", "navigate", "stitch", "explore")
    kind = [i for i, part in enumerate(parts) if part in kinds]
    if not versions or not kind:
        raise DatasetError(
            f"cannot tell the environment from the file name {dataset_name!r}; expected "
            f"<environment>-<{'|'.join(kinds)}>-v0.npz. Name the environment yourself"
        )
    return "-".join([*parts[: kind[0]], parts[versions[0]]])


def single_task_id(env_id: str, task: int) -> str:
    """`cube-single-v0`, 2 -> `cube-single-singletask-task2-v0`; 0 is the default task."""
    stem, _, version = env_id.rpartition("-")
    suffix = f"-task{task}" if task else ""
    return f"{stem}-singletask{suffix}-{version}"


def make_env(env_id: str) -> Any:
    """One of OGBench's environments. Raises DatasetError that lists similar names."""
    with quiet(), explained():
        import ogbench  # noqa: F401  registers the environments

    if env_id not in gymnasium.registry:
        near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=5)
        raise DatasetError(f"OGBench has no environment {env_id!r}; similar: {near or 'none'}")
    with quiet():
        return gymnasium.make(env_id, disable_env_checker=True)


def _checked(file: pathlib.Path, arrays: dict[str, np.ndarray]) -> OgbenchFile:
    missing = {"observations", "actions", "terminals"} - arrays.keys()
    if missing:
        raise DatasetCorruptError(
            f"{file} lacks {sorted(missing)}: not one of OGBench's datasets; it has {list(arrays)}"
        )
    states = {name: arrays[name] for name in _STATE_KEYS if name in arrays}
    rows = len(arrays["terminals"])
    lengths = {name: len(arrays[name]) for name in ("observations", "actions", *states)}
    if not rows or any(length != rows for length in lengths.values()):
        raise DatasetCorruptError(f"{file}: all arrays must have {rows} rows, got {lengths}")
    terminals = np.asarray(arrays["terminals"]) != 0
    if not terminals[-1]:
        raise DatasetCorruptError(f"{file}: the last row is not terminal, so the file is cut short")
    return OgbenchFile(file, arrays["observations"], arrays["actions"], terminals, states)


def _action_space(env: Any) -> gymnasium.Space[Any]:
    with quiet():
        space: gymnasium.Space[Any] = env.action_space
    return space


def _observation_space(observations: np.ndarray) -> gymnasium.Space[Any]:
    shape = observations.shape[1:]
    if observations.dtype == np.uint8:
        return gymnasium.spaces.Box(0, 255, shape, np.uint8)
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)


def _label(env: Any, env_id: str) -> RewardLabel:
    return RewardLabel(
        source="ogbench.relabel_utils.relabel_dataset",
        version=f"ogbench {importlib.metadata.version('ogbench')}",
        timing="pre",
        detail={"env_id": env_id, "task": int(env.unwrapped._reward_task_id)},
    )


def _provenance(stored: OgbenchFile, env: Any, base_id: str, label: RewardLabel) -> Provenance:
    period = getattr(env.unwrapped, "_control_timestep", None)
    return Provenance(
        control_hz=None if not period else 1.0 / float(period),
        reward=label,
        layout=_layout(stored, env),
        collector={"importer": "ogbench", "file": stored.path.name, "env_id": base_id},
    )


def _layout(stored: OgbenchFile, env: Any) -> StateLayout | None:
    """Where the cubes of a manipulation scene stand in its states, by the model of the scene."""
    cubes = int(getattr(env.unwrapped, "_num_cubes", 0))
    if not cubes or not {"qpos", "qvel"} <= stored.states.keys():
        return None
    with quiet():
        env.reset(seed=0)  # compiles the model
    joints = [env.unwrapped.model.joint(f"object_joint_{cube}") for cube in range(cubes)]
    return StateLayout(
        object_qpos=tuple(int(joint.qposadr[0]) for joint in joints),
        object_qvel=tuple(int(joint.dofadr[0]) for joint in joints),
    )
