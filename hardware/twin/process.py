"""The twin: a simulated arm in a process of its own, in real time, behind the topics of ROS 2.

It shows what an arm under ros2_control shows: joint states and object poses out; streaming
positions and trajectories in, with the habits of ros2_control's controllers (see
`Ros2Controllers`). What no real robot has is under `/twin/`: reset of the scene, faults to order,
and the truth, for measuring.

    python -m robo_rl.hardware.twin.process '{"scene": "scene.mjb", "domain_id": 7}'
"""

import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rl.hardware import robots
from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import LOOPBACK, Node
from robo_rl.hardware.bridges.messages import TwinTruth, pose_from_list, to_ros_pose
from robo_rl.hardware.bridges.topics import TwinTopics
from robo_rl.hardware.contracts import ArmSpec, Pose
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.server.process import (
    Cadence,
    Termination,
    announce_ready,
    raise_priority,
    settle_interpreter,
)
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, load_scene

log = logging.getLogger(__name__)

_MAX_CATCH_UP_S = 0.05
"""A longer pause of this process is lost time: the physics does not run after it."""


@dataclasses.dataclass(frozen=True)
class TwinConfig:
    """What one twin simulates and how it speaks."""

    scene: str
    """Path of a scene written by `mujoco_device.save_scene`."""
    domain_id: int
    gap: DomainGap = dataclasses.field(default_factory=DomainGap)
    joint_states_hz: float = 500.0
    objects_hz: float = 100.0
    truth_hz: float = 100.0
    address: str = LOOPBACK
    allow_network: bool = False
    parent_pid: int = 0
    """End when this process is no longer the parent; 0 for never."""
    robot: str = robots.DEFAULT
    """Name or path of the robot that the scene holds."""


class Ros2Controllers:
    """What the controllers of ros2_control make of the messages they get.

    Streaming positions: a message that is not finite is dropped whole, one of the wrong size is
    refused, and the last value persists: there is no time-out. Trajectories are interpolated
    linearly, or by a cubic where velocities are given, and end in holding the last waypoint. The
    newest message of either kind takes over.
    """

    def __init__(self, joint_names: tuple[str, ...], q_rad: np.ndarray) -> None:
        self._joint_names = joint_names
        self.refused = 0
        self.forget(q_rad)

    def forget(self, q_rad: np.ndarray) -> None:
        """Hold q (J,) with the gripper open."""
        self._target = np.array(q_rad, dtype=float)
        self._trajectory: tuple[float, np.ndarray, np.ndarray, np.ndarray | None] | None = None
        self.gripper = 0.0

    def stream(self, message: rt.Float64MultiArray) -> None:
        """Take a message of the forward position controller."""
        data = np.asarray(message.data, dtype=float)
        if data.shape != self._target.shape or not np.isfinite(data).all():
            self._refuse(f"positions {message.data}")
            return
        self._target, self._trajectory = data, None

    def stream_gripper(self, message: rt.Float64MultiArray) -> None:
        """Take a message of the gripper's controller: closedness."""
        if len(message.data) != 1 or not math.isfinite(message.data[0]):
            self._refuse(f"gripper {message.data}")
            return
        self.gripper = min(max(message.data[0], 0.0), 1.0)

    def follow(self, message: rt.JointTrajectory, now_s: float) -> None:
        """Take a trajectory; one without points stops where the arm is commanded to be now."""
        here = self.target(now_s)
        if not message.points:
            self._target, self._trajectory = here, None
            return
        try:
            order = [message.joint_names.index(name) for name in self._joint_names]
            times = np.array([0.0, *(rt.seconds(p.time_from_start) for p in message.points)])
            q = np.array([p.positions for p in message.points], dtype=float)[:, order]
            velocities = [p.velocities for p in message.points]
            dq = np.array(velocities, dtype=float)[:, order] if all(velocities) else None
        except (ValueError, IndexError) as error:
            self._refuse(f"trajectory: {error}")
            return
        complete = len(order) == len(message.joint_names)
        if times[1] == 0.0:
            times[0] = -1e-9  # the first waypoint is where to be at once
        finite = np.isfinite(q).all() and (dq is None or np.isfinite(dq).all())
        if not complete or not finite or not (np.diff(times) > 0.0).all():
            self._refuse("trajectory: needs every joint once, finite positions, rising times")
            return
        q = np.vstack([here, q])
        dq = None if dq is None else np.vstack([np.zeros_like(here), dq])
        self._trajectory = (now_s, times, q, dq)

    def target(self, now_s: float) -> np.ndarray:
        """Where the arm is commanded to be, (J,)."""
        if self._trajectory is not None:
            start_s, times, q, dq = self._trajectory
            t = now_s - start_s
            if t >= times[-1]:
                self._target, self._trajectory = q[-1], None
            else:
                self._target = _interpolate(t, times, q, dq)
        return self._target

    def _refuse(self, what: str) -> None:
        self.refused += 1
        log.warning("refused %s", what)


