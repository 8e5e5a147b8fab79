"""What a learner sees of an environment: observations in one order, actions in [-1, 1].

A dataset's and an environment's spaces are read once, before anything is made of them. Vectors of a
Dict become one vector, in the order that the space declares; a bounded Box of actions is scaled to
[-1, 1] and back. What no method here can learn from is refused in one sentence.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.episodes import Arrays

_ACTION_ROUNDING = 1e-5
"""Share of an action's range by which float32 numbers may lie beyond it."""
_IMAGE_CHANNELS = (1, 3, 4)


class SpaceError(ValueError):
    """A space that no method here can learn from, or data that do not fit their space."""


@dataclasses.dataclass(frozen=True)
class Spaces:
    """Observations and actions of an environment, and the way to what a learner reads and gives."""

    observation: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of each part in order; an array that is no Dict is one part called ""."""
    images: tuple[str, ...]
    """Parts that are images (H, W, C) of bytes. With one, a Dict stays a Dict."""
    low: tuple[float, ...]
    """Lower bounds (A,) of the environment's actions."""
    high: tuple[float, ...]
    action_dtype: str = "float32"

    @classmethod
    def of(
        cls,
        observation: gymnasium.Space[Any],
        action: gymnasium.Space[Any],
        where: str = "environment",
    ) -> "Spaces":
        """The spaces of `where`. Raises SpaceError, naming the field and the way out."""
        parts = _parts(observation, where)
        low, high = _bounds(action, where)
        return cls(
            tuple((name, tuple(space.shape)) for name, space in parts.items()),
            tuple(name for name, space in parts.items() if space.dtype == np.uint8),
            tuple(low.tolist()),
            tuple(high.tolist()),
            str(np.dtype(action.dtype)),
        )

    @property
    def flattened(self) -> bool:
        """Whether observations are the vectors of a Dict in one."""
        return self.is_dict and not self.images

    @property
    def is_dict(self) -> bool:
        """Whether the environment shows a Dict."""
        return self.observation[0][0] != ""

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.low)

    @property
    def observation_shape(self) -> tuple[int, ...] | tuple[str, ...]:
        """Shape (O,) or (H, W, C) of what a learner reads, or the names of its parts."""
        if self.flattened:
            return (self.vector_size,)
        if self.is_dict:
            return tuple(name for name, _ in self.observation)
        return self.observation[0][1]

    @property
    def vector_size(self) -> int:
        """Numbers in all parts together."""
        return sum(_size(shape) for _, shape in self.observation)

    @property
    def unit(self) -> bool:
        """Whether actions are in [-1, 1] as they are."""
        return set(self.low) == {-1.0} and set(self.high) == {1.0}

    def read(self, observations: Any) -> Any:
        """What a learner reads of observations, with any leading axes.

        Args:
            observations: an array, or a mapping of arrays; a nested Dict also flat, by "a/b".
        """
        if not self.is_dict:
            return observations if self.images else np.asarray(observations, np.float32)
        flat = _flat(observations)
        missing = [name for name, _ in self.observation if name not in flat]
        if missing:
            raise SpaceError(f"observations lack {', '.join(missing)}; they have {sorted(flat)}")
        if self.images:
            return {name: flat[name] for name, _ in self.observation}
        columns = []
        for name, shape in self.observation:
            array = np.asarray(flat[name], np.float32)
            lead = array.shape[: array.ndim - len(shape)]
            columns.append(array.reshape(*lead, _size(shape)))
        return np.concatenate(columns, axis=-1)

    def to_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., A) of the environment in [-1, 1], float32."""
        if self.unit:
            return np.asarray(actions, np.float32)
        low, high = np.array(self.low), np.array(self.high)
        span = np.where(high > low, high - low, 1.0)
        scaled = 2.0 * (np.asarray(actions, np.float64) - low) / span - 1.0
        scaled = np.where(high > low, scaled, 0.0)
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)

    def from_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., A) in [-1, 1] in the environment's own bounds and type."""
        if self.unit:
            return np.asarray(actions, self.action_dtype)
        low, high = np.array(self.low), np.array(self.high)
        share = (np.asarray(actions, np.float64) + 1.0) / 2.0
        # Not low + share * span: at the ends the bounds come out exactly.
        scaled = low * (1.0 - share) + high * share
        return np.clip(scaled, low, high).astype(self.action_dtype)

    def check_actions(self, actions: np.ndarray, where: str) -> None:
        """Raise SpaceError where actions (N, A) lie outside of their bounds by more than rounding.

        Actions that are not finite are left to the checks that name them.
        """
        low, high = np.array(self.low), np.array(self.high)
        room = _ACTION_ROUNDING * np.maximum(high - low, 1e-12)
        rows = np.asarray(actions, np.float64)
        wrong = ((rows < low - room) | (rows > high + room)).any(axis=-1)
        if wrong.any():
            worst = float(np.nanmax(np.abs(rows[wrong])))
            raise SpaceError(
                f"{where}: {int(wrong.sum())} of {len(rows)} actions lie outside of the action "
                f"space [{_shown(self.low)}, {_shown(self.high)}] (up to {worst:g}, first in row "
                f"{int(np.argmax(wrong))}); write the dataset with the bounds that its actions "
                "have, or in the units of its space"
            )

    def observation_space(self) -> gymnasium.Space[Any]:
        """What a learner reads, as a space."""
        if self.flattened:
            return gymnasium.spaces.Box(-np.inf, np.inf, (self.vector_size,), np.float32)
        parts: dict[str, gymnasium.Space[Any]] = {
            name: self._part(name, shape) for name, shape in self.observation
        }
        return gymnasium.spaces.Dict(parts) if self.is_dict else parts[""]

    def action_space(self) -> gymnasium.spaces.Box:
        """What a learner gives: a box [-1, 1]."""
        return gymnasium.spaces.Box(-1.0, 1.0, (self.action_size,), np.float32)

    def examples(self, count: int) -> Any:
        """`count` observations of zeros, as a learner reads them."""
        space = self.observation_space()
        if isinstance(space, gymnasium.spaces.Dict):
            return {k: np.zeros((count, *s.shape), s.dtype) for k, s in space.spaces.items()}  # type: ignore[misc]
        assert space.shape is not None
        return np.zeros((count, *space.shape), space.dtype)

    def _part(self, name: str, shape: tuple[int, ...]) -> gymnasium.spaces.Box:
        if name in self.images:
            return gymnasium.spaces.Box(0, 255, shape, np.uint8)
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

    def differences(self, other: "Spaces") -> list[str]:
        """How `other` differs in what a policy reads or gives; empty where one fits the other."""
        found = []
        if self.observation != other.observation:
            found.append(
                f"observations {_about(self.observation)} against {_about(other.observation)}"
            )
        if (self.low, self.high) != (other.low, other.high):
            found.append(
                f"actions in [{_shown(self.low)}, {_shown(self.high)}] ({self.action_size} "
                f"numbers) against [{_shown(other.low)}, {_shown(other.high)}] "
                f"({other.action_size})"
            )
        return found


