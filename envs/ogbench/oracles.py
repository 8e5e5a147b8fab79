"""OGBench's scripted experts, driven on an `ArmEnv`."""

import dataclasses
from typing import Any

import numpy as np

from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.kinematics import ACTION_RANGE
from robo_rl.envs.ogbench.geometry import ARM_BOUNDS_M
from robo_rl.envs.ogbench.scenes import load_ogbench

ORACLES = ("markov", "plan")


@dataclasses.dataclass(frozen=True)
class OracleConfig:
    """Which expert and how noisy; the defaults are those of OGBench's data generation."""

    kind: str = "markov"
    """`markov` answers the state (OGBench's "noisy" data); `plan` follows a precomputed path
    ("play" data)."""
    noise: float = 0.1
    """Markov: each episode draws its level of white action noise from [0, noise]; yaw and gripper
    get 3 and 10 times as much. Plan: level of the noise on the path."""
    noise_smoothing: float = 0.5
    """Plan: width, in steps, of the Gaussian that smooths the noise."""
    min_norm: float = 0.4
    """Markov: shortest position difference that it acts on."""
    random_action_probability: float = 0.0
    """Chance that an action is drawn at random instead."""

    def __post_init__(self) -> None:
        if self.kind not in ORACLES:
            raise ValueError(f"OracleConfig.kind must be one of {ORACLES}, got {self.kind!r}")
        for field in ("noise", "noise_smoothing", "min_norm"):
            if not getattr(self, field) >= 0.0:
                raise ValueError(f"OracleConfig.{field} must be >= 0, got {getattr(self, field)}")
        if not 0.0 <= self.random_action_probability <= 1.0:
            raise ValueError(
                "OracleConfig.random_action_probability must be in [0, 1], "
                f"got {self.random_action_probability}"
            )


class _OracleView:
    """The little that OGBench's oracles look up in their environment."""

    def __init__(self, env: ArmEnv):
        self._control_timestep = env.period_s
        self._arm_sampling_bounds = ARM_BOUNDS_M

    @property
    def unwrapped(self) -> "_OracleView":
        return self

    def normalize_action(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(action / ACTION_RANGE, -1.0, 1.0))


class Oracle:
    """One expert with its noise. It needs the info of the `data` or `random` form of a task.

    OGBench's oracles draw from NumPy's global generator: seed it before `start`.
    """

    def __init__(self, env: ArmEnv, config: OracleConfig):
        self.config = config
        view = _OracleView(env)
        self._oracle: Any
        if config.kind == "markov":
            markov = load_ogbench("manipspace.oracles.markov.cube_markov")
            self._oracle = markov.CubeMarkovOracle(env=view, min_norm=config.min_norm)
        else:
            plan = load_ogbench("manipspace.oracles.plan.cube_plan")
            self._oracle = plan.CubePlanOracle(
                env=view, noise=config.noise, noise_smoothing=config.noise_smoothing
            )
        self._level = 0.0

    @property
    def done(self) -> bool:
        """Whether the expert has finished with the present target."""
        return bool(self._oracle.done)

    def start(self, rng: np.random.Generator) -> None:
        """Draw the noise level of an episode."""
        self._level = rng.uniform(0.0, self.config.noise)

    def aim(self, observation: np.ndarray, info: dict[str, Any]) -> None:
        """Take up the target that is in `info`."""
        self._oracle.reset(observation, info)

    def act(
        self, observation: np.ndarray, info: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        """The next action (5,), float32 in [-1, 1]."""
        if rng.uniform() < self.config.random_action_probability:
            action = rng.uniform(-1.0, 1.0, 5)
        else:
            action = np.array(self._oracle.select_action(observation, info), dtype=float)
            if self.config.kind == "markov":
                action += rng.normal(0.0, self._level * np.array([1.0, 1.0, 1.0, 3.0, 10.0]))
        return np.clip(action, -1.0, 1.0).astype(np.float32)
