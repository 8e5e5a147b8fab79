"""Learning online: from a run, or from nothing, in an environment."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from robo_rl import agents, counts
from robo_rl.data.minari_io import Dataset, open_dataset
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.learn import online, recipes
from robo_rl.learn.contract import Agent
from robo_rl.learn.contract import name_of as agent_name
from robo_rl.learn.online import OnlineLoop, rollouts
from robo_rl.learn.recipes import Recipe
from robo_rl.runs import configs, samples
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.sessions import Session, online_template
from robo_rl.workflow import environment, methods, vector_envs
from robo_rl.workflow import teacher as teaching
from robo_rl.workflow import train as training
from robo_rl.workflow.data_view import DataView, name_of
from robo_rl.workflow.run import SOURCE, Run, first_state, learned_by, load_run
from robo_rl.workflow.settings import Options, texts
from robo_rl.workflow.train import Home, check_learnable, evaluation_of, progress, slug

FROM_NOTHING = ("sac", "ppo")
"""Agents with a recipe of the same name that starts fresh."""


def finetune(
    source: "str | os.PathLike[str] | Run",
    recipe: str = "residual",
    *,
    steps: int = 20_000,
    env: str | EnvSetting | None = None,
    max_episode_steps: int | None = None,
    gap: float = 0.0,
    envs: int = 1,
    seed: int = 0,
    teacher: str | os.PathLike[str] | None = None,
    option: Options = (),
    evaluate_every: int = 0,
    evaluation_episodes: int = 10,
    out: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Go on learning online from a run, in a run directory of its own. Shows a progress bar.

    Args:
        source: the run to start from.
        recipe: how to go online, see `robo_rl.learn.recipes.RECIPES`.
        steps: environment steps, over all environments.
        env: where; None is the environment of the run.
        max_episode_steps: its step limit, where its own is not meant.
        gap: strength of the domain gap of the simulated arm; 0 is the clean one.
        envs: environments side by side, each in a process of its own if several.
        seed: everything random follows from it.
        teacher: exported policy, for a recipe with a teacher.
        option: settings of the recipe or of its agent, as `train` takes them.
        evaluate_every: evaluate every so many steps; 0: never.
        evaluation_episodes: of each evaluation.
        out: run directory; None: the source's name with the recipe's behind it.
        say: told of the plan.

    Raises ValueError, before a folder is made, where run, recipe and environment do not fit.
    """
    counts.check(
        steps=steps,
        envs=envs,
        seed=seed,
        evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes,
    )
    run = load_run(source)
    planned = recipes.get(recipe)
    if not planned.agent:
        planned = dataclasses.replace(planned, agent=run.directory.config["agent"])
    agent = agents.get(planned.agent)
    planned, _ = methods.tuned(planned, agent.Config(), texts(option))
    teacher_folder = None if teacher is None else pathlib.Path(teacher)
    _check_plan(agent, planned, recipe, steps, envs, teacher_folder)
    config = adopted(agent, planned, run, texts(option))
    check_learnable(agent, run.spaces, teacher_folder)
    setting = environment.with_gap(_env_of(run, env, max_episode_steps), gap)
    registry.check_fits(setting, run.spaces, f"run {run.path}")
    view = None if run.view is None else dataclasses.replace(run.view, successful_only=False)
    if planned.needs_offline_data and view is None:
        raise ValueError(f"recipe {recipe} reads offline data, and {run.path} learned from none")
    folder = out or run.path.with_name(f"{run.path.name}-{slug(recipe)}")
    loop = planned_loop(planned, view, run.spaces, steps, seed, evaluate_every)
    home = dataclasses.replace(training_home(run), env=setting)
    _tell(say, recipe, planned, setting, steps)
    return start_online(
        folder,
        run,
        planned,
        config,
        loop,
        home,
        view,
        teacher_folder,
        envs,
        evaluation_episodes=evaluation_episodes,
    )


