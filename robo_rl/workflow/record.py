"""`robo-rl data`: collect, import, check and list datasets."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from robo_rl.data import check as checking
from robo_rl.data import import_ogbench, relabel
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import list_datasets, open_dataset, write_dataset
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import Provenance, RewardLabel, StateLayout
from robo_rl.envs import make
from robo_rl.envs.ogbench import collect as collecting
from robo_rl.envs.ogbench import cube, scenes
from robo_rl.envs.ogbench.oracles import OracleConfig
from robo_rl.hardware.robots.ur5e.spec import UR5E

if TYPE_CHECKING:
    from robo_rl.launch import cli

CONTROL_HZ = 20.0
_ARM_QPOS, _CUBE_QPOS, _CUBE_QVEL = 0, 14, 14
_FREE_QPOS, _FREE_QVEL = 7, 6


def collect(options: "cli.Collect") -> int:
    """Run the oracles, write the dataset, check it."""
    scene = options.env.removeprefix("cube-")
    config = collecting.CollectConfig(
        episodes=options.episodes,
        env={
            "scene": scene,
            "form": "random",
            "relative_positions": options.relative_positions,
        },
        oracle=OracleConfig(
            kind=options.oracle,
            noise=options.noise,
            random_action_probability=options.random_action_prob,
        ),
        seed=options.seed,
        workers=options.workers,
    )
    folder = record(options.dataset, config, options.task)
    print(f"wrote {options.dataset} to {folder}")
    return check(options.dataset, as_json=False)


def record(dataset: str, config: collecting.CollectConfig, task: int | None = None) -> str:
    """Collect episodes into a new dataset and return its folder. Shows a progress bar."""
    kwargs = {"scene": "single", "form": "random", **config.env}
    scene, reward = str(kwargs.pop("scene")), _REWARD
    if task is not None and kwargs.get("relative_positions"):
        raise ValueError(
            "record: the way to another goal is not written into the observations of a relabelled "
            "dataset; leave out the task or relative_positions"
        )
    with tqdm(total=config.episodes, desc="collect", unit="episode", mininterval=0.5) as bar:

        def advance(done: int, transitions: int) -> None:
            bar.update(done - bar.n)
            bar.set_postfix_str(f"{transitions} transitions")

        episodes: Iterable[Episode] = _episodes(config, advance)
        if task is not None:
            goal = cube.task_infos(scene)[task - 1]["goal_xyzs"]
            episodes = relabel.relabel_cube(
                episodes, goal, timing="post", after_success="drop", goal_in_observation=True
            )
            reward = relabel.cube_label(goal, "post")
        env = make.make_cube_env(scene, **kwargs)
        folder = write_dataset(
            dataset,
            episodes,
            observation_space=env.observation_space,
            action_space=env.action_space,
            provenance=_provenance(scene, config, reward),
            env=_env_id(scene),
            env_kwargs=kwargs,
            card=Card(description=f"OGBench's {config.oracle.kind} oracle on cube-{scene}."),
        )
    env.close()
    return str(folder)


def learning_setting(dataset: str) -> tuple[dict[str, Any], float]:
    """The environment to learn and be judged in after this data, and what to add to its rewards.

    The environment shows what the data show. With the goal drawn anew it pays 1 at success, where
    recorded episodes paid -1 before it: on one scale, both can be learned from together.
    """
    opened = open_dataset(dataset, download=True)
    spec, provenance = opened.env_spec, opened.provenance
    if spec is None or not spec.id.startswith(_PREFIX) or provenance is None:
        return {"scene": "single", "form": "goal"}, 0.0
    shown = {name: value for name, value in spec.kwargs.items() if name in _SHOWN_BY}
    env = {"scene": spec.id.removeprefix(_PREFIX).removesuffix("-v0").lower(), **shown}
    goal = provenance.reward.detail.get("goal_xyz_m")
    for number, task in enumerate(cube.task_infos(env["scene"]), start=1):
        if isinstance(goal, list) and np.array_equal(task["goal_xyzs"], goal):
            return {**env, "form": "single", "task_id": number}, 0.0
    return {**env, "form": "goal"}, 0.0 if spec.kwargs.get("form") == "data" else 1.0


def import_npz(options: "cli.Import") -> int:
    """Import a released file of OGBench and check it."""
    folder = import_ogbench.import_npz(
        options.file,
        options.dataset,
        env_id=options.env_name,
        task=options.task,
        after_success=options.after_success,
    )
    print(f"wrote {options.dataset} to {folder}")
    return check(options.dataset, as_json=False)


def check(dataset: str, as_json: bool) -> int:
    """Check a dataset, keep the report beside it, and say what was found."""
    opened = open_dataset(dataset)
    report = checking.check(opened)
    checking.store_report(opened, report)
    print(json.dumps(report.to_json(), indent=2) if as_json else report.table())
    return report.exit_code


def show() -> int:
    """List the datasets on this machine."""
    rows = list_datasets()
    if not rows:
        print("no datasets yet; make one with `robo-rl data collect NAME`")
    for row in rows:
        about = row.problem or f"{row.episodes:>6} episodes  {row.steps:>9} steps  {row.env_id}"
        print(f"{row.id:<40} {row.size_mb:>8.1f} MB  {about}")
    return 0


_PREFIX = "robo_rl/Cube"
_SHOWN_BY = ("goal_in_observation", "relative_positions")
_REWARD = RewardLabel(source="environment", version="1", timing="post")


def _episodes(config: collecting.CollectConfig, progress: Any) -> Iterator[Episode]:
    for episode in collecting.collect(config, progress):
        yield Episode(**episode)


def _env_id(scene: str) -> str:
    return f"{_PREFIX}{scene.capitalize()}-v0"


def _provenance(scene: str, config: collecting.CollectConfig, reward: RewardLabel) -> Provenance:
    cubes = range(scenes.CUBE_SCENES[scene])
    oracle = config.oracle
    return Provenance(
        control_hz=CONTROL_HZ,
        reward=reward,
        arm=UR5E.name,
        arm_digest=UR5E.digest(),
        layout=StateLayout(
            arm_qpos=_ARM_QPOS,
            velocity_rad_s=UR5E.velocity_rad_s,
            object_qpos=tuple(_CUBE_QPOS + _FREE_QPOS * i for i in cubes),
            object_qvel=tuple(_CUBE_QVEL + _FREE_QVEL * i for i in cubes),
        ),
        collector={
            "oracle": oracle.kind,
            "noise": oracle.noise,
            "random_action_probability": oracle.random_action_probability,
            "seed": config.seed,
        },
    )
