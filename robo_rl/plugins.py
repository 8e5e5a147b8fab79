"""Doors: things found by built-in name, by entry point, or by path to a file of one's own.

    ROBOTS = Door("robot", "robo_rl.robots", {"long_arm": "package.arms:LONG_ARM"})
    ROBOTS.find("long_arm").value
    ROBOTS.find("mine.py:ARM").origin  # {"path": "/home/me/mine.py", "sha256": "...", ...}

Imports neither JAX nor MuJoCo: every room may import it.
"""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import pkgutil
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")

FILES = "robo_rl_files"
"""Modules that were loaded from a file are called `robo_rl_files.WHICH.STEM`."""
_PATH = re.compile(
    r"(?P<file>.+\.py)(?::(?P<attribute>[A-Za-z_]\w*))?(?:#sha256=(?P<sha256>[0-9a-f]{16,64}))?"
)


class PluginError(ValueError):
    """Nothing of that name or path, or it could not be imported: one sentence says which."""


def modules_of(package: str, *, folders: bool = False) -> dict[str, str]:
    """Name -> dotted path of the public files, or folders, in a package's folder, sorted.

    The package itself is imported, they are not.
    """
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    names = sorted(info.name for info in found if info.ispkg == folders)
    return {name: f"{package}.{name}" for name in names if not name.startswith("_")}


@dataclasses.dataclass(frozen=True)
class Found(Generic[T]):
    """What stands behind a name, and where it came from."""

    value: T
    reference: str
    """Finds the same again, from any folder and any process on this machine: a name, or the whole
    path of a file with the start of its SHA-256, so that one that has changed is refused."""
    origin: Mapping[str, str]
    """`{"name": ...}`, or `{"path": absolute, "sha256": of the file, "attribute": ...}`: what a run
    keeps of it."""


@dataclasses.dataclass(frozen=True)
class Door(Generic[T]):
    """One kind of thing that users bring."""

    noun: str
    """What it is called in errors: `robot`."""
    group: str
    """Entry point group of installed packages."""
    builtin: Mapping[str, str]
    """Name -> `module` or `module:attribute`, imported when asked for. A module alone stands for
    the one fitting object that it defines, or for itself where modules are what fits."""
    fits: Callable[[Any], bool] | None = None
    """Whether an object is one of these; None takes a file as a whole, as a module."""

    def names(self) -> tuple[str, ...]:
        """All that can be found by name: the built-in ones, then those of installed packages."""
        return tuple(dict.fromkeys([*self.builtin, *sorted(self._entry_points())]))

    def get(self, name: str) -> T:
        """The thing itself. Raises PluginError."""
        return self.find(name).value

    def find(self, name: str) -> Found[T]:
        """By built-in name, entry point, path (`mine.py`, `mine.py:Mine`) or what `Found.reference`
        was. Raises PluginError.

        A file is imported once for each content it has: asked again, the same object comes back.
        One that has changed since its reference was taken is refused and not run.
        """
        if match := _PATH.fullmatch(name):
            file = pathlib.Path(match["file"])
            return self._from_path(file, match["attribute"] or "", match["sha256"] or "")
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            value: Any = importlib.import_module(module)
            if not attribute and self.fits is not None:
                attribute = self._only(value, module)
            return Found(getattr(value, attribute) if attribute else value, name, {"name": name})
        points = self._entry_points()
        if name in points:
            return Found(self._load(points[name]), name, {"name": name})
        near = difflib.get_close_matches(name, self.names(), n=1)
        meant = f"is {near[0]!r} meant? Known" if near else "known"
        raise PluginError(
            f"no {self.noun} is called {name!r}; {meant}: {', '.join(self.names()) or 'none'}; or "
            "give the path of a file of your own, such as mine.py or mine.py:NAME"
        )

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}

    def _load(self, point: importlib.metadata.EntryPoint) -> Any:
        try:
            value = point.load()
        except Exception as error:
            raise PluginError(
                f"{self.noun} {point.name!r} of the installed package that names {point.value}: "
                f"importing it failed: {type(error).__name__}: {error}"
            ) from error
        return self._checked(value, f"{point.name!r} ({point.value})")

    def _from_path(self, path: pathlib.Path, attribute: str, sha256: str) -> Found[T]:
        file = path.expanduser().resolve()
        if not file.is_file():
            raise PluginError(f"{self.noun} {path}: there is no file {file}")
        module, digest = load_file(file, sha256)
        origin = {"path": str(file), "sha256": digest}
        pin = f"#sha256={digest[:16]}"
        if not attribute and self.fits is None:
            whole: Any = module
            return Found(whole, f"{file}{pin}", origin)
        attribute = attribute or self._only(module, str(file))
        if not hasattr(module, attribute):
            near = difflib.get_close_matches(attribute, _own(module), n=1)
            meant = f"is {near[0]} meant? It" if near else "it"
            defined = ", ".join(_own(module)) or "nothing"
            raise PluginError(
                f"{self.noun}: {file} defines no {attribute}; {meant} defines {defined}"
            )
        value = self._checked(getattr(module, attribute), f"{file}:{attribute}")
        reference = f"{file}:{attribute}{pin}"
        return Found(value, reference, {**origin, "attribute": attribute})

    def _only(self, module: types.ModuleType, where: str) -> str:
        """The name of the one fitting object that the module itself defines."""
        fitting = [name for name, value in _own(module).items() if self._fits(value)]
        if len(fitting) == 1:
            return fitting[0]
        found = f"{len(fitting)} ({', '.join(fitting)})" if fitting else "none"
        raise PluginError(
            f"{self.noun}: {where} must define one {self.noun} or be given as "
            f"{where.rpartition('/')[2]}:NAME; it defines {found}"
        )

    def _fits(self, value: Any) -> bool:
        return self.fits is None or self.fits(value)

    def _checked(self, value: Any, where: str) -> Any:
        if not self._fits(value):
            raise PluginError(f"{where} is no {self.noun}, but {_kind(value)}")
        return value


