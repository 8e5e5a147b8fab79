"""The `robo-rl` command line: a table of the files in `commands/`, and how it ends.

A command is a file there with a dataclass `Command` whose `run` returns the exit code; its name is
the file's, `data_check` being `data check`. Packages add commands by the entry point group
`robo_rl.commands`, with such names.
"""

import dataclasses
import importlib
import importlib.metadata
import logging
import os
import pathlib
import sys
import warnings
from typing import Annotated, Any, Union

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from robo_rl import ends, extras, files
from robo_rl.data.errors import DatasetError

ORDER = (
    "quickstart",
    "data_collect",
    "data_record",
    "data_import",
    "data_check",
    "data_list",
    "train",
    "finetune",
    "methods",
    "eval",
    "select",
    "export",
    "deploy",
    "twin",
    "resume",
    "report",
    "doctor",
)
"""As `--help` lists them; others follow by name."""
ALIASES = {"evaluate": "eval", "choose": "select"}
"""The names that the same verbs have in Python."""
_GROUPS = {"data": "Record, import, check and list datasets."}
_PLUGINS = "robo_rl.commands"
_TOLD = (
    OSError,
    ValueError,
    RuntimeError,
    FloatingPointError,
    DatasetError,
    extras.MissingExtraError,
)
"""What ends a command with one sentence."""


def commands() -> dict[str, Any]:
    """Dataclasses of all commands by file name."""
    folder = pathlib.Path(__file__).parent / "commands"
    names = {path.stem for path in folder.glob("[!_]*.py")}
    found = {
        name: importlib.import_module(f"robo_rl.launch.commands.{name}").Command
        for name in (*ORDER, *sorted(names - set(ORDER)))
    }
    for point in importlib.metadata.entry_points(group=_PLUGINS):
        found.setdefault(point.name, point.load())
    return found


def table() -> Any:
    """The type that tyro parses: a union of commands, and of groups of commands."""
    groups: dict[str, list[Any]] = {}
    top: dict[str, Any] = {}
    for name, command in commands().items():
        group, _, rest = name.partition("_")
        if group in _GROUPS and rest:
            groups.setdefault(group, []).append(Annotated[command, subcommand(rest)])
            top[group] = None
        else:
            top[name] = command
    for group, members in groups.items():
        top[group] = dataclasses.make_dataclass(
            group.capitalize(),
            [("command", Union[tuple(members)])],  # noqa: UP007 - made at run time
            namespace={"run": lambda self: self.command.run(), "__doc__": _GROUPS[group]},
            frozen=True,
        )
    choices = tuple(Annotated[kind, subcommand(name)] for name, kind in top.items())
    return Union[choices]  # noqa: UP007


def parse(arguments: list[str] | None = None) -> Any:
    """The command that the arguments ask for. Exits with help or an error message."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given:
        given[0] = ALIASES.get(given[0], given[0])
    return tyro.cli(
        table(),
        prog="robo-rl",
        description=f"From logged data to a safety-filtered arm. As in Python: {_also()}.",
        args=given,
        config=(OmitArgPrefixes, OmitSubcommandPrefixes),
    )


def _also() -> str:
    return ", ".join(f"{alias} for {name}" for alias, name in ALIASES.items())


def main() -> None:
    """Entry point of `robo-rl`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Loud libraries: the user can do nothing about a missing display or an accelerator probe.
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="glfw")
    files.printable_output()
    # As `python` has a script's folder; at the end, so that nothing installed is shadowed.
    sys.path.append(os.getcwd())
    interrupted = False
    try:
        with ends.unwind_on_signals(), extras.explained():
            code = parse().run()
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        code, interrupted = ends.exit_code(error), True
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    # HardwareError, CheckpointError and ParityError are RuntimeErrors.
    except _TOLD as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    if interrupted:  # here, where nothing holds the frames that it unwound
        ends.leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
