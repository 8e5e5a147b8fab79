"""Config fields hold what their types say: a count is whole, a switch is True or False."""

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NOUNS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def check_fields(config: Any, name: str) -> None:
    """Raise ValueError where a frozen dataclass holds another kind than the field's type says.

    Lists become the tuples that they should be and NumPy's scalars Python's own, so that the config
    is hashable and can be stored. `name` is what messages call the config.
    """
    kind: Any = type(config)
    for field, hint in _hints(kind).items():
        held = getattr(config, field)
        fit = _fitted(hint, held)
        if fit is None:
            raise ValueError(f"{name}.{field} must be {_noun(hint)}, got {held!r}")
        if fit[0] is not held:
            object.__setattr__(config, field, fit[0])


def check_switch(name: str, value: Any) -> None:
    """Raise ValueError for a switch that is neither True nor False: `"no"` would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields, those that are checked here."""
    hints = typing.get_type_hints(kind)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(kind)
        if field.init and _noun(hints[field.name])
    }


def _noun(hint: Any) -> str:
    """How messages call values of a type; empty for one that is not checked."""
    if hint in _NOUNS:
        return _NOUNS[hint]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"a {hint.__module__.rpartition('.')[2]}.{hint.__name__}"
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[1:] == (Ellipsis,):
        items = _noun(typing.get_args(hint)[0]).partition(" ")[2]
        return f"a tuple of {items}s" if items else ""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        nouns = [_noun(kind) for kind in typing.get_args(hint) if kind is not type(None)]
        optional = type(None) in typing.get_args(hint)
        return " or ".join([*nouns, "None"]) if optional and len(nouns) == 1 and nouns[0] else ""
    return ""


def _fitted(hint: Any, value: Any) -> tuple[Any] | None:
    """The value as the type has it, alone in a tuple; None where it is of another kind."""
    if isinstance(value, np.generic):
        value = value.item()
    if hint is bool or hint is str:
        return (value,) if isinstance(value, hint) else None
    if hint is int or hint is float:
        number = numbers.Integral if hint is int else numbers.Real
        return (value,) if isinstance(value, number) and not isinstance(value, bool) else None
    if isinstance(hint, type):
        return (value,) if isinstance(value, hint) else None
    if typing.get_origin(hint) is tuple:
        return _items(typing.get_args(hint)[0], value)
    if value is None:
        return (None,)
    return _fitted(next(k for k in typing.get_args(hint) if k is not type(None)), value)


def _items(hint: Any, value: Any) -> tuple[Any] | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    found = [_fitted(hint, item) for item in value]
    if isinstance(value, tuple) and all(f and f[0] is v for f, v in zip(found, value, strict=True)):
        return (value,)
    return None if None in found else (tuple(item[0] for item in found if item),)
