"""A frozen base controller as a part of the environment: what an agent's correction stands on."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from robo_rl.learn.controllers import Controller, label


class WithBase(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose observation ends with the action (A,) of a base controller.

    For an agent that acts relative to it (`residual.Config(base_in_observation=True)`): replay,
    evaluation and resuming then know nothing of a base. The base is asked once a state, so the
    action that the agent sees and the one that it corrects are the same also where it draws noise.

    `begin` is called with the seed of each reset, for a base with a state of its own: one that
    draws noise, or plays chunks. It must then be a function of that seed and the observations.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        base: Controller,
        begin: Callable[[int], None] | None = None,
    ):
        super().__init__(env)
        self._base, self._begin = base, begin
        space, action = env.observation_space, env.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        assert isinstance(action, gymnasium.spaces.Box)
        self._size = action.shape[0]
        self.observation_space = gymnasium.spaces.Box(
            np.concatenate([space.low, np.full(self._size, -1.0)]).astype(np.float32),
            np.concatenate([space.high, np.full(self._size, 1.0)]).astype(np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's, seen with the base's action."""
        if self._begin is not None and seed is not None:
            self._begin(seed)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """As the environment's, seen with the base's action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._seen(observation), reward, terminated, truncated, info

    def _seen(self, observation: Any) -> np.ndarray:
        rows = np.asarray(observation, np.float32)[None]
        action, _ = label(self._base, rows, self._size)
        return np.concatenate([rows[0], action[0]])


def with_base(transitions: Mapping[str, Any], base: Controller) -> dict[str, Any]:
    """Transitions as `WithBase` would have recorded them: the base's action ends each observation.

    The actions stay what was done. The base must be a function of the observation alone.
    """
    size = np.asarray(transitions["actions"]).shape[-1]
    out = dict(transitions)
    for name in ("observations", "next_observations"):
        rows = np.asarray(transitions[name], np.float32)
        out[name] = np.concatenate([rows, label(base, rows, size)[0]], axis=-1)
    return out
