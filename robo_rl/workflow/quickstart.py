"""`robo-rl quickstart`: the whole path once, with its figures in summary.json and report.html.

Every phase reads and writes files in the run directory only, so each could be run by hand with
the command that its section of the report names.
"""

import dataclasses
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robo_rl import agents, files
from robo_rl.data import check as checking
from robo_rl.data.minari_io import open_dataset
from robo_rl.envs import registry
from robo_rl.envs.ogbench import collect as collecting
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.oracles import OracleConfig
from robo_rl.envs.registry import EnvSetting
from robo_rl.hardware.twin.mujoco_device import save_scene
from robo_rl.hardware.twin.stop_test import measure_stop
from robo_rl.judge.episodes import Episodes
from robo_rl.learn import recipes
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.workflow import collect, deploy, environment, evaluate, gaps, video
from robo_rl.workflow.clearance import Sphere
from robo_rl.workflow.data_view import DataView
from robo_rl.workflow.export import export
from robo_rl.workflow.exported import Exported
from robo_rl.workflow.finetune import adopted, start_online, training_home
from robo_rl.workflow.quickstart_report import Results, write_report
from robo_rl.workflow.run import load_run
from robo_rl.workflow.train import home_of, start_offline

DATASET = "quickstart/cube-single-v0"
KEEP_OUT: tuple[Sphere, ...] = ((0.43, 0.14, 0.20, 0.05),)
"""Beside the way of task 2, where the hand passes with a few centimetres to spare or less."""
TASK = 2
ENV = EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal", "relative_positions": True})


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of everything."""

    demonstrations: int
    offline_steps: int
    evaluation_episodes: int
    online_steps: int
    deployed_episodes: int
    online_options: tuple[tuple[str, Any], ...] = ()
    """Changes to the recipe."""


BUDGETS = {
    "full": Budget(800, 20_000, 100, 60_000, 20),
    "smoke": Budget(
        12,
        200,
        4,
        600,
        1,
        (("warmup_steps", 200), ("critic_only_updates", 10), ("update_every", 50)),
    ),
}


def run(out: pathlib.Path, seed: int, budget_name: str) -> int:
    """Run every phase; print the table; write summary.json and report.html."""
    budget = BUDGETS[budget_name]
    began = time.monotonic()
    out = _fresh(out)
    os.environ["MINARI_DATASETS_PATH"] = str((out / "datasets").resolve())
    summary: dict[str, Any] = {
        "seed": seed,
        "budget": dataclasses.asdict(budget),
        "machine": _machine(),
    }
    results = Results()
    phases: tuple[tuple[str, Callable[..., None]], ...] = (
        ("Record demonstrations", _record),
        ("Learn offline", _learn_offline),
        ("Meet a changed arm", _meet_gap),
        ("Finetune online", _finetune),
        ("Deploy over ROS 2", _deploy),
        ("Kill the policy", _kill),
    )
    for number, (title, phase) in enumerate(phases, start=1):
        print(f"\n[{number}/{len(phases)}] {title}", flush=True)
        start = time.monotonic()
        phase(out, seed, budget, summary, results)
        results.phases.append((title, time.monotonic() - start))
        summary["wall_s"] = time.monotonic() - began
        files.write_json(out / "summary.json", summary, nonfinite="null")
    _film(out, results)
    summary["phases_s"] = {title: round(seconds, 1) for title, seconds in results.phases}
    summary["wall_s"] = time.monotonic() - began
    files.write_json(out / "summary.json", summary, nonfinite="null")
    write_report(out, summary, results)
    print(table(summary))
    print(f"\nreport: {out / 'report.html'}\nfigures: {out / 'summary.json'}")
    return 0


def table(summary: dict[str, Any]) -> str:
    """The figures as one table for people."""

    def rate(name: str) -> str:
        low, high = summary[name]["ci95"]
        return f"{summary[name]['success']:.2f}  ({low:.2f} to {high:.2f})"

    deployed, unfiltered = summary["deployed"], summary["unfiltered"]
    stops = summary["watchdog"]["stop_ms"]
    rows = [
        (
            "demonstrations",
            f"{summary['dataset']['episodes']} episodes, "
            f"{summary['dataset']['transitions']} transitions",
        ),
        ("offline, clean simulator", rate("offline")),
        ("the same policy, changed arm", rate("gap")),
        ("after finetuning on it", f"{rate('online')}  in {summary['online']['env_steps']} steps"),
        (
            "deployed over ROS 2, filtered",
            f"{rate('deployed')}  "
            f"{deployed['violations']} of {deployed['episodes']} episodes in the keep-out region",
        ),
        (
            "deployed, filter off",
            f"{rate('unfiltered')}  "
            f"{unfiltered['violations']} of {unfiltered['episodes']} episodes in it",
        ),
        (
            "control rate",
            f"{deployed['rate_hz']:.2f} Hz, {deployed['deadline_misses']} deadlines "
            f"missed (robot process: {deployed['robot_deadline_misses']} of "
            f"{deployed['robot_ticks']})",
        ),
        (
            "arm at rest after",
            ", ".join(f"{k.replace('_', ' ')} {v:.0f} ms" for k, v in stops.items()),
        ),
        ("commands beyond a limit", str(summary["commands_beyond_limits"])),
        ("time", f"{summary['wall_s'] / 60:.1f} min"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _record(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    config = collecting.CollectConfig(
        episodes=budget.demonstrations,
        env={"scene": "single", "relative_positions": True, "form": "random"},
        oracle=OracleConfig(kind="markov"),
        seed=seed,
        workers=2,
    )
    collect.collect(DATASET, config)
    dataset = open_dataset(DATASET)
    report = checking.check(dataset)
    checking.store_report(dataset, report)
    if report.exit_code:
        raise ValueError(f"the demonstrations have errors:\n{report.table()}")
    results.check = report.to_json()
    summary["dataset"] = {"episodes": report.episodes, "transitions": report.transitions}
    print(f"checked: {report.episodes} episodes, {report.transitions} transitions, no errors")


def _learn_offline(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    every = min(500, budget.offline_steps)
    loop = OfflineLoop(
        steps=budget.offline_steps,
        log_every=every,
        checkpoint_every=10 * every,
        seed=seed,
        min_std=0.05,
        n_step=3,
    )
    config = agents.get("iql").Config(
        critic=NetConfig(layer_norm="before"),
        std="unit",
        temperature=10.0,
        discount=0.98,
        actor_lr=1e-3,
        decay_steps=budget.offline_steps,
    )
    # The data count -1 a step, the environment 1 at success.
    view = DataView(DATASET, reward_offset=1.0)
    home, _ = home_of(open_dataset(DATASET))
    run = start_offline(out / "offline", "iql", config, view, loop, home)
    assert run.env == ENV
    summary["offline"] = _evaluated(export(run), ENV, budget, seed, "evaluate, clean")


def _meet_gap(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    env = _changed_env()
    policy = Exported(out / "offline" / "policy", 0.0)
    summary["gap"] = _evaluated(policy, env, budget, seed, "evaluate, changed")
    summary["gap"]["arm"] = env.kwargs["gap"]


def _finetune(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    recipe = dataclasses.replace(recipes.get("quickstart"), **dict(budget.online_options))
    source = load_run(out / "offline")
    config = adopted(agents.get(recipe.agent), recipe, source)
    loop = OnlineLoop(env_steps=budget.online_steps, seed=seed)
    home = dataclasses.replace(training_home(source), env=_changed_env())
    run = start_online(out / "online", source, recipe, config, loop, home, source.view)
    policy = export(run, out / "policy")
    summary["online"] = {
        **_evaluated(policy, _changed_env(), budget, seed + 1, "evaluate, finetuned"),
        "env_steps": budget.online_steps,
        "recipe": recipe.agent,
    }
    summary["export"] = {"max_difference": policy.difference}


def _deploy(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    worst: dict[str, float] = {}
    for name, filtered in (("deployed", True), ("unfiltered", False)):
        plan = deploy.Plan(
            policy=out / "policy",
            out=out / "recordings",
            episodes=budget.deployed_episodes,
            domain_id=_domain(),
            gap=gaps.QUICKSTART,
            keep_out=KEEP_OUT,
            filter=filtered,
            task_id=TASK,
            seed=seed,
            name=name,
        )
        results.deployments[name] = deploy.run(plan)
        summary[name] = results.deployments[name].summary()
        for limit, excess in summary[name]["limit_excess"].items():
            worst[limit] = max(worst.get(limit, -np.inf), excess)
    summary["limit_excess"] = worst
    summary["commands_beyond_limits"] = sum(excess > _ROUNDING for excess in worst.values())


def _kill(
    out: pathlib.Path, seed: int, budget: Budget, summary: dict[str, Any], results: Results
) -> None:
    scene = save_scene(scenes.compile_cube_scene("single"), out / "scene.mjb")
    folder = out / "watchdog"
    folder.mkdir()
    results.stops = measure_stop(str(scene), folder.resolve(), _domain())
    summary["watchdog"] = {
        "stop_ms": results.stops.stop_ms,
        "speed_rad_s": results.stops.speed_rad_s,
    }
    for limit, excess in results.stops.excess.items():
        summary["limit_excess"][limit] = max(summary["limit_excess"][limit], excess)
    summary["commands_beyond_limits"] = sum(
        excess > _ROUNDING for excess in summary["limit_excess"].values()
    )


def _film(out: pathlib.Path, results: Results) -> None:
    target = out / "deployed.mp4"
    episode = deploy.film_episode(results.deployments["deployed"])
    problem = video.film(out / "scene.mjb", episode, target)
    if problem is None:
        results.film = target
    else:
        results.film_problem = problem
        print(problem)


_ROUNDING = 1e-4
"""Recorded times have a resolution of 1 ns: second differences of positions over them carry
rounding of some 1e-6 rad/s^2, not motion."""


def _evaluated(
    policy: Exported, env: EnvSetting, budget: Budget, seed: int, title: str
) -> dict[str, Any]:
    result: Episodes = evaluate.evaluate_policy(
        policy.folder,
        env,
        registry.spaces_of(ENV),
        budget.evaluation_episodes,
        seed,
        workers=2,
        title=title,
    )
    print(evaluate.describe(result))
    return {
        "success": result.success_rate,
        "ci95": list(result.ci95),
        "episodes": len(result.success),
        "mean_length": float(np.mean(result.lengths)),
    }


def _changed_env() -> EnvSetting:
    return environment.with_gap(ENV, 1.0)


def _domain() -> int:
    """A DDS domain that another run on this machine is unlikely to use."""
    return 1 + os.getpid() % 100


def _fresh(out: pathlib.Path) -> pathlib.Path:
    """The run directory, empty; an earlier one is moved aside."""
    if out.exists():
        number = 1
        while (aside := out.with_name(f"{out.name}-{number}")).exists():
            number += 1
        out.rename(aside)
        print(f"moved the earlier {out} to {aside}")
    out.mkdir(parents=True)
    return out


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
