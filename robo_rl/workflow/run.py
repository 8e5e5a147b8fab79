"""A run that was trained: its method, its environment, and its state at any checkpoint."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl import agents
from robo_rl.data.minari_io import open_dataset
from robo_rl.data.spaces import Spaces
from robo_rl.envs.registry import EnvSetting
from robo_rl.learn import offline, online
from robo_rl.learn.batches import Transitions, batch_of, readable
from robo_rl.learn.contract import Agent, State
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn import policies
from robo_rl.nn.observations import first
from robo_rl.runs import configs, sessions
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics
from robo_rl.workflow.data_view import DataView, example_rows, spaces_of

SOURCE = "source"
"""Folder in an online run that holds the run it starts from."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory, opened for use. `load_run` makes one."""

    directory: RunDirectory

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> pathlib.Path:
        """Its folder."""
        return self.directory.path

    @property
    def online(self) -> bool:
        """Whether it learned from an environment."""
        return bool(self.directory.config["kind"] == "online")

    @functools.cached_property
    def agent(self) -> Agent:
        """The method."""
        return agents.get(self.directory.config["agent"])

    @functools.cached_property
    def config(self) -> Any:
        """The method's settings."""
        return configs.from_json(self.agent.Config, self.directory.config["agent_config"])

    @functools.cached_property
    def loop(self) -> OfflineLoop | OnlineLoop:
        """Budgets and cadences."""
        stored = self.directory.config["loop"]
        if self.online:
            return configs.from_json(OnlineLoop, stored)
        return configs.from_json(OfflineLoop, stored)

    @functools.cached_property
    def recipe(self) -> Recipe | None:
        """How it went online; None for an offline run."""
        if not self.online:
            return None
        return configs.from_json(Recipe, self.directory.config["recipe"])

    @functools.cached_property
    def view(self) -> DataView | None:
        """The data that it learned from; None where it had none."""
        stored = self.directory.config["data"]
        return None if stored is None else configs.from_json(DataView, stored)

    @functools.cached_property
    def env(self) -> EnvSetting | None:
        """Its environment; None where neither data nor person named one."""
        stored = self.directory.config["env"]
        return None if stored is None else EnvSetting.from_json(stored)

    @functools.cached_property
    def spaces(self) -> Spaces:
        """What its policy reads and gives."""
        stored = self.directory.config.get("spaces")
        if stored is not None:
            return configs.from_json(Spaces, stored)
        assert self.view is not None  # a run of version 0.1, which always had data
        return spaces_of(open_dataset(self.view.dataset, download=True))

    @property
    def frames(self) -> int:
        """How many frames its images are."""
        return int(self.directory.config.get("frames", 1))

    @property
    def chunk(self) -> int:
        """H, the length of the chunks of actions that it has learned."""
        recipe = self.recipe
        if recipe is not None:
            return recipe.chunk
        assert isinstance(self.loop, OfflineLoop)
        return self.loop.chunk

    def transitions(self) -> Transitions:
        """The data that it learned from. Raises DatasetChangedError where they are others now."""
        assert self.view is not None
        return self.view.load(self.spaces, self.directory.config.get("identities"))

    def metrics(self) -> list[dict[str, float]]:
        """What it logged, a dict a report."""
        return read_metrics(self.directory.metrics_path)

    def state(self, step: int | None = None) -> State:
        """The method's state at a checkpoint, of its first seed; the newest by default."""
        state = sessions.load_agent(self.directory, template(self), step)
        if isinstance(self.loop, OfflineLoop) and self.loop.seeds > 1:
            return offline.seed_state(state, 0)
        return state

    def policy(self, step: int | None = None) -> "RunPolicy":
        """Its policy in JAX, for an environment as learners see it."""
        return RunPolicy(self.agent, self.config, self.state(step), self.chunk)


def load_run(path: "str | os.PathLike[str] | Run") -> Run:
    """The run in a folder."""
    return path if isinstance(path, Run) else Run(RunDirectory.open(path))


def template(run: Run) -> State:
    """A state of the structure that the run's checkpoints have. Needs no data."""
    loop = run.loop
    if isinstance(loop, OnlineLoop):
        return first_state(run)
    length = 1 + max(loop.chunk, loop.n_step)
    expert = run.view is not None and bool(run.view.expert)
    rows = example_rows(run.spaces, length, expert)
    return offline.initial_state(run.agent, run.config, rows, loop)


def first_state(run: Run) -> State:
    """The state that an online run begins with."""
    recipe, loop = run.recipe, run.loop
    assert recipe is not None
    learned = None
    if recipe.start != "fresh":
        source = load_run(run.path / SOURCE)
        if recipe.start == "continued":
            return source.state()
        learned = learned_by(source)
    example = example_of(run.spaces, run.frames)
    return online.start_state(run.agent, run.config, recipe, loop.seed, example, learned)


def example_of(spaces: Spaces, frames: int = 1) -> dict[str, Any]:
    """One row of a batch, as agents read it."""
    rows = {key: readable(value) for key, value in batch_of(example_rows(spaces, 1)).items()}
    for key in ("observations", "next_observations"):
        rows[key] = jax.tree.map(
            lambda part: np.tile(part, frames) if part.dtype == np.uint8 else part, rows[key]
        )
    example: dict[str, Any] = jax.tree.map(jnp.asarray, first(rows))
    return example


def learned_by(source: Run) -> policies.Learned:
    """What a run hands on to another agent."""
    hand_on = source.agent.CAPABILITIES.learned
    if hand_on is None:
        able = ", ".join(
            name for name, agent in agents.AGENTS.items() if agent.CAPABILITIES.learned
        )
        raise ValueError(
            f"{source.path}: {source.directory.config['agent']} hands on no policy that another "
            f'agent can start from; use a recipe with start = "continued", or a run of {able}'
        )
    return hand_on(source.config, source.state())


class RunPolicy:
    """A policy in JAX that acts on one observation at a time."""

    def __init__(self, agent: Agent, config: Any, state: State, chunk: int = 1, seed: int = 0):
        self._agent, self._config, self._chunk = agent, config, chunk
        self.state = state
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: what it draws follows from the seed, and no chunk is under way."""
        self._key, self._step = jax.random.key(seed % 2**32), 0
        self._queue: list[np.ndarray] = []

    def act(self, observation: Any) -> np.ndarray:
        """The action (A,) in [-1, 1] for an observation as learners read it."""
        if not self._queue:
            seen = jax.tree.map(np.asarray, readable(observation, lead=0))
            key = jax.random.fold_in(self._key, self._step)
            action = np.asarray(_act(self._agent, self._config, self.state, seen, key))
            self._queue = list(action.reshape(self._chunk, -1))
        self._step += 1
        return self._queue.pop(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _act(agent: Agent, config: Any, state: State, observation: Any, key: jax.Array) -> jax.Array:
    return agent.act(config, state, observation, key)
