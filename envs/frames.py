"""Frame stacks of an environment, as `robo_rl.data.transitions.stack_frames` makes them of data."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import FrameStackObservation, TransformObservation


def stack_frames(env: gymnasium.Env[Any, Any], length: int) -> gymnasium.Env[Any, Any]:
    """`env` whose images (H, W, C) are its last `length` = k frames (H, W, k * C), oldest first.

    At a reset the first frame is repeated. Vectors are those of the last step.
    """
    stacked = FrameStackObservation(env, length)
    single, many = env.observation_space, stacked.observation_space
    if isinstance(single, gymnasium.spaces.Dict):
        assert isinstance(many, gymnasium.spaces.Dict)
        spaces = {name: _space(space, many[name]) for name, space in single.items()}
        return TransformObservation(
            stacked,
            lambda obs: {name: _joined(part) for name, part in obs.items()},
            gymnasium.spaces.Dict(spaces),
        )
    return TransformObservation(stacked, _joined, _space(single, many))


def _joined(parts: np.ndarray) -> np.ndarray:
    """Images (k, H, W, C) to (H, W, k * C), vectors (k, O) to the last."""
    if parts.ndim != 4:
        return np.asarray(parts[-1])
    return np.concatenate(list(parts), axis=-1)


def _space(single: gymnasium.Space[Any], many: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    assert isinstance(many, gymnasium.spaces.Box)
    dtype: Any = single.dtype
    return gymnasium.spaces.Box(_joined(many.low), _joined(many.high), dtype=dtype)
