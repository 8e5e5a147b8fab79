"""Success on OGBench's cube tasks, beside the published figures.

    python -m benchmarks.ogbench_tasks --tasks cube-single-2 --methods bc iql rebrac fql --seeds 3

makes the "play" data with OGBench's oracle, trains every method on every task with its seeds in one
program, judges the last three of ten checkpoints by 50 episodes each, and prints a table. What is
done already under --out is not done again; a training that was cut off goes on. The defaults are
the paper's size (days on a CPU); --steps, --rows, --width and --depth make it smaller, and then
the verdict only says so. With --online-steps, methods that have a recipe are finetuned afterwards.

Published figures: Park et al. 2025 (FQL), tables 2 and 4 and per task; Li et al. 2025 (Q-chunking).
Environment: our `ArmEnv` in report-only mode, which moves as OGBench's does (tests/envs).
"""

import argparse
import dataclasses
import math
import os
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from robo_rl import agents, files
from robo_rl.data.minari_io import list_datasets, open_dataset
from robo_rl.data.transitions import flatten_episodes
from robo_rl.envs import registry
from robo_rl.envs.ogbench import relabel
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.envs.ogbench.oracles import OracleConfig
from robo_rl.envs.registry import EnvSetting
from robo_rl.envs.tasks import cube
from robo_rl.judge.episodes import wilson_interval
from robo_rl.learn import offline, online, recipes
from robo_rl.learn.batches import Transitions
from robo_rl.learn.contract import setting
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import configs, sessions
from robo_rl.runs.checkpoints import Checkpoints
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.export import Interface, probe_observations
from robo_rl.runs.sessions import online_template
from robo_rl.workflow import collect, environment, evaluate
from robo_rl.workflow.export import export_state

PAPER_STEPS, PAPER_ROWS, EPISODE = 1_000_000, 1_000_000, 1_000
JUDGED = 3
"""Of ten checkpoints, the last so many: 0.8, 0.9 and 1.0 of the updates."""

PUBLISHED: Mapping[str, Mapping[str, tuple[int, int | None]]] = {
    "cube-single-1": {"bc": (10, None), "iql": (88, None), "rebrac": (89, None)}
    | {"ifql": (79, None), "fql": (97, None)},
    "cube-single-2": {"bc": (3, None), "iql": (85, None), "rebrac": (92, None)}
    | {"ifql": (73, None), "fql": (97, None)},
    "cube-double-1": {"bc": (8, None), "iql": (27, None), "rebrac": (45, None)}
    | {"ifql": (35, None), "fql": (61, 98), "qc_fql": (80, 100), "qc": (83, 99)},
    "cube-double-2": {"bc": (0, None), "iql": (1, None), "rebrac": (7, 16)}
    | {"ifql": (9, None), "fql": (36, 92), "qc_fql": (45, 100), "qc": (72, 100)},
}
"""Success in per cent by task and method: offline, and after as many steps online."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of everything."""

    steps: int
    rows: int
    width: int
    depth: int
    seeds: int
    episodes: int
    online_steps: int

    @property
    def share(self) -> float:
        """The smallest share of the paper's budget, 1 where it is the paper's."""
        return min(self.steps / PAPER_STEPS, self.rows / PAPER_ROWS, self.width / 512)


def method(name: str, scene: str, budget: Budget) -> tuple[str, Any, int]:
    """(agent, config, chunk) with the papers' settings for this scene."""
    hidden = (budget.width,) * budget.depth
    plain = NetConfig(hidden=hidden, activation="gelu")
    normed = NetConfig(hidden=hidden, activation="gelu", layer_norm="after")
    single = scene == "single"
    table: dict[str, tuple[str, Any, int]] = {
        "bc": ("bc", agents.bc.Config(actor=plain), 1),
        "iql": (
            "iql",
            agents.iql.Config(
                actor=plain,
                critic=normed,
                expectile=0.9,
                temperature=1.0 if single else 0.3,
                std="unit",
            ),
            1,
        ),
        "rebrac": (
            "rebrac",
            agents.rebrac.Config(
                actor=plain,
                critic=normed,
                actor_bc_weight=1.0 if single else 0.1,
                critic_bc_weight=0.0,
            ),
            1,
        ),
        "ifql": ("ifql", agents.ifql.Config(flow=plain, critic=normed), 1),
        "fql": ("fql", agents.fql.Config(flow=plain, actor=plain, critic=normed, alpha=300.0), 1),
        "qc": ("qc", agents.qc.Config(flow=plain, critic=normed), 5),
        "qc_fql": (
            "fql",
            agents.fql.Config(flow=plain, actor=plain, critic=normed, alpha=300.0),
            5,
        ),
    }
    return table[name]


