"""Episodes of any policy in any environment, as a Minari dataset: no download is needed."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium
import numpy as np
from tqdm import tqdm

from robo_rl import counts
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Card, Provenance, RewardLabel, write_dataset
from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting, succeeded
from robo_rl.learn.seeds import training_seed
from robo_rl.workers import Work, pool
from robo_rl.workflow import environment
from robo_rl.workflow.exported import Exported
from robo_rl.workflow.subject import Subject, opened

if TYPE_CHECKING:  # processes that run environments import no JAX
    from robo_rl.workflow.run import Run

Policies: TypeAlias = "str | os.PathLike[str] | Run | Exported"
RANDOM = "random"
_STREAM = 8  # of the noise; 0 to 7 are the loops'


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What was written."""

    dataset: str
    folder: pathlib.Path
    episodes: int
    steps: int
    mean_return: float
    success: float | None
    """Share of successful episodes; None where the environment does not tell."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What every worker needs."""

    setting: EnvSetting
    spaces: Spaces
    policies: tuple[Subject | None, ...]
    """None acts at random."""
    noise: float
    random_action_prob: float
    seed: int


def record(
    policy: "Policies | Sequence[Policies]",
    dataset: str,
    *,
    env: str | EnvSetting | None = None,
    episodes: int = 100,
    noise: float = 0.0,
    random_action_prob: float = 0.0,
    seed: int = 0,
    workers: int = 2,
    max_episode_steps: int | None = None,
    ref_min_score: float | None = None,
    ref_max_score: float | None = None,
    overwrite: bool = False,
) -> Recorded:
    """Record episodes into a new Minari dataset. Shows a progress bar.

    The data do not depend on how many workers there are.

    Args:
        policy: "random", a run ("RUN" or "RUN@STEP"), an exported policy, or several of these:
            they take turns, an episode each.
        dataset: name of the new dataset, such as hopper/mixed-v0.
        env: where; None is where the first policy is at home.
        episodes: how many.
        noise: standard deviation of normal noise on the policy's actions in [-1, 1].
        random_action_prob: chance of a uniform action at each step.
        seed: of the first episode.
        workers: processes side by side; 0 records here.
        max_episode_steps: step limit, where the environment's own is not meant.
        ref_min_score: return that counts as a normalised score of 0.
        ref_max_score: return that counts as 100.
        overwrite: replace a dataset of this name.
    """
    counts.check(episodes=episodes, seed=seed, workers=workers)
    _check(noise, random_action_prob)
    if (ref_min_score is None) != (ref_max_score is None):
        raise ValueError("record: give both ref_min_score and ref_max_score, or neither")
    one = isinstance(policy, (str, os.PathLike, Exported)) or not isinstance(policy, Sequence)
    sources: Any = [policy] if one else policy
    with contextlib.ExitStack() as used:
        subjects = tuple(_subject(source, used) for source in sources)
        if not subjects:
            raise ValueError(
                "record: name a policy, or several: random, a run or an exported policy"
            )
        setting = _setting(subjects, env, max_episode_steps)
        spaces = registry.spaces_of(setting)
        for subject in subjects:
            if subject is not None:
                registry.check_fits(setting, subject.spaces, str(subject.name))
                if subject.folder is None and workers:
                    workers = 0  # it acts in JAX, in this process
        plan = _Plan(setting, spaces, subjects, noise, random_action_prob, seed)
        references = _references(ref_min_score, ref_max_score)
        return _written(dataset, plan, episodes, workers, references, overwrite)


def _written(
    dataset: str,
    plan: _Plan,
    episodes: int,
    workers: int,
    references: Mapping[str, float],
    overwrite: bool,
) -> Recorded:
    setting = plan.setting
    tally, arm = _Tally(), environment.arm_of(setting)
    with (
        contextlib.closing(registry.make(setting)) as made,
        # Closed here: an interrupt would leave them, and their workers, to the collector.
        contextlib.closing(_episodes(plan, episodes, workers)) as recorded,
        contextlib.closing(tally.counted(recorded, episodes)) as counted,
    ):
        folder = write_dataset(
            dataset,
            counted,
            observation_space=made.observation_space,
            action_space=made.action_space,
            provenance=Provenance(
                control_hz=environment.rate_hz(setting),
                reward=RewardLabel(source="environment", version=setting.id),
                collector=_about(plan),
                arm=arm.get("arm", ""),
                arm_digest=arm.get("arm_digest", ""),
            ),
            env=_spec(setting),
            card=Card(
                description=f"{episodes} episodes of {_names(plan.policies)} in {setting.id}."
            ),
            references=references,
            overwrite=overwrite,
        )
    return tally.recorded(dataset, folder)


class _Tally:
    """Counts episodes as they pass."""

    def __init__(self) -> None:
        self._returns: list[float] = []
        self._success: list[bool] = []
        self._steps = 0

    def counted(self, episodes: Iterable[Episode], total: int) -> Generator[Episode, None, None]:
        with tqdm(total=total, desc="record", unit="episode", mininterval=0.5) as bar:
            for episode in episodes:
                self._returns.append(float(np.sum(episode.rewards)))
                if "success" in episode.infos:
                    self._success.append(bool(np.any(episode.infos["success"])))
                self._steps += len(episode)
                yield episode
                bar.update()
                bar.set_postfix_str(f"return {np.mean(self._returns):.4g}", refresh=False)

    def recorded(self, dataset: str, folder: pathlib.Path) -> Recorded:
        success = float(np.mean(self._success)) if self._success else None
        mean = float(np.mean(self._returns))
        return Recorded(dataset, folder, len(self._returns), self._steps, mean, success)