def _interpolate(t: float, times: np.ndarray, q: np.ndarray, dq: np.ndarray | None) -> np.ndarray:
    """Positions (J,) at t of waypoints q (N, J), by Hermite cubics where velocities are given."""
    i = int(np.searchsorted(times, t, side="right")) - 1
    span = times[i + 1] - times[i]
    s = (t - times[i]) / span
    if dq is None:
        return np.asarray(q[i] + s * (q[i + 1] - q[i]))
    return np.asarray(
        (1 + 2 * s) * (1 - s) ** 2 * q[i]
        + s * (1 - s) ** 2 * span * dq[i]
        + s**2 * (3 - 2 * s) * q[i + 1]
        + s**2 * (s - 1) * span * dq[i + 1]
    )


class Twin:
    """The loop between physics and topics."""

    def __init__(self, config: TwinConfig, kit: RobotKit, device: MujocoDevice, node: Node) -> None:
        self.config = config
        self._device = device
        self._node = node
        self._spec: ArmSpec = device.spec
        self._topics, self._twin_topics = kit.topics, TwinTopics()
        self._controllers = Ros2Controllers(self._spec.joint_names, np.array(self._spec.home_rad))
        self._reset_seq = 0
        self._muted_until_s = 0.0
        self._deaf_until_s = 0.0

    def open(self) -> None:
        """Create the topics and compute the first state."""
        device, node, topics, own = self._device, self._node, self._topics, self._twin_topics
        device.open()
        model = device.model
        self._q = [int(model.joint(name).qposadr[0]) for name in device.names.arm_joints]
        self._dq = [int(model.joint(name).dofadr[0]) for name in device.names.arm_joints]
        node.open()
        self._joint_states = node.publisher(topics.joint_states, rt.JointState)
        self._object_poses = {
            name: node.publisher(topics.object_pose(name), rt.PoseStamped)
            for name in device.names.objects
        }
        self._truth = node.publisher(own.truth, rt.Float64MultiArray)
        self._status = node.publisher(own.status, rt.String, latched=True)
        self._positions = node.subscription(topics.positions, rt.Float64MultiArray, reliable=True)
        self._gripper = node.subscription(topics.gripper, rt.Float64MultiArray, reliable=True)
        self._trajectories = node.subscription(topics.trajectory, rt.JointTrajectory, reliable=True)
        self._resets = node.subscription(own.reset, rt.String, reliable=True)
        self._faults = node.subscription(own.fault, rt.String, reliable=True)

    def run(self, ended: Termination) -> Cadence:
        """Run in real time until asked to end. Returns how well time was kept."""
        step_s = float(self._device.model.opt.timestep)
        start_s = time.monotonic()
        cadence = Cadence(1.0 / self.config.joint_states_hz, start_s)
        dues = {
            self._publish_objects: Cadence(1.0 / self.config.objects_hz, start_s),
            self._publish_truth: Cadence(1.0 / self.config.truth_hz, start_s),
        }
        report = Cadence(0.5, start_s)
        physics_s = start_s
        while not ended.asked(now_s := time.monotonic()):
            if (wait_s := cadence.next_s - now_s) > 0.0:
                time.sleep(wait_s)
                now_s = time.monotonic()
            cadence.reached(now_s)
            self._take_messages(now_s)
            physics_s = max(physics_s, now_s - _MAX_CATCH_UP_S)
            while physics_s + step_s <= now_s:
                physics_s += step_s
                self._step(physics_s, step_s)
            self._publish_joints(now_s)
            for publish, due in dues.items():
                if now_s >= due.next_s:
                    due.reached(now_s)
                    publish()
            if now_s >= report.next_s:
                report.reached(now_s)
                self._publish_status(cadence)
        return cadence

    def _step(self, now_s: float, step_s: float) -> None:
        target = self._controllers.target(now_s)
        # A step of the setpoint: what the arm does between two messages is the servo's affair.
        self._device.write(target, np.full(len(target), np.nan), self._controllers.gripper)
        self._device.pass_time(self._device.now_s() + step_s)

    def _take_messages(self, now_s: float) -> None:
        for request in self._resets.take():
            self._reset(request.data)
        for request in self._faults.take():
            self._order_fault(request.data, now_s)
        deaf = now_s < self._deaf_until_s
        for positions in self._positions.take():
            if not deaf:
                self._controllers.stream(positions)
        for trajectory in self._trajectories.take():
            if not deaf:
                self._controllers.follow(trajectory, now_s)
        for gripper in self._gripper.take():
            if not deaf:
                self._controllers.stream_gripper(gripper)

    def _reset(self, text: str) -> None:
        try:
            request = json.loads(text)
            seq = int(request["seq"])
            if seq != self._reset_seq:
                q = np.array(request["q_rad"], dtype=float)
                self._device.reset_scene(q, _poses(request["objects"]), _poses(request["targets"]))
                self._controllers.forget(q)
                self._reset_seq = seq
        except (KeyError, TypeError, ValueError) as error:
            log.warning("refused a reset: %r", error)
            self._status.publish(rt.String(json.dumps({"reset": -1, "error": repr(error)})))
            return
        self._publish_joints(time.monotonic())
        self._publish_objects()
        self._publish_truth()
        self._status.publish(rt.String(json.dumps({"reset": self._reset_seq})))

    def _order_fault(self, text: str, now_s: float) -> None:
        """`{"mute_s": T}`: no joint states or poses for T seconds; `deaf_s`: no commands heard."""
        try:
            request = json.loads(text)
            self._muted_until_s = now_s + float(request.get("mute_s", 0.0))
            self._deaf_until_s = now_s + float(request.get("deaf_s", 0.0))
        except (AttributeError, TypeError, ValueError) as error:
            log.warning("refused a fault: %r", error)

    def _publish_joints(self, now_s: float) -> None:
        if now_s < self._muted_until_s:
            return
        state = self._device.read()
        header = rt.Header(rt.stamp(time.time()), self._spec.base_frame)
        names = list(self._spec.joint_names)
        position, velocity = state.q_rad.tolist(), state.dq_rad_s.tolist()
        effort = state.effort_nm.tolist()
        if self._spec.gripper is not None:
            names.append(self._spec.gripper.joint_name)
            position.append(state.gripper_closedness * self._spec.gripper.closed_rad)
            velocity.append(math.nan)  # not measured
            effort.append(state.gripper_force_n)
        self._joint_states.publish(rt.JointState(header, names, position, velocity, effort))

    def _publish_objects(self) -> None:
        if time.monotonic() < self._muted_until_s:
            return
        header = rt.Header(rt.stamp(time.time()), self._spec.base_frame)
        for name, pose in self._device.read().objects.items():
            self._object_poses[name].publish(rt.PoseStamped(header, to_ros_pose(pose)))

    def _publish_truth(self) -> None:
        data = self._device.data
        truth = TwinTruth(
            reset=self._reset_seq,
            t_host_s=time.monotonic(),
            q_rad=data.qpos[self._q],
            dq_rad_s=data.qvel[self._dq],
            tool_m=self._device.true_tool_position(),
        )
        self._truth.publish(truth.to_message())

    def _publish_status(self, cadence: Cadence) -> None:
        status = {
            "reset": self._reset_seq,
            "ticks": cadence.ticks,
            "deadline_misses": cadence.misses,
            "worst_lateness_s": cadence.worst_late_s,
            "refused": self._controllers.refused,
        }
        self._status.publish(rt.String(json.dumps(status)))


