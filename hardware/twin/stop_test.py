"""Proof of the watchdog: faults in mid-motion, and how long the arm takes to come to rest.

A twin, a robot process and a policy process are started; the policy moves the arm to and fro, and
is killed, then paused; then the bridge is cut. The time to rest is read from the twin's true
velocities, and the flight recording tells whether a command beyond a limit was ever sent.

    python -m robo_rl.hardware.twin.stop_test '{"socket": "..."}'     # the policy process
"""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

from robo_rl.hardware import robots
from robo_rl.hardware.bridges.dds import Ros2Link
from robo_rl.hardware.contracts import ArmCommand, ArmState, CommandMode, CommandSource, Reason
from robo_rl.hardware.drivers.ros2_device import TwinScene
from robo_rl.hardware.errors import HardwareError
from robo_rl.hardware.recorder import sent_commands, worst_excess
from robo_rl.hardware.server.client import RemoteRobot
from robo_rl.hardware.server.process import Child, Termination, announce_ready
from robo_rl.hardware.server.robot_process import RobotProcessConfig
from robo_rl.hardware.twin.process import TwinConfig

REST_RAD_S = 0.05
"""Below it, no joint counts as moving; the servo's residual sway is about 0.01 rad/s."""

_MOVING_RAD_S = 0.6
_WATCH_S = 1.0
_SWEEP_RAD = 0.3
_SWEEP_HZ = 0.7
_POLICY_HZ = 20.0


@dataclasses.dataclass(frozen=True)
class MoverConfig:
    """A policy process that sweeps the first joint to and fro for ever."""

    socket: str
    robot: str = robots.DEFAULT


@dataclasses.dataclass(frozen=True)
class StopReport:
    """What the faults did. The keys of all but the last are policy_killed, policy_paused,
    bridge_cut."""

    stop_ms: dict[str, float]
    """From the fault until every joint is at rest and stays so."""
    speed_rad_s: dict[str, float]
    """True speed of the fastest joint when the fault came."""
    excess: dict[str, float]
    """How far the worst command ever sent was beyond each limit; <= 0 is within."""


def measure_stop(
    scene: str,
    folder: str | os.PathLike[str],
    domain_id: int,
    model: str = "",
    robot: str = robots.DEFAULT,
) -> StopReport:
    """Start everything, order the three faults, end everything. Takes about ten seconds.

    `scene` is a path written by `save_scene`, `model` as in `RobotProcessConfig`; `folder` takes
    the socket and the recording `watchdog.mcap`, and must not hold one yet.
    """
    folder = pathlib.Path(folder)
    recording = folder / "watchdog.mcap"
    config = RobotProcessConfig(
        socket=str(folder / "private" / "robot.sock"),
        domain_id=domain_id,
        robot=robot,
        barrier=None,
        model=model,
        recording=str(recording),
        parent_pid=os.getpid(),
    )
    twin = TwinConfig(scene, domain_id, truth_hz=250.0, parent_pid=os.getpid(), robot=robot)
    mover = MoverConfig(config.socket, robot)
    stop_ms: dict[str, float] = {}
    speed: dict[str, float] = {}
    truth = TwinScene(Ros2Link(domain_id, node_name="watchdog"))
    with (
        Child("robo_rl.hardware.twin.process", twin),
        Child("robo_rl.hardware.server.robot_process", config),
    ):
        truth.open()
        try:
            for fault in ("policy_killed", "policy_paused", "bridge_cut"):
                with Child("robo_rl.hardware.twin.stop_test", mover) as policy:
                    faults: dict[str, Callable[[], None]] = {
                        "policy_killed": policy.kill,
                        "policy_paused": functools.partial(policy.send_signal, signal.SIGSTOP),
                        # The arm still hears us: only the watchdog can stop it.
                        "bridge_cut": functools.partial(truth.order_fault, _WATCH_S + 0.5),
                    }
                    stop_ms[fault], speed[fault] = time_to_rest(truth, faults[fault])
                if fault == "bridge_cut":
                    time.sleep(0.5)
        finally:
            truth.close()
    spec = robots.get(robot).spec
    excess = worst_excess(sent_commands(recording, spec.joints), spec)
    return StopReport(stop_ms, speed, excess)


def time_to_rest(
    scene: TwinScene, inject: Callable[[], None], moving_rad_s: float = _MOVING_RAD_S
) -> tuple[float, float]:
    """Wait until the arm moves, order a fault, and watch it come to rest.

    Returns the time to rest in ms, infinite when it did not, and the speed at the fault in rad/s.
    """
    speed = _wait_for_motion(scene, moving_rad_s)
    fault_s = time.monotonic()
    inject()
    moving_s, seen_s = fault_s, fault_s
    while seen_s < fault_s + _WATCH_S:
        if time.monotonic() > fault_s + _WATCH_S + 2.0:
            raise HardwareError("the twin stopped telling the truth while its stop was measured")
        for truth in scene.truths():
            seen_s = truth.t_host_s
            if np.abs(truth.dq_rad_s).max() > REST_RAD_S:
                moving_s = seen_s
        time.sleep(0.005)
    at_rest = moving_s < fault_s + 0.9 * _WATCH_S
    return (1e3 * (moving_s - fault_s) if at_rest else float("inf")), speed


def _wait_for_motion(scene: TwinScene, moving_rad_s: float, timeout_s: float = 10.0) -> float:
    scene.truths()
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for truth in scene.truths():
            if (speed := float(np.abs(truth.dq_rad_s).max())) > moving_rad_s:
                return speed
        time.sleep(0.002)
    raise HardwareError(f"the arm did not reach {moving_rad_s} rad/s within {timeout_s} s")


def run_mover(config: MoverConfig) -> None:
    """Sweep until SIGTERM, from when the arm rests."""
    ended = Termination()
    ended.install()
    spec = robots.get(config.robot).spec
    robot = RemoteRobot(config.socket, spec)
    robot.connect()
    announce_ready()
    middle = np.array(spec.home_rad)
    seq, armed = 0, False
    period_s = 1.0 / _POLICY_HZ
    start_s = robot.now_s()
    while not ended.asked(robot.now_s()):
        state = robot.advance(period_s)
        if not armed:
            armed = _arm_at_rest(robot, state)
            continue
        target = middle.copy()
        target[0] += _SWEEP_RAD * np.sin(2 * np.pi * _SWEEP_HZ * (robot.now_s() - start_s))
        seq += 1
        receipt = robot.submit(
            ArmCommand(
                mode=CommandMode.JOINT_POSITION,
                values=target,
                gripper_closedness=0.0,
                seq=seq,
                t_observation_s=state.t_host_s,
                expires_at_s=robot.now_s() + spec.watchdog_s,
                source=CommandSource.TEST,
            )
        )
        armed = Reason.NOT_ARMED not in receipt.reasons and Reason.STOPPED not in receipt.reasons
    robot.disconnect()


def _arm_at_rest(robot: RemoteRobot, state: ArmState) -> bool:
    """Arm where that is allowed: the arm rests and its state is fresh."""
    fresh = state.age_s(robot.now_s()) < robot.spec.watchdog_s
    if not fresh or np.abs(state.dq_rad_s).max() > REST_RAD_S:
        return False
    robot.arm(CommandMode.JOINT_POSITION)
    return True


if __name__ == "__main__":
    run_mover(MoverConfig(**json.loads(sys.argv[1])))
