"""Episodes of an oracle, collected in parallel: the same for any number of workers."""

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from robo_rl.data.provenance import StateLayout
from robo_rl.envs import make
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.geometry import (
    CUBE_QPOS,
    CUBE_QPOS_STRIDE,
    CUBE_QVEL_STRIDE,
    CUBE_SCENES,
    successes,
)
from robo_rl.envs.ogbench.oracles import Oracle, OracleConfig
from robo_rl.envs.tasks.cube import CubeTask
from robo_rl.hardware import robots
from robo_rl.hardware.twin.mujoco_device import save_scene
from robo_rl.workers import Work, pool

Episode = dict[str, Any]
"""`observations` (T + 1, O), `actions` (T, A), `rewards`, `terminations`, `truncations` (T,), and
`infos`: arrays of T + 1 rows. Row t of every array of T + 1 rows belongs to the moment of action t.
"""


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What to collect."""

    episodes: int
    env: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of `make_cube_env`; its form must be `data` (the default here) or `random`."""
    oracle: OracleConfig = dataclasses.field(default_factory=OracleConfig)
    max_steps: int = 200
    retarget: bool = False
    """False: an episode ends (truncated) when the oracle is done. True: the next target follows, up
    to `max_steps`, as in OGBench's own data."""
    seed: int = 0
    workers: int = 0
    """Processes; 0 collects in this one."""

    def __post_init__(self) -> None:
        for field, least in (("episodes", 1), ("max_steps", 1), ("workers", 0), ("seed", 0)):
            if getattr(self, field) < least:
                raise ValueError(
                    f"CollectConfig.{field} must be >= {least}, got {getattr(self, field)}"
                )
        if self.env.get("form", "data") not in ("data", "random"):
            raise ValueError(
                f"CollectConfig.env: form must be 'data' or 'random', got {self.env['form']!r}"
            )


def collect(
    config: CollectConfig, progress: Callable[[int, int], None] | None = None
) -> Iterator[Episode]:
    """Yield `config.episodes` episodes in order; `progress(done, transitions)` after each."""
    transitions = 0
    with contextlib.ExitStack() as stack:
        if config.workers == 0:
            collector = stack.enter_context(contextlib.closing(Collector(config)))
            episodes: Iterator[Episode] = map(collector.episode, range(config.episodes))
        else:
            episodes = stack.enter_context(_pool(config))
        for done, episode in enumerate(episodes, start=1):
            transitions += len(episode["actions"])
            if progress is not None:
                progress(done, transitions)
            yield episode


def state_layout(scene: str) -> StateLayout:
    """What the columns of `qpos` and `qvel` of a cube scene are."""
    cubes = range(CUBE_SCENES[scene])
    return StateLayout(
        arm_qpos=0,
        velocity_rad_s=robots.get(scenes.ROBOT).spec.velocity_rad_s,
        object_qpos=tuple(CUBE_QPOS + CUBE_QPOS_STRIDE * i for i in cubes),
        object_qvel=tuple(CUBE_QPOS + CUBE_QVEL_STRIDE * i for i in cubes),
    )


class Collector:
    """One environment and its oracle."""

    def __init__(self, config: CollectConfig, scene_path: str | None = None):
        self._config = config
        options = {"form": "data", **config.env}
        self._env: ArmEnv = make.make_cube_env(**options, scene_path=scene_path)
        task = self._env.task
        assert isinstance(task, CubeTask)
        self._task = task
        self._oracle = Oracle(self._env, config.oracle)
        cubes = len(task.objects)
        # OGBench draws how often an episode stacks, between bounds that depend on the scene.
        self._stacking = {1: (0.0, 0.0), 2: (0.0, 0.25), 3: (0.05, 0.35), 4: (0.1, 0.5)}[cubes]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def episode(self, index: int) -> Episode:
        """Episode `index`: a function of the config and of `index` alone."""
        streams = np.random.SeedSequence([self._config.seed, index]).spawn(2)
        rng = np.random.default_rng(streams[0])
        env_seed, oracle_seed = (int(word) for word in streams[1].generate_state(2))
        with _global_seed(oracle_seed):
            return self._roll(rng, env_seed)

    def _roll(self, rng: np.random.Generator, seed: int) -> Episode:
        env, oracle = self._env, self._oracle
        observation, info = env.reset(seed=seed)
        p_stack = rng.uniform(*self._stacking)
        oracle.start(rng)
        oracle.aim(observation, info)
        log = _Log(observation, self._row(info))
        for step in range(self._config.max_steps):
            action = oracle.act(observation, info, rng)
            observation, reward, terminated, truncated, info = env.step(action)
            if "fault" in info:
                raise RuntimeError(f"collect: the simulated robot failed: {info['fault']}")
            if oracle.done and not terminated and self._config.retarget:
                observation, info = env.set_new_target(p_stack)
                oracle.aim(observation, info)
            last = step + 1 == self._config.max_steps
            truncated = truncated or (not terminated and (oracle.done or last))
            log.add(action, reward, terminated, truncated, observation, self._row(info))
            if terminated or truncated:
                break
        return log.episode()

    def _row(self, info: dict[str, Any]) -> dict[str, Any]:
        """What is kept of one moment. `success` is that of the state, by the goal of its row."""
        task, state = self._task, self._env.state
        cubes = np.stack([state.objects[name].position_m for name in task.objects])
        return {
            "qpos": info["qpos"],
            "qvel": info["qvel"],
            "goal": info["goal_m"].ravel(),
            "target_cube": np.int64(info["privileged/target_block"]),
            "success": bool(successes(cubes, info["goal_m"])[info["privileged/target_block"]]),
            "sent_rad": info.get("sent_rad", state.q_rad),
        }


class _Log:
    """Rows of one episode."""

    def __init__(self, observation: np.ndarray, row: dict[str, Any]):
        self._observations, self._rows = [observation], [row]
        self._steps: list[tuple[np.ndarray, float, bool, bool]] = []

    def add(
        self,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        observation: np.ndarray,
        row: dict[str, Any],
    ) -> None:
        self._steps.append((action, reward, terminated, truncated))
        self._observations.append(observation)
        self._rows.append(row)

    def episode(self) -> Episode:
        actions, rewards, terminations, truncations = zip(*self._steps, strict=True)
        return {
            "observations": np.stack(self._observations),
            "actions": np.stack(actions),
            "rewards": np.asarray(rewards, dtype=np.float64),
            "terminations": np.asarray(terminations, dtype=bool),
            "truncations": np.asarray(truncations, dtype=bool),
            "infos": {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]},
        }


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which OGBench's oracles draw from, and put it back."""
    before = np.random.get_state()  # noqa: NPY002 - the oracles know no other generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextlib.contextmanager
def _pool(config: CollectConfig) -> Iterator[Iterator[Episode]]:
    """Worker processes that load the scene compiled here."""
    with tempfile.TemporaryDirectory(prefix="robo_rl-collect-") as folder:
        scene = scenes.compile_cube_scene(config.env.get("scene", "single"))
        path = str(save_scene(scene, pathlib.Path(folder) / "scene.mjb"))
        with pool(config.workers, functools.partial(_collecting, config, path)) as workers:
            yield workers.map(range(config.episodes))


def _collecting(config: CollectConfig, scene_path: str) -> Work:
    """What a worker does: index -> the episode."""
    return Collector(config, scene_path).episode
