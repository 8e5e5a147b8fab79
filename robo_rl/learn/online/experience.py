"""What the online loop learns from: replay of its environments, and the offline rows beside it."""

from typing import Any

import gymnasium
import jax
import numpy as np

from robo_rl.data.replay import ReplayBuffer
from robo_rl.data.streams import Streams
from robo_rl.learn.batches import Transitions, batch_of
from robo_rl.learn.controllers import LABELS
from robo_rl.learn.recipes import Recipe

NO_RETURN = -1e30
"""The return of a row whose episode is not over: as a lower bound it binds nothing."""

_STORED = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
    "episode_id",
)


def buffers(
    spaces: tuple[Any, gymnasium.spaces.Box],
    count: int,
    recipe: Recipe,
    capacity: int,
    offline: Transitions | None,
    needed: tuple[str, ...],
) -> tuple[ReplayBuffer | None, Streams]:
    """The offline rows to mix in, if any, and the replay of E = `count` environments.

    Each environment has a share of `capacity`; so has each of the offline rows that a recipe seeds
    the replay with.
    """
    more = tuple(key for key in needed if key in ("returns", *LABELS))
    rows: dict[str, Any] = {}
    if recipe.needs_offline_data:
        if offline is None:
            raise ValueError("finetune: this recipe needs offline transitions, got none")
        rows = {key: offline[key] for key in (*_STORED, *more)}
        rows["succeeded"] = np.zeros(len(rows["rewards"]), np.float32)
    mixed = ReplayBuffer.from_transitions(rows) if recipe.offline_fraction > 0.0 else None
    if recipe.seed_buffer_with_offline:
        held, each = len(rows["rewards"]), capacity // count
        if held <= capacity:
            each = max(each, -(-held // count))  # the longest block of rows that fit
        return mixed, Streams.from_transitions(rows, count, each)
    action = np.zeros(spaces[1].shape, np.float32)
    example: dict[str, Any] = {
        "observations": spaces[0],
        "actions": action,
        "rewards": np.float32(0.0),
        "next_observations": spaces[0],
        "terminated": False,
        "truncated": False,
        "succeeded": np.float32(0.0),
        **{key: action if key in LABELS else np.float32(0.0) for key in more},
    }
    # Rings of the rollout's length, which one environment fills where all others stand still:
    # what the last update learned from is written over.
    each = recipe.rollout or capacity // count
    return mixed, Streams([ReplayBuffer(each, example) for _ in range(count)])


def mixed_batch(
    rng: np.random.Generator,
    recipe: Recipe,
    discount: float,
    offline: ReplayBuffer | None,
    online: ReplayBuffer | Streams,
    needed: tuple[str, ...] = (),
    short: bool = False,
) -> dict[str, np.ndarray]:
    """utd slices of batch_size rows, each led by its offline share; a slice is a critic step."""
    share = round(recipe.offline_fraction * recipe.batch_size)
    parts: list[dict[str, Any]] = [
        batch_of(
            buffer.sample(
                rng,
                recipe.utd * rows,
                recipe.n_step,
                discount,
                recipe.chunk,
                next_actions="next_actions" in needed,
                short=short and recipe.chunk > 1,
            )
        )
        for buffer, rows in ((offline, share), (online, recipe.batch_size - share))
        if buffer is not None and rows
    ]
    if len(parts) == 1:
        return parts[0]

    def mixed(*each: np.ndarray) -> np.ndarray:
        slices = [value.reshape(recipe.utd, -1, *value.shape[1:]) for value in each]
        rows: np.ndarray = np.concatenate(slices, axis=1).reshape(-1, *each[0].shape[1:])
        return rows

    # Keys that all parts have.
    parts = [{key: part[key] for key in parts[0]} for part in parts]
    batch: dict[str, np.ndarray] = jax.tree.map(mixed, *parts)
    return batch
