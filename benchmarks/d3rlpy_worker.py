"""d3rlpy's side of the comparison: runs in an environment of its own, which pins other packages.

    python d3rlpy_worker.py DATA.npz

Reads a line `METHOD UPDATES`, takes so many updates, rows drawn as its own `fit` draws them, and
answers with the seconds.
"""

import sys
import time

import d3rlpy
import numpy as np

BATCH = 256
CONFIGS = {
    "iql": d3rlpy.algos.IQLConfig,
    "td3bc": d3rlpy.algos.TD3PlusBCConfig,
    "cql": d3rlpy.algos.CQLConfig,
    "sac": d3rlpy.algos.SACConfig,
}


def main() -> None:
    """Serve until the input ends. Its own encoder is 2x256 with ReLU, its own critics are two."""
    arrays = np.load(sys.argv[1])
    dataset = d3rlpy.dataset.MDPDataset(
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"],
        arrays["terminated"].astype(np.float32),
    )
    learners = {}
    print("ready", file=sys.__stdout__, flush=True)
    for line in sys.stdin:
        method, updates = line.split()
        if method not in learners:
            learners[method] = CONFIGS[method](batch_size=BATCH).create(device="cpu:0")
            learners[method].build_with_dataset(dataset)
        start = time.perf_counter()
        for _ in range(int(updates)):
            learners[method].update(dataset.sample_transition_batch(BATCH))
        print(time.perf_counter() - start, file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.stdout = sys.stderr  # the log is not an answer
    main()
