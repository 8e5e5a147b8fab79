"""Time and memory of `robo-rl data check` on large datasets, beside those of just reading them.

    python -m benchmarks.check_speed [--rows 5000000] [--columns 37] [--steps 1000]
    python -m benchmarks.check_speed --images 592

The dataset is generated and written first, in a temporary folder. Reading and checking run in
processes of their own, so that the peak of memory is theirs, in turns, and medians are compared.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import gymnasium
import numpy as np

from robo_rl.data.check import check
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Provenance, RewardLabel, open_dataset, write_dataset

_ID = "speed/one-v0"
_ACTIONS = 8


def episodes(rows: int, columns: int, steps: int) -> Iterator[Episode]:
    """Smooth random motion of `columns` numbers."""
    rng = np.random.default_rng(0)
    for _ in range(rows // steps):
        speed = rng.normal(0.0, 1.0, (steps + 1, columns)).astype(np.float32)
        states = np.cumsum(np.cumsum(speed, axis=0) * 0.01, axis=0)
        yield _episode(states, rng.uniform(-1, 1, (steps, _ACTIONS)).astype(np.float32))


def pictures(mebibytes: int, steps: int) -> Iterator[Episode]:
    """Random 64 x 64 pictures."""
    rng = np.random.default_rng(0)
    for _ in range(max(1, mebibytes * 2**20 // (steps * 64 * 64 * 3))):
        states = rng.integers(0, 256, (steps + 1, 64, 64, 3), np.uint8)
        yield _episode(states, rng.uniform(-1, 1, (steps, _ACTIONS)).astype(np.float32))


def _episode(states: np.ndarray, actions: np.ndarray) -> Episode:
    ends = np.arange(len(actions)) == len(actions) - 1
    return Episode(states, actions, actions[:, 0].astype(np.float64), ends & False, ends)


def main() -> None:
    """Write, then read and check in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--columns", type=int, default=37)
    parser.add_argument("--steps", type=int, default=1000, help="of an episode")
    parser.add_argument("--images", type=int, default=0, help="MiB of pictures instead of rows")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--part", choices=["read", "check"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        _part(arguments.part)
        return
    with tempfile.TemporaryDirectory() as root:
        env = {**os.environ, "MINARI_DATASETS_PATH": root}
        os.environ["MINARI_DATASETS_PATH"] = root
        _write(arguments)
        taken: dict[str, list[float]] = {"read": [], "check": []}
        worked: dict[str, list[float]] = {"read": [], "check": []}
        peaks: dict[str, list[float]] = {"read": [], "check": []}
        for _ in range(arguments.turns):
            for part in taken:
                command = [sys.executable, "-m", "benchmarks.check_speed", "--part", part]
                done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                for figures, figure in zip(
                    (taken[part], worked[part], peaks[part]), done.stdout.split()[-3:], strict=True
                ):
                    figures.append(float(figure))
    for part in taken:
        wall, cpu = statistics.median(taken[part]), statistics.median(worked[part])
        print(f"{part:6s} {wall:6.1f} s, {cpu:6.1f} s of CPU, {max(peaks[part]):6.0f} MiB at most")
    for name, times in (("time", taken), ("CPU time", worked)):
        ratio = statistics.median(times["check"]) / statistics.median(times["read"])
        print(f"checking takes {ratio:.2f} times the {name} of reading")


def _write(arguments: argparse.Namespace) -> None:
    real = gymnasium.spaces.Box(-np.inf, np.inf, (arguments.columns,), np.float32)
    picture = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    write_dataset(
        _ID,
        pictures(arguments.images, arguments.steps)
        if arguments.images
        else episodes(arguments.rows, arguments.columns, arguments.steps),
        observation_space=picture if arguments.images else real,
        action_space=gymnasium.spaces.Box(-1.0, 1.0, (_ACTIONS,), np.float32),
        provenance=Provenance(None, RewardLabel("environment", "1")),
    )


def _part(part: str) -> None:
    dataset = open_dataset(_ID)
    began, worked = time.perf_counter(), time.process_time()
    if part == "read":
        rows = sum(len(episode) for _, episode in dataset.numbered_episodes())
    else:
        rows = check(dataset).transitions
    taken, worked = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(rows, f"{taken:.3f} {worked:.3f} {peak:.0f}")


if __name__ == "__main__":
    main()
