"""A network of your own: any Flax module in place of a critic's, an actor's or an encoder's.

    python examples/own_network.py [FOLDER]

A network's setting `arch` is `mlp`, `simba`, `bro`, or a module: it turns rows (B, I) into features
(B, H), on which the head of the method stands. One whose `__call__` takes `*inputs` gets them one
by one: for a critic, states and actions. Everything else of the method stays as it is, ensembles,
targets and normalisation included. A run keeps where the module came from and the digest of its
file, and refuses one that has changed. On a terminal, settings of the module stand in brackets:

    robo-rl train ID --agent td3bc --option "critic.arch=own_network.py:Bilinear(width=64)"

A policy is exported to NumPy where its actor is `mlp`, `simba` or `bro`; critics are not exported.
"""

import os
import pathlib
import sys
import tempfile

import flax.linen as linen
import jax
import jax.numpy as jnp

import robo_rl
from robo_rl.agents import td3bc
from robo_rl.nn.networks import NetConfig

DATASET = "pendulum/random-v0"
HERE = pathlib.Path(__file__).resolve()


class Bilinear(linen.Module):
    """Features of the state times features of the action: what an action does depends on where."""

    width: int = 64

    @linen.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """(B, O) and (B, A) to (B, width)."""
        observations, actions = inputs
        state = linen.relu(linen.Dense(self.width)(observations))
        both = linen.Dense(self.width)(state) * jnp.tanh(linen.Dense(self.width)(actions))
        return linen.relu(linen.Dense(self.width)(jnp.concatenate((state, both), axis=-1)))


def main(folder: pathlib.Path | None = None, episodes: int = 50, steps: int = 1_000) -> float:
    """Train TD3+BC with two of these critics and a SimBa actor. Returns the mean return."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        robo_rl.record(
            "random", DATASET, env="Pendulum-v1", episodes=episodes, workers=0, overwrite=True
        )
        config = td3bc.Config(
            critic=NetConfig(arch=f"{HERE}:Bilinear(width=32)"),  # or Bilinear(width=32) itself
            actor=NetConfig(hidden=(32,), arch="simba(expansion=2)"),
            discount=0.95,
        )
        run = robo_rl.train(DATASET, "td3bc", config=config, steps=steps, out=here / "run")
        print(f"the run keeps {robo_rl.load_run(run.path).config.critic.arch}")
        judged = robo_rl.evaluate(run, episodes=10, workers=0)
        print(judged)
        return judged.episodes.mean_return


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
