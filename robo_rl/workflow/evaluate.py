"""Judging a policy in its environment: the figures do not depend on how many processes help."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from robo_rl import counts
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.judge.episodes import Episodes, evaluation_seeds, merge, normalised_score
from robo_rl.judge.episodes import evaluate as judge
from robo_rl.workers import Work, pool
from robo_rl.workflow import environment, film
from robo_rl.workflow.exported import Exported
from robo_rl.workflow.subject import Subject, opened

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.workflow.run import Run

_PART_COUNT = 20


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a policy did, where."""

    episodes: Episodes
    env: EnvSetting
    references: Mapping[str, float]
    policy: str
    """Digest of the exported policy; empty for one that acts in JAX."""

    @property
    def score(self) -> float | None:
        """D4RL's normalised score; None where the data have no references."""
        return normalised_score(self.episodes.mean_return, self.references)

    def __str__(self) -> str:
        return describe(self.episodes, self.references)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **self.episodes.summary(),
            "score": self.score,
            "env": self.env.to_json(),
            "policy": self.policy,
        }


def evaluate(
    source: "str | os.PathLike[str] | Run | Exported",
    *,
    episodes: int = 100,
    seed: int = 0,
    workers: int = 2,
    env: str | EnvSetting | None = None,
    max_episode_steps: int | None = None,
    gap: float = 0.0,
    step: int | None = None,
    video: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Judge a run, or an exported policy, on seeds that training never sees.

    Args:
        source: run, its folder, or an exported policy, as `export` returned it or its folder.
        episodes: how many.
        seed: of the evaluation episodes.
        workers: processes side by side; 0 evaluates here, in this one. So do policies that cannot
            be exported, in JAX, and environments that the running script itself defines.
        env: where; None is where the policy is at home.
        max_episode_steps: its step limit, where its own is not meant.
        gap: strength of the domain gap of the simulated arm.
        step: checkpoint of a run; the newest by default.
        video: an .mp4 for the first episode; needs off-screen OpenGL.
    """
    counts.check(episodes=episodes, seed=seed, workers=workers)
    if video is not None:
        film.check_place(pathlib.Path(video))
    with opened(source, step) as subject:
        setting = _setting(subject, env, max_episode_steps, gap)
        registry.check_fits(setting, subject.spaces, str(subject.name))
        if subject.folder is None or workers == 0:
            result = _here(subject, setting, evaluation_seeds(seed, episodes))
        else:
            result = evaluate_policy(
                subject.folder, setting, subject.spaces, episodes, seed, workers
            )
        if video is not None:
            film.episode(subject, setting, evaluation_seeds(seed, 1)[0], pathlib.Path(video))
        return Evaluation(result, setting, subject.references, subject.digest)


def evaluate_policy(
    policy: pathlib.Path,
    setting: EnvSetting,
    spaces: Spaces,
    episodes: int,
    seed: int = 0,
    workers: int = 2,
    title: str = "evaluate",
) -> Episodes:
    """Episodes of an exported policy in an environment. Shows a progress bar."""
    seeds = evaluation_seeds(seed, episodes)
    if workers == 0 or registry.only_here(setting):
        return _in_turn(NumpyPolicy.load(policy), environment.learner_env(setting, spaces), seeds)
    # Several small parts a worker: the bar moves, and a slow part does not hold up the rest.
    parts = [seeds[start::_PART_COUNT] for start in range(_PART_COUNT)]
    with registry.prepared(setting) as ready:
        begin = functools.partial(_judging, policy, ready, spaces)
        with pool(workers, begin) as processes:
            futures = [processes.submit(part) for part in parts if part]
            done = (future.result() for future in concurrent.futures.as_completed(futures))
            return _gathered(done, episodes, title)


def describe(result: Episodes, references: Mapping[str, float] | None = None) -> str:
    """A line for people, or two: success where the environment tells it, and the return."""
    low, high = result.ci95
    lines = []
    if result.told:
        lines.append(
            f"success {result.success_rate:.2f}  (95 % interval {low:.2f} to {high:.2f}, "
            f"{len(result.success)} episodes)"
        )
    low, high = result.return_ci95
    score = normalised_score(result.mean_return, references or {})
    lines.append(
        f"return {result.mean_return:.5g}  (95 % interval {low:.5g} to {high:.5g}, "
        f"{len(result.returns)} episodes)"
        + ("" if score is None else f"  normalised score {score:.1f}")
    )
    return "\n".join(lines)


def _setting(
    subject: Subject, env: str | EnvSetting | None, limit: int | None, gap: float
) -> EnvSetting:
    if env is None and subject.home is None:
        raise EnvError(f"{subject.name} knows no environment; name one with env (--env)")
    setting = subject.home
    if env is not None or limit is not None:
        setting = environment.named(env if env is not None else subject.home, limit)  # type: ignore[arg-type]
    assert setting is not None
    return environment.with_gap(setting, gap)


def _here(subject: Subject, setting: EnvSetting, seeds: tuple[int, ...]) -> Episodes:
    """In this process, one episode after the other."""
    env = environment.learner_env(setting, subject.spaces, frames=subject.frames)
    return _in_turn(subject.acting(), env, seeds)


def _in_turn(policy: Any, env: Any, seeds: tuple[int, ...]) -> Episodes:
    with contextlib.closing(env):
        done = (judge(env, policy.act, (seed,), begin=policy.reset) for seed in seeds)
        return _gathered(done, len(seeds), "evaluate")


def _judging(policy: pathlib.Path, setting: EnvSetting, spaces: Spaces) -> Work:
    """What a worker does: seeds -> the episodes that begin with them."""
    env, acting = environment.learner_env(setting, spaces), NumpyPolicy.load(policy)
    return lambda seeds: judge(env, acting.act, seeds, begin=acting.reset)


def _gathered(parts: Iterable[Episodes], count: int, title: str) -> Episodes:
    """All parts as one, with a progress bar over episodes."""
    results: list[Episodes] = []
    with tqdm(total=count, desc=title, unit="episode", mininterval=0.5) as bar:
        for part in parts:
            results.append(part)
            bar.update(len(part.returns))
            bar.set_postfix_str(_short(merge(results)), refresh=False)
    return merge(results)


def _short(result: Episodes) -> str:
    if result.told:
        return f"success {result.success_rate:.2f}"
    return f"return {result.mean_return:.4g}"