def _check(noise: float, random_action_prob: float) -> None:
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"noise (--noise) must be finite and >= 0, got {noise}")
    if not 0.0 <= random_action_prob <= 1.0:
        raise ValueError(
            f"random_action_prob (--random-action-prob) must be in [0, 1], got {random_action_prob}"
        )


def _subject(source: Any, used: contextlib.ExitStack) -> Subject | None:
    if isinstance(source, str):
        if source == RANDOM:
            return None
        path, at, step = source.rpartition("@")
        if at and step.isdigit():
            return used.enter_context(opened(path, int(step)))
    return used.enter_context(opened(source))


def _setting(
    subjects: Sequence[Subject | None], env: str | EnvSetting | None, limit: int | None
) -> EnvSetting:
    home = next((s.home for s in subjects if s is not None and s.home is not None), None)
    if env is None and home is None:
        raise EnvError("record: no environment is known; name one with env (--env)")
    if env is None and limit is None:
        assert home is not None
        return home
    return environment.named(env if env is not None else home, limit)  # type: ignore[arg-type]


def _about(plan: _Plan) -> dict[str, Any]:
    """What the dataset's provenance says of its collector."""
    return {
        "policies": [
            {"name": RANDOM}
            if subject is None
            else {"name": subject.name.name, "digest": subject.digest}
            for subject in plan.policies
        ],
        "noise": plan.noise,
        "random_action_probability": plan.random_action_prob,
        "seed": plan.seed,
    }


def _names(subjects: Sequence[Subject | None]) -> str:
    return ", ".join(RANDOM if subject is None else subject.name.name for subject in subjects)


def _references(low: float | None, high: float | None) -> dict[str, float]:
    return {} if low is None or high is None else {"ref_min_score": low, "ref_max_score": high}


def _spec(setting: EnvSetting) -> Any:
    spec = registry.find(setting.id)
    limit = setting.max_episode_steps or spec.max_episode_steps
    kwargs = {**spec.kwargs, **setting.kwargs}
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=limit)


def _episodes(plan: _Plan, count: int, workers: int) -> Generator[Episode, None, None]:
    """Episodes 0 to count - 1, in order."""
    if workers == 0 or registry.only_here(plan.setting):
        with contextlib.closing(_Recorder(plan)) as recorder:
            yield from map(recorder.episode, range(count))
        return
    with registry.prepared(plan.setting) as ready:
        begin = functools.partial(_recording, dataclasses.replace(plan, setting=ready))
        with pool(workers, begin) as processes:
            yield from processes.map(range(count))


def _recording(plan: _Plan) -> Work:
    """What a worker does: index -> the episode."""
    return _Recorder(plan).episode


class _Recorder:
    """One environment, and the policies."""

    def __init__(self, plan: _Plan):
        self._plan = plan
        self._env = registry.make(plan.setting)
        self._policies = [None if s is None else s.acting() for s in plan.policies]

    def close(self) -> None:
        self._env.close()

    def episode(self, index: int) -> Episode:
        """Episode `index`: a function of the plan and of `index` alone."""
        plan, env = self._plan, self._env
        rng = np.random.default_rng([plan.seed, _STREAM, index])
        seed = training_seed(plan.seed, index)
        policy = self._policies[index % len(self._policies)]
        observation, info = env.reset(seed=seed)
        if policy is not None:
            policy.reset(seed)
        observations, rows = [observation], [_row(env, info)]
        steps: list[tuple[np.ndarray, float, bool, bool]] = []
        while True:
            action = plan.spaces.from_unit(self._action(policy, observation, rng))
            observation, reward, terminated, truncated, info = env.step(action)
            steps.append((action, float(reward), bool(terminated), bool(truncated)))
            observations.append(observation)
            rows.append(_row(env, info))
            if terminated or truncated:
                return _built(observations, steps, rows, seed)

    def _action(self, policy: Any, observation: Any, rng: np.random.Generator) -> np.ndarray:
        """In [-1, 1]. The same random numbers are drawn at every step, whatever is done."""
        plan = self._plan
        uniform = rng.uniform(-1.0, 1.0, plan.spaces.action_size)
        noise, chance = rng.normal(size=plan.spaces.action_size), rng.uniform()
        if policy is None or chance < plan.random_action_prob:
            return uniform
        asked = policy.act(plan.spaces.read(observation))
        return np.asarray(np.clip(asked + plan.noise * noise, -1.0, 1.0))


def _row(env: gymnasium.Env[Any, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a moment: MuJoCo's state, by which `check` replays, and success."""
    row: dict[str, Any] = {}
    data: Any = getattr(env.unwrapped, "data", None)
    if hasattr(data, "qpos") and hasattr(data, "qvel"):
        row |= {"qpos": np.array(data.qpos), "qvel": np.array(data.qvel)}
    told = succeeded(info)
    return row if told is None else {**row, "success": told}


def _built(
    observations: list[Any],
    steps: list[tuple[np.ndarray, float, bool, bool]],
    rows: list[dict[str, Any]],
    seed: int,
) -> Episode:
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    if "success" in rows[-1]:
        rows[0].setdefault("success", False)  # most environments judge steps only
    kept = [name for name in rows[-1] if all(name in row for row in rows)]
    first = observations[0]
    stacked: Any = (
        {name: np.stack([each[name] for each in observations]) for name in first}
        if isinstance(first, Mapping)
        else np.stack(observations)
    )
    return Episode(
        observations=stacked,
        actions=np.stack(actions),
        rewards=np.asarray(rewards, np.float64),
        terminations=np.asarray(terminations, bool),
        truncations=np.asarray(truncations, bool),
        infos={name: np.stack([row[name] for row in rows]) for name in kept},
        seed=seed,
    )