def _parts(space: gymnasium.Space[Any], where: str) -> dict[str, gymnasium.spaces.Box]:
    """Boxes by their names, in the order of the space; nested Dicts by "a/b"."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return {"": _part_of(space, "observations", where)}
    found: dict[str, gymnasium.spaces.Box] = {}
    for name, inner in space.spaces.items():
        if isinstance(inner, gymnasium.spaces.Dict):
            found |= {f"{name}/{key}": box for key, box in _parts(inner, where).items()}
        else:
            found[name] = _part_of(inner, f"observations[{name!r}]", where)
    if not found:
        raise SpaceError(f"{where}: observations are an empty Dict; there is nothing to learn from")
    return found


def _part_of(space: gymnasium.Space[Any], name: str, where: str) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Box):
        raise SpaceError(
            f"{where}: {name} are {space}; methods here read a Box of numbers, an image (H, W, C) "
            "of bytes, or a Dict of such: wrap the environment (gymnasium.wrappers.Flatten"
            "Observation) and record again"
        )
    if space.dtype == np.uint8 and len(space.shape) >= 2:
        return _image(space, name, where)
    if len(space.shape) == 3 and np.dtype(space.dtype).kind == "f":
        raise SpaceError(
            f"{where}: {name} are images of {space.dtype}, {space.shape}; images here are bytes "
            "(uint8, 0 to 255) of shape (H, W, C): convert them and record again"
        )
    if len(space.shape) > 1 or (name == "observations" and not space.shape):
        raise SpaceError(
            f"{where}: {name} have shape {space.shape} of {space.dtype}; methods here read one "
            "vector (O,) or an image (H, W, C) of bytes (uint8): reshape and record again"
        )
    return gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.float32)


def _image(space: gymnasium.spaces.Box, name: str, where: str) -> gymnasium.spaces.Box:
    shape = space.shape
    if len(shape) == 3 and shape[0] in _IMAGE_CHANNELS and shape[2] not in _IMAGE_CHANNELS:
        raise SpaceError(
            f"{where}: {name} have shape {shape}, which looks like channels first; images here are "
            "(height, width, channels): move the first axis to the end and record again"
        )
    if len(shape) != 3 or min(shape[:2]) < 2 or shape[2] > 64 or shape[2] >= max(shape[:2]):
        raise SpaceError(
            f"{where}: {name} are bytes of shape {shape}; images here are (height, width, "
            "channels) of one frame (frames (--frames) stacks them): add the axis of channels, or "
            "flatten what is no image to a vector"
        )
    return space


def _bounds(space: gymnasium.Space[Any], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Low and high (A,) of a bounded Box."""
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        raise SpaceError(
            f"{where}: actions are a {type(space).__name__} ({space}); methods here give one "
            "vector (a bounded Box (A,)): join its parts in a wrapper of the environment and "
            "record again"
        )
    if not isinstance(space, gymnasium.spaces.Box):
        kind = type(space).__name__
        raise SpaceError(
            f"{where}: actions are {kind} ({space}); methods here give a vector of real numbers "
            "(a bounded Box (A,)): use data of a task with continuous actions"
        )
    if len(space.shape) != 1 or not space.shape[0]:
        raise SpaceError(
            f"{where}: actions have shape {space.shape}; methods here give a vector (A,): reshape "
            "the action space to one axis and record again"
        )
    if np.dtype(space.dtype).kind != "f":
        raise SpaceError(
            f"{where}: actions are {space.dtype}; methods here give real numbers: use float32"
        )
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        open_ends = ~(np.isfinite(low) & np.isfinite(high))
        which = ", ".join(str(index) for index in np.flatnonzero(open_ends))
        raise SpaceError(
            f"{where}: actions have no bounds in number {which} ({space}); state them in the "
            "action space (a Box with finite low and high), which are scaled to [-1, 1]"
        )
    return low, high


