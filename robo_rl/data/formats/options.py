"""The options of a reader: the keyword arguments of its `read`, in Python and as typed."""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from robo_rl.data.formats.contract import Reader

_SHOWN = {int: "a whole number", float: "a number", bool: "true or false"}


def known(reader: Reader) -> tuple[str, ...]:
    """Names of the options that a reader takes."""
    return tuple(name for name in inspect.signature(reader.read).parameters if name != "path")


def check_options(reader: Reader, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that a reader does not have, or a choice it does not offer."""
    _require_known(reader, options)
    for name, value in options.items():
        choices = _choices(_kinds(reader, name))
        if choices and value not in choices:
            raise ValueError(
                f"format {reader.name}: {name} must be one of {', '.join(map(str, choices))}, "
                f"got {value!r}"
            )


def parsed(reader: Reader, texts: Sequence[str]) -> dict[str, Any]:
    """The values of NAME=VALUE by name, of the types that the reader's annotations say."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"option (--option) {text}: expected NAME=VALUE")
        _require_known(reader, [name])
        values[name] = _value(text, _kinds(reader, name), value)
    return values


def _require_known(reader: Reader, names: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known(reader)))
    if unknown:
        raise ValueError(
            f"format {reader.name} has no option {', '.join(unknown)}; "
            f"it has {', '.join(known(reader)) or 'none'}"
        )


def _kinds(reader: Reader, name: str) -> tuple[Any, ...]:
    """The types that an option may have, None aside; those of its default where it says none."""
    parameter = inspect.signature(reader.read).parameters[name]
    try:
        hint = typing.get_type_hints(reader.read).get(name)
    except NameError:  # an annotation that only a type checker can read
        hint = None
    if hint is None:
        has = parameter.default not in (None, inspect.Parameter.empty)
        return (type(parameter.default),) if has else ()
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(k for k in (typing.get_args(hint) if union else (hint,)) if k is not type(None))


def _choices(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
    return tuple(choice for kind in literals for choice in typing.get_args(kind))


def _value(text: str, kinds: tuple[Any, ...], value: str) -> Any:
    plain = [kind for kind in (bool, int, float) if kind in kinds]
    for kind in plain:
        try:
            return {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, ValueError):
            continue
    if plain and str not in kinds:
        raise ValueError(
            f"option (--option) {text}: expected {' or '.join(_SHOWN[k] for k in plain)}"
        )
    return value
