"""OGBench's released `.npz` files."""

import pathlib
import zipfile
from collections.abc import Iterable

from robo_rl.data import import_ogbench
from robo_rl.data.episodes import Episode
from robo_rl.data.formats.contract import Recording
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import RewardLabel
from robo_rl.data.relabel import AfterSuccess

_MEMBERS = {"observations.npy", "actions.npy", "terminals.npy"}


class OgbenchReader:
    """The compact layout: N states in a row, `terminals` 1 at the last of each trajectory."""

    name = "ogbench"

    def sniff(self, path: pathlib.Path) -> bool:
        """A zip of arrays with the three names that all of them have."""
        try:
            with zipfile.ZipFile(path) as file:
                return set(file.namelist()) >= _MEMBERS
        except (OSError, zipfile.BadZipFile):
            return False

    def read(
        self,
        path: pathlib.Path,
        env: str | None = None,
        task: int | None = None,
        after_success: AfterSuccess = "split",
    ) -> Recording:
        """The trajectories, reward-free or with the rewards of a task.

        Args:
            path: A `.npz` of any task of OGBench.
            env: OGBench's environment of the file; None: by the file's name.
            task: Single task 1..5 to reward, 0 for the environment's default one; None: none.
            after_success: See `relabel.AfterSuccess`.
        """
        stored = import_ogbench.read_npz(path)
        base_id = env or import_ogbench.environment_of(path.stem)
        name = base_id if task is None else import_ogbench.single_task_id(base_id, task)
        made = import_ogbench.make_env(name)
        try:
            action_space = import_ogbench._action_space(made)
            if task is None:
                episodes: Iterable[Episode] = stored.episodes()
                why = {"why": "reward-free play data"}
                label = RewardLabel(source="none", version="1", detail=why)
            else:
                episodes = import_ogbench.relabel_single_task(stored, made, name, after_success)
                label = import_ogbench._label(made, name)
        finally:
            made.close()
        return Recording(
            episodes,
            import_ogbench._observation_space(stored.observations),
            action_space,
            import_ogbench._provenance(stored, made, base_id, label),
            env=name,
            card=Card(description=f"Imported from OGBench's {path.name}."),
        )


OGBENCH = OgbenchReader()
