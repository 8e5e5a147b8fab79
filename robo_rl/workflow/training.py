"""`robo-rl train | finetune | eval | export | resume`: build, loop, write."""

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from robo_rl import agents
from robo_rl.data.minari_io import open_dataset
from robo_rl.data.transitions import take
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.runtime.policy import DESCRIPTION, NumpyPolicy
from robo_rl.learn import offline, online, recipes
from robo_rl.learn.contract import (
    Agent,
    State,
    Transitions,
    batch_of,
    check_offline,
    readable,
)
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop, rollouts
from robo_rl.learn.recipes import Recipe
from robo_rl.nn import policies
from robo_rl.nn.observations import first
from robo_rl.runs import configs, sessions
from robo_rl.runs import export as exporting
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics
from robo_rl.workflow import evaluate as evaluation
from robo_rl.workflow import gaps, methods, report, settings, vector_envs
from robo_rl.workflow import teacher as teaching
from robo_rl.workflow.record import CONTROL_HZ, learning_setting

if TYPE_CHECKING:
    from robo_rl.launch import cli

SOURCE = "source"
"""Folder in an online run that holds the offline run it starts from."""
DEFAULT_ENV: Mapping[str, Any] = {"scene": "single", "form": "goal"}


@dataclasses.dataclass(frozen=True)
class DataView:
    """Which part of a dataset a method learns from, and on which reward scale."""

    dataset: str
    successful_only: bool = False
    """Keep the episodes in which the goal was reached."""
    reward_shift: float = 0.0
    """Added to every reward, where the data's scale is not that of the environment."""
    expert: str = ""
    """Another dataset, whose episodes come on top and are marked as an expert's."""

    def load(self) -> Transitions:
        """The transitions, with `episode_id`."""
        opened = open_dataset(self.dataset, download=True)
        infos = ("success",) if self.successful_only else ()
        rows: dict[str, Any] = dict(opened.transitions(infos=infos))
        if self.successful_only:
            reached, episode = rows["next_success"].astype(bool), rows["episode_id"]
            keep = np.flatnonzero(np.isin(episode, np.unique(episode[reached])))
            if not len(keep):
                raise ValueError(f"dataset {self.dataset!r} has no successful episode")
            rows = {name: take(value, keep) for name, value in rows.items()}
        if self.expert:
            rows = _with_expert(rows, dict(open_dataset(self.expert, download=True).transitions()))
        rows["rewards"] = rows["rewards"] + self.reward_shift
        return rows


