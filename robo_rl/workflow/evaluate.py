"""Evaluation of exported policies in worker processes: the figures do not depend on how many."""

import concurrent.futures
import contextlib
import multiprocessing
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
from tqdm import tqdm

from robo_rl.envs import make
from robo_rl.envs.ogbench import scenes
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.hardware.twin.mujoco_device import save_scene
from robo_rl.judge.episodes import Episodes, evaluate, evaluation_seeds, merge


def evaluate_policy(
    policy: pathlib.Path,
    env: Mapping[str, Any],
    episodes: int,
    seed: int = 0,
    workers: int = 2,
    title: str = "evaluate",
) -> Episodes:
    """Success of an exported policy in `make_cube_env(**env)`. Shows a progress bar."""
    seeds = evaluation_seeds(seed, episodes)
    # Several small parts a worker: the bar moves, and a slow part does not hold up the rest.
    parts = [seeds[start::_PART_COUNT] for start in range(_PART_COUNT)]
    parts = [part for part in parts if part]
    results = []
    with _pool(policy, env, workers) as pool, _bar(episodes, title) as bar:
        for future in concurrent.futures.as_completed(pool.submit(_evaluate, p) for p in parts):
            results.append(future.result())
            bar.update(len(results[-1].success))
            bar.set_postfix_str(f"success {merge(results).success_rate:.2f}")
    return merge(results)


def describe(result: Episodes) -> str:
    """One line for people."""
    low, high = result.ci95
    return (
        f"success {result.success_rate:.2f}  (95 % interval {low:.2f} to {high:.2f}, "
        f"{len(result.success)} episodes)"
    )


def time_limited(env: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """`make_cube_env(**env)` with OGBench's limit of 200 steps."""
    return gymnasium.wrappers.TimeLimit(make.make_cube_env(**env), MAX_STEPS)


def check_sizes(env: Mapping[str, Any], read: tuple[Any, ...], given: tuple[int, ...]) -> None:
    """Raise ValueError where a policy does not fit what `env` shows and takes.

    Args:
        env: of `make_cube_env`.
        read: shape of the policy's observation, or the names of its parts.
        given: shape of its action.
    """
    with contextlib.closing(time_limited(env)) as arm:
        shown, taken = arm.observation_space.shape, arm.action_space.shape
    if (read, given) != (shown, taken):
        raise ValueError(
            f"this policy reads {read} and gives {given}, the simulated arm shows {shown} and "
            f"takes {taken}: here it can go on only with data of the arm's own tasks (robo-rl data "
            "collect, or import); elsewhere, by robo_rl.learn in Python"
        )


@contextlib.contextmanager
def compiled(env: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """`env` with its scene compiled here, for all processes that make it meanwhile."""
    with tempfile.TemporaryDirectory(prefix="robo_rl-scene-") as folder:
        scene = scenes.compile_cube_scene(env.get("scene", "single"))
        path = str(save_scene(scene, pathlib.Path(folder) / "scene.mjb"))
        yield {**env, "scene_path": path}


MAX_STEPS = 200
_PART_COUNT = 20

_env: gymnasium.Env[Any, Any]
_policy: NumpyPolicy


def _bar(total: int, title: str) -> "tqdm[Any]":
    return tqdm(total=total, desc=title, unit="episode", mininterval=0.5)


@contextlib.contextmanager
def _pool(
    policy: pathlib.Path, env: Mapping[str, Any], workers: int
) -> Iterator[concurrent.futures.Executor]:
    """Workers that load the scene compiled here."""
    with compiled(env) as ready:
        executor = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(policy, ready),
        )
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)


def _start(policy: pathlib.Path, env: Mapping[str, Any]) -> None:
    global _env, _policy
    _env, _policy = time_limited(env), NumpyPolicy.load(policy)


def _evaluate(seeds: tuple[int, ...]) -> Episodes:
    return evaluate(_env, _policy.act, seeds, begin=_policy.reset)
