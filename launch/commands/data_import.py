"""`robo-rl data import`."""

import dataclasses
import pathlib
from typing import Literal

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Turn a file or folder of a known format into a Minari dataset.

    The formats are ogbench (released .npz files) and d4rl (.hdf5 files), those of installed
    packages, and a file with a reader of your own.

    Try:
    $ robo-rl data import cube-single-play-v0.npz cube-single/play-v0 --env-name cube-single-v0
    $ robo-rl data import hopper_medium-v2.hdf5 hopper/medium-v2 --env-name Hopper-v5
    $ robo-rl data import arm.csv arm/mine-v0 --format mine.py:Csv --option rate_hz=20
    """

    source: Positional[pathlib.Path]
    """The file or folder."""
    dataset: Positional[str]
    """Name of the new dataset."""
    format: str | None = None
    """Name of its format, or a reader of your own, mine.py:NAME; by default found by looking."""
    env_name: str | None = None
    """The environment it was recorded in: OGBench's name, such as cube-single-v0 or scene-v0, or a
    Gymnasium id."""
    task: int | None = None
    """ogbench: relabel rewards for this single task (1 to 5; 0 is the default one)."""
    after_success: Literal["split", "keep", "drop"] | None = None
    """ogbench, with a task: what becomes of the steps after a success: "split" (the default) starts
    a new episode there, "keep" leaves the recording whole (for --chunk above 1), "drop" leaves them
    out."""
    option: tuple[str, ...] = ()
    """Further options of the format as NAME=VALUE, such as action_bound=1 or control_hz=20 (d4rl);
    an unknown one lists those there are."""
    overwrite: bool = False
    """Replace a dataset of this name."""

    def run(self) -> int:
        """Import, check."""
        from robo_rl.data import formats
        from robo_rl.data.formats import options
        from robo_rl.launch import output

        reader = formats.get(self.format) if self.format else formats.choose(self.source)
        given = {"env": self.env_name, "task": self.task, "after_success": self.after_success}
        values = {name: value for name, value in given.items() if value is not None}
        values |= options.parsed(reader, self.option)
        folder = formats.import_dataset(
            self.source, self.dataset, reader, overwrite=self.overwrite, **values
        )
        print(f"wrote {self.dataset} to {folder}")
        return output.checked(self.dataset)
