"""`robo-rl train`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Train a policy from a dataset; with --scratch, online from nothing in an environment.

    The dataset names the environment that the policy is judged in later; --env names another.

    Try:
    $ robo-rl train cube-single/noisy-v0 --agent iql --steps 20000
    $ robo-rl train hopper/mixed-v0 --agent td3bc --evaluate-every 5000
    $ robo-rl train --scratch --env Hopper-v5 --agent sac --steps 50000
    """

    dataset: Positional[str] = ""
    """A Minari dataset: local, or one that Minari can download."""
    expert: str = ""
    """A second dataset, of an expert to imitate (agent recoil)."""
    agent: str | None = None
    """Method: a name that `robo-rl methods` lists, or a file of your own, mine.py. By default bc;
    with --scratch sac, or what the --recipe says."""
    steps: int = 20_000
    """Gradient steps; with --scratch, environment steps."""
    env: str | None = None
    """Gymnasium id of the policy's environment; module:ID imports a module first."""
    task: str | None = None
    """In place of --env: a task on the simulated arm, by name or as a file, mine.py:Stack."""
    robot: str | None = None
    """With --task, on which robot; a name, or a file, mine.py:MY_ARM."""
    max_episode_steps: int | None = None
    """Step limit of its episodes, where the environment's own is not meant."""
    scratch: bool = False
    """Learn online from nothing: agents sac, ppo and your own, or a --recipe that starts fresh."""
    recipe: str | None = None
    """With --scratch, how: sac, ppo, or rlpd, which reads a dataset too."""
    envs: int = 1
    """With --scratch, environments side by side."""
    batch_size: int = 256
    """Rows of one gradient step, or of one critic step where an update has several."""
    n_step: int = 1
    """Steps of reward before the bootstrap."""
    chunk: int = 1
    """Learn and play chunks of so many actions (agents qc and fql: 5 in the paper)."""
    frames: int = 1
    """Images become the last so many frames of their episode (agents that read images)."""
    reward_scale: str | None = None
    """Factor on rewards, or return-range: 1000 / range of the data's returns. By default what the
    method's paper does in the environment's suite, which is printed."""
    reward_shift: float | None = None
    """Added to rewards after that."""
    normalise: bool | None = None
    """Standardise observations; by default as the method's paper."""
    evaluate_every: int = 0
    """Evaluate in the environment every so many steps; 0 never."""
    evaluation_episodes: int = 10
    """Of each such evaluation."""
    seeds: int = 1
    """Seeds trained side by side in one vmap."""
    seed: int = 0
    """The first seed."""
    keep: int = 4
    """Checkpoints that stay, one every 5000 steps: the newest so many."""
    out: pathlib.Path | None = None
    """Run directory; by default runs/AGENT-DATASET."""
    teacher: pathlib.Path | None = None
    """An exported policy, for an agent that learns from a teacher (distill)."""
    option: tuple[str, ...] = ()
    """Settings of the method as NAME=VALUE, such as discount=0.98 or critic.hidden=256,256;
    `robo-rl methods NAME` lists them."""

    def run(self) -> int:
        """Train."""
        if self.scratch:
            return self._from_nothing()
        if not self.dataset:
            raise ValueError(
                "train: name a dataset (`robo-rl data list`), or learn from nothing with "
                "--scratch --env ID"
            )
        if self.recipe is not None:
            raise ValueError("--recipe goes with --scratch; from a run, use robo-rl finetune")
        from robo_rl.launch import where
        from robo_rl.workflow import report
        from robo_rl.workflow.train import train

        options = dataclasses.asdict(self)
        options["env"] = where.setting(options)
        for name in _FROM_NOTHING_ONLY:
            options.pop(name)
        run = train(options.pop("dataset"), options.pop("agent") or "bc", say=print, **options)
        for line in (*report.last_evaluation(run), *report.verdicts(run)):
            print(line)
        print(f"trained; next: robo-rl eval {run.path}")
        return 0

    def _from_nothing(self) -> int:
        from robo_rl.launch import where
        from robo_rl.workflow import report
        from robo_rl.workflow.finetune import learn_online

        env = where.setting(dataclasses.asdict(self))
        if env is None:
            raise ValueError("--scratch: name the environment with --env ID or --task NAME")
        for field in dataclasses.fields(self):
            if field.name in _FROM_DATA_ONLY and getattr(self, field.name) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                raise ValueError(
                    f"{flag} goes with a dataset that is learned from; with --scratch, settings of "
                    "the method are given by --option NAME=VALUE (robo-rl methods NAME lists them)"
                )
        run = learn_online(
            env,
            self.agent,
            recipe=self.recipe,
            dataset=self.dataset or None,
            steps=self.steps,
            max_episode_steps=self.max_episode_steps,
            reward_scale=_number(self.reward_scale),
            reward_shift=self.reward_shift or 0.0,
            envs=self.envs,
            seed=self.seed,
            option=self.option,
            evaluate_every=self.evaluate_every,
            evaluation_episodes=self.evaluation_episodes,
            keep=self.keep,
            out=self.out,
            say=print,
        )
        for line in report.last_evaluation(run):
            print(line)
        print(f"trained; next: robo-rl eval {run.path}")
        return 0


_FROM_NOTHING_ONLY = ("scratch", "recipe", "envs")
_FROM_DATA_ONLY = (
    "expert",
    "batch_size",
    "n_step",
    "chunk",
    "frames",
    "normalise",
    "seeds",
    "teacher",
)


def _number(scale: str | None) -> float:
    try:
        return 1.0 if scale is None else float(scale)
    except ValueError:
        raise ValueError(
            f"--reward-scale {scale}: with --scratch there are no returns yet; give a number"
        ) from None
