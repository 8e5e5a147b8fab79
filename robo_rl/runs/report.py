"""Self-contained HTML reports: tables, curves with intervals, videos. One file, no links."""

import base64
import dataclasses
import html
import io
import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np

from robo_rl import files

_STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1c2430;background:#fbfbf9;margin:0}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;margin:0 0 .25rem}h2{font-size:1.25rem;margin:2.5rem 0 .5rem}
p{max-width:44rem}.lead{color:#5a6473;margin-top:0}
table{border-collapse:collapse;margin:.75rem 0;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem 1rem .35rem 0;border-bottom:1px solid #e3e5e8}
th{font-weight:600;color:#5a6473;font-size:.85rem}td.num{text-align:right}
figure{margin:1rem 0}figcaption{color:#5a6473;font-size:.9rem;max-width:44rem}
svg,video,img{max-width:100%;height:auto}video{border-radius:6px;background:#000}
code{font-size:.9em}
"""

_COLOURS = ("#1f5fa8", "#c2571a", "#2f7d4f", "#7a4fa3", "#a3333d", "#5d6470")


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a chart: x (N,), y (N,), and an optional band low/high (N,)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Bar:
    """A value with its interval, e.g. a success rate with Wilson's 95 % interval."""

    label: str
    value: float
    low: float
    high: float


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers are right-aligned and shortened."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def line_chart(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    caption: str = "",
    y_limits: tuple[float, float] | None = None,
    threshold: float | None = None,
    legend: bool = True,
) -> str:
    """Lines with optional bands, and a dashed threshold, as inline SVG."""
    figure, axes = _figure()
    for colour, curve in zip(_cycle(len(curves)), curves, strict=True):
        axes.plot(curve.x, curve.y, color=colour, label=curve.label, linewidth=1.6)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    if threshold is not None:
        axes.axhline(threshold, color="#a3333d", linestyle="--", linewidth=1)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    if legend and len(curves) > 1:
        axes.legend(frameon=False)
    return _embed(figure, caption)


def bar_chart(bars: Sequence[Bar], y_label: str, caption: str = "") -> str:
    """Values between 0 and 1 as dots with their intervals, as inline SVG."""
    figure, axes = _figure(height=2.8)
    x = np.arange(len(bars))
    value = np.array([bar.value for bar in bars])
    errors = np.array([[bar.value - bar.low, bar.high - bar.value] for bar in bars]).T
    axes.bar(x, value, color=_COLOURS[0], alpha=0.25, width=0.55)
    axes.errorbar(x, value, yerr=np.maximum(errors, 0.0), fmt="o", color=_COLOURS[0], capsize=5)
    axes.set_xticks(x, [bar.label for bar in bars])
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel(y_label)
    return _embed(figure, caption)


def video(path: pathlib.Path, caption: str = "") -> str:
    """An MP4 inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><video controls loop muted playsinline src="data:video/mp4;base64,{data}">'
        f"</video><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def write_page(
    path: pathlib.Path, title: str, lead: str, sections: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Write the page whole or not at all. Each section is a heading and its blocks of HTML."""
    body = "".join(
        f"<section><h2>{html.escape(name)}</h2>{''.join(blocks)}</section>"
        for name, blocks in sections
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>{body}'
        f"</main></body></html>"
    )
    files.write_bytes(path, page.encode("utf-8", "replace"))  # a path may hold any bytes


def metric_curves(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], x: str = "step"
) -> list[Curve]:
    """The named metrics of `metrics.jsonl` rows as curves over `x`; absent ones are left out."""
    curves = []
    for name in names:
        points = [(row[x], row[name]) for row in rows if name in row and x in row]
        if points:
            xs, ys = zip(*points, strict=True)
            curves.append(Curve(name, xs, ys))
    return curves


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:d}" if isinstance(value, int) else _short(value)
    return f'<td class="num">{text}</td>'


def _short(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _figure(height: float = 3.2) -> "tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]":
    # A bare Figure, not pyplot: no global state, no display.
    figure = matplotlib.figure.Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _embed(figure: matplotlib.figure.Figure, caption: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg")
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