def _poses(objects: Mapping[str, Any]) -> dict[str, Pose]:
    return {str(name): pose_from_list(numbers) for name, numbers in objects.items()}


def run_twin(config: TwinConfig) -> Cadence:
    """Run a twin in this process until SIGTERM. Announces on standard output when it is ready."""
    ended = Termination(config.parent_pid)
    ended.install()
    raise_priority()
    kit = robots.get(config.robot)
    device = MujocoDevice(load_scene(config.scene), kit.spec, config.gap)
    node = Node(f"{kit.name}_twin", config.domain_id, config.address, config.allow_network)
    twin = Twin(config, kit, device, node)
    try:
        twin.open()
        announce_ready(domain_id=config.domain_id)
        settle_interpreter()
        cadence = twin.run(ended)
    finally:
        device.close()
        node.close()
    log.info(
        "%d ticks, %d missed, worst %.1f ms late",
        cadence.ticks,
        cadence.misses,
        cadence.worst_late_s * 1e3,
    )
    return cadence


def parse_config(text: str) -> TwinConfig:
    """The config that a JSON object of `TwinConfig`'s fields describes."""
    fields = json.loads(text)
    gap = fields.pop("gap", {})
    if "tool_offset_m" in gap:
        gap["tool_offset_m"] = tuple(gap["tool_offset_m"])
    return TwinConfig(**fields, gap=DomainGap(**gap))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run_twin(parse_config(sys.argv[1]))
