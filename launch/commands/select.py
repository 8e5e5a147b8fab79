"""`robo-rl select`."""

import dataclasses
import pathlib
from typing import Literal

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Choose among the policies of a sweep, and say how many online episodes a good choice takes.

    Evaluates every run's newest policy, then plays the choice by a UCB bandit many times over.

    Try:
    $ robo-rl select runs/sweep-1 runs/sweep-2 runs/sweep-3 --episodes 50
    """

    sources: Positional[tuple[pathlib.Path, ...]]
    """Run directories, two at least, of one environment."""
    episodes: int = 50
    """Evaluated for each run; those of an earlier evaluation are used again."""
    pulls: int = 100
    """The most online episodes that a play may spend."""
    policies: int = 8
    """Policies that a play draws from the runs; all where there are fewer."""
    score: Literal["success", "return"] = "success"
    """What counts."""
    env: str | None = None
    """Gymnasium id; by default the environment of the runs."""
    max_episode_steps: int | None = None
    """Step limit of its episodes, where the environment's own is not meant."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean simulator, 1 the quickstart's."""
    seed: int = 0
    """Seed of the evaluation episodes and of the plays."""
    workers: int = 2
    """Processes that evaluate side by side; the figures do not depend on it."""
    out: pathlib.Path = pathlib.Path("runs/select.json")
    """File for the figures; the report goes beside it, as .html."""

    def run(self) -> int:
        """Evaluate, play and recommend."""
        from robo_rl.workflow.choose import choose

        options = dataclasses.asdict(self)
        choice = choose(options.pop("sources"), **options)
        print(f"{choice}\nfigures: {choice.figures}\nreport: {choice.page}")
        return 0