def _with_expert(rows: Transitions, expert: Transitions) -> dict[str, np.ndarray]:
    """Both, with `expert` (N,) 0 and 1; episodes keep ids of their own."""
    if isinstance(rows["observations"], Mapping) or isinstance(expert["observations"], Mapping):
        raise ValueError("--expert: both datasets must have flat observations, these are dicts")
    offset = np.max(rows["episode_id"]) + 1
    parts = (
        {**rows, "expert": np.zeros(len(rows["rewards"]), np.float32)},
        {
            **expert,
            "episode_id": expert["episode_id"] + offset,
            "expert": np.ones(len(expert["rewards"]), np.float32),
        },
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run with what is needed to use its newest checkpoint."""

    run: RunDirectory
    agent: Agent
    config: Any
    state: State
    view: DataView
    transitions: Transitions
    """What `view` loads."""
    env: Mapping[str, Any]


def start_offline(
    out: pathlib.Path,
    agent_name: str,
    agent_config: Any,
    view: DataView,
    loop: OfflineLoop,
    env: Mapping[str, Any] = DEFAULT_ENV,
    teacher: pathlib.Path | None = None,
    keep: int = 2,
) -> RunDirectory:
    """Make the run directory of an offline run, with a copy of its teacher, and train in it.

    It keeps `keep` checkpoints.
    """
    run = RunDirectory.create(
        out,
        {
            "kind": "offline",
            "keep": keep,
            "agent": agent_name,
            "agent_config": configs.to_json(agent_config),
            "loop": configs.to_json(loop),
            "data": configs.to_json(view),
            "env": dict(env),
            **teaching.digest(teacher),
        },
    )
    teaching.keep(run, teacher)
    run_offline(run)
    return run


def run_offline(run: RunDirectory, resume: bool = False, fallback: bool = False) -> None:
    """Train, or go on training, in a run directory."""
    agent, config = _agent_of(run)
    teacher = teaching.of(run)
    loop = configs.from_json(OfflineLoop, run.config["loop"])
    view = configs.from_json(DataView, run.config["data"])
    rows = view.load()
    with tqdm(total=loop.steps, desc=f"train {run.config['agent']}", unit="update") as bar:
        sessions.train(
            run,
            agent,
            config,
            rows,
            loop,
            teacher=teacher,
            progress=_progress(bar),
            data_ids=(view.dataset,),
            resume=resume,
            fallback=fallback,
        )


def start_online(
    out: pathlib.Path,
    source: pathlib.Path,
    recipe: Recipe,
    agent_config: Any,
    loop: OnlineLoop,
    env: Mapping[str, Any],
    view: DataView,
    teacher: pathlib.Path | None = None,
    envs: int = 1,
) -> RunDirectory:
    """Make the run directory of an online run, with copies of its sources, and run it.

    It collects from `envs` environments side by side.
    """
    offline_run = RunDirectory.open(source)
    run = RunDirectory.create(
        out,
        {
            "kind": "online",
            "agent": recipe.agent,
            "agent_config": configs.to_json(agent_config),
            "recipe": configs.to_json(recipe),
            "loop": configs.to_json(loop),
            "data": configs.to_json(view),
            "env": dict(env),
            "envs": envs,
            **teaching.digest(teacher),
        },
    )
    teaching.keep(run, teacher)
    # `resume` needs only this directory, wherever the offline run has gone by then.
    aside = run.path / f".{SOURCE}.copying"
    ignored = shutil.ignore_patterns("tensorboard", "policy", "*.html", "*.mp4")
    shutil.copytree(offline_run.path, aside, ignore=ignored)
    aside.replace(run.path / SOURCE)
    run_online(run)
    return run


def run_online(run: RunDirectory, resume: bool = False, fallback: bool = False) -> None:
    """Finetune, or go on finetuning, in a run directory."""
    agent, config = _agent_of(run)
    teacher = teaching.of(run)
    recipe = configs.from_json(Recipe, run.config["recipe"])
    loop = configs.from_json(OnlineLoop, run.config["loop"])
    view = configs.from_json(DataView, run.config["data"])
    state = _first_state(run, agent, config, recipe, loop)
    title = f"finetune {run.config['agent']}"
    with (
        # A run of an earlier version has no `envs`: it had one.
        vector_envs.environments(run.config["env"], run.config.get("envs", 1)) as env,
        tqdm(total=loop.env_steps, desc=title, unit="step") as bar,
    ):
        sessions.finetune(
            run,
            agent,
            config,
            env,
            recipe,
            loop,
            state,
            offline=view.load() if recipe.needs_offline_data else None,
            teacher=teacher,
            progress=_progress(bar),
            data_ids=(view.dataset,),
            resume=resume,
            fallback=fallback,
        )


def load(path: pathlib.Path, step: int | None = None) -> Trained:
    """A checkpoint of a run, offline or online; the newest by default."""
    run = RunDirectory.open(path)
    agent, config = _agent_of(run)
    view = configs.from_json(DataView, run.config["data"])
    rows = view.load()
    if run.config["kind"] == "online":
        recipe = configs.from_json(Recipe, run.config["recipe"])
        loop = configs.from_json(OnlineLoop, run.config["loop"])
        template = _first_state(run, agent, config, recipe, loop)
        state = sessions.load_agent(run, template, step)
    else:
        offline_loop = configs.from_json(OfflineLoop, run.config["loop"])
        template = offline.initial_state(agent, config, rows, offline_loop)
        state = sessions.load_agent(run, template, step)
        if offline_loop.seeds > 1:
            state = offline.seed_state(state, 0)
    return Trained(run, agent, config, state, view, rows, run.config["env"])


def export_run(
    source: pathlib.Path, out: pathlib.Path | None = None, step: int | None = None
) -> tuple[pathlib.Path, float]:
    """Export a run's policy, the newest by default; the folder, and how far NumPy is from JAX."""
    trained = load(source, step)
    folder = out or trained.run.path / "policy"
    interface = exporting.Interface(
        rate_hz=CONTROL_HZ,
        chunk=_chunk(trained.run),
        meta={
            "env": dict(trained.env),
            "arm": UR5E.name,
            "arm_digest": UR5E.digest(),
            "run": trained.run.path.name,
            "step": trained.run.checkpoints.latest() if step is None else step,
        },
    )
    observations = trained.transitions["observations"]
    difference = export_state(
        folder, trained.agent, trained.config, trained.state, observations, interface
    )
    return folder, difference


def export_state(
    folder: pathlib.Path,
    agent: Agent,
    config: Any,
    state: State,
    observations: np.ndarray,
    interface: exporting.Interface,
) -> float:
    """Export the policy of a state; how far NumPy is from JAX at most, on data like (B, O)."""
    key = jax.random.key(0)
    policy = agent.policy(config, state)
    exporting.check_exportable(policy)
    probes = exporting.probe_observations(observations)
    noise = policies.noise(policy, key, probes.shape[:-1])

    def act(observations: np.ndarray) -> np.ndarray:
        return np.asarray(agent.act(config, state, jnp.asarray(observations), key))

    return exporting.export(
        folder,
        policy,
        interface,
        act=act,
        observations=probes,
        load=NumpyPolicy.load,
        noise=None if noise is None else np.asarray(noise),
    )


def train(options: "cli.Train") -> int:
    """`robo-rl train`."""
    if options.keep < 1:
        raise ValueError(f"--keep must be >= 1, got {options.keep}")
    agent = agents.get(options.agent)
    check_offline(agent)
    teaching.check(agent, options.teacher)
    config = settings.with_options(agent.Config(), options.option)
    every = max(1, min(500, options.steps))
    loop = OfflineLoop(
        steps=options.steps,
        batch_size=options.batch_size,
        log_every=every,
        checkpoint_every=every * math.ceil(5_000 / every),
        seed=options.seed,
        seeds=options.seeds,
        n_step=options.n_step,
        chunk=options.chunk,
        frames=options.frames,
    )
    out = options.out or pathlib.Path("runs") / f"{options.agent}-{_slug(options.dataset)}"
    env, shift = learning_setting(options.dataset)
    view = DataView(options.dataset, reward_shift=shift, expert=options.expert)
    if options.teacher is not None:
        data = open_dataset(options.dataset, download=True)
        shapes = (data.observation_space.shape, data.action_space.shape)
        teaching.check_size(options.teacher, *shapes)
    run = start_offline(out, options.agent, config, view, loop, env, options.teacher, options.keep)
    for line in report.verdicts(run, read_metrics(run.metrics_path)):
        print(line)
    print(f"trained; next: robo-rl eval {run.path}")
    return 0


def finetune(options: "cli.Finetune") -> int:
    """`robo-rl finetune`."""
    if options.envs < 1:
        raise ValueError(f"--envs must be >= 1, got {options.envs}")
    recipe = recipes.get(options.recipe)
    agent = agents.get(recipe.agent)
    recipe, _ = methods.tuned(recipe, agent.Config(), options.option)
    rollouts.check(agent, recipe, options.steps, options.envs)
    teaching.check(agent, options.teacher, recipe)
    if dict(recipe.options).get("base_in_observation"):
        raise ValueError(
            f"recipe {options.recipe} stands on a controller in Python (robo_rl.learn.bases); on "
            "the policy of a run, use recipe residual"
        )
    source = load(options.source)
    if options.teacher is not None:
        shapes = (source.transitions[name].shape[1:] for name in ("observations", "actions"))
        teaching.check_size(options.teacher, *shapes)
    config = adopted(agent, recipe, source, options.option)
    env = {**source.env, "gap": gaps.quickstart(options.gap)}
    seen, actions = (source.transitions[name] for name in ("observations", "actions"))
    read = tuple(seen) if isinstance(seen, Mapping) else seen.shape[1:]
    evaluation.check_sizes(env, read, actions.shape[1:])
    out = options.out or options.source.with_name(f"{options.source.name}-{options.recipe}")
    view = dataclasses.replace(source.view, successful_only=False)
    loop = OnlineLoop(env_steps=options.steps, seed=options.seed)
    if recipe.seed_buffer_with_offline:
        rows = source.transitions if view == source.view else view.load()
        room = len(rows["rewards"]) + options.steps
        loop = dataclasses.replace(loop, capacity=max(loop.capacity, room))
    run = start_online(
        out, options.source, recipe, config, loop, env, view, options.teacher, options.envs
    )
    print(f"finetuned; next: robo-rl eval {run.path} --gap {options.gap:g}")
    return 0


def evaluate(options: "cli.Eval") -> int:
    """`robo-rl eval`: of a run, by way of its export, or of an exported policy."""
    folder = options.source
    if not (folder / DESCRIPTION).exists():
        folder, _ = export_run(options.source, step=options.step)
    elif options.step is not None:
        raise ValueError(f"--step: {folder} is an exported policy, of one step already")
    policy = NumpyPolicy.load(folder)
    env = {**policy.description["meta"]["env"], "gap": gaps.quickstart(options.gap)}
    evaluation.check_sizes(env, (policy.observation_size,), (policy.action_size,))
    result = evaluation.evaluate_policy(
        folder, env, options.episodes, options.seed, options.workers
    )
    print(f"{evaluation.describe(result)}\npolicy {policy.description['sha256'][:16]}")
    return 0


def export(options: "cli.Export") -> int:
    """`robo-rl export`."""
    folder, difference = export_run(options.source, options.out, options.step)
    print(f"wrote {folder}; NumPy and JAX differ by {difference:.1e} at most (1000 observations)")
    return 0


def resume(source: pathlib.Path) -> int:
    """`robo-rl resume`."""
    run = RunDirectory.open(source)
    if run.config["kind"] == "online":
        if not (run.path / SOURCE).exists():
            raise ValueError(f"{source} was interrupted before it began; start it again elsewhere")
        run_online(run, resume=True)
    else:
        run_offline(run, resume=True)
    print(f"done; next: robo-rl eval {source}")
    return 0


def _agent_of(run: RunDirectory) -> tuple[Agent, Any]:
    agent = agents.get(run.config["agent"])
    return agent, configs.from_json(agent.Config, run.config["agent_config"])


def _first_state(
    run: RunDirectory, agent: Any, config: Any, recipe: Recipe, loop: OnlineLoop
) -> State:
    source = load(run.path / SOURCE)
    if recipe.start == "continued":
        return source.state
    rows = batch_of(source.transitions)
    example = jax.tree.map(jnp.asarray, first({k: readable(v) for k, v in rows.items()}))
    learned = _learned(source)
    return online.start_state(agent, config, recipe, loop.seed, example, learned)


def adopted(agent: Any, recipe: Recipe, source: Trained, options: tuple[str, ...] = ()) -> Any:
    """The online agent's config: its defaults, the network shapes of the source, the recipe."""
    _check_source(recipe, source)
    config = source.config if recipe.start == "continued" else agent.Config()
    if recipe.start == "learned":
        config = agent.adopt(config, _learned(source))
    recipe, config = methods.tuned(recipe, config, options)
    return recipe.configure(config)


def _check_source(recipe: Recipe, source: Trained) -> None:
    """Raise ValueError where a recipe that builds on a run does not fit it."""
    if recipe.start == "fresh":
        return
    found, path = source.run.config["agent"], source.run.path
    if recipe.start == "continued" and found != recipe.agent:
        raise ValueError(f"the recipe goes on with a run of {recipe.agent}; {path} is of {found}")
    chunk = _chunk(source.run)
    if chunk != recipe.chunk:
        raise ValueError(
            f"{path} was trained on chunks of {chunk} actions and the recipe plays {recipe.chunk}; "
            f"train with --chunk {recipe.chunk}, or give --option chunk={chunk}"
        )


def _chunk(run: RunDirectory) -> int:
    """H, the length of the chunks that a run has learned."""
    stored = run.config["recipe" if run.config["kind"] == "online" else "loop"]
    return int(stored["chunk"])


def _learned(source: Trained) -> policies.Learned:
    """What the source hands on to another agent."""
    hand_on = getattr(source.agent, "learned", None)
    if hand_on is None:
        able = ", ".join(name for name, agent in agents.AGENTS.items() if hasattr(agent, "learned"))
        raise ValueError(
            f"{source.run.path}: {source.run.config['agent']} hands on no policy that another "
            f'agent can start from; use a recipe with start = "continued", or a run of {able}'
        )
    learned: policies.Learned = hand_on(source.config, source.state)
    return learned


def _progress(bar: "tqdm[Any]") -> sessions.Progress:
    def advance(step: int, values: Mapping[str, float]) -> None:
        bar.update(step - bar.n)
        shown = [name for name in _SHOWN if name in values][:3]
        bar.set_postfix_str(", ".join(f"{name} {values[name]:.3g}" for name in shown))

    return advance


_SHOWN = ("success", "episode_success", "actor_loss", "critic_loss", "loss", "q")


def _slug(dataset: str) -> str:
    return dataset.replace("/", "-")
