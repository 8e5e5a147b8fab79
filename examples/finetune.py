"""Offline, then online: a run goes on learning in its environment.

    python examples/finetune.py [FOLDER]

Offline learning ends with what the data hold; here the data are random actions. A recipe says how
to go on: which agent learns online, what it starts from, what its replay begins with. `iql` keeps
the offline update and a buffer that starts as the dataset. `robo-rl methods` lists the others, and
`robo-rl methods iql` every setting that `option` changes. On a terminal:

    robo-rl train pendulum/random-v0 --agent iql --steps 2000
    robo-rl finetune runs/iql-pendulum-random-v0 --recipe iql --steps 2000

Both runs lie in folders of their own, and the second keeps a copy of the first: `robo-rl resume`
goes on with either after an interruption, and gives the very numbers that it would have given.
"""

import os
import pathlib
import sys
import tempfile

import robo_rl

DATASET = "pendulum/random-v0"
SMALL = ("actor.hidden=64,64", "critic.hidden=64,64")  # enough here, and done in a minute


def main(
    folder: pathlib.Path | None = None,
    episodes: int = 100,
    offline_steps: int = 2_000,
    online_steps: int = 2_000,
) -> tuple[float, float]:
    """Learn offline, then online. Returns the mean returns before and after."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        robo_rl.record(
            "random",
            DATASET,
            env="InvertedPendulum-v5",
            episodes=episodes,
            workers=0,
            overwrite=True,
        )
        offline = robo_rl.train(
            DATASET, "iql", steps=offline_steps, option=SMALL, out=here / "offline"
        )
        before = robo_rl.evaluate(offline, episodes=10, workers=0)
        online = robo_rl.finetune(offline, "iql", steps=online_steps, out=here / "online")
        after = robo_rl.evaluate(online, episodes=10, workers=0)
        print(f"offline: {before}\nonline:  {after}")
        return before.episodes.mean_return, after.episodes.mean_return


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
