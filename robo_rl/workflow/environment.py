"""The environment of a run: told by its data or by a person, and as learners see it.

What is about the simulated arm is imported where it is used: a learner in Gymnasium's other
environments has no MuJoCo.
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from robo_rl import files
from robo_rl.data.locate import find_local
from robo_rl.data.minari_io import Dataset, open_dataset
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.frames import stack_frames
from robo_rl.envs.registry import EnvError, EnvSetting, LearnerView
from robo_rl.extras import explained
from robo_rl.fields import check_count, check_switch
from robo_rl.hardware.runtime.policy import DESCRIPTION, NumpyPolicy
from robo_rl.runs import configs
from robo_rl.workflow.exported import Exported, is_run

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.workflow.run import Run

_CUBE = "robo_rl/Cube"
_SHOWN_BY = ("goal_in_observation", "relative_positions")
_OWN = "robo_rl/"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a dataset says of its environment."""

    setting: EnvSetting | None
    """None where it names none, or none that is known here."""
    reward_offset: float = 0.0
    """Added to the data's rewards, they are those of the environment."""
    problem: str = ""
    """Why there is no setting."""


def origin(dataset: Dataset) -> Origin:
    """The environment to learn and be judged in after this data."""
    spec = dataset.env_spec
    if spec is None:
        return Origin(None, problem=f"dataset {dataset.id} names no environment")
    if spec.id.startswith(_CUBE) and dataset.provenance is not None:
        return _cube(dataset)
    try:
        setting = registry.setting_of(spec)
        registry.check_setting(setting)
    except EnvError as error:
        return Origin(None, problem=f"dataset {dataset.id}: {error}")
    return Origin(setting)


def _cube(dataset: Dataset) -> Origin:
    """Of data that were collected on our own arm, where an environment shows what the data show.

    With the goal drawn anew it pays 1 at success, where recorded episodes paid -1 before it: on
    one scale, both can be learned from together.
    """
    spec, provenance = dataset.env_spec, dataset.provenance
    assert spec is not None
    assert provenance is not None
    shown = {name: value for name, value in spec.kwargs.items() if name in _SHOWN_BY}
    scene = spec.id.removeprefix(_CUBE).removesuffix("-v0").lower()
    goal = provenance.reward.detail.get("goal_xyz_m")
    with explained():
        from robo_rl.envs.tasks import cube
    for number, task in enumerate(cube.task_infos(scene), start=1):
        if isinstance(goal, list) and np.array_equal(task["goal_xyzs"], goal):
            return Origin(EnvSetting(spec.id, {**shown, "form": "single", "task_id": number}))
    offset = 0.0 if spec.kwargs.get("form") == "data" else 1.0
    return Origin(EnvSetting(spec.id, {**shown, "form": "goal"}), offset)


def named(env: "str | EnvSetting | Mapping[str, Any]", limit: int | None = None) -> EnvSetting:
    """The setting of an id, with another step limit if one is given. Raises EnvError."""
    if isinstance(env, str):
        setting = EnvSetting(env)
    elif isinstance(env, (EnvSetting, Mapping)):
        setting = env if isinstance(env, EnvSetting) else EnvSetting.from_json(env)
    else:
        raise EnvError(f"env must be {_kinds_for(env)}")
    if limit is not None:
        check_count("max_episode_steps (--max-episode-steps)", limit)
        setting = dataclasses.replace(setting, max_episode_steps=limit)
    registry.check_setting(setting)
    return registry.limited(setting)


def _kinds_for(env: Any) -> str:
    """What an environment may be given as, for one that was given as something else."""
    text = f"a Gymnasium id or a robo_rl.EnvSetting, got {type(env).__name__}"
    if not isinstance(env, gymnasium.Env):
        return text
    spec = env.spec
    known = "" if spec is None else f"; this one has the id {spec.id!r}"
    return f"{text}: environments are made anew by their names, also in other processes{known}"


def of_task(task: str, robot: str | None = None) -> EnvSetting:
    """A task on a simulated arm as the `env` of every verb, as `--task` and `--robot` name it.

    Each is given by name, entry point or path: `of_task("mine.py:Stack", "mine.py:MY_ARM")`.
    """
    with explained():
        from robo_rl.envs import tasks
        from robo_rl.hardware import robots
    kwargs = {"task": tasks.TASKS.find(task).reference}
    if robot is not None:
        kwargs["robot"] = robots.ROBOTS.find(robot).reference
    return EnvSetting("robo_rl/Arm-v0", kwargs)


