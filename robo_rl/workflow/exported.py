"""Exported policies and runs, told apart: imports neither JAX nor MuJoCo."""

import os
import pathlib
import sys
from typing import Any, NamedTuple

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


def is_run(source: Any) -> bool:
    """Whether this is a `Run`. Imports no JAX: where there is one, its module is there too."""
    module = sys.modules.get("robo_rl.workflow.run")
    return module is not None and isinstance(source, module.Run)
