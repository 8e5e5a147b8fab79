"""What is judged, recorded or filmed: the policy of a run, or an exported one."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from robo_rl.data.spaces import Spaces
from robo_rl.envs.registry import EnvSetting
from robo_rl.fields import check_count
from robo_rl.hardware.runtime.policy import DESCRIPTION, NumpyPolicy
from robo_rl.runs import configs
from robo_rl.workflow.exported import Exported, is_run

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
def opened(
    source: "str | os.PathLike[str] | Run | Exported", step: int | None = None
) -> Iterator[Subject]:
    """A run, exported first where that can be, or an exported policy; for as long as it is used."""
    if step is not None:
        check_count("step (--step)", step, least=0)
    if isinstance(source, Exported):
        source = source.folder
    path = path_of(source)
    if (path / DESCRIPTION).exists():
        if step is not None:
            raise ValueError(f"step (--step): {path} is an exported policy, of one step already")
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

    run = load_run(path)
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


def path_of(source: Any) -> pathlib.Path:
    """The folder of a run or of an exported policy. Raises ValueError for anything else."""
    if isinstance(source, (str, os.PathLike)):
        return pathlib.Path(source)
    if is_run(source):
        return pathlib.Path(source.path)
    raise ValueError(
        "expected a run, its folder, or an exported policy as robo_rl.export returned it or by "
        f"its folder, got {type(source).__name__}"
    )
