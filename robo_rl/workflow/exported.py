"""An exported policy, found again: imports neither JAX nor MuJoCo."""

import os
import pathlib
from typing import NamedTuple

from robo_rl.hardware.runtime.policy import NumpyPolicy


class Exported(NamedTuple):
    """An exported policy, and how far NumPy is from JAX at most."""

    folder: pathlib.Path
    difference: float


def load_policy(source: "str | os.PathLike[str] | Exported") -> NumpyPolicy:
    """An exported policy, which runs with NumPy alone."""
    if isinstance(source, Exported):
        return NumpyPolicy.load(source.folder)
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            "load_policy: give the folder of an exported policy, or what robo_rl.export returned, "
            f"got {type(source).__name__}"
        )
    return NumpyPolicy.load(source)
