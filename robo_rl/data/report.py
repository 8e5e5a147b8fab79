"""What `check` found, for people and for programs."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

SHOWN = 5  # places listed per finding


class Severity(enum.StrEnum):
    """An error spoils learning; a warning is worth a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of defect, wherever it occurs."""

    severity: Severity
    code: str
    message: str
    count: int
    of: int
    """How many there could have been: steps, episodes or samples."""
    places: tuple[tuple[int, int | None], ...]
    """The first few (episode, step); the step is None when the whole episode is meant."""
    advice: str


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
    """Checks that found nothing."""

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
        rows += [("ok", name, "", "", "") for name in self.passed]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        if order:
            lines += ["", *(f"{finding.code}: {finding.advice}" for finding in order)]
        return "\n".join(lines)


def _places(finding: Finding) -> str:
    shown = [
        str(episode) if step is None else f"{episode}:{step}" for episode, step in finding.places
    ]
    return ", ".join(shown) + (", ..." if finding.count > len(shown) else "")
