"""A sample of a run's data, kept in its directory: what it takes to use the run without the data.

The first rows say what the networks read and give; the probes are the observations on which an
export is compared with the run.
"""

import io
import pathlib
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from robo_rl import files
from robo_rl.data.episodes import Arrays
from robo_rl.data.transitions import Transitions, leaves, take
from robo_rl.runs.export import probe_observations

FILE = "sample.npz"
_ROWS = 64
_PROBES = "probes"
_OF_SEVERAL_PARTS = ("observations", "next_observations")


class StoredSample(NamedTuple):
    """Of the data that a run learned from."""

    rows: Transitions
    """The first 64."""
    probes: np.ndarray | None
    """(1000, O) as `probe_observations` draws them; None where observations are not vectors."""


def keep(folder: pathlib.Path, transitions: Mapping[str, Arrays]) -> None:
    """Put a sample of the transitions into a run's folder."""
    count = min(_ROWS, len(transitions["actions"]))
    rows = {name: take(value, np.arange(count)) for name, value in transitions.items()}
    arrays = leaves(rows)
    seen = transitions["observations"]
    if not isinstance(seen, Mapping) and seen.ndim == 2:
        arrays[_PROBES] = probe_observations(seen)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(folder / FILE, buffer.getvalue())


def read(folder: pathlib.Path) -> StoredSample | None:
    """The sample in a run's folder; None in a run of an earlier version, which kept none."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}; restore it from a copy") from error
    probes = arrays.pop(_PROBES, None)
    rows: Transitions = {}
    for name, array in arrays.items():
        key, _, part = name.partition("/")
        if key in _OF_SEVERAL_PARTS and part:
            parts = rows.setdefault(key, {})
            assert isinstance(parts, dict)
            parts[part] = array
        else:
            rows[name] = array
    return StoredSample(rows, probes)
