"""Learning offline: a dataset becomes a run."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from robo_rl import agents, counts
from robo_rl.data.minari_io import Dataset, open_dataset
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.fields import check_switch
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline
from robo_rl.learn.batches import Transitions
from robo_rl.learn.checks import check_observations, check_offline
from robo_rl.learn.contract import Agent, State, needs
from robo_rl.learn.offline import OfflineLoop
from robo_rl.runs import configs, samples
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.sessions import Progress, Session
from robo_rl.workflow import environment, settings, suites
from robo_rl.workflow import teacher as teaching
from robo_rl.workflow.data_view import DataView, name_of, return_range, spaces_of
from robo_rl.workflow.run import Run, RunPolicy

_SHOWN = (
    "success",
    "return",
    "episode_success",
    "episode_return",
    "actor_loss",
    "critic_loss",
    "loss",
    "q",
)


@dataclasses.dataclass(frozen=True)
class Home:
    """Where a policy is at home: what travels with a run and its exports."""

    env: EnvSetting | None
    spaces: Spaces
    rate_hz: float | None = None
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """`ref_min_score` and `ref_max_score` of the dataset, for the normalised score."""
    frames: int = 1

    def to_json(self) -> dict[str, Any]:
        """Its part of a run's configuration."""
        return {
            "env": None if self.env is None else self.env.to_json(),
            "spaces": configs.to_json(self.spaces),
            "rate_hz": self.rate_hz,
            "references": dict(self.references),
            "frames": self.frames,
        }


