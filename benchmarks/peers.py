"""Our scores and rates beside Unifloral's, CORL's and d3rlpy's, on datasets recorded here.

    make bench-peers
    make bench-peers ARGS="--sets hopper-medium --updates 20000 --seeds 1"
    make bench-peers ARGS="--unifloral CHECKOUT --unifloral-python PYTHON"

SAC learns Hopper and HalfCheetah from nothing, its checkpoints record a "medium" and a "mixed" set
each (`benchmarks.peer_sets`), and IQL, TD3+BC and ReBRAC learn from them by the settings that
Unifloral and CORL publish. d3rlpy comes from the registry into an environment of its own. Neither
Unifloral nor CORL is a package there: Unifloral is measured where a checkout of it is given, by a
Python that has jax, flax, optax, distrax and tyro. Every result is a file; what is done is skipped.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

import robo_rl
from benchmarks import peer_sets
from robo_rl import agents, files
from robo_rl.data.transitions import episode_ends
from robo_rl.judge.episodes import Episodes, evaluate, evaluation_seeds, merge, normalised_score
from robo_rl.learn import offline
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.supply import supply
from robo_rl.workflow import settings
from robo_rl.workflow.data_view import DataView

WORKER = pathlib.Path(__file__).with_name("peer_worker.py")
SETS = tuple(f"{env}-{kind}" for env in peer_sets.ENVS for kind in peer_sets.KINDS)
METHODS = ("iql", "td3bc", "rebrac")
_NETS = ("actor.hidden=256,256", "critic.hidden=256,256")
REBRAC = {
    "hopper-medium": (0.01, 0.01),
    "hopper-mixed": (0.05, 0.5),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-mixed": (0.01, 0.001),
}
"""CORL's weights of actor and critic, those of medium-replay for the mixed sets."""
_REBRAC_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Case:
    """A method on a set with a seed."""

    dataset: str
    method: str
    seed: int
    updates: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.dataset}-{self.method}-{self.updates}-s{self.seed}"

    @property
    def options(self) -> tuple[str, ...]:
        """Published settings, as ours are called. ReBRAC's networks have three layers in both."""
        actor, critic = REBRAC[self.dataset]
        return {
            "iql": (*_NETS, "expectile=0.7", "temperature=3", f"decay_steps={self.updates}"),
            "td3bc": (*_NETS, "alpha=2.5", "utd=2"),
            "rebrac": (
                f"actor_bc_weight={actor}",
                f"critic_bc_weight={critic}",
                "actor_lr=1e-3",
                "critic_lr=1e-3",
            ),
        }[self.method]

    @property
    def batch_size(self) -> int:
        """Rows of a critic step."""
        return _REBRAC_BATCH if self.method == "rebrac" else 256

    @property
    def standardised(self) -> bool:
        """Whether observations are."""
        return self.method != "rebrac"

    def theirs(self, peer: str) -> dict[str, Any]:
        """The same as a peer calls it, where its default is another."""
        actor, critic = REBRAC[self.dataset]
        if peer == "unifloral":
            if self.method != "rebrac":
                return {}
            return {"actor_bc_coef": actor, "critic_bc_coef": critic}
        rates = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
        mine: dict[str, dict[str, Any]] = {
            "iql": {"expectile": 0.7, "weight_temp": 3.0},
            "td3bc": {"alpha": 2.5},
            "rebrac": {"actor_beta": actor, "critic_beta": critic, **rates},
        }
        return {
            "standardise": self.standardised,
            "batch_size": self.batch_size,
            **mine[self.method],
        }

    def steps(self, peer: str) -> int:
        """Updates as the peer counts them: a step of d3rlpy's critics is one of them."""
        halved = peer == "d3rlpy" and self.method != "iql"
        return self.updates * (2 if halved else 1)


