"""A Flax module of one's own, named by a text that a config can keep.

The text is `path/to/mine.py:Module` or `package.module:Module`, with settings in brackets where
the module has fields to set: `mine.py:Module(width=64, depth=3)`. `pin` makes it one that means
the same from any folder and at any later time: it completes the path and adds the digest of the
file, which `build` compares before it runs the file. Nothing is imported before `build`.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import re
import site
import sys
import sysconfig
from collections.abc import Mapping
from typing import Any

import flax.linen as linen

from robo_rl.plugins import FILES, PluginError, load_file

_TEXT = re.compile(
    r"(?P<source>.+?):(?P<name>\w+)(?:\((?P<settings>.*)\))?(?:@(?P<digest>[0-9a-f]{16}))?",
    re.DOTALL,
)
_HERE = "here"
"""Source of a class that no other process could find: made in a function or in a session."""
_HANDED: dict[str, type] = {}
_NOT_LASTING = (
    "{where}: {name} was defined in a function or a session and cannot be found again; put it at "
    "the top of a file and give it as path/to/it.py:{name}"
)
_FLAX_FIELDS = ("parent", "name")


@dataclasses.dataclass(frozen=True)
class _Reference:
    source: str
    """A path that ends in .py, or an importable module."""
    name: str
    settings: tuple[tuple[str, Any], ...]
    digest: str
    """Of the file; empty while it is not pinned."""

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings)
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.source}:{self.name}{f'({settings})' if settings else ''}{digest}"


def is_reference(text: str) -> bool:
    """Whether a text names a module of one's own, and not one that is built in."""
    return ":" in text.partition("(")[0]


def pin(module: Any, where: str) -> str:
    """The text of a text, of a module class or of a module; `where` names the setting in errors."""
    if not isinstance(module, str):
        return str(_of_object(module, where))
    reference = _parsed(module, where)
    if reference.digest or reference.source == _HERE:
        return module
    source = reference.source
    if source.endswith(".py"):
        source = str(pathlib.Path(source).expanduser().resolve())
    else:
        source = _lasting(source, _file(source, where))
    reference = dataclasses.replace(reference, source=source)
    return str(dataclasses.replace(reference, digest=_digest(source, where)))


def build(text: str, where: str, name: str | None = None) -> linen.Module:
    """The module that a pinned text describes; `name` is Flax's."""
    reference = _parsed(text, where)
    kind = _resolved(f"{reference.source}:{reference.name}", reference.digest, where)
    known = fields(kind)
    unknown = [key for key, _ in reference.settings if key not in known]
    if unknown:
        raise ValueError(
            f"{where}: {reference.source}:{reference.name} has no setting {', '.join(unknown)}; "
            f"it has: {', '.join(sorted(known)) or 'none'}"
        )
    module: linen.Module = kind(**dict(reference.settings), name=name)
    return module


def fields(kind: Any) -> set[str]:
    """What can be set of a module's class."""
    return {f.name for f in dataclasses.fields(kind) if f.init and f.name not in _FLAX_FIELDS}


def split_settings(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """`name(key=value, ...)` as name and settings."""
    name, bracket, rest = text.partition("(")
    if bracket and not rest.endswith(")"):
        raise ValueError(f"{where}: {text!r} has no closing bracket")
    return name, dict(_settings(rest[:-1] if bracket else "", where))


def _parsed(text: str, where: str) -> _Reference:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{where}: expected path/to/mine.py:Module or package.module:Module, with settings as "
            f"in mine.py:Module(width=64), got {text!r}"
        )
    settings = _settings(match["settings"] or "", where)
    return _Reference(match["source"], match["name"], settings, match["digest"] or "")


def _settings(text: str, where: str) -> tuple[tuple[str, Any], ...]:
    """Keywords with literal values, as in a call."""
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("settings need names")
        found = [(str(k.arg), _plain(ast.literal_eval(k.value))) for k in call.keywords]
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{where}: cannot read the settings ({text}): {error}; give them as (width=64, "
            "depth=3), with numbers, texts, true or false as in Python, and tuples of them"
        ) from error
    return tuple(found)


def _plain(value: Any) -> Any:
    """`value` where a config can keep it: hashable, and written as Python writes it."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{value!r} is not a number, a text, a boolean, None or a tuple of these")


def _of_object(module: Any, where: str) -> _Reference:
    """Of a class, or of a module with the fields that differ from its class's defaults."""
    kind = module if isinstance(module, type) else type(module)
    if not issubclass(kind, linen.Module):
        raise ValueError(f"{where}: expected a text or a Flax (linen) module, got {module!r}")
    changed = () if isinstance(module, type) else _changed(module, where)
    source = _source_of(kind)
    if source is None:
        digest = next((d for d, known in _HANDED.items() if known is kind), "")
        digest = digest or f"{len(_HANDED):016x}"
        _HANDED[digest] = kind
        return _Reference(_HERE, kind.__name__, changed, digest)
    return _Reference(source, kind.__name__, changed, _digest(source, where))


