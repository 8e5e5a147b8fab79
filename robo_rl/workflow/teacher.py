"""The teacher of a run: an exported policy, of which the run directory keeps a copy."""

import pathlib
import shutil
from typing import Any

from robo_rl.hardware.runtime.policy import ARRAYS, DESCRIPTION, NumpyPolicy
from robo_rl.learn.contract import needs
from robo_rl.learn.controllers import LABELS, Controller, from_policy
from robo_rl.learn.recipes import Recipe
from robo_rl.runs.directory import RunDirectory

TEACHER = "teacher"
"""Folder in a run that holds its teacher, and the key of its config with the teacher's digest."""


def check_teacher(agent: Any, folder: pathlib.Path | None, recipe: Recipe | None = None) -> None:
    """Raise ValueError unless a teacher is given where one is needed, and only there."""
    wanted = any(key in LABELS for key in needs(agent))
    wanted |= recipe is not None and recipe.teacher_share > 0.0
    name = agent.__name__.rpartition(".")[2]
    if folder is None:
        if wanted:
            raise ValueError(
                f"{name} learns from a teacher: give teacher (--teacher), an exported policy"
            )
        return
    if not wanted:
        raise ValueError(f"teacher (--teacher) {folder}: {name} does not learn from a teacher")


def check_size(
    folder: pathlib.Path, observations: tuple[int, ...] | None, actions: tuple[int, ...] | None
) -> None:
    """Raise ValueError unless the policy reads and does what has these shapes (O,) and (A,)."""
    policy = NumpyPolicy.load(folder)
    found = (policy.observation_size,), (policy.action_size,)
    if found != (observations, actions):
        raise ValueError(
            f"teacher (--teacher) {folder}: it maps observations {found[0]} to actions {found[1]}; "
            f"the data have observations {observations} and actions {actions}"
        )


def digest(folder: pathlib.Path | None) -> dict[str, str]:
    """What a run's config says of its teacher."""
    if folder is None:
        return {}
    return {TEACHER: str(NumpyPolicy.load(folder).description["sha256"])}


def keep(run: pathlib.Path, folder: pathlib.Path | None) -> None:
    """Copy the teacher into a run's folder: what is at `folder` may change, `resume` looks here."""
    if folder is None:
        return
    (run / TEACHER).mkdir()
    for name in (DESCRIPTION, ARRAYS):
        shutil.copyfile(folder / name, run / TEACHER / name)


def of(run: RunDirectory) -> Controller | None:
    """The teacher that the run keeps, if it has one."""
    recorded = run.config.get(TEACHER)
    if recorded is None:
        return None
    folder = run.path / TEACHER
    if not folder.exists():
        raise ValueError(f"{run.path} was interrupted before it began; start it again elsewhere")
    policy = NumpyPolicy.load(folder)
    if policy.description["sha256"] != recorded:
        raise ValueError(
            f"{folder} is not the teacher that the run began with: its digest is "
            f"{policy.description['sha256'][:16]}, recorded is {recorded[:16]}"
        )
    return from_policy(policy)
