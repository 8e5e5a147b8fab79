"""`robo-rl data record`."""

import dataclasses

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Record episodes of any policy in any environment into a Minari dataset.

    Several policies, with commas between them, take turns: so a mixed dataset needs no download.

    Try:
    $ robo-rl data record random hopper/random-v0 --env Hopper-v5
    $ robo-rl data record runs/sac-Hopper-v5@20000,runs/sac-Hopper-v5 hopper/mixed-v0 --noise 0.1
    """

    policy: Positional[str]
    """random, a run, RUN@STEP for an earlier checkpoint of it, or an exported policy."""
    dataset: Positional[str]
    """Name of the new dataset, such as hopper/mixed-v0."""
    env: str | None = None
    """Gymnasium id; by default where the policy is at home. module:ID imports a module first."""
    episodes: int = 100
    """How many episodes."""
    noise: float = 0.0
    """Standard deviation of normal noise on the policy's actions, which are in [-1, 1]."""
    random_action_prob: float = 0.0
    """Chance of a uniformly random action at each step."""
    seed: int = 0
    """Seed of the first episode."""
    workers: int = 2
    """Processes that record side by side; the data do not depend on it."""
    task: str | None = None
    """In place of --env: a task on the simulated arm, by name or as a file, mine.py:Stack."""
    robot: str | None = None
    """With --task, on which robot; a name, or a file, mine.py:MY_ARM."""
    max_episode_steps: int | None = None
    """Step limit of an episode, where the environment's own is not meant."""
    ref_min_score: float | None = None
    """Return that counts as a normalised score of 0, such as a random policy's."""
    ref_max_score: float | None = None
    """Return that counts as a normalised score of 100, such as an expert's."""
    overwrite: bool = False
    """Replace a dataset of this name."""

    def run(self) -> int:
        """Record, check, write."""
        from robo_rl.launch import output, where
        from robo_rl.workflow.record import record

        options = dataclasses.asdict(self)
        options["env"] = where.setting(options)
        policy, dataset = options.pop("policy").split(","), options.pop("dataset")
        result = record(policy, dataset, **options)
        success = "" if result.success is None else f", success {result.success:.2f}"
        print(
            f"wrote {dataset} to {result.folder}: {result.episodes} episodes, {result.steps} "
            f"steps, mean return {result.mean_return:.5g}{success}"
        )
        return output.checked(dataset)
