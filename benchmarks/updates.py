"""Updates a second of every agent, offline, in one dispatch; and steps a second of the online loop.

python benchmarks/updates.py
"""

import dataclasses
import time

import gymnasium
import jax
import numpy as np

from robo_rl import agents
from robo_rl.learn import offline, online
from robo_rl.learn.contract import batch_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.networks import NetConfig

OBSERVATION, ACTION, ROWS, BATCH = 34, 5, 100_000, 256


def transitions() -> dict[str, np.ndarray]:
    """Random rows of the size of cube-single's."""
    rng = np.random.default_rng(0)
    ends = np.arange(ROWS) % 100 == 99
    arrays = {
        "observations": rng.normal(size=(ROWS, OBSERVATION)),
        "actions": rng.uniform(-1.0, 1.0, (ROWS, ACTION)),
        "rewards": rng.normal(size=ROWS),
        "next_observations": rng.normal(size=(ROWS, OBSERVATION)),
        "masks": 1.0 - ends,
    }
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def offline_rate(name: str, config: object, seeds: int = 1, updates: int = 300) -> float:
    """Updates a second of all seeds together, compilation left out."""
    loop = OfflineLoop(updates, BATCH, updates, updates, seeds=seeds)
    data = transitions()
    agent = agents.get(name)
    offline.train(agent, config, data, loop)
    start = time.perf_counter()
    offline.train(agent, config, data, loop)
    return seeds * updates / (time.perf_counter() - start)


class Nothing(gymnasium.Env):
    """Costs nothing, so that what is measured is the loop."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Start an episode of 100 steps."""
        super().reset(seed=seed)
        self._t = 0
        return np.zeros(OBSERVATION, np.float32), {}

    def step(self, action):
        """Pass."""
        self._t += 1
        return np.full(OBSERVATION, 0.01 * self._t, np.float32), 0.0, False, self._t == 100, {}


def online_rate(recipe: Recipe, steps: int = 400) -> float:
    """Environment steps a second of the online loop with an environment that costs nothing."""
    agent = agents.get(recipe.agent)
    config = recipe.configure(agent.Config())
    example = {name: value[:1] for name, value in batch_of(transitions()).items()}
    state = jax.jit(agent.init, static_argnums=0)(config, jax.random.key(0), example)
    loop = OnlineLoop(steps, log_every=steps, checkpoint_every=steps)
    online.finetune(
        agent, config, Nothing(), recipe, dataclasses.replace(loop, env_steps=120), state
    )
    start = time.perf_counter()
    online.finetune(agent, config, Nothing(), recipe, loop, state)
    return steps / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    wide = NetConfig(hidden=(512, 512, 512), activation="gelu")
    two = NetConfig()
    cases = {
        "bc 3x512": ("bc", agents.bc.Config(actor=wide), 1),
        "bc 2x256": ("bc", agents.bc.Config(actor=two), 1),
        "iql 2x256": ("iql", agents.iql.Config(), 1),
        "iql 2x256, 4 seeds": ("iql", agents.iql.Config(), 4),
        "iql 2x256, 10 critics": ("iql", agents.iql.Config(critics=10), 1),
        "sac 10 critics": ("sac", agents.sac.Config(), 1),
        "sac 10 critics, utd 4": ("sac", agents.sac.Config(utd=4), 1),
        "residual 2 critics, utd 2": ("residual", agents.residual.Config(critics=2, utd=2), 1),
    }
    for title, (name, config, seeds) in cases.items():
        print(f"{title:<28}{offline_rate(name, config, seeds):8.0f} updates/s", flush=True)
    recipes = {
        "online, frozen policy": Recipe(warmup_steps=10**6),
        "online, sac 2 critics": Recipe(warmup_steps=100, options=(("critics", 2),)),
    }
    for title, recipe in recipes.items():
        print(f"{title:<28}{online_rate(recipe):8.0f} steps/s", flush=True)


if __name__ == "__main__":
    main()
