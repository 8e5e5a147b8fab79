"""Who acts in the online loop and how: the policy and its exploration, uniform draws, a teacher.

Nothing random has a state of its own: it is a function of (seed, episode) and (seed, env step).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from robo_rl.learn.contract import Agent, State, setting
from robo_rl.learn.controllers import Controller, Turns, labels
from robo_rl.learn.recipes import Recipe

# 0 and 1 are the environment seeds', 3 that of batches, 6 and 7 those of `teachers.Turns`.
_STREAM_UNIFORM, _STREAM_NOISE, _STREAM_EPISODE_NOISE = 2, 4, 5


class Noise:
    """First-order correlated noise of unit spread on the actions (A,) of one episode."""

    def __init__(self, recipe: Recipe, seed: int, episode: int, size: int):
        self._recipe, self._seed = recipe, seed
        rng = np.random.default_rng([seed, _STREAM_EPISODE_NOISE, episode])
        self._value = rng.normal(size=size)
        self._scale = recipe.noise_std * (rng.uniform(0.0, 2.0) if recipe.noise_varied else 1.0)

    def disturb(self, action: np.ndarray, step: int) -> np.ndarray:
        """The action (A,) with noise on it; the noise then moves on."""
        disturbed = np.clip(action + self._scale * self._value, -1.0, 1.0).astype(np.float32)
        rng = np.random.default_rng([self._seed, _STREAM_NOISE, step])
        kept = self._recipe.noise_smoothing
        fresh = np.sqrt(1.0 - kept**2) * rng.normal(size=action.shape)
        self._value = kept * self._value + fresh
        return disturbed


@dataclasses.dataclass
class LiveEpisode:
    """One that is under way, and what it carries from step to step."""

    env: int
    """Number of the environment that it is in."""
    obs: Any
    noise: Noise
    turns: Turns
    queue: list[np.ndarray] = dataclasses.field(default_factory=list)
    """Actions (A,) of the chunk under way."""
    rewards: list[float] = dataclasses.field(default_factory=list)
    success: bool | None = None
    """None while the environment has not said."""
    terminated: bool = False
    truncated: bool = False


class Behaviour:
    """Actions for E environments: at most one call of the policy and of the teacher a step."""

    def __init__(
        self,
        agent: Agent,
        config: Any,
        recipe: Recipe,
        seed: int,
        size: int,
        count: int,
        teacher: Controller | None,
    ):
        """`size` is A, `count` E."""
        self._agent, self._config, self._recipe = agent, config, recipe
        self._seed, self._size, self._count = seed, size, count
        self._teacher = teacher
        self._key = jax.random.fold_in(jax.random.key(seed), 1)
        self._explore = recipe.noise_std == 0.0  # else the loop's noise explores

    def begin(self, env: int, obs: Any, number: int, step: int) -> LiveEpisode:
        """Episode `number` begins in environment `env` at env step `step`."""
        turns = Turns(self._recipe, self._seed)
        turns.begin(number, step)
        return LiveEpisode(env, obs, Noise(self._recipe, self._seed, number, self._size), turns)

    def taught(self, episodes: Sequence[LiveEpisode]) -> list[dict[str, np.ndarray]]:
        """The teacher's answers (A,) to the observations of episodes, if there is a teacher."""
        if self._teacher is None:
            return [{} for _ in episodes]
        std = setting(self._config, "teacher_std", 1.0)  # agents without it store none
        answers = labels(self._teacher, _stacked(episodes), self._size, std)
        return [{key: value[row] for key, value in answers.items()} for row in range(len(episodes))]

    def actions(
        self,
        state: State,
        episodes: Sequence[LiveEpisode],
        step: int,
        taught: Sequence[Mapping[str, np.ndarray]],
    ) -> list[np.ndarray]:
        """An action (A,) each; that of the first episode is env step `step`, and so on."""
        steps = range(step, step + len(episodes))
        given = [self._given(*each) for each in zip(episodes, steps, taught, strict=True)]
        asked = {
            episode.env: (episode, at)
            for episode, at, action in zip(episodes, steps, given, strict=True)
            if action is None and not episode.queue
        }
        if asked:
            self._ask(state, asked)
        return [
            self._next(episode, at) if action is None else action
            for episode, at, action in zip(episodes, steps, given, strict=True)
        ]

    def _given(
        self, episode: LiveEpisode, step: int, taught: Mapping[str, np.ndarray]
    ) -> np.ndarray | None:
        """The action (A,) of a step that is not the policy's."""
        if taught and episode.turns.teacher_acts(step):
            episode.queue = []
            return taught["teacher_actions"]
        if step < self._recipe.warmup_steps and self._recipe.warmup_actions == "uniform":
            rng = np.random.default_rng([self._seed, _STREAM_UNIFORM, step])
            return rng.uniform(-1.0, 1.0, self._size).astype(np.float32)
        return None

    def _next(self, episode: LiveEpisode, step: int) -> np.ndarray:
        action = episode.queue.pop(0)
        return action if self._explore else episode.noise.disturb(action, step)

    def _ask(self, state: State, asked: Mapping[int, tuple[LiveEpisode, int]]) -> None:
        """Queue the policy's next `recipe.chunk` actions (A,) for the environments that ask."""
        # Always E rows, for one trace; those that nobody asked for repeat another.
        rows = [asked.get(env, next(iter(asked.values()))) for env in range(self._count)]
        steps = np.array([step for _, step in rows], np.int32)
        obs = _stacked([episode for episode, _ in rows])
        answers = np.asarray(
            _act(self._agent, self._config, self._explore, state, obs, self._key, steps)
        )
        shape = (self._recipe.chunk, self._size)
        for env, (episode, step) in asked.items():
            action = answers[env]
            if not np.isfinite(action).all():
                raise FloatingPointError(f"env step {step}: the policy's action is {action}")
            if action.size != math.prod(shape):
                raise ValueError(
                    f"finetune: Recipe.chunk = {shape[0]} asks for {math.prod(shape)} numbers an "
                    f"action, the agent has {action.size}; train it on chunks of that length"
                )
            episode.queue = list(action.reshape(shape))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _act(
    agent: Agent,
    config: Any,
    explore: bool,
    state: State,
    obs: Any,
    key: jax.Array,
    steps: jax.Array,
) -> jax.Array:
    """Actions (E, H * A) for observations (E, O), each with the randomness of its env step (E,)."""

    def act(obs: Any, step: jax.Array) -> jax.Array:
        return agent.act(config, state, obs, jax.random.fold_in(key, step), explore=explore)

    return jax.vmap(act)(obs, steps)


def _stacked(episodes: Sequence[LiveEpisode]) -> Any:
    """Their observations (N, O)."""
    return jax.tree.map(lambda *rows: np.stack(rows), *[episode.obs for episode in episodes])
