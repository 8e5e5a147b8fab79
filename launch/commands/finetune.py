"""`robo-rl finetune`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Go on learning online from a trained policy, in its environment or on the simulated arm.

    Try:
    $ robo-rl finetune runs/bc-demo --recipe residual --steps 20000 --gap 1
    """

    source: Positional[pathlib.Path]
    """Run directory of the run to start from."""
    recipe: str = "residual"
    """How to go online: wsrl, rlpd, residual, ppo, ...; `robo-rl methods` lists them."""
    steps: int = 20_000
    """Environment steps."""
    env: str | None = None
    """Gymnasium id; by default the environment of the run."""
    task: str | None = None
    """In place of --env: a task on the simulated arm, by name or as a file, mine.py:Stack."""
    robot: str | None = None
    """With --task, on which robot; a name, or a file, mine.py:MY_ARM."""
    max_episode_steps: int | None = None
    """Step limit of its episodes, where the environment's own is not meant."""
    gap: float = 0.0
    """Strength of the domain gap of the simulated arm; 0 is the clean one, 1 the quickstart's."""
    envs: int = 1
    """Environments that are collected from side by side, each in a process of its own if several.
    Steps are counted over all of them."""
    evaluate_every: int = 0
    """Evaluate every so many steps; 0 never."""
    evaluation_episodes: int = 10
    """Of each such evaluation."""
    seed: int = 0
    """Seed of the online run."""
    teacher: pathlib.Path | None = None
    """An exported policy, for a recipe with a teacher (dagger, distill_forward, ...)."""
    option: tuple[str, ...] = ()
    """Settings of the recipe or of its agent as NAME=VALUE, such as utd=8 or critic_lr=1e-4;
    `robo-rl methods NAME` lists them."""
    out: pathlib.Path | None = None
    """Run directory; by default the source's name with the recipe's behind it."""

    def run(self) -> int:
        """Finetune."""
        from robo_rl.launch import where
        from robo_rl.workflow import report
        from robo_rl.workflow.finetune import finetune

        options = dataclasses.asdict(self)
        options["env"] = where.setting(options)
        run = finetune(options.pop("source"), options.pop("recipe"), say=print, **options)
        for line in report.last_evaluation(run):
            print(line)
        gap = f" --gap {self.gap:g}" if self.gap else ""
        print(f"finetuned; next: robo-rl eval {run.path}{gap}")
        return 0
