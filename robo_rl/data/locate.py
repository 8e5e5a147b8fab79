"""Finding Minari datasets on this machine."""

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import minari

from robo_rl import files
from robo_rl.data.errors import DatasetCorruptError, DatasetError, DatasetNotFoundError

DATASET_ID = re.compile(r"(?:[-_\w]+/)*[-_\w]+-v\d+")
METADATA_FILE = "metadata.json"
_ROOT_VARIABLE = "MINARI_DATASETS_PATH"
MAIN_FILE = "main_data.hdf5"
_WAIT_S = 5.0
"""For an answer of the host of Minari's datasets."""


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """One line of a listing."""

    id: str
    path: pathlib.Path
    episodes: int
    steps: int
    size_mb: float
    env_id: str
    problem: str = ""
    """Why the dataset cannot be read; empty when it can."""


def datasets_root() -> pathlib.Path:
    """Where Minari keeps its datasets: `MINARI_DATASETS_PATH`, or `~/.minari/datasets`.

    Absolute: what is found or begun here stays there when the working directory changes.
    """
    return files.absolute(os.environ.get(_ROOT_VARIABLE) or "~/.minari/datasets")


def list_datasets() -> list[DatasetSummary]:
    """All datasets under the root, by name; those that cannot be read say why."""
    root = datasets_root()
    return [_summary(root, path) for path in sorted(_dataset_folders(root))]


def locate_dataset(source: str | os.PathLike[str], *, download: bool = False) -> pathlib.Path:
    """The absolute folder with the metadata file of a dataset named by id or by path.

    With `download`, an id that is not here is fetched by Minari, where its host can be reached.
    Raises DatasetNotFoundError, which names the dataset here that is likely meant.
    """
    found = find_local(source)
    if found is not None:
        return found
    name = os.fspath(source)
    hint = ""
    if DATASET_ID.fullmatch(name) is not None:
        unreachable = _unreachable() if download else ""
        if download and not unreachable:
            _download(name)
            return locate_dataset(name)
        hint = f"; {unreachable}" if download else "; with a network, ask for a download"
    raise DatasetNotFoundError(
        f"no dataset {name!r}, neither as a path nor under {datasets_root()}; {_likely(name)}{hint}"
    )


def find_local(source: str | os.PathLike[str]) -> pathlib.Path | None:
    """The absolute folder with the metadata file of a dataset that is here; None where none is.

    Raises DatasetCorruptError for one that was not written to its end.
    """
    for folder in (files.absolute(source), datasets_root() / source):
        for candidate in (folder / "data", folder):
            if (candidate / METADATA_FILE).is_file():
                return candidate
        if (folder / "data").is_dir():
            raise DatasetCorruptError(
                f"{folder / 'data'} has no {METADATA_FILE}: the dataset was not written to its end"
            )
    return None


def _likely(name: str) -> str:
    """Which of the datasets that are here is meant, and all of them."""
    known = [summary.id for summary in list_datasets()]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"is {near[0]!r} meant? Known" if near else "known"
    return f"{meant}: {', '.join(known) or 'none'}"


def _unreachable() -> str:
    """Why nothing can be downloaded; empty where it can be tried.

    Without a network, the client library of Minari's host tries for half a minute and says so at
    every turn.
    """
    if not os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
        return ""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=_WAIT_S):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return ""  # it answers, and others may know the certificate
        return f"a download from {host} is not possible: {reason}"


def read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    """The raw metadata of a dataset. Raises DatasetCorruptError."""
    file = folder / METADATA_FILE
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetCorruptError(f"{file} cannot be read as JSON: {error}") from error
    missing = {"total_episodes", "data_format"} - set(metadata)
    if missing:
        raise DatasetCorruptError(f"{file} lacks {sorted(missing)}: not a Minari dataset")
    return dict(metadata)


def env_spec_fields(metadata: dict[str, Any]) -> dict[str, Any]:
    """The stored environment spec as a dict; empty when there is none."""
    try:
        return dict(json.loads(metadata.get("env_spec") or "{}"))
    except ValueError as error:
        raise DatasetCorruptError(f"metadata key 'env_spec' is not JSON: {error}") from error


def _download(dataset_id: str) -> None:
    try:
        with _minari_root():
            minari.download_dataset(dataset_id)
    except Exception as error:  # the client libraries of the hosts raise anything
        raise DatasetError(
            f"downloading {dataset_id!r} with Minari failed: {error}. Here, {_likely(dataset_id)}. "
            "Check the name with `minari list remote` and the network, or copy the dataset under "
            f"{datasets_root()}"
        ) from error


@contextlib.contextmanager
def _minari_root() -> Iterator[None]:
    """Minari takes the variable as it stands: to it, `~` is a folder's name."""
    before = os.environ.get(_ROOT_VARIABLE)
    os.environ[_ROOT_VARIABLE] = str(datasets_root())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT_VARIABLE]
        else:
            os.environ[_ROOT_VARIABLE] = before


def _dataset_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    if (folder / "data").is_dir():
        return [folder]
    found: list[pathlib.Path] = []
    for child in folder.iterdir():
        if child.is_dir() and not child.name.startswith("."):
            found += _dataset_folders(child)
    return found


def _summary(root: pathlib.Path, folder: pathlib.Path) -> DatasetSummary:
    name = folder.relative_to(root).as_posix()
    try:
        metadata = read_metadata(folder / "data")
        return DatasetSummary(
            id=name,
            path=folder,
            episodes=int(metadata["total_episodes"]),
            steps=int(metadata.get("total_steps", 0)),
            size_mb=float(metadata.get("dataset_size", 0.0)),
            env_id=str(env_spec_fields(metadata).get("id", "")),
        )
    except DatasetCorruptError as error:
        return DatasetSummary(name, folder, 0, 0, 0.0, "", problem=str(error))
