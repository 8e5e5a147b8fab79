"""The whole of a common job: a dataset becomes a policy that runs with NumPy alone.

    python examples/train_offline.py [FOLDER]

The job is the eight lines of `learn`: open, train, evaluate, export, act. Before it, episodes of
random actions are recorded where there are none yet, so that nothing is downloaded; any Minari
dataset that names its environment can take their place. On a terminal the same is

    robo-rl data record random pendulum/random-v0 --env InvertedPendulum-v5 --episodes 300
    robo-rl train pendulum/random-v0 --agent iql --steps 2000
    robo-rl eval runs/iql-pendulum-random-v0
    robo-rl export runs/iql-pendulum-random-v0

InvertedPendulum is simulated by MuJoCo: `pip install 'robo_rl[sim]'`. All that is written goes into
FOLDER, or into a temporary folder.
"""

import os
import pathlib
import sys
import tempfile

import robo_rl

DATASET = "pendulum/random-v0"


def record(episodes: int) -> None:
    """Random episodes, for those who have no data yet. `robo_rl.record` takes a policy as well."""
    recorded = robo_rl.record(
        "random", DATASET, env="InvertedPendulum-v5", episodes=episodes, workers=0
    )
    print(f"recorded {recorded.steps} steps, mean return {recorded.mean_return:.1f}")


def learn(folder: pathlib.Path, steps: int) -> float:
    """From the dataset to an action of the exported policy; the mean return."""
    data = robo_rl.open_dataset(DATASET)
    run = robo_rl.train(data, "iql", steps=steps, out=folder / "run")
    judged = robo_rl.evaluate(run, episodes=10, workers=0)
    print(judged)
    policy = robo_rl.load_policy(robo_rl.export(run))
    env = robo_rl.make_env(data)
    observation, _ = env.reset(seed=0)
    action = policy(observation)  # as the environment shows it, to the bounds of its actions
    env.step(action)
    env.close()
    return judged.episodes.mean_return


def main(folder: pathlib.Path | None = None, episodes: int = 300, steps: int = 2_000) -> float:
    """Record if need be, then learn. Returns the mean return of the policy."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        if not (here / "datasets" / DATASET).exists():
            record(episodes)
        return learn(here, steps)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
