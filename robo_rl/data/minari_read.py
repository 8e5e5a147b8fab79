"""Minari datasets into episodes or flat transitions."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_storage import MinariStorage, is_image_space
from minari.serialization import deserialize_space

from robo_rl.data import flat_copy
from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.errors import DatasetCorruptError, DatasetError
from robo_rl.data.locate import MAIN_FILE, env_spec_fields, locate_dataset, read_metadata
from robo_rl.data.provenance import METADATA_KEY, Provenance
from robo_rl.data.returns import monte_carlo_returns
from robo_rl.data.transitions import Transitions, flatten_episodes

Unreadable = Callable[[int, str], None]
"""Told the number of an episode that cannot be read, and why."""
_EPISODE = re.compile(r"episode_\d+")
_BROKEN = (OSError, RuntimeError, KeyError, ValueError)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One Minari dataset on disk. Opening it reads the metadata, not the data."""

    folder: pathlib.Path  # holds metadata.json and the data
    metadata: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Minari's name of the dataset, or its path when it has none."""
        return str(self.metadata.get("dataset_id", self.folder))

    @property
    def total_episodes(self) -> int:
        """Episodes, as the metadata counts them."""
        return int(self.metadata["total_episodes"])

    @functools.cached_property
    def provenance(self) -> Provenance | None:
        """None for a dataset that another tool wrote."""
        stored = self.metadata.get(METADATA_KEY)
        return None if stored is None else Provenance.from_json(stored)

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:
        """As stored, or that of the recovered environment in older datasets."""
        return _space(self, "observation_space")

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:
        """As stored, or that of the recovered environment in older datasets."""
        return _space(self, "action_space")

    @property
    def env_spec(self) -> EnvSpec | None:
        """What the data was collected in; its `entry_point` is None when only a name is known."""
        fields = env_spec_fields(dict(self.metadata))
        if not fields:
            return None
        known = {field.name for field in dataclasses.fields(EnvSpec) if field.init}
        wanted = known - {"additional_wrappers"}  # other people's code, not needed for a reward
        return EnvSpec(**{name: value for name, value in fields.items() if name in wanted})

    def episodes(self, infos: Sequence[str] | None = None) -> list[Episode]:
        """All episodes as stored, not validated; `infos` names those wanted (default all).

        Nested infos and observations are flattened with "/" between the names.
        """
        return list(self.iter_episodes(infos))

    def iter_episodes(self, infos: Sequence[str] | None = None) -> Iterator[Episode]:
        """The episodes of `episodes`, one in memory at a time."""
        return (episode for _, episode in _read(self, infos))

    def numbered_episodes(
        self, numbers: Sequence[int] | None = None, unreadable: Unreadable | None = None
    ) -> Iterator[tuple[int, Episode]]:
        """Episodes with their numbers, without seeds and metadata, one in memory at a time.

        `numbers` names those wanted, default all. One that cannot be read is told to `unreadable`
        and left out, where that is given; else it raises DatasetCorruptError.
        """
        return _read(self, None, attributes=False, numbers=numbers, unreadable=unreadable)

    def stored_episodes(self) -> int | None:
        """How many episodes the file holds, whatever the metadata say; None where that cannot be
        counted."""
        file = self.folder / MAIN_FILE
        if not file.is_file():
            return None
        try:
            with h5py.File(file, "r") as main:
                return sum(_EPISODE.fullmatch(name) is not None for name in main)
        except (OSError, RuntimeError) as error:
            raise _unreadable(file, error) from error

    def transitions(
        self,
        *,
        next_actions: bool = False,
        mc_discount: float | None = None,
        endless: bool = False,
        infos: Sequence[str] = (),
    ) -> Transitions:
        """All steps as flat arrays, see `flatten_episodes`.

        With `mc_discount`, adds `returns` (N,), see `monte_carlo_returns`.
        """
        episodes = _bare(self) if not infos else _listed(self, infos)
        try:
            out = flatten_episodes(episodes, next_actions=next_actions, infos=infos)
        except ValueError as error:
            raise DatasetCorruptError(f"dataset {self.id!r}: {error}") from error
        if mc_discount is not None:
            out["returns"] = monte_carlo_returns(
                np.asarray(out["rewards"]),
                np.asarray(out["terminated"]),
                np.asarray(out["truncated"]),
                mc_discount,
                endless=endless,
            )
        return out


