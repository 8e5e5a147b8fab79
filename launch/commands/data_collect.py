"""`robo-rl data collect`."""

import dataclasses
from typing import Literal

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Record demonstrations by OGBench's scripted oracles into a Minari dataset.

    Try:
    $ robo-rl data collect cube-single/noisy-v0 --episodes 200 --workers 2
    """

    dataset: Positional[str]
    """Name of the new dataset, such as cube-single/noisy-v0."""
    env: Literal["cube-single", "cube-double", "cube-triple", "cube-quadruple"] = "cube-single"
    """Which of OGBench's scenes."""
    oracle: Literal["markov", "plan"] = "markov"
    """The closed-loop state machine, or the open-loop plan."""
    episodes: int = 200
    """How many episodes."""
    noise: float = 0.1
    """Standard deviation of the noise on the oracle's actions."""
    random_action_prob: float = 0.0
    """Chance of a uniformly random action at each step."""
    task: int | None = None
    """Relabel rewards for this single task (1 to 5); none keeps the goal-conditioned reward."""
    relative_positions: bool = False
    """Let the observations also show the ways from tool to cube and from cube to goal."""
    workers: int = 2
    """Processes that collect side by side; the data do not depend on it."""
    seed: int = 0
    """Seed of the first episode."""

    def run(self) -> int:
        """Collect, check, write."""
        from robo_rl.envs.ogbench.collect import CollectConfig
        from robo_rl.envs.ogbench.oracles import OracleConfig
        from robo_rl.launch import output
        from robo_rl.workflow import collect

        config = CollectConfig(
            episodes=self.episodes,
            env={
                "scene": self.env.removeprefix("cube-"),
                "form": "random",
                "relative_positions": self.relative_positions,
            },
            oracle=OracleConfig(
                kind=self.oracle,
                noise=self.noise,
                random_action_probability=self.random_action_prob,
            ),
            seed=self.seed,
            workers=self.workers,
        )
        folder = collect.collect(self.dataset, config, self.task)
        print(f"wrote {self.dataset} to {folder}")
        return output.checked(self.dataset)
