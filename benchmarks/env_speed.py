"""Steps per second of our environment, guards on, against OGBench's own, side by side.

    python benchmarks/env_speed.py [--steps 2000]

The environments take turns of 20 steps under the same random actions, and the medians over all
steps are compared, so that other load on the machine meets them all alike.
"""

import argparse
import statistics
import time
import warnings

import gymnasium
import numpy as np

import robo_rl.envs
from robo_rl.envs.ogbench.scenes import load_ogbench
from robo_rl.quiet import quiet

_TURN = 20


def step_times(env: gymnasium.Env, actions: np.ndarray) -> list[float]:
    """Seconds of each step under `actions` (N, 5), resets left out."""
    times = []
    for action in actions:
        before = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        times.append(time.perf_counter() - before)
        if terminated or truncated:
            env.reset()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with quiet():
        load_ogbench("manipspace")
        assert robo_rl.envs  # registers the environments
        envs = {
            "ogbench": gymnasium.make("cube-single-v0"),
            "report only": gymnasium.make("robo_rl/CubeSingle-v0", guards={"enforce": False}),
            "guards": gymnasium.make("robo_rl/CubeSingle-v0"),
            "guards and barrier": gymnasium.make("robo_rl/CubeSingle-v0", barrier={}),
        }
        for env in envs.values():
            env.reset(seed=0)
        rng = np.random.default_rng(0)
        times: dict[str, list[float]] = {name: [] for name in envs}
        for _ in range(arguments.steps // _TURN):
            actions = rng.uniform(-1, 1, (_TURN, 5)).astype(np.float32)
            for name, env in envs.items():
                times[name] += step_times(env, actions)
    base = statistics.median(times["ogbench"])
    for name, seconds in times.items():
        own = statistics.median(seconds)
        rate = f"{1e3 * own:.3f} ms a step, {1 / own:5.0f} steps/s"
        print(f"{name:20s} {rate}, {base / own:.2f} of OGBench's")


if __name__ == "__main__":
    main()
