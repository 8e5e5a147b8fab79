"""Good recordings to try `robo-rl data check` on: arms, walkers, pendulums, Dict and image sets.

    python -m benchmarks.good_sets [--episodes 40]     records them and prints what the check says

They come from simulators and small policies, so nothing is downloaded. Recorded again, a set is the
same; one that is there already is kept.
"""

import argparse
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from robo_rl.data import check as checking
from robo_rl.data.episodes import Episode
from robo_rl.data.errors import DatasetNotFoundError
from robo_rl.data.minari_io import Dataset, Provenance, RewardLabel, open_dataset, write_dataset
from robo_rl.envs.ogbench import collect as collecting
from robo_rl.envs.ogbench.oracles import OracleConfig
from robo_rl.workflow.collect import collect

Policy = Callable[[np.ndarray, int], np.ndarray]
"""From an observation and the number of the step to an action."""
PROVENANCE = Provenance(None, RewardLabel("environment", "1"))


def good_set(name: str, episodes: int) -> Dataset:
    """The good set of this name (a key of `RECORDERS`), recorded unless it is there."""
    dataset = f"good/{name}{episodes}-v0"
    try:
        return open_dataset(dataset)
    except DatasetNotFoundError:
        RECORDERS[name](dataset, episodes)
    return open_dataset(dataset)


def record_cube(dataset: str, episodes: int, *, kind: str, noise: float) -> None:
    """Demonstrations by OGBench's oracles, as `robo-rl data collect` records them."""
    config = collecting.CollectConfig(
        episodes=episodes,
        env={"scene": "single", "form": "random"},
        oracle=OracleConfig(kind=kind, noise=noise),
        workers=1,
    )
    collect(dataset, config)


def record_gym(
    dataset: str,
    episodes: int,
    *,
    env_id: str,
    policies: Callable[[np.random.Generator], Policy],
    steps: int | None = None,
    **env_kwargs: Any,
) -> None:
    """Episodes of a Gymnasium environment; `policies` draws a policy for each."""
    env = gymnasium.make(env_id, max_episode_steps=steps, **env_kwargs)
    rng = np.random.default_rng(0)
    write_dataset(
        dataset,
        (_episode(env, policies(rng), seed) for seed in range(episodes)),
        observation_space=env.observation_space,
        action_space=env.action_space,
        provenance=PROVENANCE,
        env=env.spec,
        env_kwargs=env_kwargs,
    )
    env.close()


def _episode(env: gymnasium.Env[Any, Any], policy: Policy, seed: int) -> Episode:
    observation, _ = env.reset(seed=seed)
    rows: list[Any] = [observation]
    actions: list[np.ndarray] = []
    ends: list[tuple[float, bool, bool]] = []
    while not ends or not (ends[-1][1] or ends[-1][2]):
        vector = observation["observation"] if isinstance(observation, Mapping) else observation
        space = env.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        action = np.clip(policy(vector, len(actions)), space.low, space.high).astype(space.dtype)
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append(observation)
        actions.append(action)
        ends.append((float(reward), bool(terminated), bool(truncated)))
    observations: Any = np.stack(rows) if isinstance(rows[0], np.ndarray) else {}
    if not isinstance(rows[0], np.ndarray):
        observations = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    rewards, terminations, truncations = (np.array(column) for column in zip(*ends, strict=True))
    return Episode(observations, np.stack(actions), rewards, terminations, truncations)


def random_policy(rng: np.random.Generator, *, size: int, scale: float = 1.0) -> Policy:
    """Uniform actions."""
    return lambda _row, _step: rng.uniform(-scale, scale, size)


def gait(rng: np.random.Generator, *, size: int, period: float, noise: float) -> Policy:
    """Waves with a phase per joint and noise on top: a walker that moves on."""
    phase = np.linspace(0.0, 2.0 * np.pi, size, endpoint=False) + rng.normal(0.0, 0.2, size)
    swing = rng.uniform(0.5, 1.0)
    return lambda _row, step: (
        swing * np.sin(2.0 * np.pi * step / period + phase) + rng.normal(0.0, noise, size)
    )


def saturating(_rng: np.random.Generator, *, size: int, inputs: int, reach: float = 1.0) -> Policy:
    """One linear controller without noise, bent at its bounds: actions follow from the state."""
    gains = np.random.default_rng(1).normal(size=(size, inputs)) * 0.3
    return lambda row, _step: reach * np.tanh(gains @ row)


def feedback(rng: np.random.Generator, *, gains: tuple[float, ...], noise: float) -> Policy:
    """A linear controller with noise."""
    return lambda row, _step: np.array([-np.dot(gains, row) + rng.normal(0.0, noise)])


def swing_up(rng: np.random.Generator, *, noise: float) -> Policy:
    """Energy pumping for Gymnasium's Pendulum, balance near the top; clipped at the bounds."""

    def act(row: np.ndarray, _step: int) -> np.ndarray:
        cosine, sine, speed = row
        angle = np.arctan2(sine, cosine)
        pump = 2.0 * np.sign(speed) if abs(angle) > 0.6 else -10.0 * angle - 2.0 * speed
        return np.array([pump + rng.normal(0.0, noise)])

    return act


def mixed(rng: np.random.Generator, *, first: Any, second: Any) -> Policy:
    """One of two kinds of policy, by chance."""
    policy: Policy = (first if rng.random() < 0.5 else second)(rng)
    return policy