def _changed(module: linen.Module, where: str) -> tuple[tuple[str, Any], ...]:
    """The settings of a module that are not the defaults of its class."""
    changed = []
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if not field.init or field.name in _FLAX_FIELDS or value is field.default:
            continue
        try:
            plain = _plain(value)
        except ValueError as error:
            raise ValueError(
                f"{where}: a config cannot keep {type(module).__name__}.{field.name}: {error}"
            ) from error
        if type(plain) is not type(field.default) or plain != field.default:
            changed.append((field.name, plain))
    return tuple(changed)


def _source_of(kind: type) -> str | None:
    """Where another process finds a class; None where none would."""
    module = sys.modules.get(kind.__module__)
    if getattr(module, kind.__name__, None) is not kind:
        return None
    if kind.__module__ == "__main__" or kind.__module__.startswith(f"{FILES}."):
        file = getattr(module, "__file__", None)
        return None if file is None else str(pathlib.Path(file).resolve())
    return _lasting(str(kind.__module__), pathlib.Path(str(getattr(module, "__file__", ""))))


def _lasting(source: str, file: pathlib.Path) -> str:
    """A module's name where it finds the module from any folder, else the path of its file.

    A module beside a script is found by its name only where the script is. One within a package
    keeps its name: alone, out of its file, its package would be missing.
    """
    if "." in source or file.suffix != ".py" or file.name == "__init__.py":
        return source
    libraries = [
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    places = [*libraries, *site.getsitepackages(), site.getusersitepackages()]
    path = file.resolve()
    installed = {pathlib.Path(place).resolve() for place in places} & set(path.parents)
    return source if installed else str(path)


def check_lasting(config: Any) -> None:
    """Raise ValueError where JSON values name a class that no other process could find.

    A loop of one's own may train with one; a run that is kept must be opened again.
    """
    if isinstance(config, Mapping):
        for value in config.values():
            check_lasting(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_lasting(value)
    elif isinstance(config, str) and config.startswith(f"{_HERE}:"):
        match = _TEXT.fullmatch(config)
        if match is not None and match["digest"]:
            raise ValueError(_NOT_LASTING.format(where="arch", name=match["name"]))


def _digest(source: str, where: str) -> str:
    """The start of the SHA-256 of a source's file."""
    path = _file(source, where)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"{where}: cannot read {path}: {error.strerror}") from error


def _file(source: str, where: str) -> pathlib.Path:
    if source.endswith(".py"):
        return pathlib.Path(source)
    loaded = sys.modules.get(source)
    if loaded is not None and getattr(loaded, "__file__", None):
        return pathlib.Path(str(loaded.__file__))
    try:
        spec = importlib.util.find_spec(source)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"{where}: there is no module {source}; a file is given as path/to/it.py")
    return pathlib.Path(spec.origin)


@functools.cache
def _resolved(reference: str, digest: str, where: str) -> Any:
    """The class, out of a file that still has the digest."""
    source, _, name = reference.rpartition(":")
    if source == _HERE:
        if digest not in _HANDED:
            raise ValueError(_NOT_LASTING.format(where=where, name=name))
        return _HANDED[digest]
    found = _digest(source, where)
    if digest and found != digest:
        raise ValueError(
            f"{where}: {_file(source, where)} has changed since {name} was chosen (its digest is "
            f"{found}, recorded is {digest}); bring the old file back, or start a new run"
        )
    try:
        module = _imported(source, found)
    except PluginError as error:
        raise ValueError(f"{where}: {error}") from error
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, linen.Module)):
        has = [n for n, v in vars(module).items() if inspect.isclass(v) and _is_own(v, module)]
        raise ValueError(
            f"{where}: {source} has no Flax (linen) module {name}; it has: "
            f"{', '.join(has) or 'none'}"
        )
    return kind


def _is_own(kind: type, module: Any) -> bool:
    return issubclass(kind, linen.Module) and kind.__module__ == module.__name__


def _imported(source: str, digest: str) -> Any:
    if source.endswith(".py"):
        return load_file(pathlib.Path(source), digest)[0]
    return sys.modules.get(source) or importlib.import_module(source)
