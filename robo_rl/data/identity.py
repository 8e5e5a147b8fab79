"""Which data a run learned from, so that nothing else passes for it later under the same name."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from robo_rl import files
from robo_rl.data.errors import DatasetChangedError, DatasetCorruptError, DatasetNotFoundError
from robo_rl.data.locate import METADATA_FILE
from robo_rl.data.minari_read import Dataset, open_dataset

_CACHE = ".sha256.json"
"""Beside the data: digests of its files by size, times and inode. Deleting it loses nothing."""
_BESIDE = {METADATA_FILE, "check.json"}
"""What may change while the data stay the same."""
_CHUNK = 1 << 20
_SETTLED_S = 2.0
"""A file that was changed less than this ago may change again under the same time stamp."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """A dataset as it was when a run began."""

    name: str
    path: str
    """Absolute folder with the data."""
    sha256: str
    """Of the names and contents of the files that hold the data."""
    episodes: int
    steps: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Identity":
        """Read back what `to_json` wrote. Raises ValueError."""
        names = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != names:
            raise ValueError(
                f"the identity of a dataset must have {sorted(names)}, got {sorted(stored)}"
            )
        return cls(**stored)

    def __str__(self) -> str:
        return f"{self.episodes} episodes, {self.steps} steps, sha256 {self.sha256[:16]}"


def identify(dataset: Dataset) -> Identity:
    """The identity of a dataset. Reads all of it once; later only what has changed since.

    1 GB takes 1 to 2 s at first (as fast as SHA-256 goes), and nothing when it is asked again
    where the folder may be written to.
    """
    return Identity(
        name=dataset.id,
        path=str(dataset.folder),
        sha256=_digest(dataset.folder),
        episodes=dataset.total_episodes,
        steps=int(dataset.metadata.get("total_steps", 0)),
    )


def check_same(recorded: Identity, dataset: Dataset) -> None:
    """Raise DatasetChangedError unless the data are those that were recorded, wherever they lie."""
    found = identify(dataset)
    names = ("sha256", "episodes", "steps")
    if all(getattr(found, name) == getattr(recorded, name) for name in names):
        return
    raise DatasetChangedError(
        f"dataset {recorded.name!r} is not the one that the run began with: then {recorded}; now "
        f"{found.path} has {found}. Put the old data back, or start a new run on the new ones"
    )


def reopen(recorded: Identity) -> Dataset:
    """The recorded data: from where they lay, or from where their name is found now.

    Raises DatasetNotFoundError, or DatasetChangedError where other data have their place.
    """
    try:
        dataset = open_dataset(recorded.path)
    except DatasetNotFoundError:  # moved, such as to another disk or machine
        dataset = open_dataset(recorded.name)
    check_same(recorded, dataset)
    return dataset


def _digest(folder: pathlib.Path) -> str:
    known = _known(folder)
    found: dict[str, list[Any]] = {}
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            hidden = any(part.startswith(".") for part in name.split("/"))
            if path.is_file() and not hidden and name not in _BESIDE:
                stamp = _stamp(path)
                cached = known.get(name, [None, ""])
                found[name] = cached if cached[0] == stamp else [stamp, _sha256(path)]
    except OSError as error:
        raise DatasetCorruptError(f"{folder} cannot be read: {error}") from error
    if found != known:
        _remember(folder, found)
    whole = hashlib.sha256()
    for name, (_, digest) in found.items():
        whole.update(f"{digest} {name}\n".encode())
    return whole.hexdigest()


def _stamp(path: pathlib.Path) -> list[int]:
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _sha256(path: pathlib.Path) -> str:
    state = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _known(folder: pathlib.Path) -> dict[str, list[Any]]:
    try:
        stored = json.loads((folder / _CACHE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        name: entry
        for name, entry in (stored.items() if isinstance(stored, dict) else ())
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    }


def _remember(folder: pathlib.Path, found: Mapping[str, list[Any]]) -> None:
    """Nothing happens where the folder may not be written to: it costs the time again."""
    before_ns = time.time_ns() - int(_SETTLED_S * 1e9)
    settled = {n: e for n, e in found.items() if max(e[0][1], e[0][2]) < before_ns}
    with contextlib.suppress(OSError):
        files.write_bytes(folder / _CACHE, files.dumps(settled).encode())