class ReachEnv(gymnasium.Env[Any, np.ndarray]):
    """A point with inertia that is to reach a goal: Dict observations, or images of the plane."""

    def __init__(self, images: bool = False, steps: int = 60):
        self._images, self._steps = images, steps
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        vector = functools.partial(gymnasium.spaces.Box, -np.inf, np.inf)
        self.observation_space: gymnasium.Space[Any] = (
            gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
            if images
            else gymnasium.spaces.Dict(
                {
                    "observation": vector((4,)),
                    "achieved_goal": vector((2,)),
                    "desired_goal": vector((2,)),
                }
            )
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Draw a place and a goal."""
        super().reset(seed=seed)
        self._position, self._goal = self.np_random.uniform(-1.0, 1.0, (2, 2))
        self._speed, self._step = np.zeros(2), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Push the point."""
        """Push the point."""
        self._speed = 0.9 * self._speed + 0.02 * np.asarray(action)
        self._position = np.clip(self._position + self._speed, -1.5, 1.5)
        self._step += 1
        distance = float(np.linalg.norm(self._position - self._goal))
        return self._observe(), -distance, distance < 0.05, self._step >= self._steps, {}

    def _observe(self) -> Any:
        if not self._images:
            state = np.concatenate([self._position, self._speed]).astype(np.float32)
            goal = self._goal.astype(np.float32)
            return {"observation": state, "achieved_goal": state[:2], "desired_goal": goal}
        frame = np.full((32, 32, 3), 30, np.uint8)
        for channel, place in enumerate((self._position, self._goal)):
            rows, columns = np.ogrid[:32, :32]
            x, y = (place + 1.6) * 10.0
            frame[..., channel] += (
                200 * np.exp(-((rows - x) ** 2 + (columns - y) ** 2) / 6)
            ).astype(np.uint8)
        return frame


gymnasium.register("robo_rl_bench/Reach-v0", entry_point="benchmarks.good_sets:ReachEnv")

_CHEETAH_RANDOM = functools.partial(random_policy, size=6)
_CHEETAH_GAIT = functools.partial(gait, size=6, period=8.0, noise=0.3)
RECORDERS: dict[str, Callable[[str, int], None]] = {
    "cube-noisy": functools.partial(record_cube, kind="markov", noise=0.1),
    "cube-plan": functools.partial(record_cube, kind="plan", noise=0.0),
    "halfcheetah-random": functools.partial(
        record_gym, env_id="HalfCheetah-v5", policies=_CHEETAH_RANDOM, steps=200
    ),
    "halfcheetah-mixed": functools.partial(
        record_gym,
        env_id="HalfCheetah-v5",
        policies=functools.partial(mixed, first=_CHEETAH_RANDOM, second=_CHEETAH_GAIT),
        steps=200,
    ),
    "hopper": functools.partial(
        record_gym,
        env_id="Hopper-v5",
        policies=functools.partial(
            mixed,
            first=functools.partial(random_policy, size=3),
            second=functools.partial(gait, size=3, period=30.0, noise=0.2),
        ),
    ),
    "walker": functools.partial(
        record_gym,
        env_id="Walker2d-v5",
        policies=functools.partial(random_policy, size=6, scale=0.7),
    ),
    "swimmer": functools.partial(
        record_gym,
        env_id="Swimmer-v5",
        policies=functools.partial(gait, size=2, period=20.0, noise=0.2),
        steps=200,
    ),
    "pendulum": functools.partial(
        record_gym, env_id="Pendulum-v1", policies=functools.partial(swing_up, noise=0.3)
    ),
    "invertedpendulum": functools.partial(
        record_gym,
        env_id="InvertedPendulum-v5",
        policies=functools.partial(feedback, gains=(-0.5, -9.0, -1.0, -2.0), noise=0.2),
        steps=200,
    ),
    "reacher": functools.partial(
        record_gym,
        env_id="Reacher-v5",
        policies=functools.partial(random_policy, size=2, scale=0.5),
    ),
    "mountaincar": functools.partial(
        record_gym,
        env_id="MountainCarContinuous-v0",
        policies=functools.partial(feedback, gains=(0.0, -30.0), noise=0.5),
        steps=200,
    ),
    **{
        f"{name.split('-')[0].lower()}-steady": functools.partial(
            record_gym,
            env_id=name,
            policies=functools.partial(saturating, size=size, inputs=inputs, reach=reach),
            steps=200,
        )
        for name, size, inputs, reach in (
            ("Hopper-v5", 3, 11, 1.0),
            ("HalfCheetah-v5", 6, 17, 1.0),
            ("Walker2d-v5", 6, 17, 1.0),
            ("Ant-v5", 8, 105, 1.0),
            ("Reacher-v5", 2, 10, 1.0),
            ("Pusher-v5", 7, 23, 2.0),
            ("Swimmer-v5", 2, 8, 1.0),
            ("InvertedPendulum-v5", 1, 4, 3.0),
            ("Pendulum-v1", 1, 3, 2.0),
        )
    },
    "dict-goals": functools.partial(
        record_gym,
        env_id="robo_rl_bench/Reach-v0",
        policies=functools.partial(gait, size=2, period=25.0, noise=0.3),
    ),
    "images": functools.partial(
        record_gym,
        env_id="robo_rl_bench/Reach-v0",
        policies=functools.partial(gait, size=2, period=25.0, noise=0.3),
        images=True,
    ),
}


def main() -> None:
    """Record every set and print what is found in it: nothing, at best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=sorted(RECORDERS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    errors = 0
    for name in arguments.only:
        report = checking.check(good_set(name, arguments.episodes))
        errors += report.exit_code
        print(f"== {name}\n{report.table()}\n", flush=True)
    print(f"{errors} of {len(arguments.only)} good sets have an error")


if __name__ == "__main__":
    main()