class Peer:
    """A peer in its own interpreter."""

    def __init__(self, name: str, python: pathlib.Path, data: pathlib.Path, *others: str):
        self.name = name
        self._process = subprocess.Popen(
            [python, WORKER, name, data, *others],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def ask(self, **what: Any) -> dict[str, Any]:
        """An answer to one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action of what it trained last."""
        action = self.ask(do="act", observation=observation.tolist())["action"]
        return np.clip(np.array(action), -1.0, 1.0)

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}'s process died; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Work:
    """A folder of runs and results, and the sets that they learn from."""

    def __init__(self, plan: peer_sets.Plan, episodes: int):
        self.plan, self._episodes = plan, episodes
        self.folder = plan.folder
        (self.folder / "scores").mkdir(parents=True, exist_ok=True)

    def dataset(self, name: str) -> robo_rl.Dataset:
        """A set, recorded where it is not there."""
        return robo_rl.open_dataset(peer_sets.recorded(self.plan, *name.split("-")))

    def arrays(self, name: str) -> pathlib.Path:
        """A set as a peer reads it."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            rows: dict[str, Any] = dict(DataView(self.dataset(name).id).load())
            rows["ends"] = episode_ends(rows)
            part = path.with_suffix(".part.npz")
            np.savez(part, **rows)
            part.replace(path)
        return path

    def ours(self, case: Case) -> None:
        """Train and judge one of our runs."""
        file = self.folder / "scores" / f"ours-{case.name}.json"
        if file.exists():
            return
        run = self.folder / "runs" / case.name
        start = time.monotonic()
        if run.exists():
            robo_rl.resume(run)
        else:
            robo_rl.train(
                self.dataset(case.dataset),
                case.method,
                steps=case.updates,
                option=case.options,
                batch_size=case.batch_size,
                seed=case.seed,
                reward_scale=1.0,
                normalise=case.standardised,
                keep=1,
                out=run,
            )
        seconds = time.monotonic() - start
        judged = robo_rl.evaluate(run, episodes=self._episodes, workers=1)
        self._keep(file, "ours", case, judged.episodes, seconds)

    def theirs(self, peer: Peer, case: Case) -> None:
        """Train a peer's learner on the same rows, and judge it on the same episodes."""
        file = self.folder / "scores" / f"{peer.name}-{case.name}.json"
        if file.exists():
            return
        trained = peer.ask(
            do="train",
            method=case.method,
            updates=case.steps(peer.name),
            seed=case.seed,
            settings=case.theirs(peer.name),
        )
        env = robo_rl.make_env(self.dataset(case.dataset), learner=True)
        seeds = evaluation_seeds(0, self._episodes)
        judged = merge([evaluate(env, peer.act, (seed,)) for seed in seeds])
        env.close()
        self._keep(file, peer.name, case, judged, trained["seconds"])

    def _keep(
        self, file: pathlib.Path, who: str, case: Case, judged: Episodes, seconds: float
    ) -> None:
        references = self.dataset(case.dataset).metadata
        files.write_json(
            file,
            {
                "who": who,
                **dataclasses.asdict(case),
                "returns": list(judged.returns),
                "score": normalised_score(judged.mean_return, references),
                "seconds": seconds,
            },
        )

    def table(self) -> str:
        """Of all results: the mean over seeds, with the 95 % interval of Student's t over them."""
        groups: dict[tuple[str, str, int], dict[str, list[Any]]] = {}
        for file in sorted((self.folder / "scores").glob("*.json")):
            row = files.read_json(file)
            group = groups.setdefault((row["dataset"], row["method"], row["updates"]), {})
            group.setdefault(row["who"], []).append((np.mean(row["returns"]), row["score"]))
        lines = ["| set | method | updates | who | seeds | return | score |"]
        lines.append("|---|---|---|---|---|---|---|")
        for (dataset, method, updates), who in sorted(groups.items()):
            for name, found in sorted(who.items()):
                returns, scores = (np.array(part, float) for part in zip(*found, strict=True))
                lines.append(
                    f"| {dataset} | {method} | {updates} | {name} | {len(found)} | "
                    f"{_interval(returns, 0)} | {_interval(scores, 1)} |"
                )
        return "\n".join(lines)


_STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5th percentile of Student's t for so many seeds."""


def _interval(values: np.ndarray, digits: int) -> str:
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    half = _STUDENT.get(len(values), 1.96) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} +- {half:.{digits}f}"


