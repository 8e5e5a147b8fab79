"""Reads docstrings as they are written here: plain text with `code`, indented code, and Args.

They are no reStructuredText: |Q| is an absolute value and * a product. So signs are escaped, an
indented block is code, and sections such as Args are read as Google writes them.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

_SECTIONS = ("Args:", "Raises:", "Returns:")
_CODE = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"([\\*|@]|(?<=\w)_(?!\w))")
_NAPOLEON = Config(napoleon_use_rtype=False)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring by reStructuredText."""
    text = _plain(lines)
    if what in ("function", "method", "class"):
        text = GoogleDocstring(text, _NAPOLEON, app, what, name, obj, options).lines()
    lines[:] = text


def _plain(lines: list[str]) -> list[str]:
    out: list[str] = []
    top, code = "", False
    for line in _joined(lines):
        indented = line.startswith("    ")
        if line.strip() and not indented:
            top, code = line.strip(), False
        elif indented and not code and top not in _SECTIONS and not (out and out[-1].strip()):
            out += ["::", ""]
            code = True
        out.append(line if code else _escaped(line))
    return out


def _joined(lines: list[str]) -> list[str]:
    """Code that goes on in the next line stands in one."""
    out: list[str] = []
    for line in lines:
        if out and out[-1].count("`") % 2:
            out[-1] = f"{out[-1]} {line.strip()}"
        else:
            out.append(line)
    return out


def _escaped(line: str) -> str:
    text, after_code = "", False
    for number, part in enumerate(_CODE.split(line)):
        if number % 2:
            text += f"`{part}`"
        else:
            glued = after_code and part[:1].isalnum()  # a plural: `frame`s
            text += ("\\ " if glued else "") + _SPECIAL.sub(r"\\\1", part)
        after_code = bool(number % 2)
    return text


def setup(app: Sphinx) -> dict[str, Any]:
    """Register."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "version": "1"}
