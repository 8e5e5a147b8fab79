"""Hides warnings of environment libraries that a user can do nothing about."""

import contextlib
import warnings
from collections.abc import Iterator

_LOUD = (
    # MuJoCo's interactive viewer, which OGBench imports and needs for no learning.
    r"(?s).*DISPLAY environment variable",
    # OGBench declares float64 bounds for a float32 Box.
    r".*precision lowered by casting",
    r".*is out of date",
    r".*reward functions were updated",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For importing environment libraries, making their environments, and resetting them."""
    with warnings.catch_warnings():
        for message in _LOUD:
            warnings.filterwarnings("ignore", message=message)
        yield
