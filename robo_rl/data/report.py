"""What `check` found, for people and for programs."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

SHOWN = 5  # places listed per finding
Place = tuple[int, int | None]
"""Episode and step; the step is None when the whole episode is meant."""


class Severity(enum.StrEnum):
    """An error spoils learning; a warning is worth a look."""

    ERROR = "error"
    WARNING = "warning"


class Confidence(enum.StrEnum):
    """How sure a finding is: high was read off or computed again, low may well be innocent."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of defect, wherever it occurs."""

    severity: Severity
    code: str
    message: str
    count: int
    of: int
    """How many there could have been: steps, episodes or samples."""
    places: tuple[Place, ...]
    """The first few."""
    advice: str
    confidence: Confidence = Confidence.HIGH
    basis: str = "read off the data"
    """What the confidence rests on."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of checking one dataset."""

    dataset: str
    episodes: int
    transitions: int
    findings: tuple[Finding, ...]
    skipped: Mapping[str, str]
    """Checks that could not be made, and why."""
    passed: tuple[str, ...]
    """Checks that looked at everything and found nothing."""
    partial: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Checks that looked at a part only: at which, and why not at the rest."""
    digest: str = ""
    """Of a few rows of every episode: with another digest, these are other data."""

    @property
    def exit_code(self) -> int:
        """1 when there is an error, else 0."""
        return int(any(finding.severity is Severity.ERROR for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**dataclasses.asdict(self), "exit_code": self.exit_code}

    def table(self) -> str:
        """Aligned text, errors first."""
        lines = [f"{self.dataset}: {self.episodes} episodes, {self.transitions} transitions", ""]
        rows = [("result", "check", "count", "where (episode:step)", "what")]
        order = sorted(self.findings, key=lambda finding: finding.severity is not Severity.ERROR)
        rows += [
            (
                finding.severity.upper(),
                finding.code,
                f"{finding.count} of {finding.of}",
                _places(finding),
                finding.message,
            )
            for finding in order
        ]
        rows += [("skipped", name, "", "", reason) for name, reason in self.skipped.items()]
        rows += [("partial", name, "", "", reason) for name, reason in self.partial.items()]
        rows += [("ok", name, "", "", "") for name in self.passed]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        if order:
            lines += ["", *(_advice(finding) for finding in order)]
        return "\n".join(lines)


def finding(
    severity: Severity,
    code: str,
    message: str,
    places: "Places | list[Place]",
    of: int,
    advice: str,
    confidence: Confidence = Confidence.HIGH,
    basis: str = "read off the data",
) -> list[Finding]:
    """No finding where there is no place, else one that says how large their share is."""
    found = places if isinstance(places, Places) else Places(places)
    if not found.count:
        return []
    share = f" ({100.0 * found.count / max(of, 1):.2g} %)"
    shown = tuple(found.shown)
    return [
        Finding(severity, code, message + share, found.count, of, shown, advice, confidence, basis)
    ]


class Places:
    """Counts places and keeps the first few, so that memory does not grow with defects."""

    def __init__(self, places: "list[Place] | None" = None):
        self.count = 0
        self.shown: list[Place] = []
        for place in sorted(places or [], key=lambda p: (p[0], -1 if p[1] is None else p[1])):
            self.add(*place)

    def add(self, episode: int, step: int | None = None) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((episode, step))

    def add_steps(self, episode: int, steps: Any) -> None:
        """The given steps of one episode, in order."""
        for step in steps[: SHOWN - len(self.shown)].tolist():
            self.shown.append((episode, step))
        self.count += len(steps)


def _advice(finding: Finding) -> str:
    sure = "" if finding.confidence is Confidence.HIGH else " (look before you act)"
    return (
        f"{finding.code}: {finding.advice}{sure}. Confidence {finding.confidence}: {finding.basis}"
    )


def _places(finding: Finding) -> str:
    shown = [
        str(episode) if step is None else f"{episode}:{step}" for episode, step in finding.places
    ]
    return ", ".join(shown) + (", ..." if shown and finding.count > len(shown) else "")