def play_data(scene: str, budget: Budget, workers: int) -> str:
    """Name of the dataset, collected if it is not there: plans for one target after the other."""
    episodes = max(1, round(budget.rows / EPISODE))
    name = f"ogbench/cube-{scene}-play-{episodes}-v0"
    if name not in {row.id for row in list_datasets()}:
        config = CollectConfig(
            episodes=episodes,
            env={"scene": scene, "form": "data", "goal_in_observation": False}
            | {"guards": {"enforce": False}},
            oracle=OracleConfig(kind="plan"),
            max_steps=EPISODE,
            retarget=True,
            workers=workers,
        )
        collect.collect(name, config)
    return name


def single_task(dataset: str, scene: str, task: int) -> Transitions:
    """The rows under the rewards of one task, as OGBench relabels them."""
    goal = cube.task_infos(scene)[task - 1]["goal_xyzs"]
    episodes = open_dataset(dataset).episodes(infos=("qpos",))
    whole = relabel.relabel_cube(episodes, goal, after_success="keep")
    rows = flatten_episodes(list(whole))
    return {name: np.asarray(value) for name, value in rows.items()}


@dataclasses.dataclass(frozen=True)
class Case:
    """One method on one task."""

    task: str
    name: str
    budget: Budget
    out: pathlib.Path
    workers: int

    @property
    def scene(self) -> str:
        """Of the task."""
        return self.task.split("-")[1]

    @property
    def env(self) -> EnvSetting:
        """What the policy is judged in."""
        number = int(self.task.split("-")[2])
        shown = {"goal_in_observation": False, "guards": {"enforce": False}}
        return EnvSetting(
            f"robo_rl/Cube{self.scene.capitalize()}-v0",
            {"form": "single", "task_id": number, **shown},
        )

    @property
    def folder(self) -> pathlib.Path:
        """Of everything about it; the budget is in its name."""
        b = self.budget
        size = f"{b.steps}x{b.rows}-{b.depth}x{b.width}-{b.seeds}"
        return self.out / self.task / f"{self.name}-{size}"

    def run(self) -> None:
        """Train and judge what is missing."""
        agent_name, config, chunk = method(self.name, self.scene, self.budget)
        agent = agents.get(agent_name)
        dataset = play_data(self.scene, self.budget, self.workers)
        rows = single_task(dataset, self.scene, int(self.task.split("-")[2]))
        # Budgets count steps of the critics, of which an update of TD3's kind takes two.
        tenth = max(1, self.budget.steps // (10 * setting(config, "utd", 1)))
        loop = OfflineLoop(
            steps=10 * tenth,
            log_every=math.gcd(tenth, 1_000),
            checkpoint_every=tenth,
            seeds=self.budget.seeds,
            chunk=chunk,
            normalise=False,
        )
        run = self._train(agent, agent_name, config, rows, loop, dataset)
        for step in run.checkpoints.steps()[-JUDGED:]:
            state = self._state(run, agent, config, rows, loop, step)
            for seed in range(loop.seeds):
                one = offline.seed_state(state, seed) if loop.seeds > 1 else state
                self._judge(f"offline-{seed}-{step}", agent, config, one, rows, chunk)
                recipe = self.name if self.name in recipes.RECIPES else ""
                if self.budget.online_steps and recipe and step == loop.steps:
                    self._finetune(seed, agent, config, one, rows, recipes.get(recipe))

    def _train(
        self,
        agent: Any,
        agent_name: str,
        config: Any,
        rows: Transitions,
        loop: OfflineLoop,
        dataset: str,
    ) -> RunDirectory:
        path = self.folder / "offline"
        fresh = not path.exists()
        if fresh:
            about = {"agent": agent_name, "agent_config": configs.to_json(config)}
            about |= {"loop": configs.to_json(loop), "dataset": dataset}
            about |= {"env": self.env.to_json()}
            RunDirectory.create(path, {"kind": "benchmark", **about})
        run = RunDirectory.open(path)
        run.checkpoints = Checkpoints(path / "checkpoints", JUDGED)
        done = run.checkpoints.steps()
        if not done or done[-1] < loop.steps:
            with (
                tqdm(total=loop.steps, desc=f"{self.task} {self.name}", unit="update") as bar,
                sessions.Session(run, lambda step, _: bar.update(step - bar.n)) as session,
            ):
                template = offline.initial_state(agent, config, rows, loop)
                start = None if fresh else session.newest(template)
                offline.train(agent, config, rows, loop, monitor=session, start=start)
        return run

    def _state(
        self,
        run: RunDirectory,
        agent: Any,
        config: Any,
        rows: Transitions,
        loop: OfflineLoop,
        step: int,
    ) -> Any:
        template = offline.initial_state(agent, config, rows, loop)
        return sessions.load_agent(run, template, step)

    def _judge(
        self, name: str, agent: Any, config: Any, state: Any, rows: Transitions, chunk: int
    ) -> None:
        score = self.folder / f"{name}.json"
        if score.exists():
            return
        policy = self.folder / "policies" / name
        policy.parent.mkdir(exist_ok=True)
        interface = Interface(collect.CONTROL_HZ, chunk=chunk)
        probes = probe_observations(rows["observations"])
        export_state(policy, agent, config, state, probes, interface)
        result = evaluate.evaluate_policy(
            policy,
            self.env,
            registry.spaces_of(self.env),
            self.budget.episodes,
            workers=self.workers,
            title=name,
        )
        files.write_json(score, {"success": sum(result.success), "episodes": len(result.success)})

    def _finetune(
        self,
        seed: int,
        agent: Any,
        config: Any,
        state: Any,
        rows: Transitions,
        recipe: recipes.Recipe,
    ) -> None:
        steps = self.budget.online_steps
        name = f"online-{seed}-{steps}"
        if (self.folder / f"{name}.json").exists():
            return
        configured = recipe.configure(config)
        every = max(1, steps // 10)
        capacity = len(rows["rewards"]) + steps
        loop = OnlineLoop(steps, capacity, log_every=every, checkpoint_every=every, seed=seed)
        path = self.folder / name
        fresh = not path.exists()
        if fresh:
            RunDirectory.create(path, {"kind": "benchmark", "loop": configs.to_json(loop)})
        run = RunDirectory.open(path)
        env = environment.learner_env(self.env, registry.spaces_of(self.env))
        with (
            tqdm(total=steps, desc=f"{self.task} {self.name} online", unit="step") as bar,
            sessions.Session(run, lambda step, _: bar.update(step - bar.n)) as session,
        ):
            found = None if fresh else session.newest(online_template(state))
            last = online.finetune(
                agent,
                configured,
                env,
                recipe,
                loop,
                state,
                offline=rows if recipe.needs_offline_data else None,
                monitor=session,
                snapshot=None if found is None else found[1],
            )
        env.close()
        self._judge(name, agent, configured, last, rows, recipe.chunk)

    def shares(self, phase: str) -> dict[str, list[tuple[int, int]]]:
        """(successes, episodes) of every judged checkpoint, by seed."""
        found: dict[str, list[tuple[int, int]]] = {}
        for path in sorted(self.folder.glob(f"{phase}-*-*.json")):
            score = files.read_json(path)
            seed = path.stem.split("-")[1]
            found.setdefault(seed, []).append((int(score["success"]), int(score["episodes"])))
        return found

    def row(self, phase: str) -> list[str] | None:
        """Of the table: what is published, what came out, and what to make of it."""
        by_seed = self.shares(phase)
        if not by_seed:
            return None
        published = PUBLISHED[self.task][self.name][phase == "online"]
        sums = [np.sum(scores, axis=0) for scores in by_seed.values()]
        successes, episodes = (int(total) for total in np.sum(sums, axis=0))
        low, high = wilson_interval(successes, episodes)
        mean = 100.0 * successes / episodes
        seeds = [100.0 * won / of for won, of in sums]
        spread = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
        return [
            self.task,
            self.name,
            phase,
            "-" if published is None else str(published),
            f"{mean:.0f}",
            f"[{100 * low:.0f}, {100 * high:.0f}]",
            f"{spread:.0f}",
            str(episodes),
            verdict(mean, published, self.budget.share),
        ]


def verdict(mean: float, published: int | None, share: float) -> str:
    """In words."""
    if published is None:
        return "nothing published"
    away = mean - published
    where = (
        "within 10" if abs(away) <= 10.0 else f"{abs(away):.0f} {'above' if away > 0 else 'below'}"
    )
    return where if share >= 1.0 else f"{where}, at {share:.2g} of the paper's budget"


def main() -> None:
    """Train, judge, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["cube-single-2"], choices=sorted(PUBLISHED))
    known = sorted({name for task in PUBLISHED.values() for name in task})
    parser.add_argument(
        "--methods", nargs="+", default=["bc", "iql", "rebrac", "fql"], choices=known
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=PAPER_STEPS, help="updates")
    parser.add_argument("--rows", type=int, default=PAPER_ROWS, help="transitions of data")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=50, help="a checkpoint and seed")
    parser.add_argument("--online-steps", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/ogbench"))
    given = vars(parser.parse_args())
    budget = Budget(**{field.name: given[field.name] for field in dataclasses.fields(Budget)})
    out, workers = given["out"], given["workers"]
    os.environ["MINARI_DATASETS_PATH"] = str((out / "datasets").resolve())
    rows = []
    for task in given["tasks"]:
        for name in given["methods"]:
            if name not in PUBLISHED[task]:
                continue
            case = Case(task, name, budget, out, workers)
            case.run()
            rows += [row for phase in ("offline", "online") if (row := case.row(phase))]
    head = ["task", "method", "phase", "published", "ours", "95 %", "sd of seeds", "episodes"]
    lines = ["| " + " | ".join(cells) + " |" for cells in ([*head, "verdict"], *rows)]
    lines.insert(1, "|---" * (len(head) + 1) + "|")
    print("\n".join(lines))
    files.write_bytes(out / "table.md", ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
