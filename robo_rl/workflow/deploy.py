"""An exported policy on an arm over ROS 2, guarded and recorded.

Three processes: this one runs the policy (no JAX), the robot process is the sole writer and runs
the guards, the twin is the arm. On a real arm the third is the arm's own driver.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from tqdm import tqdm

from robo_rl import files
from robo_rl.envs import registry
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.make import task_of
from robo_rl.envs.registry import EnvSetting
from robo_rl.envs.task import Task
from robo_rl.envs.tasks import cube
from robo_rl.hardware import robots
from robo_rl.hardware.bridges.dds import Ros2Link, check_domain
from robo_rl.hardware.bridges.messages import TwinTruth
from robo_rl.hardware.contracts import ArmState, Pose
from robo_rl.hardware.drivers import bus
from robo_rl.hardware.drivers.ros2_device import RemoteScene, TwinScene
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter
from robo_rl.hardware.guard.chain import GuardConfig, make_shaper
from robo_rl.hardware.recorder import sent_commands, worst_excess
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.runtime.policy import NotFinite, NumpyPolicy
from robo_rl.hardware.server.client import RemoteRobot
from robo_rl.hardware.server.process import Child
from robo_rl.hardware.server.robot_process import RobotProcessConfig
from robo_rl.hardware.twin import process as twin_process
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import Scene, save_scene
from robo_rl.judge.episodes import wilson_interval
from robo_rl.learn.seeds import evaluation_seed
from robo_rl.workflow import gaps
from robo_rl.workflow.clearance import Clearance, Sphere
from robo_rl.workflow.video import Footage

_log = logging.getLogger(__name__)

_DRAWS = 20
"""Starts to draw for an episode before giving up."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to deploy where."""

    policy: pathlib.Path
    out: pathlib.Path
    """Folder for recordings."""
    episodes: int
    domain_id: int
    gap: DomainGap = dataclasses.field(default_factory=DomainGap)
    keep_out: tuple[Sphere, ...] = ()
    keep_out_margin_m: float = BarrierConfig.keep_out_margin_m
    filter: bool = True
    twin: bool = True
    """Start a twin; otherwise an arm is on the bus already."""
    task_id: int | None = None
    """Which task of a scene that has several; None: OGBench's default one."""
    seed: int = 0
    name: str = "deploy"

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"deploy: episodes must be >= 1, got {self.episodes}")
        check_domain(self.domain_id)

    def barrier(self, kit: RobotKit) -> BarrierConfig:
        """What the filter keeps of this robot, where it is on."""
        return BarrierConfig.of(
            kit, keep_out=self.keep_out, keep_out_margin_m=self.keep_out_margin_m
        )


@dataclasses.dataclass(frozen=True)
class DeployedEpisode:
    """What one deployed episode did."""

    success: bool
    steps: int
    clearance_m: float
    """Smallest true distance to a keep-out sphere; below 0 is a violation. NaN: not measured."""
    fault: str
    film: Footage
    margins: np.ndarray
    """(T, 2): time in s, true distance in m."""


