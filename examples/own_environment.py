"""An environment of your own: any Gymnasium environment, its own observations and its own units.

    python examples/own_environment.py [FOLDER]

Nothing here inherits from robo_rl. `Winch` shows a Dict, whose vectors become one vector in the
order of its space (Gymnasium sorts the keys of a plain dict: goal, load). It takes metres a second
and newtons between bounds of their own, which the learner scales to [-1, 1] and back. Registered
under an id with a step limit, it reaches every function by that id. On a terminal, `module:ID`
imports the module first; from this folder:

    robo-rl data record random winch/random-v0 --env own_environment:own/Winch-v0
    robo-rl train winch/random-v0 --env own_environment:own/Winch-v0 --agent iql
"""

import os
import pathlib
import sys
import tempfile
from typing import Any

import gymnasium
import numpy as np

import robo_rl

ENV_ID = "own/Winch-v0"
DATASET = "winch/random-v0"


class Winch(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Hold a load at a height: a winch winds at up to 0.4 m/s, a brake presses with 0 to 20 N."""

    def __init__(self) -> None:
        """Spaces only; an episode begins with `reset`."""
        self.observation_space = gymnasium.spaces.Dict(
            {
                "load": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),  # m, m/s
                "goal": gymnasium.spaces.Box(0.0, 1.0, (1,), np.float64),  # m
            }
        )
        self.action_space = gymnasium.spaces.Box(
            np.array([-0.4, 0.0], np.float32), np.array([0.4, 20.0], np.float32)
        )
        self._load, self._goal = np.zeros(2), np.zeros(1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A load somewhere, at rest."""
        super().reset(seed=seed)
        self._load = np.array([self.np_random.uniform(0.0, 1.0), 0.0])
        self._goal = self.np_random.uniform(0.2, 0.8, 1)
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, Any]:
        """Tenths of a second. The brake slows the winch; the reward is minus the distance."""
        speed = float(action[0]) * (1.0 - float(action[1]) / 20.0)
        self._load = np.array([self._load[0] + 0.1 * speed, speed])
        off = abs(float(self._load[0] - self._goal[0]))
        return self._seen(), -off, False, False, {"success": off < 0.05}

    def _seen(self) -> dict[str, np.ndarray]:
        return {"load": self._load.copy(), "goal": self._goal.copy()}


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=Winch, max_episode_steps=40)


def main(folder: pathlib.Path | None = None, episodes: int = 150, steps: int = 2_000) -> float:
    """Record, train, evaluate, act. Returns the mean return of the policy less that of chance."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        # Workers would have to import this file to know the id: with workers=0 they need not.
        chance = robo_rl.record(
            "random", DATASET, env=ENV_ID, episodes=episodes, workers=0, overwrite=True
        )
        small = ("discount=0.9", "actor.hidden=64,64", "critic.hidden=64,64")
        run = robo_rl.train(
            DATASET, "iql", steps=steps, option=small, reward_scale=20.0, out=here / "run"
        )
        judged = robo_rl.evaluate(run, episodes=20, workers=0)
        print(f"by chance: return {chance.mean_return:.2f}")
        print(judged)

        policy = robo_rl.load_policy(robo_rl.export(run))
        env = robo_rl.make_env(run)
        observation, _ = env.reset(seed=1)
        speed_m_s, brake_n = policy(observation)  # the Dict in, its own units out
        print(f"load at {observation['load'][0]:.2f} m, goal at {observation['goal'][0]:.2f} m:")
        print(f"the policy winds at {speed_m_s:+.2f} m/s and brakes with {brake_n:.1f} N")
        env.close()
        return judged.episodes.mean_return - chance.mean_return


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
