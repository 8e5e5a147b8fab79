"""Updates a second against d3rlpy: same networks, batch and data, in turns on the same cores.

    make bench-d3rlpy

makes an environment for d3rlpy, whose pins are not ours, and measures this as well. An update of
TD3+BC is counted as d3rlpy counts it: one step of the critics, and the actor's every second time.
"""

import pathlib
import statistics
import subprocess
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import bench
from robo_rl import agents
from robo_rl.learn import offline
from robo_rl.learn.contract import setting
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.supply import supply

WORKER = pathlib.Path(__file__).with_name("d3rlpy_worker.py")
UPDATES = {"iql": 1500, "td3bc": 1500, "sac": 1500, "cql": 300}
_DISPATCHES = 3
CONFIGS: dict[str, Any] = {
    "iql": agents.iql.Config(),
    "td3bc": agents.td3bc.Config(),
    "sac": agents.sac.Config(critic=bench.TWO, critics=2),
    "cql": agents.cql.Config(lagrange=True),
}


class Worker:
    """d3rlpy in its own interpreter."""

    def __init__(self, python: pathlib.Path, data: pathlib.Path):
        self._process = subprocess.Popen(
            [python, WORKER, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def seconds(self, method: str, updates: int) -> float:
        """Of so many updates."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{method} {updates}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("d3rlpy's process died; its message stands above")
        return line


def compare(worker: Worker, method: str, data: Any, repeats: int) -> list[bench.Row]:
    """Their rate, ours, and the ratio, which is taken turn by turn."""
    agent, config, updates = agents.get(method), CONFIGS[method], UPDATES[method]
    one = updates // int(setting(config, "utd", 1)) // _DISPATCHES
    rows = supply(agent, config, data)
    short, long = (
        OfflineLoop(steps, bench.BATCH, one, steps) for steps in (one, (1 + _DISPATCHES) * one)
    )

    def ours() -> float:
        """Of a long run less a short one: what starting costs is not counted."""
        seconds = []
        for length in (short, long):
            start = time.perf_counter()
            offline.train(agent, config, rows, length)
            seconds.append(time.perf_counter() - start)
        return seconds[1] - seconds[0]

    turns = []
    for turn in range(repeats + 1):
        pair = worker.seconds(method, updates), ours()
        if turn:  # the first pair compiles and warms up
            turns.append(pair)
    ratios = [theirs / mine for theirs, mine in turns]
    low, _, high = statistics.quantiles(ratios, n=4)
    theirs, mine = (updates / statistics.median(side) for side in zip(*turns, strict=True))
    return [
        bench.Row(f"{method}.d3rlpy_updates_per_s", theirs, "1/s"),
        bench.Row(f"{method}.same_updates_per_s", mine, "1/s"),
        bench.Row(f"{method}.vs_d3rlpy", statistics.median(ratios), "times", high - low),
    ]


def rows(python: pathlib.Path, repeats: int) -> list[bench.Row]:
    """Of all methods."""
    data = bench.transitions()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.npz"
        np.savez(path, **data)
        worker = Worker(python, path)
        try:
            return [row for method in CONFIGS for row in compare(worker, method, data, repeats)]
        finally:
            worker.close()
