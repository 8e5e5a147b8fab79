"""Agents from outside of the package: by entry point, or by the path of a file.

A file is an agent as it stands when it holds `Config`, `init`, `update` and `act` as
`robo_rl.learn.contract` says; `policy` makes it exportable, `CAPABILITIES` says what else it can
do. Without `CAPABILITIES`, it can do what it has functions for.
"""

import dataclasses
import inspect
import types
from collections.abc import Mapping
from typing import Any

from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Agent, Capabilities
from robo_rl.nn.policies import NotExportable
from robo_rl.plugins import FILES, Door

GROUP = "robo_rl.agents"
"""The entry points that name modules as agents."""
_SIGNATURES = {
    "init": ("config", "key", "example_batch", "normaliser"),
    "update": ("config", "state", "batch"),
    "act": ("config", "state", "observations", "key", "explore"),
    "policy": ("config", "state"),
}
_MODULES: dict[str, types.ModuleType] = {}
"""Of classes and namespaces, by reference: asked again, the same agent comes back."""
_COMPLETE: set[types.ModuleType] = set()
_OPTIONAL = ("q_values", "state_values", "learned", "adopt", "warm_start")


def get(text: str, builtin: Mapping[str, str]) -> Agent:
    """The agent behind a name, `PATH.py`, `PATH.py:NAME`, or what `describe` made of them.

    The same object as long as the content of the file is the same. Raises PluginError, a
    ValueError.
    """
    found = _door(builtin).find(text)
    if text in builtin:
        return found.value  # type: ignore[no-any-return]
    value, (where, _, _) = found.value, found.reference.partition("#")
    if not isinstance(value, types.ModuleType):
        value = _as_module(found.reference, where.rpartition(":")[2], value)
    return _checked(value, where)


def names(builtin: Mapping[str, str]) -> tuple[str, ...]:
    """Of all agents that can be found by name."""
    return _door(builtin).names()


def describe(text: str, builtin: Mapping[str, str]) -> str:
    """A name as it is; a file as text that `get` takes again, and refuses when it has changed."""
    return _door(builtin).find(text).reference


def _door(builtin: Mapping[str, str]) -> Door[Any]:
    return Door("agent", GROUP, builtin)


def _as_module(reference: str, name: str, holder: Any) -> types.ModuleType:
    """A class or a namespace of functions as a module, which is hashable and has a name."""
    if reference not in _MODULES:
        # Messages call an agent by the last part of its module's name.
        module = types.ModuleType(f"{FILES}.{name}", inspect.getdoc(holder))
        for key in ("Config", *_SIGNATURES, *_OPTIONAL, "CAPABILITIES"):
            value = inspect.getattr_static(holder, key, None)
            if value is not None:
                vars(module)[key] = value.__func__ if isinstance(value, staticmethod) else value
        _MODULES[reference] = module
    return _MODULES[reference]


def _checked(module: types.ModuleType, where: str) -> Agent:
    """The module as an agent, completed; ValueError where it breaks the contract."""
    held = vars(module)
    if module in _COMPLETE:
        return module
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
    held |= {name: validated(held[name]) for name in ("init", "update")}
    _COMPLETE.add(module)
    return module


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
