"""The online loop: one for all recipes, single process, deterministic, exactly resumable.

Nothing random has a state of its own: reset seeds come from (seed, episode), exploration from
(seed, env step), batches from (seed, update). Checkpoints are taken between episodes, where an
environment is its reset seed: it must be a function of `reset(seed=...)` and the actions. A chunk
of actions is played open loop; the buffer holds single steps, and chunks are drawn from it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.data.replay import ReplayBuffer
from robo_rl.data.returns import monte_carlo_returns
from robo_rl.learn import rollouts, teachers
from robo_rl.learn.contract import (
    ROLLOUT_KEYS,
    Agent,
    State,
    Transitions,
    batch_of,
    check_observations,
    needs,
    readable,
    supply,
)
from robo_rl.learn.monitor import Monitor, NonFiniteLoss, Silent
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.seeds import training_seed
from robo_rl.learn.teachers import LABELS, Controller, Turns, labels
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.policies import Learned

EXECUTED_ACTION = "executed_action"
"""Key of `info` under which an environment says what it did in place of the action asked for."""

_STORED = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
    "episode_id",
)
_NO_RETURN = -1e30
"""The return of a row whose episode is not over: as a lower bound it binds nothing."""
# 0 and 1 are the environment seeds', 6 and 7 those of `teachers.Turns`.
_STREAM_UNIFORM, _STREAM_BATCH, _STREAM_NOISE, _STREAM_EPISODE_NOISE = 2, 3, 4, 5


class OnlineAgent(Agent, Protocol):
    """An agent that can start from what another one has learned."""

    def adopt(self, config: Any, learned: Learned) -> Any:
        """The config with the network shapes of what was learned."""

    def warm_start(
        self, config: Any, key: jax.Array, learned: Learned, example_batch: Batch, **reset: Any
    ) -> State:
        """A state that starts from what was learned."""


@dataclasses.dataclass(frozen=True)
class OnlineLoop:
    """How long and how often, in environment steps. Reports come at the next episode's end."""

    env_steps: int = 20_000
    capacity: int = 200_000
    """Rows of the replay buffer, offline rows included. A recipe's rollout is held besides."""
    log_every: int = 500
    evaluate_every: int = 0
    """0 evaluates at the end only."""
    checkpoint_every: int = 5_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("env_steps", "capacity", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"OnlineLoop.{name} must be >= 1, got {getattr(self, name)}")
        if self.evaluate_every < 0:
            raise ValueError(f"OnlineLoop.evaluate_every must be >= 0, got {self.evaluate_every}")


def start_state(
    agent: OnlineAgent,
    config: Any,
    recipe: Recipe,
    seed: int,
    example_batch: Batch,
    learned: Learned | None,
) -> State:
    """The first state of a recipe that starts fresh or from what an offline agent learned."""
    fresh = recipe.start == "fresh"
    if not fresh and (recipe.start == "continued" or learned is None):
        raise ValueError(f'start_state: recipe.start = "{recipe.start}" needs an offline agent')
    check_observations(agent, example_batch["observations"])
    key = jax.random.key(seed)
    rollout = {key: jnp.zeros(1) for key in needs(agent) if key in ROLLOUT_KEYS}
    example_batch = {**rollout, **example_batch}  # of which only shapes are read
    if fresh or learned is None:
        normaliser = None if learned is None else learned.policy.normaliser
        return agent.init(config, key, example_batch, normaliser)
    reset = {"reset": recipe.reset} if recipe.reset else {}
    return agent.warm_start(config, key, learned, example_batch, **reset)


