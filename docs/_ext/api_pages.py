"""Writes a page of the API reference for every public module before the site is built.

The pages follow the rooms of the code: a module that is added has its page.
"""

import pathlib
import pkgutil
from typing import Any

from sphinx.application import Sphinx

FOLDER = "reference/modules"
ROOMS = {
    "agents": "Methods",
    "data": "Data",
    "envs": "Environments",
    "hardware": "The robot",
    "judge": "Judging",
    "learn": "Learning",
    "nn": "Networks",
    "runs": "Run directories",
    "workflow": "The verbs",
}
"""Sub-package -> title; `launch` is the command line, which has a page of its own."""


def write(app: Sphinx) -> None:
    """Write all pages; what stays the same is not touched, so that it is not built again."""
    folder = pathlib.Path(app.srcdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{room}.rst": _page(room, title) for room, title in ROOMS.items()}
    pages["index.rst"] = _index()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for stale in set(folder.glob("*.rst")) - {folder / name for name in pages}:
        stale.unlink()


def _index() -> str:
    entries = "".join(f"   {room}\n" for room in ROOMS)
    return f"All modules\n===========\n\n.. toctree::\n   :maxdepth: 1\n\n{entries}"


def _page(room: str, title: str) -> str:
    lines = [title, "=" * len(title), "", f".. automodule:: robo_rl.{room}", "   :no-members:", ""]
    for module in _modules(room):
        lines += [module, "-" * len(module), "", f".. automodule:: {module}", ""]
    return "\n".join(lines)


def _modules(room: str) -> list[str]:
    """Names of all modules of a room, those of its sub-packages included."""
    package = __import__(f"robo_rl.{room}", fromlist=["__path__"])
    prefix = f"robo_rl.{room}."
    found = pkgutil.walk_packages(package.__path__, prefix)
    return [info.name for info in found if not info.ispkg]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "version": "1"}
