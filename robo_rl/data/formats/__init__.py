"""Dataset formats: files of others into Minari datasets, by readers.

Those here are the files in `readers`. A reader of one's own is an object with `name`, `sniff` and
`read` (see `contract.Reader`), found by path (`mine.py`) or under the entry point group
`robo_rl.formats`.
"""

import os
import pathlib
from typing import Any

from robo_rl.data.errors import DatasetError, DatasetNotFoundError
from robo_rl.data.formats import options as option
from robo_rl.data.formats.contract import Reader, Recording
from robo_rl.data.minari_write import write_dataset
from robo_rl.plugins import Door, PluginError, modules_of

__all__ = ["FORMATS", "Reader", "Recording", "choose", "get", "import_dataset", "read"]

FORMATS: Door[Reader] = Door(
    "dataset format",
    "robo_rl.formats",
    modules_of("robo_rl.data.formats.readers"),
    fits=lambda value: isinstance(value, Reader) and not isinstance(value, type),
)


def get(name: str) -> Reader:
    """The reader of this name or path. Raises PluginError, which lists the known ones."""
    return FORMATS.get(name)


def choose(source: str | os.PathLike[str]) -> Reader:
    """The reader that knows a file or folder when it sees it. Raises DatasetError."""
    path = _existing(source)
    names = FORMATS.names()
    fitting = [name for name in names if _sniffs(name, path)]
    if len(fitting) == 1:
        return get(fitting[0])
    if fitting:
        raise DatasetError(f"{path} may be of several formats: name one of {', '.join(fitting)}")
    raise DatasetError(
        f"{path} is of no known format ({', '.join(names)}), or cut short; name the format, or "
        "give the path of a file with a reader of your own"
    )


def read(
    source: str | os.PathLike[str],
    format: str | Reader | None = None,  # noqa: A002 - the word that one looks for
    **options: Any,
) -> Recording:
    """Open a file or folder, by default with the reader that knows it. Raises DatasetError.

    Args:
        source: The file or folder.
        format: A reader, its name, or the path of a file with one; None: by looking.
        options: Of the reader (see `options.known`). A wrong one is a ValueError.
    """
    path = _existing(source)
    given = get(format) if isinstance(format, str) else format
    reader = given or choose(path)
    option.check_options(reader, options)
    return reader.read(path, **options)


def import_dataset(
    source: str | os.PathLike[str],
    name: str,
    format: str | Reader | None = None,  # noqa: A002
    *,
    overwrite: bool = False,
    **options: Any,
) -> pathlib.Path:
    """Write a file or folder of a known format as the Minari dataset `name`; return its folder.

    The arguments but `name` and `overwrite` are those of `read`. Raises DatasetError.
    """
    recording = read(source, format, **options)
    return write_dataset(
        name,
        recording.episodes,
        observation_space=recording.observation_space,
        action_space=recording.action_space,
        provenance=recording.provenance,
        env=recording.env,
        env_kwargs=recording.env_kwargs,
        card=recording.card,
        overwrite=overwrite,
        as_is=True,  # `check` judges what others recorded
    )


def _existing(source: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(source).expanduser()
    if not path.exists():
        raise DatasetNotFoundError(f"there is no file or folder {path.absolute()}")
    return path


def _sniffs(name: str, path: pathlib.Path) -> bool:
    """A reader of another package that cannot be imported must not stand in the way of others."""
    try:
        return get(name).sniff(path)
    except PluginError:
        return False