def finetune(
    agent: Agent,
    config: Any,
    env: gymnasium.Env[Any, Any],
    recipe: Recipe,
    loop: OnlineLoop,
    state: State,
    *,
    offline: Transitions | None = None,
    teacher: Controller | None = None,
    monitor: Monitor | None = None,
    evaluate: Callable[[State], Mapping[str, float]] | None = None,
    snapshot: Mapping[str, Any] | None = None,
) -> State:
    """Run `recipe` on `env` until `loop.env_steps` and return the last state.

    Args:
        agent: whose pure functions are used.
        config: of the agent, as `recipe.configure` returns it.
        env: with a box of actions [-1, 1]; never closed here.
        recipe: the method.
        loop: budgets and cadences.
        state: of the agent at step 0; ignored where `snapshot` is given, except for its structure.
        offline: transitions with `episode_id`, for recipes that need them.
        teacher: labels every state that is visited, and acts as often as the recipe says.
        monitor: gets metrics and snapshots.
        evaluate: numbers to add to the metrics; it must use an environment of its own.
        snapshot: what `monitor.checkpoint` got; the run goes on from there.
    """
    run = _Run(agent, config, env, recipe, loop, state, offline, teacher)
    if snapshot is not None:
        run.load(snapshot)
    monitor = Silent() if monitor is None else monitor
    while run.env_steps < loop.env_steps:
        before = run.env_steps
        run.episode()
        last = run.env_steps >= loop.env_steps
        crossed = functools.partial(_crossed, before, run.env_steps)
        evaluated = evaluate is not None and (last or crossed(loop.evaluate_every))
        saved = last or crossed(loop.checkpoint_every)
        if evaluated or saved or crossed(loop.log_every):
            values = run.report()
            if evaluate is not None and evaluated:
                values |= evaluate(run.state)
            monitor.metrics(run.env_steps, values)
        if saved:
            monitor.checkpoint(run.env_steps, run.snapshot())
    return run.state


def _crossed(before: int, after: int, every: int) -> bool:
    return every > 0 and before // every != after // every


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(agent: Agent, config: Any, state: State, batch: Batch) -> tuple[State, Metrics]:
    return agent.update(config, state, batch)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _act(
    agent: Agent,
    config: Any,
    explore: bool,
    state: State,
    obs: jax.Array,
    key: jax.Array,
    step: jax.Array,
) -> jax.Array:
    return agent.act(config, state, obs, jax.random.fold_in(key, step), explore=explore)


class _Noise:
    """First-order correlated noise of unit spread; a function of (seed, episode, env step)."""

    def __init__(self, recipe: Recipe, seed: int, size: int):
        self._recipe, self._seed = recipe, seed
        self._value = np.zeros(size)
        self._scale = recipe.noise_std

    def begin(self, episode: int) -> None:
        """Draw the episode's first noise and its scale."""
        rng = np.random.default_rng([self._seed, _STREAM_EPISODE_NOISE, episode])
        self._value = rng.normal(size=self._value.shape)
        varied = rng.uniform(0.0, 2.0) if self._recipe.noise_varied else 1.0
        self._scale = self._recipe.noise_std * varied

    def disturb(self, action: np.ndarray, step: int) -> np.ndarray:
        """The action (A,) with noise on it; the noise then moves on."""
        disturbed = np.clip(action + self._scale * self._value, -1.0, 1.0).astype(np.float32)
        rng = np.random.default_rng([self._seed, _STREAM_NOISE, step])
        kept = self._recipe.noise_smoothing
        fresh = np.sqrt(1.0 - kept**2) * rng.normal(size=action.shape)
        self._value = kept * self._value + fresh
        return disturbed


