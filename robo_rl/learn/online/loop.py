"""The online loop: one for all recipes, single process, deterministic, exactly resumable.

It collects from E environments side by side: one `gymnasium.Env`, or a `VectorEnv`. Every step of
each of them is one env step, and so many env steps are followed by so many updates, whatever E is.

Nothing random has a state of its own: reset seeds come from (seed, episode), exploration from
(seed, env step), batches from (seed, update). Checkpoints are taken between episodes, where an
environment is its reset seed: it must be a function of `reset(seed=...)` and the actions. So once a
checkpoint is due, environments that end an episode wait until all have, and then begin together: of
every run, resumed or not. A chunk of actions is played open loop; replay holds single steps, and
chunks are drawn from it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.data.returns import monte_carlo_returns
from robo_rl.fields import check_count
from robo_rl.learn import checks, controllers
from robo_rl.learn.batches import ROLLOUT_KEYS, Transitions
from robo_rl.learn.checks import check_observations
from robo_rl.learn.contract import Agent, State, name_of, needs, setting
from robo_rl.learn.controllers import Controller
from robo_rl.learn.monitor import Monitor, NonFiniteLoss, Silent
from robo_rl.learn.online import experience, rollouts
from robo_rl.learn.online.behaviour import Behaviour, LiveEpisode
from robo_rl.learn.online.vector import AnyEnv, StepResult, environments, spaces
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.seeds import training_seed
from robo_rl.learn.supply import supply
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.policies import Learned

_STREAM_BATCH = 3  # for the others see `robo_rl.learn.online.behaviour`


@dataclasses.dataclass(frozen=True)
class OnlineLoop:
    """How long and how often, in environment steps. Reports come at the next episode's end."""

    env_steps: int = 20_000
    capacity: int = 200_000
    """Rows of replay, offline rows included, in equal shares of all environments. A recipe's
    rollout is held besides."""
    log_every: int = 500
    evaluate_every: int = 0
    """0 evaluates at the end only."""
    checkpoint_every: int = 5_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("env_steps", "capacity", "log_every", "checkpoint_every"):
            check_count(f"OnlineLoop.{name}", getattr(self, name))
        for name in ("seed", "evaluate_every"):
            check_count(f"OnlineLoop.{name}", getattr(self, name), 0)


def start_state(
    agent: Agent,
    config: Any,
    recipe: Recipe,
    seed: int,
    example_batch: Batch,
    learned: Learned | None,
) -> State:
    """The first state of a recipe that starts fresh or from what an offline agent learned."""
    checks.check_config(agent, config)
    fresh = recipe.start == "fresh"
    if not fresh and (recipe.start == "continued" or learned is None):
        raise ValueError(f'start_state: recipe.start = "{recipe.start}" needs an offline agent')
    check_observations(agent, example_batch["observations"])
    key = jax.random.key(seed)
    rows = len(example_batch["actions"])
    rollout = {key: jnp.zeros(rows) for key in needs(agent) if key in ROLLOUT_KEYS}
    example_batch = {**rollout, **example_batch}  # of which only shapes are read
    if fresh or learned is None:
        normaliser = None if learned is None else learned.policy.normaliser
        return agent.init(config, key, example_batch, normaliser)
    reset = {"reset": recipe.reset} if recipe.reset else {}
    warm_start = agent.CAPABILITIES.warm_start
    if warm_start is None:
        raise ValueError(
            f"start_state: {name_of(agent)} cannot start from what another agent has learned; "
            'start it "fresh" or "continued"'
        )
    return warm_start(config, key, learned, example_batch, **reset)


