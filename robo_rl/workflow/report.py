"""A run's curves, its settings, and whether its critics fit, also in words."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from robo_rl.judge import critics
from robo_rl.judge.critics import Diagnosis
from robo_rl.runs import report as reporting
from robo_rl.runs.directory import RunDirectory
from robo_rl.runs.metrics import read_metrics
from robo_rl.workflow.run import Run, load_run

_SHOWN = {
    "probe_td_error": "TD error of the current critics. It should come down and stay there.",
    "probe_data_q": "Q of the data's actions. Rises and settles; a steady fall is overfitting.",
    "probe_policy_gap": "Q of the policy's actions less Q of the data's.",
    "probe_target_std": "Spread of the TD targets: the scale of the curves above.",
    "regulariser": "What the method pushes down. It should fall.",
    "bound_rate": "Share of Q values held up by the data's returns. Starts near 1 and falls.",
}


def report(source: "str | os.PathLike[str] | Run") -> pathlib.Path:
    """Write report.html into a run directory, and return its path."""
    run = load_run(source).directory
    rows = read_metrics(run.metrics_path)
    if not rows:
        raise ValueError(f"{source} has no metrics yet")
    fit, shown = _fit(run, rows)
    names = sorted({name for row in rows for name in row} - {"step"} - shown)
    charts = [
        reporting.line_chart(reporting.metric_curves(rows, [name]), "step", name) for name in names
    ]
    settings = [[name, value] for name, value in run.config.items()]
    versions = list(run.environment()["libraries"].items())
    path = run.path / "report.html"
    reporting.write_page(
        path,
        run.path.name,
        f"{run.config['kind']} run of {run.config['agent']}",
        [
            *([("Do the critics fit?", fit)] if fit else []),
            ("Curves", charts),
            ("Settings", [reporting.table(["setting", "value"], settings)]),
            ("Versions", [reporting.table(["library", "version"], versions)]),
        ],
    )
    return path


def verdicts(source: Run) -> list[str]:
    """A verdict in words for every seed; none where the run did not watch its critics."""
    return _verdicts(source.directory, source.metrics())


def last_evaluation(source: Run) -> list[str]:
    """The newest evaluation on the way, in a line; none where the run had none."""
    rows = [row for row in source.metrics() if "return_low" in row]
    if not rows:
        return []
    last = rows[-1]
    parts = [
        f"{name} {last[name]:.4g} (95 % interval {last[f'{name}_low']:.4g} to "
        f"{last[f'{name}_high']:.4g})"
        for name in ("success", "return")
        if name in last
    ]
    return [f"at step {last['step']:.0f}: {', '.join(parts)}, {last['episodes']:.0f} episodes"]


def _verdicts(run: RunDirectory, rows: Sequence[Mapping[str, float]]) -> list[str]:
    found = critics.curves(rows)
    kept = run.checkpoints.steps()
    out = []
    for seed, curves in found.items():
        verdict = critics.judge(curves)
        label = f"critics of {seed}" if seed else "critics"
        out.append(f"{label}: {verdict}{_checkpoint(run, verdict, kept)}")
    return out


def _fit(
    run: RunDirectory, rows: Sequence[Mapping[str, float]]
) -> tuple[list[str], frozenset[str]]:
    """Blocks for the report, and the metrics that they show; none as in `_verdicts`."""
    texts = _verdicts(run, rows)
    if not texts:
        return [], frozenset()
    seeds = [f"{seed}/" if seed else "" for seed in critics.curves(rows)]
    blocks, shown = [reporting.paragraph(text) for text in texts], set()
    for name, caption in _SHOWN.items():
        names = [prefix + name for prefix in seeds]
        curves = reporting.metric_curves(rows, names)
        if curves:
            blocks.append(reporting.line_chart(curves, "step", name, caption))
            shown |= {name, *names}
    return blocks, frozenset(shown)


def _checkpoint(run: RunDirectory, verdict: Diagnosis, kept: Sequence[int]) -> str:
    """Where the policy that an overfitting verdict asks for is to be had."""
    if verdict.kind != critics.OVERFITTING:
        return ""
    before = [step for step in kept if step <= verdict.step]
    if before:
        return f" (kept: robo-rl export {run.path} --step {before[-1]})"
    return f" (none is kept: train again for {verdict.step} steps (--steps), or keep more (--keep))"
