"""Episodes into a Minari dataset: built aside, then moved into place in one rename."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_storage import MinariStorage

from robo_rl import files
from robo_rl.data.episodes import Arrays, Episode, named_arrays
from robo_rl.data.errors import DatasetExistsError, DatasetWriteError
from robo_rl.data.hdf5_write import write_hdf5
from robo_rl.data.locate import DATASET_ID, MAIN_FILE, METADATA_FILE, datasets_root
from robo_rl.data.provenance import METADATA_KEY, Provenance, RewardLabel
from robo_rl.fields import check_switch
from robo_rl.locks import Aside, Occupied

_STAGING = ".staging-"
_UNKNOWN = Provenance(None, RewardLabel("none", "1"))
_ROUNDING = 1e-5
"""Of actions that were scaled or cast."""


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
    provenance: Provenance | None = None,
    env: str | EnvSpec | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    card: Card | None = None,
    references: Mapping[str, float] | None = None,
    overwrite: bool = False,
    as_is: bool = False,
) -> pathlib.Path:
    """Write a Minari dataset and return its folder.

    Episodes may come from a generator; one is in memory at a time. Observations and actions are
    cast to the dtype of their space; images are stored without loss.

    Args:
        dataset_id: `(namespace/)name-v<version>`; the root is `MINARI_DATASETS_PATH` or Minari's.
        episodes: At least one, each valid.
        observation_space: Box, Discrete or a flat Dict of such.
        action_space: Box, Discrete or MultiDiscrete.
        provenance: Stored under the metadata key `robo_rl`; None says that nothing is known of how
            the data came to be.
        env: Environment id or spec for `recover_environment`; the id need not be registered.
        env_kwargs: JSON values added to the spec's own.
        card: Description, authors and so on.
        references: `ref_min_score` and `ref_max_score`, the returns of normalised scores 0 and 100.
        overwrite: Replace a dataset of this name.
        as_is: Write numbers that are not finite too, and actions outside of their box: what a
            robot or another tool recorded, for `check` to judge.

    Raises:
        DatasetExistsError: the name is taken and `overwrite` is false.
        DatasetWriteError: the disk refused. Nothing is left behind in any failure.
        ValueError: an episode does not fit together or does not fit the spaces.
    """
    check_switch("write_dataset: overwrite", overwrite)
    check_switch("write_dataset: as_is", as_is)
    if DATASET_ID.fullmatch(dataset_id) is None:
        raise ValueError(
            f"write_dataset: dataset id must look like 'cube/noisy-v0', got {dataset_id!r}"
        )
    root = datasets_root()
    target = root / dataset_id
    if target.exists() and not overwrite:
        raise _exists(dataset_id, target)
    spec = None if env is None else _env_spec(env, env_kwargs or {})
    about = (provenance or _UNKNOWN).to_json()
    files.dumps(about, nonfinite="refuse")
    source = _Source(_episodes(episodes, None if as_is else action_space))
    try:
        # Hidden from Minari and `list_datasets`, and on the disk on which it is to be.
        with Aside(root, _STAGING) as staging:
            data = staging.folder / "data"
            storage = MinariStorage.new(
                data,
                observation_space=observation_space,
                action_space=action_space,
                env_spec=spec,
                jpeg_encoding=False,
            )
            fitted = _fitted(source, observation_space, action_space)
            counts = _written(data / MAIN_FILE, fitted)
            storage.update_metadata(
                {
                    **counts,
                    "dataset_size": float(storage.get_size()),
                    "dataset_id": dataset_id,
                    "minari_version": minari.__version__,
                    METADATA_KEY: about,
                    **_card_fields(card or Card()),
                    **(references or {}),
                }
            )
            files.sync(data / METADATA_FILE)
            _mark_namespaces(root, dataset_id)
            if overwrite:
                staging.replace(target)
            else:
                staging.publish(target)
    except Occupied as error:  # by another process, since we looked
        raise _exists(dataset_id, target) from error
    except OSError as error:
        if source.failed:
            raise
        failed = files.refused(f"writing dataset {dataset_id!r} under {root} failed", error)
        raise DatasetWriteError(f"{files.reason(failed)}. Nothing was kept") from error
    return target


def _written(path: pathlib.Path, episodes: Iterable[Episode]) -> dict[str, int]:
    """Write the episodes; how many they were, as the metadata count them."""
    count, steps = write_hdf5(path, episodes)
    if not count:
        raise ValueError("write_dataset: needs at least one episode, got none")
    return {"total_episodes": count, "total_steps": steps}


def _exists(dataset_id: str, target: pathlib.Path) -> DatasetExistsError:
    return DatasetExistsError(
        f"dataset {dataset_id!r} is already there ({target}); choose another name or version, or "
        "overwrite it"
    )


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


def _episodes(
    episodes: Iterable[Episode], action_space: gymnasium.Space[Any] | None
) -> Iterator[Episode]:
    """The episodes, each looked at before it is passed on; None looks at no numbers."""
    if isinstance(episodes, (Episode, Mapping, str)) or not isinstance(episodes, Iterable):
        raise ValueError(
            "write_dataset: give a list of robo_rl.Episode, or a generator of them, got "
            f"{'one Episode' if isinstance(episodes, Episode) else type(episodes).__name__}"
        )
    return _checked(episodes, action_space)


def _checked(
    episodes: Iterable[Episode], action_space: gymnasium.Space[Any] | None
) -> Iterator[Episode]:
    for index, episode in enumerate(episodes):
        where = f"write_dataset: episode {index}"
        if not isinstance(episode, Episode):
            raise ValueError(f"{where} must be a robo_rl.Episode, got {type(episode).__name__}")
        episode.validate(where)
        if action_space is not None:
            _check_numbers(where, episode, action_space)
        yield episode


_WAY_OUT = "mend the episode or leave it out, or write it as it is with as_is=True"


def _check_numbers(where: str, episode: Episode, space: gymnasium.Space[Any]) -> None:
    """Raise ValueError for what no learner could use, or would take for something else."""
    arrays = named_arrays("observations", episode.observations)
    arrays |= {"actions": np.asarray(episode.actions), "rewards": np.asarray(episode.rewards)}
    for name, array in arrays.items():
        wrong = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"{where}: {name} are not finite in {int(wrong.sum())} of {len(array)} rows, the "
                f"first is row {int(wrong.argmax())}; {_WAY_OUT}"
            )
    actions = arrays["actions"]
    if not isinstance(space, gymnasium.spaces.Box) or actions.shape[1:] != space.shape:
        return  # a shape that does not fit is told by `_fit`
    slack = _ROUNDING * np.maximum(1.0, np.abs(actions))
    outside = (actions < space.low - slack) | (actions > space.high + slack)
    rows = outside.reshape(len(actions), -1).any(axis=1)
    if rows.any():
        raise ValueError(
            f"{where}: actions leave their space {space} in {int(rows.sum())} of {len(actions)} "
            f"rows, the first is row {int(rows.argmax())}: {actions[rows.argmax()]}; give the "
            f"space's own bounds, {_WAY_OUT}"
        )


def _fitted(
    episodes: Iterable[Episode],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
) -> Iterator[Episode]:
    """The episodes, validated, in the dtypes of the spaces."""
    for index, episode in enumerate(episodes):
        where = f"write_dataset: episode {index}"
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
        json.dumps(spec.kwargs, allow_nan=False)
    except (TypeError, ValueError) as error:
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


def _mark_namespaces(root: pathlib.Path, dataset_id: str) -> None:
    """Minari lists a namespace only when it finds this file."""
    (root / dataset_id).parent.mkdir(parents=True, exist_ok=True)
    for parent in pathlib.PurePosixPath(dataset_id).parents:
        marker = root / parent / "namespace_metadata.json"
        if parent.name and not marker.exists():
            files.write_bytes(marker, b"{}")


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all. Raises DatasetWriteError."""
    try:
        files.write_bytes(path, files.dumps(content, indent=2).encode())
    except OSError as error:
        raise DatasetWriteError(files.reason(error)) from error
