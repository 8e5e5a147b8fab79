"""The quickstart's report.html."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from robo_rl.hardware.twin.stop_test import StopReport
from robo_rl.runs import report
from robo_rl.runs.metrics import read_metrics
from robo_rl.workflow import deploy


@dataclasses.dataclass
class Results:
    """What the phases hand to the report."""

    check: dict[str, Any] = dataclasses.field(default_factory=dict)
    deployments: dict[str, deploy.Deployment] = dataclasses.field(default_factory=dict)
    stops: StopReport | None = None
    film: pathlib.Path | None = None
    film_problem: str = ""
    phases: list[tuple[str, float]] = dataclasses.field(default_factory=list)


def write_report(out: pathlib.Path, summary: dict[str, Any], results: Results) -> None:
    """Curves, success with intervals, a film, margins over time, stops: one self-contained page."""
    sections = [
        ("Success along the path", _success(summary)),
        ("Demonstrations", _demonstrations(summary, results)),
        (
            "Learning offline",
            _curves(out / "offline", ("critic_loss", "q", "action_mse"), "update"),
        ),
        ("Finetuning online", _online(out)),
        ("Deployed over ROS 2", _deployed(summary, results)),
        ("Distance to the keep-out region", _margins(results)),
        ("When the policy dies", _stops(summary)),
        ("Time", [_times(results)]),
    ]
    machine = summary["machine"]
    lead = (
        f"From recorded data to a filtered arm, seed {summary['seed']}, in "
        f"{summary['wall_s'] / 60:.0f} minutes on {machine['cores']} cores."
    )
    report.write_page(out / "report.html", "robo_rl quickstart", lead, sections)


def _success(summary: dict[str, Any]) -> list[str]:
    names = (
        ("offline", "offline,\nclean simulator"),
        ("gap", "same policy,\nchanged arm"),
        ("online", "finetuned,\nchanged arm"),
        ("deployed", "deployed,\nfilter on"),
        ("unfiltered", "deployed,\nfilter off"),
    )
    bars = [
        report.Bar(label, summary[name]["success"], *summary[name]["ci95"]) for name, label in names
    ]
    episodes = ", ".join(str(summary[name]["episodes"]) for name, _ in names)
    return [
        report.bar_chart(
            bars, "success", f"Bars are 95 % Wilson intervals; episodes, left to right: {episodes}."
        )
    ]


def _demonstrations(summary: dict[str, Any], results: Results) -> list[str]:
    findings = [
        [finding["severity"], finding["code"], finding["count"], finding["message"]]
        for finding in results.check.get("findings", [])
    ]
    data = summary["dataset"]
    blocks = [
        report.paragraph(
            f"{data['episodes']} episodes, {data['transitions']} transitions by OGBench's noisy "
            "oracle, checked as `robo-rl data check` does."
        )
    ]
    if findings:
        blocks.append(report.table(["severity", "check", "count", "what"], findings))
    return blocks


def _curves(run: pathlib.Path, names: tuple[str, ...], x_label: str) -> list[str]:
    rows = read_metrics(run / "metrics.jsonl")
    return [
        report.line_chart(curves, x_label, name)
        for name in names
        if (curves := report.metric_curves(rows, [name]))
    ]


def _online(out: pathlib.Path) -> list[str]:
    note = report.paragraph(
        "Success is that of the exploring policy in the episodes it learned from; the evaluation "
        "above is of the final policy without exploration."
    )
    names = ("episode_success", "q", "critic_loss")
    return [note, *_curves(out / "online", names, "environment step")]


def _deployed(summary: dict[str, Any], results: Results) -> list[str]:
    names = ("deployed", "unfiltered")
    rows: list[list[object]] = []
    for label, key in (
        ("episodes", "episodes"),
        ("success", "success"),
        ("episodes in the keep-out region", "violations"),
        ("smallest distance to it, m", "min_clearance_m"),
        ("control rate, Hz", "rate_hz"),
        ("deadlines missed by the policy", "deadline_misses"),
        ("ticks of the robot process", "robot_ticks"),
        ("deadlines missed by it", "robot_deadline_misses"),
    ):
        rows.append([label, *(summary[name][key] for name in names)])
    blocks = [report.table(["", "filter on", "filter off"], rows), _reasons(results)]
    if results.film is not None:
        caption = "A deployed episode, filter on; the keep-out region in red."
        blocks.append(report.video(results.film, caption))
    else:
        blocks.append(report.paragraph(results.film_problem))
    return blocks


def _reasons(results: Results) -> str:
    deployments = results.deployments
    codes = sorted({code for d in deployments.values() for code in d.reasons})
    rows = [[code, *(d.reasons.get(code, 0) for d in deployments.values())] for code in codes]
    return report.table(["what the guards said, ticks of the robot process", *deployments], rows)


def _margins(results: Results) -> list[str]:
    blocks = []
    for name, deployment in results.deployments.items():
        curves = [
            report.Curve(f"episode {index}", *outcome.margins.T.tolist())
            for index, outcome in enumerate(deployment.outcomes)
            if len(outcome.margins) and np.isfinite(outcome.margins).all()
        ]
        if curves:
            caption = f"{name}: true distance of the nearest part; below the line is a violation."
            blocks.append(report.line_chart(curves, "s", "m", caption, threshold=0.0, legend=False))
    return blocks


def _stops(summary: dict[str, Any]) -> list[str]:
    watchdog = summary["watchdog"]
    rows = [
        [fault.replace("_", " "), watchdog["speed_rad_s"][fault], watchdog["stop_ms"][fault]]
        for fault in watchdog["stop_ms"]
    ]
    excess = [[limit, value] for limit, value in summary["limit_excess"].items()]
    return [
        report.table(["fault in mid-motion", "speed, rad/s", "at rest after, ms"], rows),
        report.paragraph("Of all commands ever sent, how far the worst lies beyond each limit:"),
        report.table(["limit", "excess (0 or less is within)"], excess),
    ]


def _times(results: Results) -> str:
    rows = [[title, seconds] for title, seconds in results.phases]
    return report.table(["phase", "s"], rows)
