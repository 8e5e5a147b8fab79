"""`robo-rl data import`."""

import dataclasses
import pathlib
from typing import Literal

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Turn one of OGBench's released .npz files into a Minari dataset.

    Try:
    $ robo-rl data import cube-single-play-v0.npz cube-single/play-v0 --env-name cube-single-v0
    """

    file: Positional[pathlib.Path]
    """The .npz file, as OGBench publishes it."""
    dataset: Positional[str]
    """Name of the new dataset."""
    env_name: str
    """OGBench's name of the environment, such as cube-single-v0 or scene-v0."""
    task: int | None = None
    """Relabel rewards for this single task (1 to 5)."""
    after_success: Literal["split", "keep", "drop"] = "split"
    """With a task, what becomes of the steps after a success: "split" starts a new episode there,
    "keep" leaves the recording whole (for --chunk above 1), "drop" leaves them out."""

    def run(self) -> int:
        """Import."""
        from robo_rl.data import import_ogbench
        from robo_rl.launch import output

        folder = import_ogbench.import_npz(
            self.file,
            self.dataset,
            env_id=self.env_name,
            task=self.task,
            after_success=self.after_success,
        )
        print(f"wrote {self.dataset} to {folder}")
        return output.checked(self.dataset)
