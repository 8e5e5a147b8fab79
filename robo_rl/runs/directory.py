"""A run directory: everything that a run is, and all that `resume` needs.

config.json        the resolved configuration, frozen
environment.json   versions of Python and of the libraries, when the run began
metrics.jsonl      one line a report, identical however often the run was resumed
timing.jsonl       wall-clock numbers, which are not
tensorboard/       the metrics again
checkpoints/       see `robo_rl.runs.checkpoints`
.lock              held by the process that writes, if one does

Reading takes no lock and writes nothing; a run may lie where nobody may write.
"""

import importlib.metadata
import os
import pathlib
import platform
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from robo_rl import files
from robo_rl.locks import LOCK_FILE, Aside, Lock, Occupied
from robo_rl.nn import modules
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
    """A folder on the disk. Made by `create` or `open`.

    Whatever writes to it takes the lock first, see `claim`.
    """

    def __init__(self, path: pathlib.Path, config: Mapping[str, Any], keep: int = 2):
        self.path = path
        self.config = config
        self.checkpoints = Checkpoints(path / "checkpoints", keep)
        self.metrics = MetricsLog(self.metrics_path, path / "tensorboard", self.claim)
        self._lock: Lock | None = None

    @property
    def metrics_path(self) -> pathlib.Path:
        """The metrics file."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        fill: Callable[[pathlib.Path], None] | None = None,
    ) -> "RunDirectory":
        """Make a new run and claim it; the folder appears whole. A folder with content is refused.

        Raises ValueError for a network that no other process could find again.

        `config["keep"]` is how many of the newest checkpoints stay, 2 where it is not given.
        `fill` puts into the folder what the run needs besides, before anybody sees it.
        """
        modules.check_lasting(config)
        target = files.absolute(path)
        if target.is_symlink():  # such as one to a larger disk
            target = target.resolve()
        files.check_encodable(target)  # a run would end at its first checkpoint
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(_occupied(target))
        try:
            with Aside(target.parent, f".{target.name}.creating-") as aside:
                files.write_json(aside.folder / _CONFIG, {"format": FORMAT, **config})
                (aside.folder / _CONFIG).chmod(0o444)  # frozen: a changed run is a new run
                files.write_json(aside.folder / _ENVIRONMENT, versions())
                if fill is not None:
                    _fill(target, aside.folder, fill)
                aside.publish(target, locked=True)
                run = cls.open(target)
                run._lock = aside.lock
                return run
        except Occupied as error:
            raise FileExistsError(_occupied(target)) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """An existing run, to read; the first write claims it."""
        target = files.absolute(path)
        if not (target / _CONFIG).is_file():
            raise FileNotFoundError(f"{target} is not a run directory: it has no {_CONFIG}")
        config = files.read_json(target / _CONFIG)
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{target / _CONFIG} has format {config.get('format')}, this version reads {FORMAT}"
            )
        return cls(target, config, int(config.get("keep", 2)))

    def claim(self) -> None:
        """Be the one process that writes to this run, until `close` or the process ends.

        Raises Locked, which names the process that is. What a killed writer left is cleared away.
        """
        if self._lock is not None:
            return
        files.check_encodable(self.path)
        try:
            self._lock = Lock(self.path / LOCK_FILE)
        except OSError as error:
            raise files.refused(f"cannot write to {self.path}", error) from error
        self.checkpoints.clear_leftovers()

    def close(self) -> None:
        """Close the files and let another process write. Idempotent; a later write claims again."""
        self.metrics.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def environment(self) -> dict[str, Any]:
        """Versions at the run's creation."""
        return files.read_json(self.path / _ENVIRONMENT)

    def note_timing(self, values: Mapping[str, float]) -> None:
        """Append wall-clock numbers to `timing.jsonl`."""
        self.claim()
        files.append(self.path / "timing.jsonl", files.dumps(values) + "\n")

    def save(self, step: int, tree: Any, score: float | None = None, **meta: Any) -> None:
        """Checkpoint that remembers where the metrics stood."""
        self.claim()
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
        self.claim()
        step, tree, meta = self.checkpoints.restore(template, fallback=fallback)
        self.metrics.rewind(int(meta["metrics_bytes"]), step)
        return step, tree, meta


def _fill(target: pathlib.Path, folder: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    try:
        fill(folder)
    except shutil.Error as error:  # of a tree that was copied: a list of all that failed
        first = error.args[0][0]
        raise OSError(f"cannot make {target}: {first[-1] if len(first) == 3 else error}") from error


def _occupied(target: pathlib.Path) -> str:
    return f"{target} is not empty; resume the run in it or choose another path"


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
