"""Is this dataset fit to learn from? Every check looks at the data as stored."""

import dataclasses
import os
from typing import Any

import numpy as np

from robo_rl.data.checks import meaning
from robo_rl.data.checks.bounds import BoundsCheck
from robo_rl.data.checks.copies import CopiesCheck
from robo_rl.data.checks.form import (
    EndsCheck,
    FiniteCheck,
    LengthsCheck,
    SpacesCheck,
    count_findings,
    counts_gap,
)
from robo_rl.data.checks.jumps import JumpsCheck
from robo_rl.data.checks.replays import Replays, replays
from robo_rl.data.checks.sample import Sample, draw
from robo_rl.data.checks.view import EpisodeCheck, Gap, view_of
from robo_rl.data.errors import DatasetWriteError
from robo_rl.data.minari_read import Dataset, open_dataset
from robo_rl.data.minari_write import write_json
from robo_rl.data.report import Finding, Places, Report, Severity, finding

REPORT_FILE = "check.json"


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """What `check` does beyond reading."""

    reward_samples: int = 256
    """Steps whose reward, end and observation are computed again in the environment; 0 skips
    that."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reward_samples < 0:
            raise ValueError(f"CheckConfig.reward_samples must be >= 0, got {self.reward_samples}")


def check(
    source: str | os.PathLike[str] | Dataset,
    config: CheckConfig | None = None,
    env: Any = None,
) -> Report:
    """Check a dataset, given by Minari id, by path or opened.

    It reads one episode at a time, and a sample of bounded size before. `env` replaces the
    environment that would be recovered from the dataset. Raises DatasetError when the dataset
    cannot be read at all.
    """
    config = config or CheckConfig()
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    stored = dataset.stored_episodes()
    count = dataset.total_episodes if stored is None else min(stored, dataset.total_episodes)
    sample = draw(dataset, count)
    results = _Results()
    read, steps = _stream(dataset, sample, count, results)
    results.add("counts", count_findings(dataset, read, steps), counts_gap(dataset))
    with replays(dataset, sample, env, config.reward_samples, config.seed) as replayed:
        results.drop_refuted(replayed)
        for name, (findings, gap) in meaning.judge(dataset, sample, replayed).items():
            results.add(name, findings, gap)
        for name, (findings, gap) in replayed.judged.items():
            results.add(name, findings, gap)
    return results.report(dataset, read, steps)


def store_report(dataset: Dataset, report: Report) -> str | None:
    """Keep the report beside the data, as `check.json`. Returns why it could not be kept, or None;
    what was found does not depend on it."""
    file = dataset.folder / REPORT_FILE
    try:
        write_json(file, report.to_json())
    except DatasetWriteError as error:
        return f"the report was not kept beside the data: {error}"
    return None


class _Results:
    """Findings and gaps by the name of their check, in the order in which they were made."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {}
        self._gaps: dict[str, Gap] = {}
        self.digest = ""

    def add(self, name: str, findings: list[Finding], gap: Gap | None = None) -> None:
        self._found[name] = findings
        if gap is not None:
            self._gaps[name] = gap

    def drop_refuted(self, replayed: Replays) -> None:
        """Leave out what the environment's own steps show to be no defect."""
        for name, findings in self._found.items():
            self._found[name] = replayed.without_refuted(findings)

    def report(self, dataset: Dataset, episodes: int, transitions: int) -> Report:
        return Report(
            dataset=dataset.id,
            episodes=episodes,
            transitions=transitions,
            findings=tuple(one for findings in self._found.values() for one in findings),
            skipped={name: gap.reason for name, gap in self._gaps.items() if gap.whole},
            partial={name: gap.reason for name, gap in self._gaps.items() if not gap.whole},
            passed=tuple(
                name
                for name, findings in self._found.items()
                if not findings and name not in self._gaps
            ),
            digest=self.digest,
        )


def _stream(dataset: Dataset, sample: Sample, count: int, results: _Results) -> tuple[int, int]:
    """Show every episode to the checks that see all; how many there were, and steps in them."""
    copies = CopiesCheck(dataset, sample.views)
    checks: list[EpisodeCheck] = [
        LengthsCheck(),
        SpacesCheck(dataset),
        FiniteCheck(),
        BoundsCheck(dataset),
        EndsCheck(),
        JumpsCheck(sample.views, dataset.provenance),
        copies,
    ]
    broken: list[tuple[int, str]] = []
    episodes = steps = 0
    # What is not finite is told by the check of numbers, not by NumPy in every other check.
    with np.errstate(all="ignore"):
        for number, episode in dataset.numbered_episodes(
            range(count), lambda number, why: broken.append((number, why))
        ):
            view = view_of(number, episode)
            episodes += 1
            steps += view.steps
            for one in checks if view.steps else checks[:2]:
                one.see(view)
    results.add("readable", _unreadable(broken, count))
    for one in checks:
        results.add(one.name, one.findings(), one.gap())
    results.digest = copies.digest()
    return episodes, steps


def _unreadable(broken: list[tuple[int, str]], count: int) -> list[Finding]:
    return finding(
        Severity.ERROR,
        "unreadable",
        f"episodes that cannot be read: {broken[0][1] if broken else ''}",
        Places([(number, None) for number, _ in broken]),
        count,
        "the file is damaged; collect, import or download the dataset again. These episodes were "
        "not looked at",
    )