def load_file(file: pathlib.Path, sha256: str = "") -> tuple[types.ModuleType, str]:
    """Import a Python file; the module and the SHA-256 of the file. Raises PluginError.

    Modules beside the file can be imported from it, unless something installed has their name.
    With `sha256`, or the start of one, a file with another is refused before it runs.
    """
    try:
        source = file.read_bytes()
    except OSError as error:
        raise PluginError(f"{file} cannot be read: {error}") from error
    digest = hashlib.sha256(source).hexdigest()
    if not digest.startswith(sha256):
        raise PluginError(
            f"{file} has changed since this was recorded: its SHA-256 is {digest[:16]}, recorded "
            f"is {sha256[:16]}; put the old file back, or name the new one anew"
        )
    place = hashlib.sha256(str(file).encode()).hexdigest()
    stem = re.sub(r"[^0-9A-Za-z_]", "_", file.stem)
    name = f"{FILES}.{place[:8]}_{digest[:8]}.{stem}"
    if name in sys.modules:
        return sys.modules[name], digest
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # At the end, so that a file of theirs shadows nothing that is installed.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    # Dataclasses and annotations look their module up while it is being imported.
    sys.modules[name] = module
    try:
        # What was read is what runs and what the digest is of, whatever a cache holds.
        exec(compile(source, str(file), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise PluginError(f"importing {_blame(error, file)}") from error
    return module, digest


def _own(module: types.ModuleType) -> dict[str, Any]:
    """What a module defines itself: no imports, nothing private."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", module.__name__) in (module.__name__, *_instances(value))
    }


def _instances(value: Any) -> tuple[str, ...]:
    """An instance has the `__module__` of its class, which may well be ours."""
    return () if isinstance(value, (type, types.FunctionType)) else (type(value).__module__,)


def _kind(value: Any) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__}"


def _blame(error: Exception, file: pathlib.Path) -> str:
    """Where in the user's own file the import failed, and how."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file} failed in line {error.lineno}: {(error.text or '').strip()!r}: {what}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == str(file)]
    if not own:
        return f"{file} failed: {what}"
    return f"{file} failed in line {own[-1].lineno}: {(own[-1].line or '').strip()!r}: {what}"