def train(
    dataset: str | os.PathLike[str] | Dataset,
    agent: str | Agent = "bc",
    *,
    steps: int = 20_000,
    config: Any = None,
    option: settings.Options = (),
    batch_size: int = 256,
    n_step: int = 1,
    chunk: int = 1,
    frames: int = 1,
    seeds: int = 1,
    seed: int = 0,
    env: str | EnvSetting | None = None,
    max_episode_steps: int | None = None,
    reward_scale: float | str | None = None,
    reward_shift: float | None = None,
    normalise: bool | None = None,
    evaluate_every: int = 0,
    evaluation_episodes: int = 10,
    expert: str | os.PathLike[str] | Dataset = "",
    teacher: str | os.PathLike[str] | None = None,
    keep: int = 4,
    out: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Train a policy from a dataset, in a run directory of its own. Shows a progress bar.

    Args:
        dataset: Minari id, path or opened dataset.
        agent: method, see `robo_rl.agents.AGENTS`; its module is as good as its name.
        steps: gradient steps.
        config: the method's settings, an `agents.get(agent).Config`; `option` changes some.
        option: settings as "name=value", one or several, or as a dict.
        batch_size: rows of one gradient step, or of one critic step where an update has several.
        n_step: steps of reward before the bootstrap.
        chunk: learn and play chunks of so many actions.
        frames: images become the last so many frames.
        seeds: trained side by side in one vmap, from `seed` on.
        seed: the first seed.
        env: environment of the policy, where the dataset names none or another is meant.
        max_episode_steps: its step limit, where its own is not meant.
        reward_scale: factor on rewards, or "return-range": 1000 / range of the data's returns.
            None: what the method's paper does in this suite, see `workflow.suites`.
        reward_shift: added to rewards after that.
        normalise: standardise observations; None as for `reward_scale`.
        evaluate_every: evaluate every so many steps; 0: never.
        evaluation_episodes: of each evaluation, in this process.
        expert: a second dataset, of an expert to imitate.
        teacher: exported policy, for a method that learns from one.
        keep: the newest checkpoints that stay.
        out: run directory; None: runs/AGENT-DATASET.
        say: told of every default that was chosen.

    Raises ValueError, before a folder is made, where dataset, method and environment do not fit.
    """
    counts.check(
        steps=steps,
        batch_size=batch_size,
        n_step=n_step,
        chunk=chunk,
        frames=frames,
        seeds=seeds,
        seed=seed,
        evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes,
        keep=keep,
    )
    if normalise is not None:
        check_switch("normalise (--normalise)", normalise)
    agent = agents.called(agent)
    module = agents.get(agent)
    check_offline(module)
    _check_expert(agent, module, expert)
    teacher_folder = None if teacher is None else pathlib.Path(teacher)
    teaching.check_teacher(module, teacher_folder)
    made = module.Config() if config is None else _own(agent, module, config)
    made = settings.with_options(made, option)
    opened = open_dataset(dataset, download=True)
    home, origin = home_of(opened, env, max_episode_steps, frames)
    chosen = _scales(agent, home.env, reward_scale, reward_shift, normalise)
    view = DataView(
        name_of(opened) if isinstance(dataset, Dataset) else str(dataset),
        reward_offset=origin.reward_offset,
        reward_scale=_number(chosen.scale, opened),
        reward_shift=chosen.shift,
        expert=name_of(expert) if isinstance(expert, Dataset) else str(expert),
    )
    every = _log_every(steps, evaluate_every)
    loop = OfflineLoop(
        steps=steps,
        batch_size=batch_size,
        log_every=every,
        checkpoint_every=every * math.ceil(5_000 / every),
        evaluate_every=evaluate_every,
        seed=seed,
        seeds=seeds,
        n_step=n_step,
        chunk=chunk,
        frames=frames,
        normalise=chosen.normalise,
    )
    check_learnable(module, home.spaces, teacher_folder)
    rows = view.load(home.spaces)
    offline.check(module, made, rows, loop)
    if evaluate_every and home.env is None:
        raise EnvError(
            f"evaluate_every (--evaluate-every): {origin.problem}; name one with env (--env)"
        )
    if say is not None:
        _tell(say, agent, home, origin, chosen, view)
    folder = pathlib.Path("runs") / f"{slug(agent)}-{slug(view.dataset)}" if out is None else out
    return start_offline(
        folder,
        agent,
        made,
        view,
        loop,
        home,
        teacher=teacher_folder,
        keep=keep,
        evaluation_episodes=evaluation_episodes,
        rows=rows,
    )


def home_of(
    dataset: Dataset,
    env: str | EnvSetting | None = None,
    max_episode_steps: int | None = None,
    frames: int = 1,
) -> tuple[Home, environment.Origin]:
    """Where a policy from this data is at home, and what the data say of it.

    Raises SpaceError for spaces that no method can learn from, and EnvError where the named
    environment does not show what the data show.
    """
    spaces = spaces_of(dataset)
    origin = environment.origin(dataset)
    setting = origin.setting
    if env is not None:
        setting = environment.named(env, max_episode_steps)
        if origin.setting is None or setting.id != origin.setting.id:
            origin = environment.Origin(setting)
    elif setting is not None and max_episode_steps is not None:
        setting = environment.named(setting, max_episode_steps)
    if setting is not None:
        problem = _misfit(setting, spaces, dataset)
        if problem and env is not None:
            raise EnvError(problem)
        if problem:
            setting, origin = None, environment.Origin(None, origin.reward_offset, problem)
    references = {
        name: float(dataset.metadata[name])
        for name in ("ref_min_score", "ref_max_score")
        if isinstance(dataset.metadata.get(name), (int, float))
    }
    rate = environment.rate_hz(setting, dataset)
    return Home(setting, spaces, rate, references, frames), origin


def _misfit(setting: EnvSetting, spaces: Spaces, dataset: Dataset) -> str:
    """Why the data's policy does not fit an environment; empty where it does."""
    try:
        registry.check_fits(setting, spaces, f"dataset {dataset.id}")
    except ValueError as error:
        return str(error)
    return ""


def check_learnable(agent: Any, spaces: Spaces, teacher: pathlib.Path | None = None) -> None:
    """Raise ValueError where the method, or its teacher, cannot read these spaces."""
    check_observations(agent, spaces.examples(1))
    if teacher is not None:
        teaching.check_size(teacher, spaces.observation_shape, (spaces.action_size,))  # type: ignore[arg-type]


def _check_expert(name: str, agent: Agent, expert: Any) -> None:
    """Raise ValueError for an expert's data that the method would take for its own."""
    if expert and "expert" not in needs(agent):
        able = ", ".join(n for n, other in agents.AGENTS.items() if "expert" in needs(other))
        raise ValueError(f"expert (--expert): {name} imitates no expert; {able} does")


def _own(name: str, agent: Any, config: Any) -> Any:
    if not isinstance(config, agent.Config):
        raise ValueError(
            f"train: the config of {name} is a {agent.Config.__module__}.Config, got "
            f"{type(config).__module__}.{type(config).__name__}"
        )
    return config


def _scales(
    agent: str,
    setting: EnvSetting | None,
    scale: float | str | None,
    shift: float | None,
    normalise: bool | None,
) -> suites.Scales:
    """The paper's, with what a person chose; a chosen scale or shift replaces both."""
    chosen = suites.scales(agent, setting)
    if scale is not None or shift is not None:
        chosen = dataclasses.replace(
            chosen,
            scale=1.0 if scale is None else scale,
            shift=0.0 if shift is None else shift,
            source="as asked for",
        )
    return chosen if normalise is None else dataclasses.replace(chosen, normalise=normalise)


def _number(scale: float | str, dataset: Dataset) -> float:
    if scale == suites.RETURN_RANGE:
        return 1000.0 / return_range(dataset)
    try:
        number = float(scale)
    except ValueError as error:
        raise ValueError(
            f"reward_scale (--reward-scale): expected a number or {suites.RETURN_RANGE}, got "
            f"{scale!r}"
        ) from error
    if not (math.isfinite(number) and number != 0.0):
        raise ValueError(f"reward_scale (--reward-scale) must be finite and not 0, got {scale}")
    return number


def _log_every(steps: int, evaluate_every: int) -> int:
    """About 500 steps, and a divisor of `evaluate_every`."""
    if not evaluate_every:
        return min(500, steps)
    # No sooner than every 100 steps, unless all is as short: a report takes its time.
    whole = [n for n in range(100, min(2_000, steps) + 1) if evaluate_every % n == 0]
    return min(whole, key=lambda n: abs(n - 500), default=evaluate_every)


def _tell(
    say: Callable[[str], None],
    agent: str,
    home: Home,
    origin: environment.Origin,
    chosen: suites.Scales,
    view: DataView,
) -> None:
    if home.env is None:
        say(
            f"no environment: {origin.problem or 'the data name none'}. The run trains; eval and "
            "finetune need env (--env)"
        )
    else:
        say(f"environment {home.env.id}")
    say(
        f"rewards {view.reward_scale:.6g} * r {view.reward_shift:+g}, observations "
        f"{'standardised' if chosen.normalise else 'as they are'} ({agent}: {chosen.source})"
    )
    if not home.spaces.unit:
        say("actions are scaled to [-1, 1] and back")
    if home.spaces.flattened:
        names = ", ".join(name for name, _ in home.spaces.observation)
        say(f"observations are one vector of {names}, in this order")


def start_offline(
    out: str | os.PathLike[str],
    agent_name: str,
    agent_config: Any,
    view: DataView,
    loop: OfflineLoop,
    home: Home,
    *,
    teacher: pathlib.Path | None = None,
    keep: int = 2,
    evaluation_episodes: int = 10,
    rows: Transitions | None = None,
) -> Run:
    """Make the run directory of an offline run, with a copy of its teacher, and train in it.

    It keeps `keep` checkpoints. `rows` are what `view` loads, where they are at hand.
    """
    if rows is None:
        rows = view.load(home.spaces)

    def fill(folder: pathlib.Path) -> None:
        teaching.keep(folder, teacher)
        samples.keep(folder, rows)

    directory = RunDirectory.create(
        out,
        {
            "kind": "offline",
            "keep": keep,
            "agent": agents.describe(agent_name),
            "agent_config": configs.to_json(agent_config),
            "loop": configs.to_json(loop),
            "data": configs.to_json(view),
            "identities": view.identities(),
            "evaluation_episodes": evaluation_episodes,
            **home.to_json(),
            **teaching.digest(teacher),
        },
        fill=fill,
    )
    run = Run(directory)
    run_offline(run, rows=rows)
    return run


def run_offline(
    run: Run,
    resume: bool = False,
    fallback: bool = False,
    rows: Transitions | None = None,
) -> None:
    """Train, or go on training, in a run directory."""
    view, loop = run.view, run.loop
    assert view is not None
    assert isinstance(loop, OfflineLoop)
    run.directory.claim()  # before data are read, and a bar is drawn
    title = f"train {run.directory.config['agent']}"
    with (
        tqdm(total=loop.steps, desc=title, unit="update") as bar,
        Session(run.directory, progress(bar), (view.dataset,)) as session,
    ):
        if rows is None:
            rows = run.transitions()
        start = None
        if resume:
            template = offline.initial_state(run.agent, run.config, rows, loop)
            start = session.newest(template, fallback=fallback)
        offline.train(
            run.agent,
            run.config,
            rows,
            loop,
            teacher=teaching.of(run.directory),
            monitor=session,
            evaluate=evaluation_of(run) if loop.evaluate_every else None,
            start=start,
        )


def evaluation_of(run: Run) -> Callable[[State], Mapping[str, float]]:
    """Success and return of a state in the run's environment, on seeds that training never sees.

    Of several seeds, the first one's policy is judged.
    """
    assert run.env is not None
    env = environment.learner_env(run.env, run.spaces, frames=run.frames)
    many = isinstance(run.loop, OfflineLoop) and run.loop.seeds > 1
    seeds = evaluation_seeds(run.loop.seed, run.directory.config.get("evaluation_episodes", 10))
    chunk = run.chunk

    def measure(state: State) -> Mapping[str, float]:
        policy = RunPolicy(
            run.agent, run.config, offline.seed_state(state, 0) if many else state, chunk
        )
        return evaluate(env, policy.act, seeds, begin=policy.reset).summary()

    return measure


def progress(bar: "tqdm[Any]") -> Progress:
    """Moves the bar, and shows up to three metrics beside it."""

    def advance(step: int, values: Mapping[str, float]) -> None:
        bar.update(step - bar.n)
        shown = [name for name in _SHOWN if name in values][:3]
        bar.set_postfix_str(", ".join(f"{name} {values[name]:.3g}" for name in shown))

    return advance


def slug(name: str) -> str:
    """A name as a part of a folder's name."""
    stem = pathlib.PurePath(name).name.partition(".py")[0] if ".py" in name else name
    return stem.replace("/", "-").replace(":", "-")