def open_dataset(source: str | os.PathLike[str] | Dataset, *, download: bool = False) -> Dataset:
    """Open a dataset by Minari id or by path; one that is open already is returned as it is.

    Raises DatasetNotFoundError (it lists what is there) or DatasetCorruptError.
    """
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            "a dataset is named by its Minari id or its path, or given as robo_rl.open_dataset "
            f"returned it, got {type(source).__name__}; robo_rl.write_dataset makes one of episodes"
        )
    folder = locate_dataset(source, download=download)
    metadata = read_metadata(folder)
    version = metadata.get("minari_version", minari.__version__)
    if version not in minari.supported_dataset_versions:
        raise DatasetError(
            f"{folder} was written by Minari {version}, which Minari {minari.__version__} cannot "
            f"read; it reads {sorted(minari.supported_dataset_versions)}"
        )
    return Dataset(folder, metadata)


def _space(dataset: Dataset, name: str) -> gymnasium.Space[Any]:
    stored = dataset.metadata.get(name)
    if isinstance(stored, str):
        try:
            space: gymnasium.Space[Any] = deserialize_space(stored)
            return space
        except (KeyError, ValueError, NotImplementedError) as error:
            raise DatasetCorruptError(f"dataset {dataset.id!r}: {name}: {error!r}") from error
    recovered: gymnasium.Space[Any] = getattr(_storage(dataset), name)
    return recovered


def _storage(dataset: Dataset) -> MinariStorage:
    try:
        return MinariStorage.read(dataset.folder)
    except Exception as error:  # it may build the environment, which may fail in any way
        raise DatasetError(f"Minari cannot open {dataset.folder}: {error}") from error


def _read(
    dataset: Dataset,
    infos: Sequence[str] | None,
    attributes: bool = True,
    numbers: Sequence[int] | None = None,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[int, Episode]]:
    """Episodes as stored, by number; without `attributes`, seeds and metadata are left out."""
    wanted = range(dataset.total_episodes) if numbers is None else numbers
    if needs_minari(dataset):
        storage = _storage(dataset)
        file = dataset.folder
        for number in wanted:
            try:
                episode = _decoded(dataset, storage, number, infos)
            except _BROKEN as error:
                _tell(unreadable, number, file, error)
                continue
            yield number, episode
        return
    file = dataset.folder / MAIN_FILE
    try:
        main = h5py.File(file, "r")
    except _BROKEN as error:
        raise _unreadable(file, error) from error
    with main:
        for number in wanted:
            try:
                group = h5py.h5g.open(main.id, b"episode_%d" % number)
                episode = _episode(group, infos, attributes)
            except _BROKEN as error:
                _tell(unreadable, number, file, error)
                continue
            yield number, episode


def _listed(dataset: Dataset, infos: Sequence[str] | None) -> list[Episode]:
    return [episode for _, episode in _read(dataset, infos, attributes=False)]


def needs_minari(dataset: Dataset) -> bool:
    """Whether the data are encoded in a way that only Minari's own code can undo."""
    return dataset.metadata["data_format"] != "hdf5" or any(
        _needs_decoding(space, dataset.metadata)
        for space in (dataset.observation_space, dataset.action_space)
    )


def _tell(unreadable: Unreadable | None, number: int, file: pathlib.Path, error: Exception) -> None:
    if unreadable is None:
        raise _unreadable(file, error) from error
    unreadable(number, str(error))


def _unreadable(file: pathlib.Path, error: Exception) -> DatasetCorruptError:
    return DatasetCorruptError(
        f"{file} cannot be read: {error}. It is damaged or was not written to its end; "
        "collect, import or download the dataset again"
    )


