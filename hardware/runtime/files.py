"""The two files of an exported policy, read with suspicion: `policy.json` and `arrays.npz`.

Arrays are stored uncompressed, so what reading them takes is known from the archive's size before
any of it is read; a compressed archive is refused by its headers. Nothing is unpickled. The digest
covers both files.
"""

import hashlib
import json
import math
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

FORMAT = 2
"""The description has specs of observations and actions and is covered by the digest."""
READ_FORMATS = (1, FORMAT)
DESCRIPTION, ARRAYS = "policy.json", "arrays.npz"
MAX_DESCRIPTION_BYTES = 4 * 1024**2
MAX_ARRAY_BYTES = 1024**3
_MAX_HEADER = 10_000
_PART = 2**20


class PolicyError(ValueError):
    """A policy folder is missing, damaged or of another kind."""


def digest(arrays: Mapping[str, np.ndarray], description: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over names, types, shapes and bytes, and over the description but for its digest.

    Of format 1 it covers the arrays alone: leave the description out.
    """
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    if description is None:
        return state.hexdigest()
    rest = {key: value for key, value in description.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{state.hexdigest()}\n{text}".encode()).hexdigest()


def read(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays, of a format that is known and of the digest that is recorded."""
    path = folder / DESCRIPTION
    if path.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise PolicyError(f"{DESCRIPTION} is larger than {MAX_DESCRIPTION_BYTES} bytes")
    text = path.read_text(encoding="utf-8")
    description = json.loads(text, parse_constant=_no_constant)
    if not isinstance(description, dict) or description.get("format") not in READ_FORMATS:
        known = " or ".join(map(str, READ_FORMATS))
        raise PolicyError(f"{DESCRIPTION} is not of format {known}")
    arrays = _read_arrays(folder / ARRAYS)
    covered = None if description["format"] == 1 else description
    if digest(arrays, covered) != description["sha256"]:
        raise PolicyError(
            f"{ARRAYS} or {DESCRIPTION} was changed: the folder does not have the digest that is "
            "recorded"
        )
    return description, arrays


def _no_constant(name: str) -> float:
    raise PolicyError(f"{DESCRIPTION} holds {name}, which is not a number")


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    on_disk = path.stat().st_size
    with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise PolicyError(
                f"{ARRAYS} is compressed, {on_disk} bytes that say they unpack to {unpacked}; "
                "arrays of a policy are stored as they are"
            )
        if unpacked > min(on_disk, MAX_ARRAY_BYTES):
            raise PolicyError(
                f"{ARRAYS} says it holds {unpacked} bytes in a file of {on_disk}; at most "
                f"{MAX_ARRAY_BYTES} are read"
            )
        arrays = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise PolicyError(f"{ARRAYS} holds {name} twice")
            with archive.open(entry) as file:
                arrays[name] = _read_array(file, entry, name)  # type: ignore[arg-type]
    return arrays


def _read_array(file: BinaryIO, entry: zipfile.ZipInfo, name: str) -> np.ndarray:
    """One array, whose own header must agree with the size of its entry."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise PolicyError(f"{name} has the unknown NumPy format {version}")
    shape, fortran, dtype = read_header(file, max_header_size=_MAX_HEADER)
    if dtype.hasobject or dtype.kind not in "fiub":
        raise PolicyError(f"{name} is of {dtype}; only numbers are read")
    size = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or size != entry.file_size - file.tell():
        raise PolicyError(f"{name} says it is {dtype} {shape}, which is not what its entry holds")
    data = bytearray()
    while len(data) < size:
        part = file.read(min(_PART, size - len(data)))
        if not part:
            raise PolicyError(f"{name} ends before its data do")
        data += part
    file.read(1)  # at its end the archive compares the checksum
    array = np.frombuffer(bytes(data), dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array).reshape(shape)
