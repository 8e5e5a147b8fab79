"""Files that are whole or not there, JSON that every program can read, text for every terminal."""

import contextlib
import errno
import json
import math
import os
import pathlib
import secrets
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

NonFinite = Literal["null", "refuse"]
"""What becomes of NaN and infinities, for which JSON has no word."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk, or what one may use of it, is full."""
NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""A place where one may not write."""
_ADVICE = {
    **dict.fromkeys(NO_ROOM, "free space and try again"),
    errno.EFBIG: "the system allows no file of this size here",
    **dict.fromkeys(NOT_OURS, "choose a folder that you may write to"),
}


def dumps(
    value: Any,
    *,
    nonfinite: NonFinite = "null",
    indent: int | None = None,
    sort_keys: bool = False,
) -> str:
    """`value` as strict JSON in ASCII; NumPy's scalars and arrays are numbers and lists.

    Numbers that are not finite become null, or a ValueError that says where they stand.
    """
    return json.dumps(plain(value, nonfinite), indent=indent, sort_keys=sort_keys, allow_nan=False)


def plain(value: Any, nonfinite: NonFinite = "null", where: str = "") -> Any:
    """What `dumps` writes: `value` of Python's own types, with None for what is not finite.

    `where` is its place in errors.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        if nonfinite == "refuse":
            raise ValueError(f"{where or 'the value'} is {value}, which JSON cannot hold")
        return None
    if isinstance(value, Mapping):
        inner = f"{where}." if where else ""
        return {key: plain(item, nonfinite, f"{inner}{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, nonfinite, f"{where}[{i}]") for i, item in enumerate(value)]
    return value


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write aside, flush to the disk, rename. A failure leaves what was there before."""
    aside = path.with_name(f".{path.name}.{token()}.part")  # hidden, and no other process's
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise refused(f"cannot write {path}", error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def append(path: pathlib.Path, text: str) -> None:
    """Add whole lines to a file, or nothing."""
    append_bytes(path, text.encode())


def append_bytes(path: pathlib.Path, data: bytes) -> None:
    """Add all of `data` to a file, or nothing."""
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            left = memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise
    except OSError as error:
        raise refused(f"cannot write {path}", error) from error


def write_json(
    path: pathlib.Path, value: Mapping[str, Any], *, nonfinite: NonFinite = "refuse"
) -> None:
    """JSON with sorted keys, whole or not at all."""
    text = dumps(value, nonfinite=nonfinite, indent=2, sort_keys=True) + "\n"
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


def sync(path: pathlib.Path) -> None:
    """Flush a file, or the names in a folder, to the disk: it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(what: str, error: OSError) -> OSError:
    """An error of the same kind that says what failed, the system's reason and what to do."""
    text = f"{what}: {reason(error)}"
    advice = _ADVICE.get(error.errno or 0)
    if advice and not text.endswith(advice):
        text += f"; {advice}"
    return OSError(error.errno, text) if error.errno else OSError(text)


def reason(error: OSError) -> str:
    """What the system says, without its number."""
    return error.strerror or str(error)


def absolute(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with `~` expanded, from the root on: it means the same wherever it is read."""
    return pathlib.Path(os.path.abspath(os.path.expanduser(path)))


def check_encodable(path: pathlib.Path) -> None:
    """Raise ValueError where Python and libraries beside it would not agree on the path's bytes.

    Libraries of C++ take paths as UTF-8, whatever the locale is.
    """
    encoding = sys.getfilesystemencoding()
    try:
        if os.fsencode(path) == str(path).encode():
            return
    except UnicodeEncodeError:
        pass
    shown = str(path).encode("ascii", "backslashreplace").decode()
    raise ValueError(
        f"{shown} cannot be given to all libraries: this process writes file names in {encoding}. "
        "Set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or choose a path of plain ASCII letters"
    )


def token() -> str:
    """A part of a file's name that no other process uses."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def printable_output() -> None:
    """Let standard output and error take any text: what the locale lacks becomes `?` or `\\xfc`."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a notebook's or a test's stream takes all text already
            reconfigure(errors=errors)
