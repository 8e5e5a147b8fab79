"""Heavy parts are extras of the package: which one brings a module, said where it is missing."""

import contextlib
import importlib.util
from collections.abc import Iterator

EXTRA = {
    "imageio": "sim",
    "mujoco": "sim",
    "ogbench": "sim",
    "cyclonedds": "robot",
    "daqp": "robot",
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
    """Raise MissingExtraError where one of the modules is not installed. Imports none of them."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(_sentence(module))


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


def _sentence(module: str) -> str:
    return f"{module} is not installed: pip install 'robo_rl[{EXTRA[module]}]'"
