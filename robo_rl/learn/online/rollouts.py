"""What a recipe with a rollout learns from: the newest experience, once, in the order of time."""

from typing import Any

import numpy as np

from robo_rl.data.replay import ReplayBuffer
from robo_rl.data.streams import Streams
from robo_rl.learn.batches import ROLLOUT_KEYS, SUPPLIED, batch_of
from robo_rl.learn.contract import Agent, name_of, needs
from robo_rl.learn.controllers import LABELS
from robo_rl.learn.recipes import Recipe


def check_rollout(agent: Agent, recipe: Recipe, env_steps: int, envs: int = 1) -> None:
    """Raise ValueError where agent, recipe, budget and number of environments do not fit."""
    name, needed = name_of(agent), needs(agent)
    if not recipe.rollout and "ends" in needed:
        raise ValueError(
            f"finetune: {name} learns from rollouts; set Recipe.rollout to their length"
        )
    if recipe.offline_rows and "offline" not in needed:
        raise ValueError(
            f"finetune: {name} learns from its own experience only; set Recipe.offline_fraction "
            f"to 0, got {recipe.offline_fraction}"
        )
    if recipe.rollout % envs:
        raise ValueError(
            f"finetune: Recipe.rollout must be a multiple of the {envs} environments, which have "
            f"equal shares of it, got {recipe.rollout}"
        )
    if env_steps < recipe.rollout:
        raise ValueError(
            f"finetune: OnlineLoop.env_steps = {env_steps} ends before the first update, which "
            f"comes after Recipe.rollout = {recipe.rollout} steps; ask for more of them"
        )
    unknown = set(needed) - {*SUPPLIED, *ROLLOUT_KEYS, *LABELS}
    if unknown:
        raise ValueError(
            f"finetune: {name} needs {', '.join(sorted(unknown))}, which experience "
            "does not have; it learns offline only"
        )


def batch(
    rng: np.random.Generator,
    recipe: Recipe,
    discount: float,
    offline: ReplayBuffer | None,
    online: Streams,
    needed: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """The newest `recipe.rollout` rows in the order of time, then the drawn offline rows.

    Those of several environments stand behind one another.
    """
    following = "next_actions" in needed
    parts: list[dict[str, Any]] = [dict(online.take_rollout(recipe.rollout, discount, following))]
    if offline is not None and recipe.offline_rows:
        drawn = offline.sample(rng, recipe.offline_rows, 1, discount, next_actions=following)
        parts.append({**drawn, "ends": np.ones(recipe.offline_rows, np.float32)})
    if "offline" in needed:
        for number, part in enumerate(parts):
            part["offline"] = np.full(len(part["rewards"]), number, np.float32)
    arrays = [batch_of({key: np.asarray(value) for key, value in part.items()}) for part in parts]
    return {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}
