"""Episodes into a Minari dataset: built aside, then moved into place in one rename."""

import dataclasses
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_storage import MinariStorage

from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.errors import DatasetExistsError, DatasetWriteError
from robo_rl.data.hdf5_write import write_hdf5
from robo_rl.data.locate import DATASET_ID, MAIN_FILE, METADATA_FILE, datasets_root
from robo_rl.data.provenance import METADATA_KEY, Provenance


@dataclasses.dataclass(frozen=True)
class Card:
    """What a person wants to know of a dataset; Minari's own metadata fields."""

    description: str = ""
    algorithm_name: str = ""
    authors: tuple[str, ...] = ()
    author_emails: tuple[str, ...] = ()
    code_permalink: str = ""
    requirements: tuple[str, ...] = ()
    """pip-style, to recover the environment."""


def write_dataset(
    dataset_id: str,
    episodes: Iterable[Episode],
    *,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    provenance: Provenance,
    env: str | EnvSpec | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    card: Card | None = None,
    references: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Write a Minari dataset and return its folder.

    Episodes may come from a generator; one is in memory at a time. Observations and actions are
    cast to the dtype of their space; images are stored without loss.

    Args:
        dataset_id: `(namespace/)name-v<version>`; the root is `MINARI_DATASETS_PATH` or Minari's.
        episodes: At least one, each valid.
        observation_space: Box, Discrete or a flat Dict of such.
        action_space: Box, Discrete or MultiDiscrete.
        provenance: Stored under the metadata key `robo_rl`.
        env: Environment id or spec for `recover_environment`; the id need not be registered.
        env_kwargs: JSON values added to the spec's own.
        card: Description, authors and so on.
        references: `ref_min_score` and `ref_max_score`, the returns of normalised scores 0 and 100.
        overwrite: Replace a dataset of this name.

    Raises:
        DatasetExistsError: the name is taken and `overwrite` is false.
        DatasetWriteError: the disk refused. Nothing is left behind in any failure.
        ValueError: an episode does not fit together or does not fit the spaces.
    """
    if DATASET_ID.fullmatch(dataset_id) is None:
        raise ValueError(
            f"write_dataset: dataset id must look like 'cube/noisy-v0', got {dataset_id!r}"
        )
    target = datasets_root() / dataset_id
    if target.exists() and not overwrite:
        raise DatasetExistsError(
            f"dataset {dataset_id!r} is already there ({target}); choose another name or version, "
            "or overwrite it"
        )
    spec = None if env is None else _env_spec(env, env_kwargs or {})
    # Hidden, so that neither Minari nor `list_datasets` sees it; same disk, so that rename works.
    staging = datasets_root() / f".staging-{uuid.uuid4().hex}"
    source = _Source(episodes)
    try:
        staging.mkdir(parents=True)
        storage = MinariStorage.new(
            staging / "data",
            observation_space=observation_space,
            action_space=action_space,
            env_spec=spec,
            jpeg_encoding=False,
        )
        count, steps = write_hdf5(
            staging / "data" / MAIN_FILE, _fitted(source, observation_space, action_space)
        )
        if not count:
            raise ValueError("write_dataset: needs at least one episode, got none")
        storage.update_metadata(
            {
                "total_episodes": count,
                "total_steps": steps,
                "dataset_size": float(storage.get_size()),
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                METADATA_KEY: provenance.to_json(),
                **_card_fields(card or Card()),
                **(references or {}),
            }
        )
        _sync(staging / "data" / METADATA_FILE)
        _publish(staging, target, dataset_id)
    except OSError as error:
        if source.failed:
            raise
        raise DatasetWriteError(
            f"writing dataset {dataset_id!r} under {datasets_root()} failed: {error}. "
            "Nothing was kept; free space or point MINARI_DATASETS_PATH to another disk"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


class _Source:
    """Passes episodes on and remembers whether it was they that failed, not the disk."""

    def __init__(self, episodes: Iterable[Episode]):
        self._episodes = episodes
        self.failed = False

    def __iter__(self) -> Iterator[Episode]:
        try:
            yield from self._episodes
        except Exception:
            self.failed = True
            raise


def _fitted(
    episodes: Iterable[Episode],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
) -> Iterator[Episode]:
    """The episodes, validated, in the dtypes of the spaces."""
    for index, episode in enumerate(episodes):
        where = f"write_dataset: episode {index}"
        episode.validate(where)
        yield dataclasses.replace(
            episode,
            observations=_fit(f"{where}: observations", episode.observations, observation_space),
            actions=_fit(f"{where}: actions", episode.actions, action_space),
        )


def _fit(where: str, arrays: Arrays, space: gymnasium.Space[Any]) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        if not isinstance(arrays, Mapping) or arrays.keys() != space.spaces.keys():
            got = sorted(arrays) if isinstance(arrays, Mapping) else "one array"
            raise ValueError(f"{where} must be a dict with {sorted(space.spaces)}, got {got}")
        return {
            key: _fit(f"{where}[{key!r}]", arrays[key], inner)
            for key, inner in space.spaces.items()
        }
    if isinstance(arrays, Mapping) or space.shape is None or space.dtype is None:
        raise ValueError(f"{where}: the space {space} and the arrays do not fit; use Box or Dict")
    array = np.asarray(arrays)
    if array.shape[1:] != space.shape:
        raise ValueError(f"{where} must have rows of {space.shape}, got {array.shape[1:]}")
    return array.astype(space.dtype, copy=False)


def _env_spec(env: str | EnvSpec, kwargs: Mapping[str, Any]) -> EnvSpec:
    # An unregistered id is kept by name: its package may be absent where data is only stored.
    known = env if isinstance(env, EnvSpec) else gymnasium.registry.get(env) or EnvSpec(id=env)
    spec = dataclasses.replace(
        known,
        kwargs={**known.kwargs, **kwargs},
        additional_wrappers=(),
        # A class cannot be stored; the name still finds it where its package registers it.
        entry_point=known.entry_point if isinstance(known.entry_point, str) else None,
        vector_entry_point=None,
    )
    try:
        json.dumps(spec.kwargs)
    except TypeError as error:
        raise ValueError(
            f"write_dataset: kwargs of {spec.id} must be JSON values: {error}"
        ) from error
    return spec


def _card_fields(card: Card) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "description": card.description,
        "algorithm_name": card.algorithm_name,
        "author": set(card.authors),
        "author_email": set(card.author_emails),
        "code_permalink": card.code_permalink,
        "requirements": list(card.requirements),
    }
    return {name: value for name, value in fields.items() if value}


def _publish(staging: pathlib.Path, target: pathlib.Path, dataset_id: str) -> None:
    root = datasets_root()
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in pathlib.PurePosixPath(dataset_id).parents:
        # Minari lists a namespace only when it finds this file.
        marker = root / parent / "namespace_metadata.json"
        if parent.name and not marker.exists():
            marker.write_text("{}")
    if target.exists():
        old = staging.with_name(f"{staging.name}-old")
        os.rename(target, old)
        try:
            os.rename(staging, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staging, target)
    _sync(target.parent)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all. Raises DatasetWriteError."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(json.dumps(content, indent=2))
        _sync(aside)
        os.replace(aside, path)
    except OSError as error:
        raise DatasetWriteError(f"writing {path} failed: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
