"""Heavy parts are extras of the package: which one brings a module, said where it is missing."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

EXTRA = {
    "daqp": "sim",
    "imageio": "sim",
    "mujoco": "sim",
    "ogbench": "sim",
    "cyclonedds": "robot",
    "mcap": "robot",
    "rosbags": "robot",
    "gymnasium_robotics": "robotics",
}
"""Top-level module -> the extra that a user is told to install."""


class MissingExtraError(ImportError):
    """A part of the package that was not installed; the text names the command that does."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise MissingExtraError in place of the error of a module that an extra brings."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        sentence = advice(error)
        if not sentence:
            raise
        raise MissingExtraError(sentence) from error


def require(*modules: str) -> None:
    """Raise MissingExtraError where modules are not installed; names all. Imports none of them."""
    missing = [module for module in modules if _find(module) is None]
    if missing:
        raise MissingExtraError(_sentence(*missing))


def require_extras(*extras: str) -> None:
    """Raise MissingExtraError where a module is not installed that one of the extras brings."""
    require(*(module for module, extra in EXTRA.items() if extra in extras))


def advice(error: BaseException) -> str:
    """What to install, where an error, or what it came from, is a missing extra; else empty."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MissingExtraError):
            return str(cause)
        module = (getattr(cause, "name", None) or "") if isinstance(cause, ImportError) else ""
        if module.partition(".")[0] in EXTRA:
            return _sentence(module.partition(".")[0])
        cause = cause.__cause__ or cause.__context__
    return ""


def _find(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except ValueError:  # it is being replaced, or was blocked
        return None


def _sentence(*modules: str) -> str:
    bring = ",".join(dict.fromkeys(EXTRA[module] for module in modules))
    are = "is" if len(modules) == 1 else "are"
    return f"{', '.join(modules)} {are} not installed: pip install 'robo_rl[{bring}]'"
