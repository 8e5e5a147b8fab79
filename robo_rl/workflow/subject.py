"""What is judged, recorded or filmed: the policy of a run, or an exported one."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from robo_rl.data.spaces import Spaces
from robo_rl.envs.registry import EnvSetting
from robo_rl.hardware.runtime.policy import DESCRIPTION, NumpyPolicy
from robo_rl.runs import configs

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.workflow.run import Run


@dataclasses.dataclass(frozen=True)
class Subject:
    """A policy with all that an environment for it must be known by."""

    name: pathlib.Path
    spaces: Spaces
    home: EnvSetting | None
    references: Mapping[str, float]
    folder: pathlib.Path | None
    """Of the exported policy; None for one that acts in JAX."""
    digest: str
    run: Any
    frames: int
    step: int | None

    def acting(self) -> Any:
        """A policy with `act` and `reset`, for an environment as learners see it."""
        if self.folder is not None:
            return NumpyPolicy.load(self.folder)
        return self.run.policy(self.step)


@contextlib.contextmanager
def opened(source: "str | os.PathLike[str] | Run", step: int | None = None) -> Iterator[Subject]:
    """A run, exported first where that can be, or an exported policy; for as long as it is used."""
    path = pathlib.Path(source) if isinstance(source, (str, os.PathLike)) else source.path
    if (path / DESCRIPTION).exists():
        if step is not None:
            raise ValueError(f"--step: {path} is an exported policy, of one step already")
        policy = NumpyPolicy.load(path)
        meta = policy.description["meta"]
        home = None if meta["env"] is None else EnvSetting.from_json(meta["env"])
        spaces = configs.from_json(Spaces, meta["spaces"])
        references = meta.get("references", {})
        digest = str(policy.description["sha256"])
        yield Subject(path, spaces, home, references, path, digest, None, 1, None)
        return
    from robo_rl.nn.policies import NotExportable  # late: these import JAX
    from robo_rl.workflow.export import at_hand
    from robo_rl.workflow.run import load_run

    run = load_run(source)
    references = run.directory.config.get("references", {})
    with contextlib.ExitStack() as stack:
        folder, digest, acting = None, "", None
        try:
            folder = stack.enter_context(at_hand(run, step)).folder
            digest = str(NumpyPolicy.load(folder).description["sha256"])
        except NotExportable:
            acting = run  # an export goes to other processes without its run
        yield Subject(
            run.path, run.spaces, run.env, references, folder, digest, acting, run.frames, step
        )
