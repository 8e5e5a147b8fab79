"""The datasets of `benchmarks.peers`: recorded here, from policies that SAC learns here.

A set's rows come from checkpoints of one run, so that nothing is downloaded: "medium" from the
first that reaches half of what the best one does above random, "mixed" from several, the first
included, in turn and with noise. What random actions and the best checkpoint return are the
references of the normalised score, as D4RL's are.
"""

import dataclasses
import math
import pathlib

import robo_rl
from robo_rl import files
from robo_rl.data.errors import DatasetNotFoundError

ENVS = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5"}
KINDS = ("medium", "mixed")
TEACHER = (
    "critics=2",
    "target_entropy_per_dim=-1.0",
    "actor.hidden=128,128",
    "critic.hidden=128,128",
    "batch_size=128",
)
"""SAC of two critics with LayerNorm, small: a teacher need not be the best there is."""
CHECKPOINT_EVERY = 5_000
JUDGED_EPISODES = 10
NOISE = 0.1
MIXED = 5
"""Checkpoints behind a mixed set."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is recorded, into which folder."""

    folder: pathlib.Path
    teacher_steps: int
    rows: int
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A finished run, and what its checkpoints return."""

    run: pathlib.Path
    returns: dict[int, float]
    lengths: dict[int, float]
    random: float

    @property
    def best(self) -> int:
        """The step of the best checkpoint."""
        return max(self.returns, key=lambda step: self.returns[step])

    @property
    def medium(self) -> int:
        """The first step that is half as far above random as the best."""
        middle = (self.random + self.returns[self.best]) / 2
        return next(step for step in sorted(self.returns) if self.returns[step] >= middle)

    @property
    def mixed(self) -> list[int]:
        """Steps from the first checkpoint to the best, evenly spread."""
        steps = sorted(step for step in self.returns if step <= self.best)
        count = min(MIXED, len(steps))
        return [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]


def teacher(plan: Plan, name: str) -> Teacher:
    """The teacher of an environment, trained and judged where that is not done yet."""
    run, judged = plan.folder / f"sac-{name}", plan.folder / f"sac-{name}.json"
    if judged.exists():
        known = files.read_json(judged)
        returns = {int(step): value for step, value in known["returns"].items()}
        lengths = {int(step): value for step, value in known["lengths"].items()}
        return Teacher(run, returns, lengths, known["random"])
    if run.exists():
        robo_rl.resume(run)
    else:
        robo_rl.learn_online(
            ENVS[name],
            "sac",
            option=TEACHER,
            steps=plan.teacher_steps,
            seed=plan.seed,
            evaluation_episodes=1,
            keep=math.ceil(plan.teacher_steps / CHECKPOINT_EVERY),
            out=run,
        )
    results = {
        step: robo_rl.evaluate(run, step=step, episodes=JUDGED_EPISODES, workers=1).episodes
        for step in robo_rl.load_run(run).directory.checkpoints.steps()
    }
    random = robo_rl.record(
        "random",
        f"peers/{name}-random-v0",
        env=ENVS[name],
        episodes=2 * JUDGED_EPISODES,
        workers=1,
        overwrite=True,
    )
    found = Teacher(
        run,
        {step: result.mean_return for step, result in results.items()},
        {step: sum(r.lengths) / len(r.lengths) for step, r in results.items()},
        random.mean_return,
    )
    files.write_json(judged, dataclasses.asdict(found) | {"run": str(run)})
    return found


def recorded(plan: Plan, name: str, kind: str) -> str:
    """The id of a dataset, recorded where it is not there yet; about `plan.rows` rows."""
    dataset = f"peers/{name}-{kind}-v0"
    try:
        robo_rl.open_dataset(dataset)
    except DatasetNotFoundError:
        pass
    else:
        return dataset
    taught = teacher(plan, name)
    steps = [taught.medium] if kind == "medium" else taught.mixed
    length = sum(taught.lengths[step] for step in steps) / len(steps)
    robo_rl.record(
        [f"{taught.run}@{step}" for step in steps],
        dataset,
        env=ENVS[name],
        episodes=math.ceil(plan.rows / length),
        noise=NOISE,
        seed=plan.seed,
        workers=1,
        ref_min_score=taught.random,
        ref_max_score=taught.returns[taught.best],
    )
    return dataset