def rates(
    peer: Peer, case: Case, data: robo_rl.Dataset, updates: int, turns: int
) -> dict[str, Any]:
    """Updates a second in turns, and the ratio turn by turn: medians, quartiles' distance."""
    agent = agents.get(case.method)
    config = settings.with_options(agent.Config(), case.options)
    rows = supply(agent, config, DataView(data.id).load())
    normal = {"normalise": case.standardised, "batch_size": case.batch_size}
    loops = [
        OfflineLoop(n, log_every=updates, checkpoint_every=n, **normal)
        for n in (updates, 3 * updates)
    ]

    def ours() -> float:
        """Of two dispatches: a long run less a short one, so that no start is counted."""
        seconds = []
        for loop in loops:
            start = time.perf_counter()
            offline.train(agent, config, rows, loop)
            seconds.append(time.perf_counter() - start)
        return (seconds[1] - seconds[0]) / 2

    asked = dataclasses.replace(case, updates=updates)
    peer.ask(
        do="train",
        method=case.method,
        updates=asked.steps(peer.name),
        seed=0,
        settings=case.theirs(peer.name),
    )
    ours()  # compiles
    pairs = []
    for _ in range(turns):
        # Either side is measured twice a turn, as the other's neighbour: a drift hits both.
        took = [peer.ask(do="time", method=case.method, updates=asked.steps(peer.name))["seconds"]]
        mine = [ours(), ours()]
        took.append(
            peer.ask(do="time", method=case.method, updates=asked.steps(peer.name))["seconds"]
        )
        pairs.append((sum(took) / 2, sum(mine) / 2))
    ratios = [theirs / mine for theirs, mine in pairs]
    low, _, high = statistics.quantiles(ratios, n=4) if turns > 1 else (ratios[0],) * 3
    return {
        "peer": peer.name,
        "method": case.method,
        "theirs_per_s": updates / statistics.median(theirs for theirs, _ in pairs),
        "ours_per_s": updates / statistics.median(mine for _, mine in pairs),
        "ours_over_theirs": statistics.median(ratios),
        "spread": high - low,
        "turns": turns,
        "load": os.getloadavg()[0],
    }


def _peers(options: argparse.Namespace, data: pathlib.Path) -> list[Peer]:
    found = []
    if options.d3rlpy is not None:
        found.append(Peer("d3rlpy", options.d3rlpy, data))
    if options.unifloral is not None:
        python = options.unifloral_python or pathlib.Path(sys.executable)
        found.append(Peer("unifloral", python, data, str(options.unifloral)))
    return found


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/peers"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20, help="that judge a run")
    parser.add_argument("--rows", type=int, default=100_000, help="of a set, about")
    parser.add_argument("--teacher-steps", type=int, default=150_000)
    parser.add_argument("--rate-updates", type=int, default=500, help="a turn; 0 measures no rates")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-scores", action="store_true", help="rates only")
    parser.add_argument("--d3rlpy", type=pathlib.Path, help="Python that has it")
    parser.add_argument("--unifloral", type=pathlib.Path, help="checkout of it")
    parser.add_argument("--unifloral-python", type=pathlib.Path, help="Python for it")
    return parser.parse_args()


def main() -> None:
    """Record, train, judge, measure; print the tables and write peers.json."""
    options = _parsed()
    folder = options.folder.resolve()
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "datasets")
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    work = Work(peer_sets.Plan(folder, options.teacher_steps, options.rows), options.episodes)
    measured: list[dict[str, Any]] = []
    for dataset in options.sets:
        peers = _peers(options, work.arrays(dataset))
        try:
            for case in (
                Case(dataset, method, seed, options.updates)
                for seed in range(options.seeds)
                for method in options.methods
                if not options.no_scores
            ):
                work.ours(case)
                for peer in peers:
                    work.theirs(peer, case)
            if options.rate_updates and dataset == options.sets[0]:
                for peer in peers:
                    for method in options.methods:
                        case = Case(dataset, method, 0, options.updates)
                        row = rates(
                            peer, case, work.dataset(dataset), options.rate_updates, options.turns
                        )
                        print(json.dumps(row), flush=True)
                        measured.append(row)
        finally:
            for peer in peers:
                peer.close()
        print(work.table(), flush=True)
    results = [files.read_json(file) for file in sorted((folder / "scores").glob("*.json"))]
    files.write_json(folder / "peers.json", {"scores": results, "rates": measured})


if __name__ == "__main__":
    main()
