"""The settings of a method: their names, what they do, and how a command line gives them."""

import ast
import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

C = TypeVar("C")
Options: TypeAlias = str | Mapping[str, Any] | Sequence[str]
"""Settings by name, or as "name=value", one or several."""


class Setting(NamedTuple):
    """One field of a config. Those of a config within it have dotted names."""

    name: str
    default: Any
    text: str


def settings(config: Any) -> Iterator[Setting]:
    """All that can be set of a dataclass, nested ones included."""
    texts = _texts(type(config))
    for field in dataclasses.fields(config):
        value, text = getattr(config, field.name), texts.get(field.name, "")
        if dataclasses.is_dataclass(value):
            for inner in settings(value):
                yield inner._replace(name=f"{field.name}.{inner.name}")
        elif _settable(value):
            yield Setting(field.name, value, text)


def texts(option: Options) -> tuple[str, ...]:
    """Options as NAME=VALUE, of however they were given."""
    if isinstance(option, str):
        return (option,)
    if isinstance(option, Mapping):
        return tuple(f"{name}={shown(value)}" for name, value in option.items())
    if isinstance(option, Sequence) and all(isinstance(item, str) for item in option):
        return tuple(option)
    raise ValueError(
        "option (--option): give settings as a dict, such as {'discount': 0.98}, or as texts, such "
        f"as 'discount=0.98', got {option!r}"
    )


def with_options(config: C, options: Options) -> C:
    """The config with NAME=VALUE settings, of the types that its present values have."""
    return with_values(config, parsed(config, texts(options)))


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """The config with values by dotted names."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        outer, _, inner = name.partition(".")
        if inner:
            value = with_values(changed.get(outer, getattr(config, outer)), {inner: value})
        changed[outer] = value
    result: C = dataclasses.replace(config, **changed)  # type: ignore[type-var]
    return result


def parsed(config: Any, options: Sequence[str], also: Sequence[str] = ()) -> dict[str, Any]:
    """The values of NAME=VALUE, by name. Of `also` an error may think that they were meant."""
    known = {setting.name: setting.default for setting in settings(config)}
    values = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise ValueError(
                f"option (--option) {option}: expected NAME=VALUE, such as discount=0.98"
            )
        if name not in known:
            names = [*also, *known]
            like = difflib.get_close_matches(name, names) or [k for k in names if name in k]
            meant = f"is {' or '.join(like)} meant? " if like else ""
            raise ValueError(
                f"option (--option) {option}: there is no such setting; {meant}"
                "`robo-rl methods NAME` lists those of an agent or a recipe"
            )
        values[name] = _value(option, known[name], text)
    return values


def shown(value: Any) -> str:
    """As an option gives it."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settable(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(item, (int, float, str)) for item in value)
    return isinstance(value, (bool, int, float, str))


def _value(option: str, default: Any, text: str) -> Any:
    """`text` as the type of `default`; a tuple's items are divided by commas."""
    if isinstance(default, tuple):
        return tuple(_value(option, default[0], item) for item in text.split(","))
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"option (--option) {option}: expected true or false")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"option (--option) {option}: expected {kind}") from error


def _texts(kind: type) -> dict[str, str]:
    """What stands below each field of a dataclass in its source, or of those that it extends."""
    texts: dict[str, str] = {}
    for parent in reversed([k for k in kind.__mro__ if dataclasses.is_dataclass(k)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            match below:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    texts[field.target.id] = inspect.cleandoc(text)
    return texts
