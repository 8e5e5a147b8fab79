"""The `robo-rl` command line: what can be asked for. The work is in the sibling modules."""

import dataclasses
import json
import logging
import os
import pathlib
import sys
import warnings
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from robo_rl.data.errors import DatasetError

Env = Literal["cube-single", "cube-double", "cube-triple", "cube-quadruple"]


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """From recorded data to a filtered arm over ROS 2, once through, with a report.

    Collects demonstrations, trains offline, meets a changed arm, finetunes on it, deploys to an arm
    in another process with and without the barrier filter, and kills the policy in mid-motion.

    Try:
    $ robo-rl quickstart
    """

    out: pathlib.Path = pathlib.Path("runs/quickstart")
    """Run directory. One that exists already is moved aside, never overwritten."""
    seed: int = 0
    """Everything random follows from it."""
    budget: Literal["full", "smoke"] = "full"
    """`smoke` walks the same path in a minute or two; its figures mean nothing."""

    def run(self) -> int:
        """Run the path and print its table."""
        from robo_rl.workflow import quickstart

        return quickstart.run(self.out, self.seed, self.budget)


@dataclasses.dataclass(frozen=True)
class Collect:
    """Record demonstrations by OGBench's scripted oracles into a Minari dataset.

    Try:
    $ robo-rl data collect cube-single/noisy-v0 --episodes 200 --workers 2
    """

    dataset: Positional[str]
    """Name of the new dataset, such as cube-single/noisy-v0."""
    env: Env = "cube-single"
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
        from robo_rl.workflow import record

        return record.collect(self)


@dataclasses.dataclass(frozen=True)
class Import:
    """Turn one of OGBench's released .npz files into a Minari dataset.

    Try:
    $ robo-rl data import cube-single-play-v0.npz cube-single/play-v0 --env-name cube-single-v0
    """

    file: Positional[pathlib.Path]
    """The .npz file, as OGBench publishes it."""
    dataset: Positional[str]
    """Name of the new dataset."""
    env_name: str
    """OGBench's name of the environment, such as cube-single-v0 or scene-v0."""
    task: int | None = None
    """Relabel rewards for this single task (1 to 5)."""
    after_success: Literal["split", "keep", "drop"] = "split"
    """With a task, what becomes of the steps after a success: "split" starts a new episode there,
    "keep" leaves the recording whole (for --chunk above 1), "drop" leaves them out."""

    def run(self) -> int:
        """Import."""
        from robo_rl.workflow import record

        return record.import_npz(self)


@dataclasses.dataclass(frozen=True)
class Check:
    """Look for the defects that make learning fail silently. Exits with 1 when there are errors.

    Try:
    $ robo-rl data check cube-single/noisy-v0
    """

    dataset: Positional[str]
    """A local Minari dataset."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Check."""
        from robo_rl.workflow import record

        return record.check(self.dataset, self.json)


@dataclasses.dataclass(frozen=True)
class ListDatasets:
    """List the Minari datasets on this machine.

    Try:
    $ robo-rl data list
    """

    def run(self) -> int:
        """List."""
        from robo_rl.workflow import record

        return record.show()


@dataclasses.dataclass(frozen=True)
class Data:
    """Record, import, check and list datasets."""

    command: (
        Annotated[Collect, subcommand("collect")]
        | Annotated[Import, subcommand("import")]
        | Annotated[Check, subcommand("check")]
        | Annotated[ListDatasets, subcommand("list")]
    )

    def run(self) -> int:
        """Run the chosen command."""
        return self.command.run()


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a policy from a dataset.

    Try:
    $ robo-rl train cube-single/noisy-v0 --agent iql --steps 20000
    """

    dataset: Positional[str]
    """A Minari dataset: local, or one that Minari can download."""
    expert: str = ""
    """A second dataset, of an expert to imitate (agent recoil)."""
    agent: str = "bc"
    """Method; `robo-rl methods` lists them."""
    steps: int = 20_000
    """Gradient steps."""
    batch_size: int = 256
    """Rows of one gradient step, or of one critic step where an update has several."""
    n_step: int = 1
    """Steps of reward before the bootstrap."""
    chunk: int = 1
    """Learn and play chunks of so many actions (agents qc and fql: 5 in the paper)."""
    frames: int = 1
    """Images become the last so many frames of their episode (agents that read images)."""
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
        from robo_rl.workflow import training

        return training.train(self)


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Go on learning online from a trained policy, through the robot contract and its guards.

    Try:
    $ robo-rl finetune runs/bc-demo --recipe residual --steps 20000 --gap 1
    """

    source: Positional[pathlib.Path]
    """Run directory of the offline run."""
    recipe: str = "residual"
    """How to go online: wsrl, rlpd, residual, ppo, ...; `robo-rl methods` lists them."""
    steps: int = 20_000
    """Environment steps."""
    gap: float = 0.0
    """Strength of the domain gap of the simulated arm; 0 is the clean one, 1 the quickstart's."""
    envs: int = 1
    """Environments that are collected from side by side, each in a process of its own if several.
    Steps are counted over all of them."""
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
        from robo_rl.workflow import training

        return training.finetune(self)