def _bare(dataset: Dataset) -> list[Episode]:
    """Episodes without infos, seeds and metadata, from the flat copy where there is one."""
    file = dataset.folder / MAIN_FILE
    if not file.is_file():
        return _listed(dataset, ())
    stamp = flat_copy.stamp_of(file, dataset.total_episodes)
    episodes = flat_copy.load(file, stamp)
    if episodes is None:
        episodes = _listed(dataset, ())
        flat_copy.keep(file, stamp, episodes)
    return episodes


def _needs_decoding(space: gymnasium.Space[Any], metadata: Mapping[str, Any]) -> bool:
    if isinstance(space, gymnasium.spaces.Dict):
        return any(_needs_decoding(inner, metadata) for inner in space.spaces.values())
    if isinstance(space, gymnasium.spaces.Box):
        return bool(metadata.get("jpeg_encoding", True)) and is_image_space(space)
    numeric = (
        gymnasium.spaces.Discrete,
        gymnasium.spaces.MultiDiscrete,
        gymnasium.spaces.MultiBinary,
    )
    return not isinstance(space, numeric)


def _episode(group: Any, infos: Sequence[str] | None, attributes: bool) -> Episode:
    """From the id of a group, by HDF5's own calls: h5py's objects cost more than the reading."""
    stored: dict[str, Any] = dict(h5py.Group(group).attrs) if attributes else {}
    seed = stored.get("seed")
    reserved = ("id", "seed", "total_steps")
    wants_infos = infos is None or len(infos) > 0
    return Episode(
        observations=_opened(group, b"observations"),
        actions=np.asarray(_opened(group, b"actions")),
        rewards=np.asarray(_opened(group, b"rewards")),
        terminations=np.asarray(_opened(group, b"terminations")),
        truncations=np.asarray(_opened(group, b"truncations")),
        infos=_infos(h5py.Group(group).get("infos"), infos) if wants_infos else {},
        seed=None if seed is None else int(seed),
        metadata={k: _plain(v) for k, v in stored.items() if k not in reserved},
    )


def _opened(group: Any, name: bytes) -> Arrays:
    """What is called `name` in the group of this id."""
    node = h5py.h5o.open(group, name)
    if not isinstance(node, h5py.h5d.DatasetID):
        return _arrays(h5py.Group(node))
    out = np.empty(node.shape, node.dtype)
    if out.size:
        node.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return out


def _infos(group: Any, wanted: Sequence[str] | None) -> dict[str, np.ndarray]:
    if group is None:
        return {}
    if wanted is not None:
        return {name: group[name][()] for name in wanted if name in group}
    found = _arrays(group)
    return dict(found) if isinstance(found, Mapping) else {}


def _arrays(node: Any) -> Arrays:
    if isinstance(node, h5py.Dataset):
        return np.asarray(node[()])
    flat: dict[str, np.ndarray] = {}
    for key, inner in node.items():
        value = _arrays(inner)
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": array for name, array in value.items()}
        else:
            flat[key] = value
    return flat


def _decoded(
    dataset: Dataset, storage: MinariStorage, number: int, infos: Sequence[str] | None
) -> Episode:
    (stored,) = storage.get_episodes([number])
    found = _flat_dict(stored.get("infos") or {})
    wanted = found if infos is None else {k: found[k] for k in infos if k in found}
    observations = stored["observations"]
    if isinstance(observations, Mapping):
        observations = _flat_dict(observations)
    elif not isinstance(observations, np.ndarray):
        raise DatasetError(
            f"dataset {dataset.id!r}: observations of {dataset.observation_space} are not "
            "supported; use Box or Dict"
        )
    return Episode(
        observations=observations,
        actions=np.asarray(stored["actions"]),
        rewards=stored["rewards"],
        terminations=stored["terminations"],
        truncations=stored["truncations"],
        infos=wanted,
    )


def _flat_dict(nested: Mapping[str, Any]) -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": array for name, array in _flat_dict(value).items()}
        else:
            flat[key] = np.asarray(value)
    return flat


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
