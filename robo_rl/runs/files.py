"""Files that are whole or not there."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write aside, flush to the disk, rename. A failure leaves what was there before."""
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; free space and try again"
        ) from error


def append(path: pathlib.Path, text: str) -> None:
    """Add whole lines to a file."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; free space and resume"
        ) from error


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """JSON with sorted keys, whole or not at all."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """An object from a JSON file; errors name the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object, got {type(value).__name__}")
    return value


def sync_folder(path: pathlib.Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
