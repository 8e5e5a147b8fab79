"""Agents from outside of the package: by entry point, or by the path of a file.

A file is an agent as it stands when it holds `Config`, `init`, `update` and `act` as
`robo_rl.learn.contract` says; `policy` makes it exportable, `CAPABILITIES` says what else it can
do. Without `CAPABILITIES`, it can do what it has functions for.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import pathlib
import re
import sys
import types
from typing import Any, NamedTuple

from robo_rl.learn.contract import Agent, Capabilities
from robo_rl.nn.policies import NotExportable

GROUP = "robo_rl.agents"
"""The entry points that name modules as agents."""
_PATH = re.compile(r"(?P<path>.+\.py)(?::(?P<name>\w+))?(?:#sha256=(?P<digest>[0-9a-f]{64}))?")
_SIGNATURES = {
    "init": ("config", "key", "example_batch", "normaliser"),
    "update": ("config", "state", "batch"),
    "act": ("config", "state", "observations", "key", "explore"),
    "policy": ("config", "state"),
}
_OPTIONAL = ("q_values", "state_values", "learned", "adopt", "warm_start")


class File(NamedTuple):
    """An agent's file, the name of the agent within it, and the digest that is recorded of it."""

    path: pathlib.Path
    """Absolute."""
    name: str
    """Empty where the whole file is the agent."""
    digest: str
    """SHA-256 of the content, in hex; empty where none is asked for."""


def parse(text: str) -> File | None:
    """The file that `PATH.py`, `PATH.py:NAME` or what `describe` made of it stands for."""
    found = _PATH.fullmatch(text)
    if found is None:
        return None
    path = pathlib.Path(found["path"]).expanduser().resolve()
    return File(path, found["name"] or "", found["digest"] or "")


def describe(file: File) -> str:
    """The file as text that `load` takes again, and refuses when the content is another one."""
    name = f":{file.name}" if file.name else ""
    return f"{file.path}{name}#sha256={_digest(_read(file.path))}"


def load(file: File) -> Agent:
    """The agent in a file; the same object as long as the content is the same."""
    found = _digest(_read(file.path))
    if file.digest and found != file.digest:
        raise ValueError(
            f"{file.path} has changed since this was recorded: its SHA-256 is {found[:16]}, "
            f"recorded is {file.digest[:16]}; put the old file back, or start a new run"
        )
    return _load(file.path, file.name, found)


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """The installed agents by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def load_entry_point(name: str) -> Agent:
    """The agent that another package has installed under `name`."""
    point = entry_points()[name]
    return _checked(point.load(), f"entry point {name} = {point.value}")


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"there is no agent file {path}")
    return path.read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.cache
def _load(path: pathlib.Path, name: str, digest: str) -> Agent:
    # Messages call an agent by the last part of its module's name.
    module_name = f"robo_rl_agent_files.{digest[:16]}.{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where dataclasses and `inspect` look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    if not name:
        return _checked(module, str(path))
    if name not in vars(module):
        raise ValueError(f"{path} holds no {name}; it holds {', '.join(_public(module))}")
    return _checked(_as_module(f"{module_name}.{name}", vars(module)[name]), f"{path}:{name}")


def _public(module: types.ModuleType) -> list[str]:
    return sorted(name for name in vars(module) if not name.startswith("_"))


def _as_module(name: str, holder: Any) -> types.ModuleType:
    """A class or a namespace of functions as a module, which is hashable and has a name."""
    if isinstance(holder, types.ModuleType):
        return holder
    module = types.ModuleType(name, inspect.getdoc(holder))
    for key in ("Config", *_SIGNATURES, *_OPTIONAL, "CAPABILITIES"):
        value = inspect.getattr_static(holder, key, None)
        if value is not None:
            vars(module)[key] = value.__func__ if isinstance(value, staticmethod) else value
    return module


def _checked(module: types.ModuleType, where: str) -> Agent:
    """The module as an agent, completed; ValueError where it breaks the contract."""
    held = vars(module)
    lacking = [name for name in ("Config", "init", "update", "act") if name not in held]
    if lacking:
        raise ValueError(
            f"{where} is no agent: it lacks {', '.join(lacking)}; robo_rl.learn.contract says what "
            "an agent holds"
        )
    _check_config(held["Config"], where)
    for name, parameters in _SIGNATURES.items():
        if name in held:
            _check_signature(held[name], f"{where}: {name}", parameters)
    held.setdefault("policy", _no_policy(where))
    if "CAPABILITIES" not in held:
        held["CAPABILITIES"] = Capabilities(**{n: held[n] for n in _OPTIONAL if n in held})
    if not isinstance(held["CAPABILITIES"], Capabilities):
        raise ValueError(f"{where}: CAPABILITIES must be a robo_rl.learn.contract.Capabilities")
    agent: Any = module
    return agent  # type: ignore[no-any-return]


def _check_config(config: Any, where: str) -> None:
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ValueError(f"{where}: Config must be a dataclass")
    open_ended = [
        field.name
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if open_ended:
        raise ValueError(f"{where}: Config needs a default for {', '.join(open_ended)}")
    try:
        hash(config())
    except TypeError as error:
        raise ValueError(
            f"{where}: a Config must be hashable ({error}); declare it "
            "@dataclasses.dataclass(frozen=True), with tuples in place of lists"
        ) from None


def _check_signature(function: Any, what: str, parameters: tuple[str, ...]) -> None:
    try:
        inspect.signature(function).bind(*parameters)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must take ({', '.join(parameters)})") from None


def _no_policy(where: str) -> Any:
    def policy(config: Any, state: Any) -> Any:
        raise NotExportable(
            f"{where} has no `policy` function, which gives the policy as data: it cannot be "
            "exported"
        )

    return policy
