"""Frozen dataclasses as JSON and back. Unknown fields are errors that list the known ones."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:
    """All fields of a dataclass, nested ones too; tuples become lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_json(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from `to_json`'s output; absent fields keep their defaults."""
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__} has no field {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}"
        )
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _typed(hint: Any, value: Any) -> Any:
    """`value` with lists as tuples and mappings as dataclasses where the type asks for it."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_json(hint, value)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return value if value is None or len(options) != 1 else _typed(options[0], value)
    if (origin is tuple or hint is tuple or hint is Any) and isinstance(value, list):
        return tuple(_typed(Any, item) for item in value)
    return value
