"""A run directory: everything that a run is, and all that `resume` needs.

config.json        the resolved configuration, frozen
environment.json   versions of Python and of the libraries, when the run began
metrics.jsonl      one line a report, identical however often the run was resumed
timing.jsonl       wall-clock numbers, which are not
tensorboard/       the metrics again
checkpoints/       see `robo_rl.runs.checkpoints`
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Mapping
from typing import Any

from robo_rl.runs import files
from robo_rl.runs.checkpoints import Checkpoints
from robo_rl.runs.metrics import MetricsLog

FORMAT = 1
_CONFIG, _ENVIRONMENT = "config.json", "environment.json"
_LIBRARIES = (
    "robo_rl",
    "flax",
    "gymnasium",
    "jax",
    "jaxlib",
    "minari",
    "mujoco",
    "numpy",
    "ogbench",
    "optax",
    "orbax-checkpoint",
)


class RunDirectory:
    """A folder on the disk. Made by `create` or `open`."""

    def __init__(self, path: pathlib.Path, config: Mapping[str, Any], keep: int = 2):
        self.path = path
        self.config = config
        self.checkpoints = Checkpoints(path / "checkpoints", keep)
        self.metrics = MetricsLog(self.metrics_path, path / "tensorboard")

    @property
    def metrics_path(self) -> pathlib.Path:
        """The metrics file."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> "RunDirectory":
        """Make a new run; the folder appears whole. A folder with content is refused.

        `config["keep"]` is how many of the newest checkpoints stay, 2 where it is not given.
        """
        target = pathlib.Path(path)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(
                f"{target} is not empty; resume the run in it or choose another path"
            )
        aside = target.with_name(f".{target.name}.creating")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            files.write_json(aside / _CONFIG, {"format": FORMAT, **config})
            (aside / _CONFIG).chmod(0o444)  # frozen: a changed run is a new run
            files.write_json(aside / _ENVIRONMENT, versions())
            aside.replace(target)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return cls.open(target)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """An existing run."""
        target = pathlib.Path(path)
        if not (target / _CONFIG).is_file():
            raise FileNotFoundError(f"{target} is not a run directory: it has no {_CONFIG}")
        config = files.read_json(target / _CONFIG)
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{target / _CONFIG} has format {config.get('format')}, this version reads {FORMAT}"
            )
        return cls(target, config, int(config.get("keep", 2)))

    def environment(self) -> dict[str, Any]:
        """Versions at the run's creation."""
        return files.read_json(self.path / _ENVIRONMENT)

    def note_timing(self, values: Mapping[str, float]) -> None:
        """Append wall-clock numbers to `timing.jsonl`."""
        files.append(self.path / "timing.jsonl", json.dumps(dict(values)) + "\n")

    def save(self, step: int, tree: Any, score: float | None = None, **meta: Any) -> None:
        """Checkpoint that remembers where the metrics stood."""
        self.checkpoints.save(
            step,
            tree,
            score=score,
            meta={**meta, "metrics_bytes": self.metrics.position()},
        )

    def restore(
        self, template: Any, step: int | None = None, *, fallback: bool = False
    ) -> tuple[int, Any, dict[str, Any]]:
        """(step, tree, metadata), without touching the metrics: for evaluation and export."""
        return self.checkpoints.restore(template, step, fallback=fallback)

    def resume(self, template: Any, *, fallback: bool = False) -> tuple[int, Any, dict[str, Any]]:
        """As `restore` of the newest, with the metrics cut back to where it was taken."""
        step, tree, meta = self.checkpoints.restore(template, fallback=fallback)
        self.metrics.rewind(int(meta["metrics_bytes"]), step)
        return step, tree, meta


def versions() -> dict[str, Any]:
    """Python, platform and library versions."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            libraries[name] = "absent"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries,
    }
