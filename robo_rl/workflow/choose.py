"""Which of several runs to deploy, and what it costs online to find out."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robo_rl import counts, files
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.fields import check_count
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.judge import selection
from robo_rl.judge.episodes import Episodes, bootstrap_interval, evaluation_seeds
from robo_rl.judge.selection import Deployed, Protocol
from robo_rl.runs import report as reporting
from robo_rl.runs.configs import to_json
from robo_rl.workflow import environment, evaluate
from robo_rl.workflow.export import at_hand
from robo_rl.workflow.run import Run, load_run

_log = logging.getLogger(__name__)
EVALUATIONS = "evaluations"
"""Folder in a run directory with the episodes of its policies that were run before."""
SCORES = ("success", "return")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a few online episodes would choose among runs."""

    rows: tuple[Mapping[str, Any], ...]
    """Of each run: name, mean score with interval, success and return."""
    best: int
    deployed: Deployed
    score: str
    figures: pathlib.Path
    page: pathlib.Path

    @property
    def recommended(self) -> pathlib.Path:
        """The run to deploy."""
        return pathlib.Path(self.rows[self.best]["run"])

    def __str__(self) -> str:
        return _table(self.rows, self.best, self.deployed, self.score)


def choose(
    sources: "Sequence[str | os.PathLike[str] | Run]",
    *,
    episodes: int = 50,
    pulls: int = 100,
    policies: int = 8,
    score: str = "success",
    env: str | EnvSetting | None = None,
    max_episode_steps: int | None = None,
    gap: float = 0.0,
    seed: int = 0,
    workers: int = 2,
    out: str | os.PathLike[str] = "runs/select.json",
) -> Choice:
    """Choose among runs of one environment, and say how many online episodes that takes.

    Evaluates each run's newest policy, then plays the choice by a UCB bandit many times over.

    Args:
        sources: runs or their folders, two at least.
        episodes: evaluated for each run; those of an earlier evaluation are used again.
        pulls: the most online episodes that a play may spend.
        policies: drawn from the runs for a play.
        score: "success" or "return".
        env: where; None is the environment of all the runs.
        max_episode_steps: its step limit, where its own is not meant.
        gap: strength of the domain gap of the simulated arm.
        seed: of the evaluation episodes and of the plays.
        workers: processes side by side.
        out: file for the figures; the page goes beside it, as .html.
    """
    if score not in SCORES:
        raise ValueError(f"score (--score) must be {' or '.join(SCORES)}, got {score!r}")
    counts.check(episodes=episodes, pulls=pulls, policies=policies, seed=seed)
    check_count("workers (--workers)", workers)
    paths = [_path(source) for source in sources]
    setting = common_env(paths, env, max_episode_steps)
    setting = environment.with_gap(setting, gap)
    protocol = Protocol(pulls=pulls, policies=policies, seed=seed)
    results = []
    for path in paths:
        results.append(episodes_of(path, setting, episodes, seed, workers))
        if score == "success" and not results[-1].told:
            raise ValueError(
                f"environment {setting.id} does not say what success is; choose by score (--score) "
                "return"
            )
    scores = score_matrix(results, score)
    best = selection.recommend(scores)
    deployed = selection.expected(scores, protocol)
    rows = _rows([str(path) for path in paths], results, scores, score)
    figures = pathlib.Path(out)
    files.write_json(
        _prepared(figures),
        {
            "score": score,
            "env": setting.to_json(),
            "protocol": to_json(protocol),
            "policies": rows,
            "recommended": rows[best],
            "deployed": {
                name: getattr(deployed, name).tolist() for name in ("mean", "low", "high")
            },
        },
    )
    page = figures.with_suffix(".html")
    _write_page(page, rows, best, deployed, score)
    return Choice(tuple(rows), best, deployed, score, figures, page)


def _path(source: "str | os.PathLike[str] | Run") -> pathlib.Path:
    return source.path if isinstance(source, Run) else pathlib.Path(source)


def common_env(
    sources: Sequence[pathlib.Path],
    env: str | EnvSetting | None = None,
    limit: int | None = None,
) -> EnvSetting:
    """The environment of all runs, apart from a gap that some were finetuned on.

    Raises before anything has been evaluated: for fewer than two runs, for one that is there twice,
    has no checkpoint, or belongs to another environment.
    """
    if len(sources) < 2:
        raise ValueError(f"select chooses among at least 2 runs, got {len(sources)}")
    if len({source.resolve() for source in sources}) < len(sources):
        raise ValueError("select: a run is given twice")
    settings = []
    for source in sources:
        run = load_run(source)
        run.directory.checkpoints.latest()
        if env is None and run.env is None:
            raise EnvError(f"run {source} knows no environment; name one with env (--env)")
        settings.append(
            None if run.env is None else registry.limited(run.env.with_kwargs(gap=None))
        )
        if env is None and settings[-1] != settings[0]:
            raise ValueError(
                f"the runs are of different environments: {sources[0]} of {settings[0]}, "
                f"{source} of {settings[-1]}; choose in one of them by --env ID"
            )
    if env is not None or limit is not None:
        return environment.named(env if env is not None else settings[0], limit)  # type: ignore[arg-type]
    assert settings[0] is not None
    return settings[0]


def episodes_of(
    source: pathlib.Path, setting: EnvSetting, count: int, seed: int, workers: int
) -> Episodes:
    """Episodes of a run's newest policy; those that were run before are not run again."""
    run = load_run(source)
    with at_hand(run) as exported:
        return _episodes_of(run, exported.folder, setting, count, seed, workers)


def _episodes_of(
    run: Run, folder: pathlib.Path, setting: EnvSetting, count: int, seed: int, workers: int
) -> Episodes:
    digest = str(NumpyPolicy.load(folder).description["sha256"])
    seeds = evaluation_seeds(seed, count)
    about = {"policy": digest, "env": setting.to_json()}
    key = hashlib.sha256(json.dumps([about, seed], sort_keys=True).encode()).hexdigest()[:16]
    path = run.path / EVALUATIONS / f"{key}.json"
    stored = _stored(path, seeds)
    if stored is None:
        stored = evaluate.evaluate_policy(
            folder, setting, run.spaces, count, seed, workers, run.path.name
        )
        try:
            files.write_json(_prepared(path), {**about, "episodes": to_json(stored)})
        except OSError as error:
            if error.errno not in files.NO_ROOM | files.NOT_OURS:
                raise
            _log.warning("%s: these episodes will be run again next time", error)
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
    told = bool(table.pop("told", True))
    row_of = {number: row for row, number in enumerate(table["seeds"])}
    if not row_of.keys() >= set(seeds):
        return None
    rows = sorted(row_of[number] for number in seeds)
    columns = {name: tuple(column[row] for row in rows) for name, column in table.items()}
    return Episodes(**columns, told=told)


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
            low, high = (float(x) for x in bootstrap_interval(each, 1000, 0.95, rng))
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
    score: str,
) -> None:
    pulls = list(range(1, len(deployed.mean) + 1))
    curve = reporting.Curve(
        "deployed", pulls, deployed.mean.tolist(), deployed.low.tolist(), deployed.high.tolist()
    )
    chart = reporting.line_chart(
        [curve],
        "online episodes",
        score,
        "Expected score of the policy that is deployed, with its 95 % interval over plays. Dashed: "
        "the best of all.",
        threshold=max(row["mean"] for row in rows),
    )
    table = reporting.table(
        ["run", score, "low", "high", "success", "return"],
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