def learn_online(
    env: str | EnvSetting,
    agent: str | Agent | None = None,
    *,
    recipe: str | None = None,
    dataset: str | os.PathLike[str] | Dataset | None = None,
    steps: int = 20_000,
    max_episode_steps: int | None = None,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    envs: int = 1,
    seed: int = 0,
    option: Options = (),
    evaluate_every: int = 0,
    evaluation_episodes: int = 10,
    keep: int = 2,
    out: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Learn online from nothing in an environment. Shows a progress bar.

    Args:
        env: Gymnasium id or setting.
        agent: method, where no recipe is named: sac, which is the default, ppo, or one of one's
            own, which collects and updates as sac does; by name, file or as a module.
        recipe: one with start = "fresh", such as rlpd, which reads a dataset too.
        dataset: offline data for a recipe that reads some.
        steps: environment steps, over all environments.
        max_episode_steps: step limit, where the environment's own is not meant.
        reward_scale: factor on rewards.
        reward_shift: added after that.
        envs: environments side by side.
        seed: everything random follows from it.
        option: settings of the recipe or of its agent, as `train` takes them.
        evaluate_every: evaluate every so many steps; 0: never.
        evaluation_episodes: of each evaluation.
        keep: the newest checkpoints that stay, one every 5,000 steps.
        out: run directory; None: runs/RECIPE-ENVIRONMENT.
        say: told of the plan.
    """
    counts.check(
        steps=steps,
        envs=envs,
        seed=seed,
        evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes,
        keep=keep,
    )
    name, planned = _from_nothing(None if agent is None else agents.called(agent), recipe)
    module = agents.get(planned.agent)
    planned, config = methods.tuned(planned, module.Config(), texts(option))
    _check_plan(module, planned, name, steps, envs, None)
    setting = environment.named(env, max_episode_steps)
    spaces = registry.spaces_of(setting)
    check_learnable(module, spaces)
    view = None
    if planned.needs_offline_data:
        if dataset is None:
            raise ValueError(f"recipe {name} reads offline data: name a dataset")
        opened = open_dataset(dataset, download=True)
        home, origin = training.home_of(opened, setting)
        spaces = home.spaces
        view = DataView(name_of(opened), reward_offset=origin.reward_offset)
        view = dataclasses.replace(view, reward_scale=reward_scale, reward_shift=reward_shift)
    elif dataset is not None:
        raise ValueError(f"recipe {name} reads no dataset; rlpd does")
    home = Home(setting, spaces, environment.rate_hz(setting))
    loop = planned_loop(planned, view, spaces, steps, seed, evaluate_every)
    folder = out or pathlib.Path("runs") / f"{slug(name)}-{slug(setting.id)}"
    _tell(say, name, planned, setting, steps)
    return start_online(
        folder,
        None,
        planned,
        planned.configure(config),
        loop,
        home,
        view,
        envs=envs,
        evaluation_episodes=evaluation_episodes,
        reward=(reward_scale, reward_shift),
        keep=keep,
    )


def _from_nothing(agent: str | None, recipe: str | None) -> tuple[str, Recipe]:
    """What the plan is called, and the plan."""
    if recipe is not None:
        planned = recipes.get(recipe)
        if planned.start != "fresh":
            raise ValueError(
                f"recipe {recipe} starts from a run: robo-rl finetune RUN --recipe {recipe}"
            )
        if agent not in (None, planned.agent):
            raise ValueError(f"recipe {recipe} is one of agent {planned.agent}, not of {agent}")
        return recipe, planned
    if agent is None or agent in FROM_NOTHING:
        return agent or "sac", recipes.get(agent or "sac")
    if agent in agents.AGENTS:
        raise ValueError(
            f"{agent} does not learn from nothing; {', '.join(FROM_NOTHING)} do, or name a recipe"
        )
    own = dataclasses.replace(recipes.get("sac"), agent=agents.describe(agent))
    return agent_name(agents.get(agent)), own


def _tell(
    say: Callable[[str], None] | None, name: str, recipe: Recipe, setting: EnvSetting, steps: int
) -> None:
    """What comes in which order, so that a long quiet part is no surprise."""
    if say is None:
        return
    parts = [f"{name} in {setting.id}: {steps:,} steps"]
    if recipe.warmup_steps:
        parts.append(f"the first {recipe.warmup_steps:,} without an update")
    if recipe.critic_only_updates:
        parts.append(f"then {recipe.critic_only_updates:,} updates of the critics alone")
    if recipe.rollout:
        parts.append(f"an update every {recipe.rollout:,}")
    say(", ".join(parts))
    if recipe.warmup_steps >= steps:
        say(f"nothing is learned: the recipe begins after {recipe.warmup_steps:,} steps")


def training_home(run: Run) -> Home:
    """Where a run's policy is at home."""
    config = run.directory.config
    return Home(
        run.env, run.spaces, config.get("rate_hz"), config.get("references", {}), run.frames
    )


def _check_plan(
    agent: Any,
    recipe: Recipe,
    name: str,
    steps: int,
    envs: int,
    teacher: pathlib.Path | None,
) -> None:
    rollouts.check_rollout(agent, recipe, steps, envs)
    teaching.check_teacher(agent, teacher, recipe)
    if dict(recipe.options).get("base_in_observation"):
        raise ValueError(
            f"recipe {name} stands on a controller in Python (robo_rl.learn.bases); on "
            "the policy of a run, use recipe residual"
        )


def _env_of(run: Run, env: str | EnvSetting | None, limit: int | None) -> EnvSetting:
    if env is None and run.env is None:
        raise EnvError(f"run {run.path} knows no environment; name one with env (--env)")
    if env is None and limit is None:
        assert run.env is not None
        return run.env
    return environment.named(env if env is not None else run.env, limit)  # type: ignore[arg-type]


_NOT_COPIED = ("tensorboard", "policy", "*.html", "*.mp4", ".lock")


def planned_loop(
    recipe: Recipe,
    view: DataView | None,
    spaces: Spaces,
    steps: int,
    seed: int,
    evaluate_every: int,
) -> OnlineLoop:
    """Budgets and cadences; replay has room for all data that a recipe seeds it with."""
    loop = OnlineLoop(env_steps=steps, seed=seed, evaluate_every=evaluate_every)
    if not recipe.seed_buffer_with_offline:
        return loop
    assert view is not None
    room = len(view.load(spaces)["rewards"]) + steps
    return dataclasses.replace(loop, capacity=max(loop.capacity, room))


def start_online(
    out: str | os.PathLike[str],
    source: Run | None,
    recipe: Recipe,
    agent_config: Any,
    loop: OnlineLoop,
    home: Home,
    view: DataView | None,
    teacher: pathlib.Path | None = None,
    envs: int = 1,
    *,
    evaluation_episodes: int = 10,
    reward: tuple[float, float] | None = None,
    keep: int = 2,
) -> Run:
    """Make the run directory of an online run, with copies of its sources, and run it.

    It collects from `envs` environments side by side. `reward` is (scale, shift) of rewards; None
    takes those of the view.
    """
    if reward is None:
        reward = (1.0, 0.0) if view is None else (view.reward_scale, view.reward_shift)
    identities = {} if view is None else view.identities()

    def fill(folder: pathlib.Path) -> None:
        teaching.keep(folder, teacher)
        if source is not None:
            # `resume` needs only this directory, wherever the offline run has gone by then.
            ignored = shutil.ignore_patterns(*_NOT_COPIED)
            shutil.copytree(source.path, folder / SOURCE, ignore=ignored)
            if (source.path / samples.FILE).exists():
                shutil.copyfile(source.path / samples.FILE, folder / samples.FILE)

    directory = RunDirectory.create(
        out,
        {
            "kind": "online",
            "keep": keep,
            "agent": agents.describe(recipe.agent),
            "agent_config": configs.to_json(agent_config),
            "recipe": configs.to_json(recipe),
            "loop": configs.to_json(loop),
            "data": None if view is None else configs.to_json(view),
            "reward": list(reward),
            "envs": envs,
            "evaluation_episodes": evaluation_episodes,
            "identities": identities,
            **home.to_json(),
            **teaching.digest(teacher),
        },
        fill=fill,
    )
    run = Run(directory)
    run_online(run)
    return run


def run_online(run: Run, resume: bool = False, fallback: bool = False) -> None:
    """Finetune, or go on finetuning, in a run directory."""
    recipe, loop, view = run.recipe, run.loop, run.view
    assert recipe is not None
    assert isinstance(loop, OnlineLoop)
    assert run.env is not None
    run.directory.claim()  # before environments start, and a bar is drawn
    verb = "learn" if recipe.start == "fresh" else "finetune"
    title = f"{verb} {agent_name(run.agent)}"
    with (
        vector_envs.environments(
            run.env,
            run.spaces,
            # A run of an earlier version has no `envs`: it had one.
            run.directory.config.get("envs", 1),
            reward=_reward(run),
            frames=run.frames,
        ) as env,
        tqdm(total=loop.env_steps, desc=title, unit="step") as bar,
        Session(run.directory, progress(bar), () if view is None else (view.dataset,)) as session,
    ):
        state = first_state(run)
        found = session.newest(online_template(state), fallback=fallback) if resume else None
        online.finetune(
            run.agent,
            run.config,
            env,
            recipe,
            loop,
            state,
            offline=run.transitions() if recipe.needs_offline_data else None,
            teacher=teaching.of(run.directory),
            monitor=session,
            evaluate=evaluation_of(run) if loop.evaluate_every else None,
            snapshot=None if found is None else found[1],
        )


def _reward(run: Run) -> tuple[float, float]:
    scale, shift = run.directory.config.get("reward", (1.0, 0.0))
    return float(scale), float(shift)


def resume(source: "str | os.PathLike[str] | Run", fallback: bool = False) -> Run:
    """Go on with a run that was interrupted; it gives the numbers that it would have given.

    With `fallback`, a damaged newest checkpoint gives way to the one before it.
    """
    run = load_run(source)
    if not run.online:
        training.run_offline(run, resume=True, fallback=fallback)
        return run
    run_online(run, resume=True, fallback=fallback)
    return run


def adopted(agent: Any, recipe: Recipe, source: Run, options: tuple[str, ...] = ()) -> Any:
    """The online agent's config: its defaults, the network shapes of the source, the recipe."""
    _check_source(recipe, source)
    config = source.config if recipe.start == "continued" else agent.Config()
    if recipe.start == "learned":
        config = agent.adopt(config, learned_by(source))
    recipe, config = methods.tuned(recipe, config, options)
    return recipe.configure(config)


def _check_source(recipe: Recipe, source: Run) -> None:
    """Raise ValueError or CheckpointError where a recipe cannot build on a run."""
    if recipe.start == "fresh":
        return
    found, path = source.directory.config["agent"], source.path
    if recipe.start == "continued" and found != recipe.agent:
        raise ValueError(
            f"the recipe goes on with a run of {recipe.agent}; {path} is of {found}: recipe "
            "continue goes on with any, wsrl begins from what any has learned"
        )
    if source.chunk != recipe.chunk:
        raise ValueError(
            f"{path} was trained on chunks of {source.chunk} actions and the recipe plays "
            f"{recipe.chunk}; train with chunk (--chunk) {recipe.chunk}, or give option "
            f"chunk={source.chunk}"
        )
    # Read before the new run's folder begins with a copy of it; what is learned, by `adopted`.
    newest = source.directory.checkpoints.latest()
    if recipe.start == "continued":
        source.directory.checkpoints.read(newest)