@dataclasses.dataclass(frozen=True)
class Deployment:
    """What all episodes of a plan did."""

    plan: Plan
    outcomes: tuple[DeployedEpisode, ...]
    rate_hz: float
    """Control periods per second of streaming."""
    deadline_misses: int
    """Of the policy's control periods."""
    robot_ticks: int
    robot_misses: int
    worst_lateness_s: float
    """Of the robot process."""
    reasons: Mapping[str, int]
    """How often the guards gave each reason, once a tick at most."""
    excess: Mapping[str, float]
    """How far the worst command that was sent lies beyond each limit; <= 0 is within."""
    recording: pathlib.Path

    @property
    def success(self) -> float:
        """Share of successful episodes."""
        return float(np.mean([outcome.success for outcome in self.outcomes]))

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson interval of the success rate."""
        return wilson_interval(sum(o.success for o in self.outcomes), len(self.outcomes))

    @property
    def violations(self) -> int:
        """Episodes in which the real arm entered a keep-out sphere."""
        return sum(outcome.clearance_m < 0.0 for outcome in self.outcomes)

    def summary(self) -> dict[str, Any]:
        """Flat numbers; null where nothing was measured."""
        figures = {
            "success": self.success,
            "ci95": list(self.ci95),
            "episodes": len(self.outcomes),
            "violations": self.violations,
            "min_clearance_m": min(outcome.clearance_m for outcome in self.outcomes),
            "rate_hz": self.rate_hz,
            "deadline_misses": self.deadline_misses,
            "robot_ticks": self.robot_ticks,
            "robot_deadline_misses": self.robot_misses,
            "robot_worst_lateness_ms": 1e3 * self.worst_lateness_s,
            "guard_reasons": dict(self.reasons),
            "limit_excess": dict(self.excess),
            "faults": sorted({outcome.fault for outcome in self.outcomes} - {""}),
        }
        return dict(files.plain(figures))


def run(plan: Plan) -> Deployment:
    """Deploy in real time. Shows a progress bar."""
    policy = NumpyPolicy.load(plan.policy)
    reference = robot_of(policy)
    kit = robots.get(reference)
    setting = EnvSetting.from_json(policy.description["meta"]["env"])
    task = _task(setting, plan.task_id)
    if plan.twin:
        bus.refuse_a_second_arm(
            Ros2Link(plan.domain_id),
            kit.topics,
            "drive that one with attach (--attach), or take another domain (--domain) for a twin "
            "of your own",
        )
    scene = task.scene
    plan.out.mkdir(parents=True, exist_ok=True)
    recording = plan.out / f"{plan.name}.mcap"
    with _processes(plan, reference, scene, recording) as (robot, twin):
        seeds = clear_seeds(plan, task)
        env = ArmEnv(
            robot, task, task.kinematics, RemoteScene(twin, robot) if twin is not None else None
        )
        clearance = Clearance(scene, kit, plan.gap, plan.keep_out) if plan.keep_out else None
        clock = _Clock(robot)
        outcomes = []
        title = f"deploy {task.name} {'with' if plan.filter else 'without'} filter"
        with tqdm(total=plan.episodes, desc=title, unit="episode") as bar:
            for seed in seeds:
                outcomes.append(_episode(env, policy, seed, plan, twin, clearance, clock))
                bar.update()
                done = sum(outcome.success for outcome in outcomes)
                bar.set_postfix_str(f"{done} of {len(outcomes)} successful")
        health = robot.health()
        env.close()
    excess = worst_excess(sent_commands(recording, kit.spec.joints), kit.spec)
    return Deployment(
        plan,
        tuple(outcomes),
        clock.rate_hz,
        clock.misses,
        health.ticks,
        health.deadline_misses,
        health.worst_lateness_s,
        health.reasons,
        excess,
        recording,
    )


def _task(setting: EnvSetting, task_id: int | None) -> Task:
    """What is done: of a scene with several tasks one, the same in every episode."""
    fields = registry.arguments(setting)
    if task_id is None and fields.get("task", "cube") == "cube":
        task_id = fields.get("task_id") or cube.DEFAULT_TASK
    return task_of(fields, task_id)


def robot_of(policy: NumpyPolicy) -> str:
    """Name or path of the robot that a policy was trained for. Raises ValueError for one that is
    not known here, or has other limits here."""
    about = policy.description["meta"]
    reference = str(about.get("robot") or about.get("arm") or "")
    if not reference:
        raise ValueError("this policy was not trained for an arm: its export names none")
    ours = robots.get(reference).spec.digest()
    if about.get("arm_digest") != ours:
        raise ValueError(
            f"this policy was trained for another {reference}, or other limits: its arm digest is "
            f"{about.get('arm_digest')}, ours {ours}; train and export it again"
        )
    return reference


def clear_seeds(plan: Plan, task: Task) -> list[int]:
    """Seeds of the episodes: those whose start the filter's own model calls safe, in order.

    Nobody sets an arm down inside a region that it must stay out of, and a filter keeps a safe arm
    safe; so a start in there is passed over, with the filter and without.
    """
    kit = task.kit
    shaper = make_shaper(kit.spec, GuardConfig())
    barrier = BarrierFilter(kit, shaper, plan.barrier(kit))
    seeds: list[int] = []
    for k in range(_DRAWS * plan.episodes):
        seed = evaluation_seed(plan.seed, k)
        # The generator that `Env.reset(seed=seed)` makes.
        start = task.start(np_random(seed)[0], {})
        if barrier.min_height(np.asarray(start.q_rad)) >= 0.0:
            seeds.append(seed)
        if len(seeds) == plan.episodes:
            return seeds
    raise ValueError(
        f"{len(seeds)} of {_DRAWS * plan.episodes} starts are clear of table, workspace and "
        f"keep-out {plan.keep_out} with its margin of {plan.keep_out_margin_m} m, and "
        f"{plan.episodes} are needed; move or shrink the region"
    )


def film_episode(deployment: Deployment) -> Footage:
    """The episode to show: the first successful one, or the first."""
    outcomes = deployment.outcomes
    return next((o for o in outcomes if o.success), outcomes[0]).film


def deploy(
    policy: str | os.PathLike[str],
    *,
    episodes: int = 5,
    task: int | None = None,
    domain: int = 0,
    attach: bool = False,
    gap: float = 0.0,
    keep_out: Sphere | None = None,
    keep_out_margin: float | None = None,
    filter: bool = True,  # noqa: A002 - as the command's flag
    out: str | os.PathLike[str] = "runs/deploy",
) -> Deployment:
    """Run an exported policy on an arm over ROS 2, guarded, filtered and recorded.

    Args:
        policy: folder of an exported policy.
        episodes: how many.
        task: which task of the scene that the policy is at home in, where it has several; None:
            the one it was trained for, or OGBench's default, 2.
        domain: ROS_DOMAIN_ID.
        attach: drive the arm that is on the bus already; otherwise a twin is started.
        gap: strength of the domain gap of that twin.
        keep_out: centre x y z and radius in m of a sphere that the hand must not enter, base frame.
        keep_out_margin: distance in m that the filter keeps beyond it; None: the filter's default.
        filter: the barrier filter; the other guards are always on.
        out: folder for recordings.
    """
    difference = gaps.quickstart(gap)
    plan = Plan(
        policy=pathlib.Path(policy),
        out=pathlib.Path(out),
        episodes=episodes,
        domain_id=domain,
        gap=DomainGap(**difference) if difference else DomainGap(),
        keep_out=(keep_out,) if keep_out else (),
        keep_out_margin_m=(
            BarrierConfig.keep_out_margin_m if keep_out_margin is None else keep_out_margin
        ),
        filter=filter,
        twin=not attach,
        task_id=task,
        name=time.strftime("deploy-%Y%m%d-%H%M%S"),
    )
    return run(plan)


def serve_twin(
    env: Mapping[str, Any],
    task_id: int | None,
    domain: int,
    gap: float,
    say: Callable[[str], None],
) -> str:
    """Run a twin in real time until it ends or is interrupted; its last words.

    Args:
        env: fields of one of OGBench's cube scenes, or `task` and `robot` of one's own.
        task_id: which task is set out at the start, where the scene has several.
        domain: ROS_DOMAIN_ID.
        gap: strength of the domain gap.
        say: told when the twin is there.
    """
    check_domain(domain)
    difference = gaps.quickstart(gap)
    task = task_of(env, task_id)
    bus.refuse_a_second_arm(Ros2Link(domain), task.kit.topics, "take another domain (--domain)")
    with tempfile.TemporaryDirectory(prefix="robo_rl-twin-") as folder:
        path = save_scene(task.scene, pathlib.Path(folder) / "scene.mjb")
        config = twin_process.TwinConfig(
            str(path),
            domain,
            DomainGap(**difference) if difference else DomainGap(),
            robot=env.get("robot", robots.DEFAULT),
        )
        with Child("robo_rl.hardware.twin.process", config) as child:
            truth = TwinScene(Ros2Link(domain, node_name="robo_rl_twin_command"))
            truth.open()
            start = task.start(np.random.default_rng(0), {})
            truth.reset_scene(start.q_rad, start.objects, start.targets)
            truth.close()
            say(f"{task.kit.name} twin on ROS_DOMAIN_ID {domain}, loopback. Ctrl-C ends it.")
            while child.alive:
                time.sleep(0.2)
            return child.stderr_tail()


class _Clock:
    """Counts the control periods of all episodes and how long they took."""

    def __init__(self, robot: RemoteRobot):
        self._robot = robot
        self.periods, self.misses, self.seconds = 0, 0, 0.0

    @property
    def rate_hz(self) -> float:
        """Periods per second."""
        return self.periods / self.seconds if self.seconds else float("nan")

    def add(self, steps: int, seconds: float) -> None:
        """Count an episode."""
        cadence = self._robot.cadence
        self.periods += steps
        self.seconds += seconds
        self.misses += 0 if cadence is None else cadence.misses


@contextlib.contextmanager
def _processes(
    plan: Plan, reference: str, scene: Scene, recording: pathlib.Path
) -> Iterator[tuple[RemoteRobot, TwinScene | None]]:
    """The twin, if asked for, and the robot process; a client of each."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="robo_rl-deploy-"))
        )
        twin: TwinScene | None = None
        if plan.twin:
            path = save_scene(scene, folder / "scene.mjb")
            twin_config = twin_process.TwinConfig(
                str(path), plan.domain_id, plan.gap, parent_pid=os.getpid(), robot=reference
            )
            stack.enter_context(Child("robo_rl.hardware.twin.process", twin_config))
            twin = TwinScene(Ros2Link(plan.domain_id, node_name="robo_rl_deploy"))
            twin.open()
            stack.callback(twin.close)
        kit = robots.get(reference)
        barrier = plan.barrier(kit) if plan.filter else None
        config = RobotProcessConfig(
            socket=str(folder / "private" / "robot.sock"),
            domain_id=plan.domain_id,
            robot=reference,
            objects=tuple(scene.names.objects),
            barrier=barrier,
            recording=str(recording),
            parent_pid=os.getpid(),
        )
        stack.enter_context(Child("robo_rl.hardware.server.robot_process", config))
        robot = RemoteRobot(config.socket, kit.spec)
        robot.connect()
        stack.callback(robot.disconnect)
        yield robot, twin


