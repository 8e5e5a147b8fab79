"""`robo-rl select`: which of several runs to deploy, and what it costs online to find out."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.judge import selection
from robo_rl.judge.episodes import Episodes, evaluation_seeds
from robo_rl.judge.selection import Deployed, Protocol
from robo_rl.runs import files
from robo_rl.runs import report as reporting
from robo_rl.runs.configs import to_json
from robo_rl.runs.directory import RunDirectory
from robo_rl.workflow import evaluate, gaps, training

if TYPE_CHECKING:
    from robo_rl.launch import cli

EVALUATIONS = "evaluations"
"""Folder in a run directory with the episodes of its policies that were run before."""


def select(options: "cli.Select") -> int:
    """`robo-rl select`."""
    env = {**common_env(options.sources), "gap": gaps.quickstart(options.gap)}
    protocol = Protocol(pulls=options.pulls, policies=options.policies, seed=options.seed)
    results = [
        episodes_of(source, env, options.episodes, options.seed, options.workers)
        for source in options.sources
    ]
    names = [str(source) for source in options.sources]
    scores = score_matrix(results, options.score)
    best = selection.recommend(scores)
    deployed = selection.expected(scores, protocol)
    rows = _rows(names, results, scores, options.score)
    files.write_json(
        _prepared(options.out),
        {
            "score": options.score,
            "env": env,
            "protocol": to_json(protocol),
            "policies": rows,
            "recommended": rows[best],
            "deployed": {
                name: getattr(deployed, name).tolist() for name in ("mean", "low", "high")
            },
        },
    )
    page = options.out.with_suffix(".html")
    _write_page(page, rows, best, deployed, options)
    print(_table(rows, best, deployed, options.score))
    print(f"figures: {options.out}\nreport: {page}")
    return 0


def common_env(sources: Sequence[pathlib.Path]) -> dict[str, Any]:
    """The environment of all runs, apart from a gap that some were finetuned on.

    Raises before anything has been evaluated: for fewer than two runs, for one that is there twice,
    has no checkpoint, or belongs to another environment.
    """
    if len(sources) < 2:
        raise ValueError(f"select chooses among at least 2 runs, got {len(sources)}")
    if len({source.resolve() for source in sources}) < len(sources):
        raise ValueError("select: a run is given twice")
    envs = []
    for source in sources:
        run = RunDirectory.open(source)
        run.checkpoints.latest()
        envs.append({name: v for name, v in run.config["env"].items() if name != "gap"})
        if envs[-1] != envs[0]:
            raise ValueError(
                f"the runs are of different environments: {sources[0]} of {envs[0]}, "
                f"{source} of {envs[-1]}"
            )
    return envs[0]


def episodes_of(
    source: pathlib.Path, env: Mapping[str, Any], count: int, seed: int, workers: int
) -> Episodes:
    """Episodes of a run's newest policy; those that were run before are not run again."""
    folder, _ = training.export_run(source)
    digest = str(NumpyPolicy.load(folder).description["sha256"])
    seeds = evaluation_seeds(seed, count)
    about = {"policy": digest, "env": dict(env)}
    key = hashlib.sha256(json.dumps([about, seed], sort_keys=True).encode()).hexdigest()[:16]
    path = source / EVALUATIONS / f"{key}.json"
    stored = _stored(path, seeds)
    if stored is None:
        stored = evaluate.evaluate_policy(folder, env, count, seed, workers, source.name)
        files.write_json(_prepared(path), {**about, "episodes": to_json(stored)})
    return stored


def score_matrix(results: Sequence[Episodes], score: str) -> np.ndarray:
    """Scores (K, E) of the episodes: successes as 0 and 1, or returns."""
    columns = [result.success if score == "success" else result.returns for result in results]
    return np.array(columns, np.float64)


def _stored(path: pathlib.Path, seeds: Sequence[int]) -> Episodes | None:
    """The episodes of `seeds` in an earlier evaluation; None unless all of them are there."""
    if not path.exists():
        return None
    table = files.read_json(path)["episodes"]
    row_of = {number: row for row, number in enumerate(table["seeds"])}
    if not row_of.keys() >= set(seeds):
        return None
    rows = sorted(row_of[number] for number in seeds)
    return Episodes(**{name: tuple(column[row] for row in rows) for name, column in table.items()})


def _rows(
    names: Sequence[str], results: Sequence[Episodes], scores: np.ndarray, score: str
) -> list[dict[str, Any]]:
    """A policy's name, its mean score with interval, and its success and return."""
    rng = np.random.default_rng(0)
    out = []
    for name, result, each in zip(names, results, scores, strict=True):
        if score == "success":  # Wilson's: a bootstrap of failures alone has no width
            low, high = result.ci95
        else:
            low, high = (float(x) for x in selection.bootstrap_interval(each, 1000, 0.95, rng))
        out.append(
            {
                "run": name,
                "mean": float(each.mean()),
                "ci95": [low, high],
                "episodes": len(each),
                "success": result.success_rate,
                "return": float(np.mean(result.returns)),
            }
        )
    return out


def _table(rows: Sequence[Mapping[str, Any]], best: int, deployed: Deployed, score: str) -> str:
    width = max(len(row["run"]) for row in rows)
    lines = [f"{'run':<{width}}  {score} (95 % interval)"]
    for row in rows:
        low, high = row["ci95"]
        lines.append(f"{row['run']:<{width}}  {row['mean']:.3g}  ({low:.3g} to {high:.3g})")
    lines.append(f"\nexpected {score} of what is deployed after so many online episodes:")
    for pulls in _milestones(len(deployed.mean)):
        mean, low, high = (x[pulls - 1] for x in (deployed.mean, deployed.low, deployed.high))
        lines.append(f"{pulls:>6}  {mean:.3g}  ({low:.3g} to {high:.3g})")
    low, high = rows[best]["ci95"]
    lines.append(
        f"\nrecommended: {rows[best]['run']}, {score} {rows[best]['mean']:.3g} ({low:.3g} to "
        f"{high:.3g}; it was chosen by the same {rows[best]['episodes']} episodes, which flatters "
        "the best of many)"
    )
    return "\n".join(lines)


def _milestones(pulls: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 ... up to `pulls`, and `pulls`."""
    steps = [step * 10**power for power in range(6) for step in (1, 2, 5)]
    return sorted({step for step in steps if step < pulls} | {pulls})


def _write_page(
    path: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    best: int,
    deployed: Deployed,
    options: "cli.Select",
) -> None:
    pulls = list(range(1, len(deployed.mean) + 1))
    curve = reporting.Curve(
        "deployed", pulls, deployed.mean.tolist(), deployed.low.tolist(), deployed.high.tolist()
    )
    chart = reporting.line_chart(
        [curve],
        "online episodes",
        options.score,
        "Expected score of the policy that is deployed, with its 95 % interval over plays. Dashed: "
        "the best of all.",
        threshold=max(row["mean"] for row in rows),
    )
    table = reporting.table(
        ["run", options.score, "low", "high", "success", "return"],
        [[r["run"], r["mean"], *r["ci95"], r["success"], r["return"]] for r in rows],
    )
    reporting.write_page(
        path,
        "Which policy to deploy",
        f"recommended: {rows[best]['run']}",
        [("What choosing costs", [chart]), ("Policies", [table])],
    )


def _prepared(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