def _flat(observations: Any) -> dict[str, Any]:
    if not isinstance(observations, Mapping):
        raise SpaceError(f"observations must be a Dict, got {type(observations).__name__}")
    out: dict[str, Any] = {}
    for name, value in observations.items():
        if isinstance(value, Mapping):
            out |= {f"{name}/{key}": inner for key, inner in _flat(value).items()}
        else:
            out[name] = value
    return out


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))


def _about(parts: tuple[tuple[str, tuple[int, ...]], ...]) -> str:
    return ", ".join(f"{name} {shape}".strip() for name, shape in parts)


def _shown(bounds: tuple[float, ...]) -> str:
    if len(set(bounds)) == 1:
        return f"{bounds[0]:g}"
    text = ", ".join(f"{bound:g}" for bound in bounds[:4])
    return f"({text}{', ...' if len(bounds) > 4 else ''})"


def vectors(rows: Mapping[str, Arrays], spaces: Spaces, where: str) -> dict[str, Any]:
    """Transitions as a learner reads them: observations by `Spaces.read`, actions in [-1, 1]."""
    actions = np.asarray(rows["actions"])
    if actions.ndim != 2 or actions.shape[1] != spaces.action_size:
        raise SpaceError(
            f"{where}: actions have rows of {actions.shape[1:]}, their space {spaces.action_size}"
        )
    spaces.check_actions(actions, where)
    out: dict[str, Any] = dict(rows)
    for name in ("observations", "next_observations"):
        out[name] = spaces.read(rows[name])
    out["actions"] = spaces.to_unit(actions)
    return out
