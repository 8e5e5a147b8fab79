"""Writes the page of the command line from the commands' own `--help`, before the site is built."""

import contextlib
import io
import os
import pathlib
import textwrap
from typing import Any

from sphinx.application import Sphinx

from robo_rl.launch import cli

PAGE = "reference/cli.md"
_COLUMNS = 88
_INTRO = """# The command line

`robo-rl COMMAND --help` prints what stands here. A command is a few lines over the function of the
same name in Python (`eval` is `robo_rl.evaluate`, `select` is `robo_rl.choose`; both names work on
the terminal). It ends with exit code 0 when it did what was asked, 1 when what it looked at is not
well (a check that found errors, a doctor), and 2, with one sentence, when it could not.
"""


def write(app: Sphinx) -> None:
    """Write the page, unless it is as it should be."""
    parts = [_INTRO]
    for name in cli.commands():
        words = name.split("_", 1)
        parts += [f"## robo-rl {' '.join(words)}\n", f"```text\n{_help(words)}\n```\n"]
    path, text = pathlib.Path(app.srcdir) / PAGE, "\n".join(parts)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _help(words: list[str]) -> str:
    """What `robo-rl WORDS --help` prints, in lines that fit a page."""
    out = io.StringIO()
    os.environ["COLUMNS"] = str(_COLUMNS)
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.parse([*words, "--help"])
    lines = out.getvalue().rstrip().splitlines()
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    """Tyro wraps the options and leaves a command's description as long as it is."""
    if len(line) <= _COLUMNS:
        return [line.rstrip()]
    more = "    " if line.startswith("$") else ""
    return textwrap.wrap(line, _COLUMNS, subsequent_indent=more, break_long_words=False)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "version": "1"}
