"""Demonstrations by OGBench's scripted oracles on the simulated arm, as a Minari dataset."""

import contextlib
from collections.abc import Generator, Iterable
from typing import Any

from tqdm import tqdm

from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import write_dataset
from robo_rl.data.minari_write import Card
from robo_rl.data.provenance import Provenance, RewardLabel
from robo_rl.envs import make
from robo_rl.envs.ogbench import collect as collecting
from robo_rl.envs.ogbench import geometry, relabel, scenes
from robo_rl.envs.tasks import cube
from robo_rl.hardware import robots

CONTROL_HZ = 20.0


def collect(dataset: str, config: collecting.CollectConfig, task: int | None = None) -> str:
    """Collect episodes into a new dataset and return its folder. Shows a progress bar."""
    kwargs = {"scene": "single", "form": "random", **config.env}
    scene, reward = str(kwargs.pop("scene")), _REWARD
    if task is not None:
        geometry.check_task(task)
    if task is not None and kwargs.get("relative_positions"):
        raise ValueError(
            "collect: the way to another goal is not written into the observations of a relabelled "
            "dataset; leave out the task or relative_positions"
        )
    with (
        tqdm(total=config.episodes, desc="collect", unit="episode", mininterval=0.5) as bar,
        # Closed here: an interrupt would leave it, and its workers, to the collector.
        contextlib.closing(_episodes(config, bar)) as collected,
    ):
        episodes: Iterable[Episode] = collected
        if task is not None:
            goal = cube.task_infos(scene)[task - 1]["goal_xyzs"]
            episodes = relabel.relabel_cube(
                episodes, goal, timing="post", after_success="drop", goal_in_observation=True
            )
            reward = relabel.cube_label(goal, "post")
            # The environment whose rewards these are, not the one that the oracle was driven in.
            kwargs |= {"form": "single", "task_id": task}
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


_PREFIX = "robo_rl/Cube"
_REWARD = RewardLabel(source="environment", version="1", timing="post")


def _episodes(config: collecting.CollectConfig, bar: "tqdm[Any]") -> Generator[Episode, None, None]:
    def advance(done: int, transitions: int) -> None:
        bar.update(done - bar.n)
        bar.set_postfix_str(f"{transitions} transitions")

    for episode in collecting.collect(config, advance):
        yield Episode(**episode)


def _env_id(scene: str) -> str:
    return f"{_PREFIX}{scene.capitalize()}-v0"


def _provenance(scene: str, config: collecting.CollectConfig, reward: RewardLabel) -> Provenance:
    oracle, kit = config.oracle, robots.get(scenes.ROBOT)
    return Provenance(
        control_hz=CONTROL_HZ,
        reward=reward,
        arm=kit.name,
        arm_digest=kit.spec.digest(),
        layout=collecting.state_layout(scene),
        collector={
            "oracle": oracle.kind,
            "noise": oracle.noise,
            "random_action_probability": oracle.random_action_probability,
            "seed": config.seed,
        },
    )
