"""Is this dataset fit to learn from? Every check looks at the data as stored."""

import dataclasses
import hashlib
import os
from typing import Any

import gymnasium
import numpy as np

from robo_rl.data.episodes import Episode, named_arrays
from robo_rl.data.jumps import find_jumps
from robo_rl.data.minari_read import Dataset, open_dataset
from robo_rl.data.minari_write import write_json
from robo_rl.data.report import SHOWN, Finding, Report, Severity
from robo_rl.data.reward_replay import ReplaySkippedError, replay_rewards

Place = tuple[int, int | None]
REPORT_FILE = "check.json"
_BOUND_ATOL = 1e-6  # float32 of a number near 1


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """What `check` does beyond reading."""

    reward_samples: int = 256
    """Steps whose reward is computed again in the environment; 0 skips that check."""
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

    `env` replaces the environment that would be recovered from the dataset. Raises DatasetError
    when the dataset cannot be read at all.
    """
    config = config or CheckConfig()
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    episodes = dataset.episodes()
    found: dict[str, list[Finding]] = {"lengths": _lengths(episodes)}
    skipped: dict[str, str] = {}
    # The other checks index rows by step, which only whole episodes allow.
    whole = [(index, episode) for index, episode in enumerate(episodes) if not episode.problems()]
    found["finite"] = _finite(whole)
    found["bounds"] = _bounds(whole, dataset.action_space, skipped)
    found["ends"] = _ends(whole)
    found["jumps"] = find_jumps(whole, dataset.provenance)
    found["duplicates"] = _duplicates(whole)
    try:
        found["reward"] = replay_rewards(
            dataset, whole, env, samples=config.reward_samples, seed=config.seed
        )
    except ReplaySkippedError as reason:
        skipped["reward"] = str(reason)
    return Report(
        dataset=dataset.id,
        episodes=len(episodes),
        transitions=sum(len(episode) for episode in episodes),
        findings=tuple(finding for findings in found.values() for finding in findings),
        skipped=skipped,
        passed=tuple(
            name for name, findings in found.items() if not findings and name not in skipped
        ),
    )


def store_report(dataset: Dataset, report: Report) -> None:
    """Keep the report beside the data, as `check.json`."""
    write_json(dataset.folder / REPORT_FILE, report.to_json())


def _lengths(episodes: list[Episode]) -> list[Finding]:
    broken = [(index, episode.problems()) for index, episode in enumerate(episodes)]
    broken = [(index, problems) for index, problems in broken if problems]
    if not broken:
        return []
    index, problems = broken[0]
    return [
        Finding(
            Severity.ERROR,
            "lengths",
            f"arrays do not fit together; episode {index}: {'; '.join(problems)}",
            len(broken),
            len(episodes),
            tuple((index, None) for index, _ in broken[:SHOWN]),
            "T steps need T actions, rewards and end flags, and T + 1 observations and infos; "
            "record the state after the last step too. These episodes were not checked further",
        )
    ]


def _finite(whole: list[tuple[int, Episode]]) -> list[Finding]:
    steps = sum(len(episode) for _, episode in whole)
    out: list[Finding] = []
    for severity, code, what, arrays_of in (
        (Severity.ERROR, "non_finite", "observations, actions or rewards", _learned_from),
        (Severity.WARNING, "non_finite_info", "infos", _infos_of),
    ):
        places: list[Place] = []
        for index, episode in whole:
            bad = np.zeros(len(episode) + 1, bool)
            for array in arrays_of(episode):
                rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
                bad[: len(rows)] |= rows
            places += [(index, step) for step in np.flatnonzero(bad).tolist()]
        advice = "drop these episodes, or find the sensor or the division that made them"
        out += _finding(severity, code, f"NaN or infinity in {what}", places, steps, advice)
    return out


def _learned_from(episode: Episode) -> list[np.ndarray]:
    observations = named_arrays("observations", episode.observations).values()
    return [*observations, episode.actions, episode.rewards]


def _infos_of(episode: Episode) -> list[np.ndarray]:
    return list(episode.infos.values())


def _bounds(
    whole: list[tuple[int, Episode]], space: gymnasium.Space[Any], skipped: dict[str, str]
) -> list[Finding]:
    if not isinstance(space, gymnasium.spaces.Box):
        skipped["bounds"] = f"the action space {space} has no bounds to be on"
        return []
    past: list[Place] = []
    on: list[Place] = []
    for index, episode in whole:
        actions = np.asarray(episode.actions, np.float64).reshape(len(episode), -1)
        excess = np.maximum(actions - space.high.reshape(-1), space.low.reshape(-1) - actions).max(
            axis=1
        )
        past += [(index, step) for step in np.flatnonzero(excess > _BOUND_ATOL).tolist()]
        touching = np.flatnonzero(np.abs(excess) <= _BOUND_ATOL)
        on += [(index, step) for step in touching.tolist()]
    steps = sum(len(episode) for _, episode in whole)
    return [
        *_finding(
            Severity.ERROR,
            "action_past_bound",
            "actions outside the action space",
            past,
            steps,
            "record the action that was executed, or scale the recorded ones into the space",
        ),
        *_finding(
            Severity.WARNING,
            "action_on_bound",
            "actions exactly on a bound, where a tanh policy has no finite likelihood",
            on,
            steps,
            "harmless for deterministic policies; otherwise let the learner clip to 1 - 1e-5",
        ),
    ]


def _ends(whole: list[tuple[int, Episode]]) -> list[Finding]:
    missing: list[Place] = []
    early: list[Place] = []
    cut: list[Place] = []
    both: list[Place] = []
    for index, episode in whole:
        last = len(episode) - 1
        if not (episode.terminations[last] or episode.truncations[last]):
            missing.append((index, last))
        early += [(index, step) for step in np.flatnonzero(episode.terminations[:last]).tolist()]
        cut += [(index, step) for step in np.flatnonzero(episode.truncations[:last]).tolist()]
        contradiction = np.flatnonzero(episode.terminations & episode.truncations)
        both += [(index, step) for step in contradiction.tolist()]
    episodes = len(whole)
    steps = sum(len(episode) for _, episode in whole)
    split = "end the episode there, or clear the flag if the task went on"
    return [
        *_finding(
            Severity.ERROR,
            "end_missing",
            "episodes that end neither terminated nor truncated",
            missing,
            episodes,
            "set truncated where the recording stopped, terminated where the task did",
        ),
        *_finding(
            Severity.ERROR,
            "terminated_early",
            "terminated in mid-episode: steps follow an end of the task",
            early,
            steps,
            split,
        ),
        *_finding(
            Severity.ERROR,
            "truncated_early",
            "truncated in mid-episode: two recordings in one episode",
            cut,
            steps,
            split,
        ),
        *_finding(
            Severity.WARNING,
            "end_contradictory",
            "both terminated and truncated; learners will take it as terminated",
            both,
            episodes,
            "right if the task ended on the very step of the time limit; otherwise clear one",
        ),
    ]


def _duplicates(whole: list[tuple[int, Episode]]) -> list[Finding]:
    first: dict[bytes, int] = {}
    places: list[Place] = []
    copies: list[str] = []
    for index, episode in whole:
        digest = hashlib.blake2b(digest_size=16)
        for array in _learned_from(episode)[:-1]:
            digest.update(np.ascontiguousarray(array).tobytes())
        key = digest.digest()
        if key in first:
            places.append((index, None))
            copies.append(f"{index} equals {first[key]}")
        first.setdefault(key, index)
    message = f"episodes with the observations and actions of another: {', '.join(copies[:SHOWN])}"
    advice = "drop the copies; they weigh double and leak between training and validation"
    return _finding(Severity.ERROR, "duplicate", message, places, len(whole), advice)


def _finding(
    severity: Severity, code: str, message: str, places: list[Place], of: int, advice: str
) -> list[Finding]:
    if not places:
        return []
    share = f" ({100.0 * len(places) / max(of, 1):.2g} %)"
    shown = tuple(places[:SHOWN])
    return [Finding(severity, code, message + share, len(places), of, shown, advice)]
