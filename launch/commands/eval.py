"""`robo-rl eval`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Measure success and return with 95 % intervals, on seeds that training never saw.

    Try:
    $ robo-rl eval runs/bc-demo --episodes 100
    $ robo-rl eval runs/td3bc-hopper-mixed-v0 --video hopper.mp4
    """

    source: Positional[pathlib.Path]
    """A run directory, or an exported policy."""
    episodes: int = 100
    """How many episodes."""
    env: str | None = None
    """Gymnasium id; by default the environment of the policy."""
    task: str | None = None
    """In place of --env: a task on the simulated arm, by name or as a file, mine.py:Stack."""
    robot: str | None = None
    """With --task, on which robot; a name, or a file, mine.py:MY_ARM."""
    max_episode_steps: int | None = None
    """Step limit of its episodes, where the environment's own is not meant."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean simulator, 1 the quickstart's."""
    seed: int = 0
    """Seed of the evaluation episodes."""
    workers: int = 2
    """Processes that evaluate side by side; the figures do not depend on it."""
    step: int | None = None
    """Checkpoint of the run; by default the newest."""
    video: pathlib.Path | None = None
    """An .mp4 file for a film of the first episode."""
    json: bool = False
    """Print JSON instead of words."""

    def run(self) -> int:
        """Evaluate."""
        from robo_rl.launch import output, where
        from robo_rl.workflow.evaluate import evaluate

        options = dataclasses.asdict(self)
        options["env"] = where.setting(options)
        as_json = options.pop("json")
        result = evaluate(options.pop("source"), **options)
        if as_json:
            print(output.json_text(result.to_json()))
            return 0
        print(f"{result}\nenvironment {result.env.id}")
        if result.policy:
            print(f"policy {result.policy[:16]}")
        if self.video is not None:
            print(f"film {self.video}")
        return 0