def finetune(
    agent: Agent,
    config: Any,
    env: AnyEnv,
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
        env: with a box of actions [-1, 1]; never closed here. A vector environment must have been
            made with autoreset_mode="Disabled".
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
        run.until_an_episode_ends()
        last = run.env_steps >= loop.env_steps
        crossed = functools.partial(_crossed, before, run.env_steps)
        evaluated = evaluate is not None and (last or crossed(loop.evaluate_every))
        saved = last or run.at_rest
        if evaluated or saved or crossed(loop.log_every):
            values = run.report()
            if evaluate is not None and evaluated:
                values |= evaluate(run.state)
            monitor.metrics(run.env_steps, values)
        if saved:
            run.save(monitor)
    return run.state


def _crossed(before: int, after: int, every: int) -> bool:
    return every > 0 and before // every != after // every


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(agent: Agent, config: Any, state: State, batch: Batch) -> tuple[State, Metrics]:
    return agent.update(config, state, batch)


class _Run:
    """What the loop carries from step to step."""

    def __init__(
        self,
        agent: Agent,
        config: Any,
        env: AnyEnv,
        recipe: Recipe,
        loop: OnlineLoop,
        state: State,
        offline: Transitions | None,
        teacher: Controller | None,
    ):
        self._envs = environments(env)
        zeros, actions = spaces(self._envs)
        check_observations(agent, zeros)
        self.agent, self.config = agent, config
        self.recipe, self.loop = recipe, loop
        self.state = jax.tree.map(jnp.copy, state)  # updates donate it; the caller's copy stays
        self.env_steps = self.episodes = self.updates = 0
        self._saved = 0  # the env step of the last checkpoint
        self._under_way: dict[int, LiveEpisode] = {}  # by environment
        self._history: dict[str, list[float]] = {}
        self._needs = needs(agent)
        count = self._envs.count
        rollouts.check_rollout(agent, recipe, loop.env_steps, count)
        controllers.check_teaching(recipe.agent, self._needs, recipe, teacher)
        checks.check_reads(agent, config, state, zeros)
        self._behaviour = Behaviour(
            agent, config, recipe, loop.seed, actions.shape[0], count, teacher
        )
        if offline is not None and recipe.needs_offline_data:
            checks.check_transitions(agent, config, offline, checks.ONLINE)
            checks.check_widths(agent, offline, zeros, actions.shape[0])
            offline = supply(agent, config, offline, teacher)
        self.offline, self.replay = experience.buffers(
            (zeros, actions), count, recipe, loop.capacity, offline, self._needs
        )

    @property
    def at_rest(self) -> bool:
        """Whether a checkpoint is due and all environments have come to wait for it."""
        return self._saving and not self._under_way

    @property
    def _saving(self) -> bool:
        return _crossed(self._saved, self.env_steps, self.loop.checkpoint_every)

    def until_an_episode_ends(self) -> None:
        """Steps of all environments, with their updates, until one episode or the budget ends."""
        over: list[LiveEpisode] = []
        while not over and self.env_steps < self.loop.env_steps:
            self._begin()
            over = [episode for episode in self._step() if episode.terminated or episode.truncated]
        if self.env_steps >= self.loop.env_steps:
            over = [episode for episode in self._under_way.values() if episode.rewards]
        for episode in over:
            self._end(episode)

    def _begin(self) -> None:
        """An episode in every environment that has none, unless a checkpoint is due."""
        if self._saving:
            return
        begun = self.episodes + len(self._under_way)
        free = [env for env in range(self._envs.count) if env not in self._under_way]
        numbers = {env: begun + place for place, env in enumerate(free)}
        if not numbers:
            return
        seeds = {env: training_seed(self.loop.seed, number) for env, number in numbers.items()}
        for env, obs in self._envs.reset(seeds).items():
            self._under_way[env] = self._behaviour.begin(env, obs, numbers[env], self.env_steps)

    def _step(self) -> list[LiveEpisode]:
        """One env step of each episode under way, with the updates that follow."""
        before = self.env_steps
        acting = [self._under_way[env] for env in sorted(self._under_way)]
        acting = acting[: self.loop.env_steps - before]
        taught = self._behaviour.taught(acting)
        actions = self._behaviour.actions(self.state, acting, before, taught)
        asked = {episode.env: action for episode, action in zip(acting, actions, strict=True)}
        outcomes = self._envs.step(asked)
        for episode, labels in zip(acting, taught, strict=True):
            self._add(episode, outcomes[episode.env], labels)
        self.env_steps += len(acting)
        self._learn(before)
        return acting

    def _add(
        self, episode: LiveEpisode, outcome: StepResult, labels: Mapping[str, np.ndarray]
    ) -> None:
        self.replay.add(
            episode.env,
            {
                "observations": episode.obs,
                "actions": outcome.action,
                "rewards": np.float32(outcome.reward),
                "next_observations": outcome.obs,
                "terminated": outcome.terminated,
                "truncated": outcome.truncated,
                "succeeded": np.float32(0.0),
                "returns": np.float32(experience.NO_RETURN),
                **labels,
            },
        )
        episode.obs = outcome.obs
        episode.rewards.append(outcome.reward)
        if outcome.success is not None:
            episode.success = bool(episode.success) or outcome.success
        episode.terminated, episode.truncated = outcome.terminated, outcome.truncated

    def _end(self, episode: LiveEpisode) -> None:
        """Of an episode that is over, or that the budget cuts."""
        del self._under_way[episode.env]
        self.episodes += 1
        buffer = self.replay[episode.env]
        buffer.fill_episode("succeeded", np.float32(bool(episode.success)))
        if "returns" in self._needs and (episode.terminated or episode.truncated):
            buffer.fill_episode("returns", self._returns(episode.rewards, episode.terminated))
        buffer.cut()
        of_it = {"episode_return": sum(episode.rewards), "episode_length": len(episode.rewards)}
        told = {} if episode.success is None else {"episode_success": episode.success}
        self._note({**of_it, **told})

    def _returns(self, rewards: list[float], terminated: bool) -> np.ndarray:
        """Of every step of an episode that is over, (T,), as `supply` takes them."""
        last = np.arange(1, len(rewards) + 1) == len(rewards)
        endless = setting(self.config, "endless_returns", False)
        return monte_carlo_returns(
            np.array(rewards),
            last & terminated,
            last & (not terminated),
            self.config.discount,
            endless=endless,
        )

    def _learn(self, before: int) -> None:
        """The updates that follow the env steps since `before`: as many as after each by itself."""
        recipe = self.recipe
        if recipe.rollout:
            if self.replay.fresh >= recipe.rollout:
                self._one_update(self.config)
            return
        if recipe.wait_for_episode and not self.episodes:
            return
        for step in range(before + 1, self.env_steps + 1):
            if recipe.critic_only_updates and step == max(recipe.warmup_steps, 1):
                frozen = dataclasses.replace(self.config, train_actor=False)
                for _ in range(recipe.critic_only_updates):
                    self._one_update(frozen)
            since = step - recipe.warmup_steps
            if since > 0 and since % recipe.update_every == 0:
                self._one_update(self.config)

    def _one_update(self, config: Any) -> None:
        rng = np.random.default_rng([self.loop.seed, _STREAM_BATCH, self.updates])
        discount = setting(self.config, "discount", 1.0)
        source = rng, self.recipe, discount, self.offline, self.replay, self._needs
        if self.recipe.rollout:
            batch = rollouts.batch(*source)
        else:
            batch = experience.mixed_batch(*source, self.agent.CAPABILITIES.short_chunks)
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
            "buffer_rows": float(len(self.replay)),
        }

    def save(self, monitor: Monitor) -> None:
        """Hand on all that the rest depends on, but for the offline data and the configs."""
        counters = [self.env_steps, self.episodes, self.updates]
        snapshot = {
            "agent": self.state,
            "buffer": self.replay.state_dict(),
            "counters": np.array(counters, np.int64),
        }
        monitor.checkpoint(self.env_steps, snapshot)
        self._saved = self.env_steps

    def load(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self.state = jax.tree.map(jnp.asarray, snapshot["agent"])
        self.replay.load_state_dict(snapshot["buffer"])
        self.env_steps, self.episodes, self.updates = (int(n) for n in snapshot["counters"])
        self._saved = self.env_steps