def with_gap(setting: EnvSetting, strength: float) -> EnvSetting:
    """The setting with the simulated arm changed by a domain gap; 0 is the clean one."""
    if not strength and "gap" not in setting.kwargs:
        return setting
    if not setting.id.startswith(_OWN):
        raise EnvError(
            f"gap (--gap) {strength:g} changes the simulated arm; environment {setting.id} has none"
        )
    with explained():
        from robo_rl.workflow import gaps
    return setting.with_kwargs(gap=gaps.quickstart(strength))


def arm_of(setting: EnvSetting | None) -> dict[str, str]:
    """Reference, name and digest of the arm, where the environment has one of ours."""
    if setting is None or not setting.id.startswith(_OWN):
        return {}
    with explained():
        from robo_rl.envs.ogbench import scenes
        from robo_rl.hardware import robots
    found = robots.ROBOTS.find(registry.arguments(setting).get("robot", scenes.ROBOT))
    kit = found.value
    return {"robot": found.reference, "arm": kit.name, "arm_digest": kit.spec.digest()}


def rate_hz(setting: EnvSetting | None, dataset: Dataset | None = None) -> float | None:
    """Control rate in Hz: as the data were recorded, or as the environment tells; else None."""
    provenance = None if dataset is None else dataset.provenance
    if provenance is not None and provenance.control_hz is not None:
        return provenance.control_hz
    if setting is None:
        return None
    with contextlib.closing(registry.make(setting)) as env:
        period = getattr(env.unwrapped, "dt", None) or getattr(env.unwrapped, "period_s", None)
        if isinstance(period, (int, float)) and period > 0.0:
            return 1.0 / float(period)
        fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, (int, float)) and fps > 0 else None


def learner_env(
    setting: EnvSetting,
    spaces: Spaces,
    *,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    frames: int = 1,
    render_mode: str | None = None,
) -> gymnasium.Env[Any, Any]:
    """The environment as learners and policies see it, see `LearnerView`."""
    env: gymnasium.Env[Any, Any] = LearnerView(
        registry.make(setting, render_mode), spaces, reward_scale, reward_shift
    )
    return stack_frames(env, frames) if frames > 1 else env


def make_env(
    source: "str | os.PathLike[str] | EnvSetting | Dataset | Run | Exported | NumpyPolicy",
    *,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    learner: bool = False,
) -> gymnasium.Env[Any, Any]:
    """The environment of a dataset, a run, an exported policy or an id, with its step limit.

    Args:
        source: Gymnasium id, setting, a dataset by id, path or opened, a run or its folder, or an
            exported policy or its folder.
        max_episode_steps: step limit, where the environment's own is not meant.
        render_mode: None or one that the environment has, such as "rgb_array".
        learner: as learners see it, see `LearnerView`; else in its own spaces.
    """
    check_switch("learner", learner)
    found, spaces = _known(source)
    setting = named(found, max_episode_steps)
    if learner:
        spaces = registry.spaces_of(setting) if spaces is None else spaces
        return learner_env(setting, spaces, render_mode=render_mode)
    return registry.make(setting, render_mode)


def _known(source: Any) -> tuple[EnvSetting, Spaces | None]:
    """What a source says of its environment, and the spaces of its policy where it has one."""
    if isinstance(source, EnvSetting):
        return source, None
    if isinstance(source, Exported):
        source = source.folder
    if isinstance(source, (str, os.PathLike)):
        source = _found(source)
    if isinstance(source, str):
        return EnvSetting(source), None
    if isinstance(source, Dataset):
        found = origin(source)
        if found.setting is None:
            raise EnvError(f"{found.problem}; name an environment by its Gymnasium id")
        return found.setting, None
    if isinstance(source, NumpyPolicy):
        meta = source.description["meta"]
        if meta["env"] is None:
            raise EnvError("this policy knows no environment; name one by its Gymnasium id")
        return EnvSetting.from_json(meta["env"]), configs.from_json(Spaces, meta["spaces"])
    if is_run(source):
        if source.env is None:
            raise EnvError(f"run {source.path} knows no environment; name one by its Gymnasium id")
        return source.env, source.spaces
    raise EnvError(f"source must be a dataset, a run, an exported policy, {_kinds_for(source)}")


def _found(name: str | os.PathLike[str]) -> Any:
    """What lies under a name: a policy, a run, a dataset; else the name itself, for Gymnasium."""
    path = files.absolute(name)
    if (path / DESCRIPTION).is_file():
        return NumpyPolicy.load(path)
    if (path / "config.json").is_file():
        from robo_rl.workflow.run import load_run  # late: it imports JAX

        return load_run(path)
    if find_local(name) is not None:
        return open_dataset(name)
    if not isinstance(name, str):
        raise EnvError(f"{name} holds no run, no exported policy and no dataset")
    return name