class _Run:
    """What the loop carries from episode to episode."""

    def __init__(
        self,
        agent: Agent,
        config: Any,
        env: gymnasium.Env[Any, Any],
        recipe: Recipe,
        loop: OnlineLoop,
        state: State,
        offline: Transitions | None,
        teacher: Controller | None,
    ):
        spaces = _spaces(env)
        check_observations(agent, spaces[0])
        self._action_shape = spaces[1].shape
        self.agent, self.config, self.env = agent, config, env
        self.recipe, self.loop = recipe, loop
        self.state = jax.tree.map(jnp.copy, state)  # updates donate it; the caller's copy stays
        self.key = jax.random.fold_in(jax.random.key(loop.seed), 1)
        self.env_steps = self.episodes = self.updates = 0
        self._history: dict[str, list[float]] = {}
        self._noise = _Noise(recipe, loop.seed, spaces[1].shape[0])
        self._queue: list[np.ndarray] = []  # actions of the chunk under way
        self._needs = needs(agent)
        rollouts.check(agent, recipe, loop.env_steps)
        teachers.check(recipe.agent, self._needs, recipe, teacher)
        self._teacher, self._turns = teacher, Turns(recipe, loop.seed)
        if offline is not None and recipe.needs_offline_data:
            offline = supply(agent, config, offline, teacher)
        self.offline, self.buffer = _buffers(spaces, recipe, loop, offline, self._needs)

    def episode(self) -> None:
        """One episode, or what is left of the budget, with its updates."""
        obs, _ = self.env.reset(seed=training_seed(self.loop.seed, self.episodes))
        self._noise.begin(self.episodes)
        self._turns.begin(self.episodes, self.env_steps)
        self._queue = []
        rewards: list[float] = []
        success, terminated, ended = False, False, False
        while not ended and self.env_steps < self.loop.env_steps:
            obs, reward, info, terminated, ended = self._step(readable(obs, lead=0))
            rewards.append(reward)
            success |= bool(info.get("success", False))
            self._learn()
        self.episodes += 1
        self.buffer.fill_episode("succeeded", np.float32(success))
        if "returns" in self._needs and ended:
            self.buffer.fill_episode("returns", self._returns(rewards, terminated))
        self.buffer.cut()
        self._note(
            {
                "episode_return": sum(rewards),
                "episode_length": len(rewards),
                "episode_success": success,
            }
        )

    def _returns(self, rewards: list[float], terminated: bool) -> np.ndarray:
        """Of every step of an episode that is over, (T,), as `contract.supply` takes them."""
        last = np.arange(1, len(rewards) + 1) == len(rewards)
        endless = getattr(self.config, "endless_returns", False)
        return monte_carlo_returns(
            np.array(rewards),
            last & terminated,
            last & (not terminated),
            self.config.discount,
            endless=endless,
        )

    def _step(self, obs: Any) -> tuple[Any, float, Mapping[str, Any], bool, bool]:
        taught = self._taught(obs)
        action = self._action(obs, taught)
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        self.buffer.add(
            {
                "observations": obs,
                # What was done is what is learned from, not what was asked for.
                "actions": np.asarray(info.get(EXECUTED_ACTION, action), np.float32),
                "rewards": np.float32(reward),
                "next_observations": readable(next_obs, lead=0),
                "terminated": bool(terminated),
                "truncated": bool(truncated),
                "succeeded": np.float32(0.0),
                "returns": np.float32(_NO_RETURN),
                **taught,
            }
        )
        self.env_steps += 1
        ended = bool(terminated or truncated)
        return next_obs, float(reward), info, bool(terminated), ended

    def _taught(self, obs: Any) -> dict[str, np.ndarray]:
        """The teacher's answer to one observation (O,), if there is a teacher."""
        if self._teacher is None:
            return {}
        std = getattr(self.config, "teacher_std", 1.0)  # agents without it store none
        answer = labels(self._teacher, obs[None], self._action_shape[0], std)
        return {key: value[0] for key, value in answer.items()}

    def _action(self, obs: Any, taught: Mapping[str, np.ndarray]) -> np.ndarray:
        step = self.env_steps
        if taught and self._turns.teacher_acts(step):
            self._queue = []
            return taught["teacher_actions"]
        if step < self.recipe.warmup_steps and self.recipe.warmup_actions == "uniform":
            rng = np.random.default_rng([self.loop.seed, _STREAM_UNIFORM, step])
            return rng.uniform(-1.0, 1.0, self._action_shape).astype(np.float32)
        explore = self.recipe.noise_std == 0.0
        if not self._queue:
            self._queue = self._chunk(obs, explore)
        action = self._queue.pop(0)
        return action if explore else self._noise.disturb(action, step)

    def _chunk(self, obs: Any, explore: bool) -> list[np.ndarray]:
        """The policy's next `recipe.chunk` actions (A,)."""
        step, shape = self.env_steps, (self.recipe.chunk, *self._action_shape)
        action = np.asarray(
            _act(self.agent, self.config, explore, self.state, obs, self.key, jnp.asarray(step))
        )
        if not np.isfinite(action).all():
            raise FloatingPointError(f"env step {step}: the policy's action is {action}")
        if action.size != math.prod(shape):
            raise ValueError(
                f"finetune: Recipe.chunk = {shape[0]} asks for {math.prod(shape)} numbers an "
                f"action, the agent has {action.size}; train it on chunks of that length"
            )
        return list(action.reshape(shape))

    def _learn(self) -> None:
        since = self.env_steps - self.recipe.warmup_steps
        if self.recipe.critic_only_updates and self.env_steps == max(self.recipe.warmup_steps, 1):
            frozen = dataclasses.replace(self.config, train_actor=False)
            for _ in range(self.recipe.critic_only_updates):
                self._one_update(frozen)
        every = self.recipe.rollout or self.recipe.update_every
        if since > 0 and since % every == 0:
            self._one_update(self.config)

    def _one_update(self, config: Any) -> None:
        rng = np.random.default_rng([self.loop.seed, _STREAM_BATCH, self.updates])
        rows = rollouts.batch if self.recipe.rollout else mixed_batch
        discount = getattr(self.config, "discount", 1.0)
        batch = rows(rng, self.recipe, discount, self.offline, self.buffer, self._needs)
        self.state, metrics = _update(self.agent, config, self.state, batch)
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        wrong = sorted(name for name, value in values.items() if not np.isfinite(value))
        if wrong:
            raise NonFiniteLoss(self.updates, wrong, np.arange(len(batch["rewards"])), batch)
        self.updates += 1
        self._note(values)

    def _note(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._history.setdefault(name, []).append(float(value))

    def report(self) -> dict[str, float]:
        """Means since the last report, and the counters."""
        means = {name: float(np.mean(values)) for name, values in sorted(self._history.items())}
        self._history = {}
        return {
            **means,
            "episodes": float(self.episodes),
            "updates": float(self.updates),
            "buffer_rows": float(len(self.buffer)),
        }

    def snapshot(self) -> dict[str, Any]:
        """All that the rest of the run depends on, but for the offline data and the configs."""
        counters = [self.env_steps, self.episodes, self.updates]
        return {
            "agent": self.state,
            "buffer": self.buffer.state_dict(),
            "counters": np.array(counters, np.int64),
        }

    def load(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self.state = jax.tree.map(jnp.asarray, snapshot["agent"])
        self.buffer.load_state_dict(snapshot["buffer"])
        self.env_steps, self.episodes, self.updates = (int(n) for n in snapshot["counters"])


def mixed_batch(
    rng: np.random.Generator,
    recipe: Recipe,
    discount: float,
    offline: ReplayBuffer | None,
    online: ReplayBuffer,
    needed: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """utd slices of batch_size rows, each led by its offline share; a slice is a critic step."""
    share = round(recipe.offline_fraction * recipe.batch_size)
    parts = []
    for buffer, rows in ((offline, share), (online, recipe.batch_size - share)):
        if buffer is not None and rows:
            drawn = buffer.sample(
                rng,
                recipe.utd * rows,
                recipe.n_step,
                discount,
                recipe.chunk,
                next_actions="next_actions" in needed,
            )
            arrays = batch_of(drawn)
            parts.append(
                jax.tree.map(lambda v, n=rows: v.reshape(recipe.utd, n, *v.shape[1:]), arrays)
            )
    # Keys that all parts have.
    parts = [{key: part[key] for key in parts[0]} for part in parts]
    mixed: dict[str, np.ndarray] = jax.tree.map(
        lambda *each: np.concatenate(each, axis=1).reshape(-1, *each[0].shape[2:]), *parts
    )
    return mixed


def _buffers(
    spaces: tuple[Any, gymnasium.spaces.Box],
    recipe: Recipe,
    loop: OnlineLoop,
    offline: Transitions | None,
    needed: tuple[str, ...],
) -> tuple[ReplayBuffer | None, ReplayBuffer]:
    """The offline rows to mix in, if any, and the replay buffer."""
    more = tuple(key for key in needed if key in ("returns", *LABELS))
    rows: dict[str, Any] = {}
    if recipe.needs_offline_data:
        if offline is None:
            raise ValueError("finetune: this recipe needs offline transitions, got none")
        rows = {key: offline[key] for key in (*_STORED, *more)}
        rows["succeeded"] = np.zeros(len(rows["rewards"]), np.float32)
    mixed = ReplayBuffer.from_transitions(rows) if recipe.offline_fraction > 0.0 else None
    if recipe.seed_buffer_with_offline:
        return mixed, ReplayBuffer.from_transitions(rows, loop.capacity)
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
    # A ring of the rollout's length: what the last update learned from is written over.
    return mixed, ReplayBuffer(recipe.rollout or loop.capacity, example)


def _spaces(env: gymnasium.Env[Any, Any]) -> tuple[Any, gymnasium.spaces.Box]:
    """An observation of zeros, as agents read it, and the action space; both checked."""
    observation, action = env.observation_space, env.action_space
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