@dataclasses.dataclass(frozen=True)
class Eval:
    """Measure success with its 95 % interval, on seeds that training never saw.

    Try:
    $ robo-rl eval runs/bc-demo --episodes 100
    """

    source: Positional[pathlib.Path]
    """A run directory, or an exported policy."""
    episodes: int = 100
    """How many episodes."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean simulator, 1 the quickstart's."""
    seed: int = 0
    """Seed of the evaluation episodes."""
    workers: int = 2
    """Processes that evaluate side by side; the figures do not depend on it."""
    step: int | None = None
    """Checkpoint of the run; by default the newest."""

    def run(self) -> int:
        """Evaluate."""
        from robo_rl.workflow import training

        return training.evaluate(self)


@dataclasses.dataclass(frozen=True)
class Select:
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
        from robo_rl.workflow import choose

        return choose.select(self)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the policy of a run as a folder that runs with NumPy alone.

    Try:
    $ robo-rl export runs/bc-demo --out policies/demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""
    out: pathlib.Path | None = None
    """Folder to write; by default `policy` inside the run directory."""
    step: int | None = None
    """Checkpoint of the run; by default the newest."""

    def run(self) -> int:
        """Export."""
        from robo_rl.workflow import training

        return training.export(self)


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run that was interrupted. It prints the figures it would have printed.

    Try:
    $ robo-rl resume runs/bc-demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""

    def run(self) -> int:
        """Resume."""
        from robo_rl.workflow import training

        return training.resume(self.source)


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html for a run: its curves, settings and results.

    Try:
    $ robo-rl report runs/bc-demo
    """

    source: Positional[pathlib.Path]
    """Run directory."""

    def run(self) -> int:
        """Write the report."""
        from robo_rl.workflow import report

        return report.report(self.source)


@dataclasses.dataclass(frozen=True)
class Twin:
    """Run the simulated UR5e in real time, as a ROS 2 robot on the bus. Ctrl-C ends it.

    Try:
    $ robo-rl twin --domain 7 --gap 1
    """

    env: Env = "cube-single"
    """Which of OGBench's scenes."""
    task: int = 2
    """The task that is set out at the start."""
    domain: int = 0
    """ROS_DOMAIN_ID."""
    gap: float = 0.0
    """Strength of the domain gap; 0 is the clean arm, 1 the quickstart's."""

    def run(self) -> int:
        """Serve until interrupted."""
        from robo_rl.workflow import deploy

        return deploy.serve_twin(self)


@dataclasses.dataclass(frozen=True)
class Deploy:
    """Run an exported policy on an arm over ROS 2, guarded, filtered and recorded.

    Without --attach a twin is started for the occasion.

    Try:
    $ robo-rl deploy policies/demo --episodes 5 --keep-out 0.42 0.0 0.16 0.05
    """

    policy: Positional[pathlib.Path]
    """An exported policy."""
    episodes: int = 5
    """How many episodes."""
    env: Env = "cube-single"
    """Which of OGBench's scenes."""
    task: int = 2
    """Which task."""
    domain: int = 0
    """ROS_DOMAIN_ID."""
    attach: bool = False
    """Drive the arm that is on the bus already instead of starting a twin."""
    gap: float = 0.0
    """Strength of the domain gap of the twin that is started."""
    keep_out: tuple[float, float, float, float] | None = None
    """Centre x y z and radius of a sphere that no part of the hand may enter, m, base frame."""
    keep_out_margin: float | None = None
    """Distance in m that the filter keeps beyond the sphere; none takes the filter's default."""
    filter: bool = True
    """The barrier filter. The other guards have no switch here."""
    out: pathlib.Path = pathlib.Path("runs/deploy")
    """Where recordings and the summary go."""

    def run(self) -> int:
        """Deploy."""
        from robo_rl.workflow import deploy

        return deploy.deploy(self)


@dataclasses.dataclass(frozen=True)
class Methods:
    """List the agents and recipes, or what can be set of one of them.

    Try:
    $ robo-rl methods iql
    """

    name: Positional[str] = ""
    """An agent or a recipe."""

    def run(self) -> int:
        """Tell."""
        from robo_rl.workflow import methods

        print(methods.report(self.name))
        return 0


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Say what this machine can do, and what to install for the rest.

    Try:
    $ robo-rl doctor
    """

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Examine the machine."""
        from robo_rl.launch import doctor

        findings = doctor.examine()
        if self.json:
            print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
        else:
            print(doctor.render(findings))
        return int(any(finding.state == "error" for finding in findings))


Command = (
    Annotated[Quickstart, subcommand("quickstart")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Finetune, subcommand("finetune")]
    | Annotated[Methods, subcommand("methods")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Select, subcommand("select")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Deploy, subcommand("deploy")]
    | Annotated[Twin, subcommand("twin")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Doctor, subcommand("doctor")]
)


def parse(arguments: list[str] | None = None) -> Command:
    """The command that the arguments ask for. Exits with help or an error message."""
    return tyro.cli(
        Command,
        prog="robo-rl",
        description="From logged data to a safety-filtered arm.",
        args=arguments,
        config=(OmitArgPrefixes, OmitSubcommandPrefixes),
    )


def main() -> None:
    """Entry point of `robo-rl`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Loud libraries: the user can do nothing about a missing display or an accelerator probe.
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="glfw")
    try:
        code = parse().run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    # HardwareError, CheckpointError and ParityError are RuntimeErrors.
    except (OSError, ValueError, RuntimeError, FloatingPointError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