def _episode(
    env: ArmEnv,
    policy: NumpyPolicy,
    seed: int,
    plan: Plan,
    twin: TwinScene | None,
    clearance: Clearance | None,
    clock: _Clock,
) -> DeployedEpisode:
    observation, info = env.reset(seed=seed)
    policy.reset(seed)
    _truths(twin)  # drop those from before the episode
    states, truths = [env.state], []
    success, fault = False, ""
    began = time.monotonic()
    for _ in range(env.task.max_steps):
        observation, _, terminated, truncated, info = env.step(_asked(policy, observation))
        states.append(env.state)
        truths += _truths(twin)
        success, fault = bool(info["success"]), str(info.get("fault", ""))
        if terminated or truncated:
            break
    clock.add(len(states) - 1, time.monotonic() - began)
    margins = np.full((0, 2), np.nan)
    if truths and clearance is not None:
        distances = clearance.distances(np.array([truth.q_rad for truth in truths]))
        times = np.array([truth.t_host_s for truth in truths]) - began
        margins = np.column_stack((times, distances))
    return DeployedEpisode(
        success,
        len(states) - 1,
        float(margins[:, 1].min()) if len(margins) else float("nan"),
        fault,
        _film(states, env, plan.keep_out),
        margins,
    )


def _asked(policy: NumpyPolicy, observation: np.ndarray) -> np.ndarray:
    """The policy's action; NaN, which the guards answer with a hold, where it cannot act.

    An error here would end the deployment in the middle of a motion.
    """
    try:
        return policy.act(observation)
    except NotFinite as error:
        _log.warning("holding: %s", error)
        return np.full(policy.action_size, np.nan, np.float32)


def _truths(twin: TwinScene | None) -> list[TwinTruth]:
    return [] if twin is None else twin.truths()


def _film(states: Sequence[ArmState], env: ArmEnv, spheres: Sequence[Sphere]) -> Footage:
    names = states[0].objects
    return Footage(
        q_rad=np.array([state.q_rad for state in states]),
        gripper=np.array([state.gripper_closedness for state in states]),
        objects={n: np.array([_row(state.objects[n]) for state in states]) for n in names},
        targets={name: _row(pose) for name, pose in env.task.targets.items()},
        spheres=np.array(spheres, dtype=float).reshape(-1, 4),
        rate_hz=1.0 / env.period_s,
        fingers=env.task.kit.fingers,
    )


def _row(pose: Pose) -> np.ndarray:
    return np.concatenate((pose.position_m, pose.quaternion_wxyz))
