"""Environments side by side: one, or those of a `gymnasium.vector.VectorEnv`, stepped together."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from robo_rl.learn.batches import readable

EXECUTED_ACTION = "executed_action"
"""Key of `info` under which an environment says what it did in place of the action asked for."""

AnyEnv: TypeAlias = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]
"""One environment, or E of them in a vector environment that does not reset itself."""


class StepResult(NamedTuple):
    """What a step of one environment led to."""

    obs: Any
    action: np.ndarray
    """(A,) what was done: it is learned from, not what was asked for."""
    reward: float
    terminated: bool
    truncated: bool
    success: bool | None
    """None where the environment does not say."""


class Environments(Protocol):
    """E environments by their numbers; observations (O,) are `readable`."""

    count: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    """Of each."""

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Any]:
        """First observations (O,) of the environments that are reset, each with its seed."""

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, StepResult]:
        """Outcomes of actions (A,). Environments without an action rest until their next reset."""


def environments(env: AnyEnv) -> Environments:
    """A Gymnasium environment of either kind."""
    return _Several(env) if isinstance(env, VectorEnv) else _One(env)


class _One:
    count = 1

    def __init__(self, env: gymnasium.Env[Any, Any]):
        self._env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Any]:
        return {0: readable(self._env.reset(seed=seeds[0])[0], lead=0)}

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, StepResult]:
        obs, reward, terminated, truncated, info = self._env.step(actions[0])
        outcome = StepResult(
            readable(obs, lead=0),
            np.asarray(info.get(EXECUTED_ACTION, actions[0]), np.float32),
            float(reward),
            bool(terminated),
            bool(truncated),
            _success(info.get("success")),
        )
        return {0: outcome}


class _Several:
    def __init__(self, env: VectorEnv[Any, Any, Any]):
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.DISABLED, AutoresetMode.DISABLED.value):
            raise ValueError(
                "finetune: a vector environment must leave resets to the loop; build "
                f'{type(env).__name__} with autoreset_mode="Disabled", its mode is '
                f"{getattr(mode, 'value', mode)}"
            )
        self._env: Any = env  # its type has one seed for all; here each has its own, as in Sync
        self.count: int = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self._seeds: list[int | None] = [None] * self.count
        self._over = np.zeros(self.count, bool)  # ended, and not reset since

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Any]:
        for index, seed in seeds.items():
            self._seeds[index] = seed
        mask = np.isin(np.arange(self.count), list(seeds))
        obs = self._reset(mask)
        return {index: _row(obs, index) for index in seeds}

    def _reset(self, mask: np.ndarray) -> Any:
        self._over &= ~mask
        seeds = [seed if reset else None for seed, reset in zip(self._seeds, mask, strict=True)]
        return self._env.reset(seed=seeds, options={"reset_mask": mask})[0]

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, StepResult]:
        # All are stepped or none: one that rests does nothing, on and on from its last seed.
        if self._over.any():
            self._reset(self._over.copy())
        asked = np.zeros((self.count, *next(iter(actions.values())).shape), np.float32)
        for index, action in actions.items():
            asked[index] = action
        obs, rewards, terminated, truncated, info = self._env.step(asked)
        self._over = np.asarray(terminated | truncated)
        return {
            index: StepResult(
                _row(obs, index),
                np.asarray(_told(info, EXECUTED_ACTION, index, action), np.float32),
                float(rewards[index]),
                bool(terminated[index]),
                bool(truncated[index]),
                _success(_told(info, "success", index, None)),
            )
            for index, action in actions.items()
        }


def _success(told: Any) -> bool | None:
    return None if told is None else bool(told)


def _row(obs: Any, index: int) -> Any:
    """One environment's observation, which the next step does not write over."""
    if isinstance(obs, Mapping):
        return {name: _row(part, index) for name, part in obs.items()}
    return readable(np.array(obs[index]), lead=0)


def _told(info: Mapping[str, Any], key: str, index: int, default: Any) -> Any:
    """What one environment's `info` holds; a mask beside a key says which environments have it."""
    held = key in info and info.get(f"_{key}", np.ones(index + 1, bool))[index]
    return info[key][index] if held else default


def spaces(envs: Environments) -> tuple[Any, gymnasium.spaces.Box]:
    """An observation of zeros, as agents read it, and the action space; both checked."""
    observation, action = envs.observation_space, envs.action_space
    if isinstance(observation, gymnasium.spaces.Dict):
        zeros: Any = {name: _zeros(name, space) for name, space in observation.spaces.items()}
    else:
        zeros = _zeros("observations", observation)
    if not isinstance(action, gymnasium.spaces.Box) or len(action.shape) != 1:
        raise ValueError(f"finetune: actions must be a Box (A,), got {action}")
    if not (np.all(action.low == -1.0) and np.all(action.high == 1.0)):
        raise ValueError(f"finetune: actions must be bounded by -1 and 1, got {action}")
    return zeros, action


def _zeros(name: str, space: gymnasium.Space[Any]) -> np.ndarray:
    if isinstance(space, gymnasium.spaces.Box):
        zeros: np.ndarray = readable(np.zeros(space.shape, space.dtype), lead=0)
        if zeros.ndim == 1 or zeros.dtype == np.uint8:
            return zeros
    raise ValueError(
        f"finetune: {name} must be a Box (O,), or an image (H, W, C) of bytes, got {space}"
    )
