"""An arm under ros2_control, or its twin, as a `Device`: joint states in, positions out."""

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node, Ros2Link
from robo_rl.hardware.bridges.messages import TwinTruth, from_ros_pose, pose_to_list
from robo_rl.hardware.bridges.topics import TwinTopics
from robo_rl.hardware.contracts import ArmSpec, ArmState, Device, Pose, Robot, SceneReset
from robo_rl.hardware.errors import HardwareError, NotConnected
from robo_rl.hardware.robots.kit import RobotKit

_GRIPPER_REPEAT_S = 0.1
"""An unchanged gripper target is sent again this often, for a controller that starts late."""

_ONE_TURN_S = 0.02
"""The time asked for and the state read within this are those of one turn of a control loop."""

_CLOCKS_AGREE_S = 1.0
"""A message that seems older, or from the future, was stamped by another clock."""


class ForwardKinematics:
    """Tool pose of the nominal arm in its base frame. One per thread: it computes in place."""

    def __init__(self, kit: RobotKit) -> None:
        self._model = model = kit.model()
        self._data = mujoco.MjData(model)
        self._q = [int(model.joint(name).qposadr[0]) for name in kit.names.arm_joints]
        self._site = model.site(kit.names.tool_site).id

    def pose(self, q_rad: np.ndarray) -> Pose:
        """The tool at joint positions (J,); NaN where they are."""
        if not np.isfinite(q_rad).all():
            return Pose(np.full(3, math.nan), np.full(4, math.nan))
        self._data.qpos[self._q] = q_rad
        mujoco.mj_kinematics(self._model, self._data)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self._data.site_xmat[self._site])
        return Pose(self._data.site_xpos[self._site].copy(), quaternion)


class JointBuffer:
    """The newest measurement of each joint, merged by name from any number of publishers.

    Order: the joints of the arm, then the gripper's when there is one.
    """

    def __init__(self, spec: ArmSpec) -> None:
        gripper = () if spec.gripper is None else (spec.gripper.joint_name,)
        self.names = spec.joint_names + gripper
        self._index = {name: i for i, name in enumerate(self.names)}
        self.position, self.velocity, self.effort, self.t_host_s = np.full(
            (4, len(self.names)), math.nan
        )
        self.t_source_s = math.nan
        self.malformed = 0
        """Messages refused because their arrays did not match their names."""

    def take(self, message: rt.JointState, now_s: float) -> None:
        """Merge one message. Velocities and efforts may be left out, joints may be of others."""
        count = len(message.name)
        columns = (message.velocity, message.effort)
        if (
            len(message.position) != count
            or any(len(column) not in (0, count) for column in columns)
            or len(set(message.name)) != count
        ):
            self.malformed += 1
            return
        for k, name in enumerate(message.name):
            i = self._index.get(name)
            if i is None:
                continue
            self.position[i] = message.position[k]
            self.velocity[i] = message.velocity[k] if message.velocity else math.nan
            self.effort[i] = message.effort[k] if message.effort else math.nan
            self.t_host_s[i] = now_s
            self.t_source_s = rt.seconds(message.header.stamp)

    def missing(self) -> list[str]:
        """Joints that were never measured."""
        return [name for name, t in zip(self.names, self.t_host_s, strict=True) if math.isnan(t)]


class Ros2Device(Device):
    """One arm behind ROS 2 topics. Reads by polling in the caller's thread.

    A measurement's host time is when its message was sent, or, where the clocks of the two hosts do
    not agree, when it was polled: at most one control period after it arrived.
    """

    def __init__(
        self,
        kit: RobotKit,
        link: Ros2Link,
        objects: tuple[str, ...] = (),
        open_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.spec = spec = kit.spec
        self._topics = kit.topics
        self._node = Node(link.node_name, link.domain_id, link.address, link.allow_network)
        self._kinematics = ForwardKinematics(kit)
        self._object_names = objects
        self._timeout_s = open_timeout_s
        self._clock = clock
        self._sleep = sleep
        self._open = False
        self._joints = JointBuffer(spec)
        self._objects: dict[str, tuple[float, Pose]] = {}
        self._gripper_sent = (math.nan, -math.inf)
        self._asked_s = -math.inf
        self._seq = 0
        self.malformed_poses = 0

    def open(self) -> None:
        """Join the domain; wait until every joint and object was measured and someone listens."""
        node, topics = self._node, self._topics
        node.open()
        self._joints, self._objects = JointBuffer(self.spec), {}
        self._gripper_sent = (math.nan, -math.inf)
        self._joint_states = node.subscription(topics.joint_states, rt.JointState)
        self._object_poses = {
            name: node.subscription(topics.object_pose(name), rt.PoseStamped, depth=2)
            for name in self._object_names
        }
        self._positions = node.publisher(topics.positions, rt.Float64MultiArray)
        self._gripper = node.publisher(topics.gripper, rt.Float64MultiArray)
        self._open = True
        try:
            self._wait_for_peers()
        except HardwareError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the domain. The arm keeps the last position that it was sent."""
        self._node.close()
        self._open = False

    def now_s(self) -> float:
        """CLOCK_MONOTONIC, which all processes of one host share."""
        self._asked_s = self._clock()
        return self._asked_s

    def read(self) -> ArmState:
        """The newest of every joint and object. Host time is that of the oldest joint."""
        if not self._open:
            raise NotConnected(f"{self.spec.name}: read before open()")
        self._poll()
        joints, spec = self._joints, self.spec
        n = spec.joints
        q = joints.position[:n].copy()
        t_host_s = float(joints.t_host_s.min())
        if self._clock() - self._asked_s < _ONE_TURN_S:
            # Who asks for the time and then reads must not be shown a state from the future.
            t_host_s = min(t_host_s, self._asked_s)
        self._seq += 1
        closed = force = math.nan
        if spec.gripper is not None:
            closed = min(max(float(joints.position[n]) / spec.gripper.closed_rad, 0.0), 1.0)
            force = float(joints.effort[n])
        return ArmState(
            t_host_s=t_host_s,
            t_source_s=joints.t_source_s,
            seq=self._seq,
            q_rad=q,
            dq_rad_s=joints.velocity[:n].copy(),
            effort_nm=joints.effort[:n].copy(),
            tool=self._kinematics.pose(q),
            gripper_closedness=closed,
            gripper_force_n=force,
            objects={name: pose for name, (_, pose) in self._objects.items()},
            objects_t_host_s=min((t for t, _ in self._objects.values()), default=math.nan),
            valid=bool(np.isfinite(q).all() and np.isfinite(joints.t_host_s).all()),
        )

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        """Stream positions; the forward position controller has no use for the velocities."""
        if not self._open:
            raise NotConnected(f"{self.spec.name}: write before open()")
        self._positions.publish(rt.Float64MultiArray(data=q_rad.tolist()))
        now = self._clock()
        target, sent_s = self._gripper_sent
        if gripper_closedness != target or now - sent_s >= _GRIPPER_REPEAT_S:
            self._gripper.publish(rt.Float64MultiArray(data=[float(gripper_closedness)]))
            self._gripper_sent = gripper_closedness, now

    def pass_time(self, until_s: float) -> None:
        """Wait."""
        while (left_s := until_s - self._clock()) > 0.0:
            self._sleep(left_s)

    def _poll(self) -> None:
        wall_to_host_s = self._clock() - time.time()
        for message in self._joint_states.take():
            self._joints.take(message, self._sent_s(message, wall_to_host_s))
        for name, subscription in self._object_poses.items():
            for stamped in subscription.take():
                pose = from_ros_pose(stamped.pose)
                if pose is None:
                    self.malformed_poses += 1
                else:
                    self._objects[name] = (self._sent_s(stamped, wall_to_host_s), pose)

    def _sent_s(self, message: Any, wall_to_host_s: float) -> float:
        """Host time at which a message was sent."""
        now = self._clock()
        sent = message.sample_info.source_timestamp * 1e-9 + wall_to_host_s
        return sent if now - _CLOCKS_AGREE_S < sent <= now else now

    def _wait_for_peers(self) -> None:
        deadline_s = self._clock() + self._timeout_s
        while waiting := self._not_there():
            if self._clock() > deadline_s:
                raise NotConnected(
                    f"{self.spec.name}: after {self._timeout_s} s on DDS domain "
                    f"{self._node.domain_id} there is still {'; '.join(waiting)}. Is the driver "
                    "running, on this domain?"
                )
            self._sleep(0.005)

    def _not_there(self) -> list[str]:
        self._poll()
        topics = self._topics
        waiting = []
        if joints := self._joints.missing():
            waiting.append(f"no {topics.joint_states} with {', '.join(joints)}")
        for name in self._object_names:
            if name not in self._objects:
                waiting.append(f"no {topics.object_pose(name)}")
        if not self._positions.matched():
            waiting.append(f"no subscriber of {topics.positions}")
        return waiting


class TwinScene(SceneReset):
    """The twin-only topics: reset the scene, order faults, look at the truth."""

    def __init__(
        self, link: Ros2Link, topics: TwinTopics | None = None, timeout_s: float = 5.0
    ) -> None:
        self._topics = topics or TwinTopics()
        self._node = Node(
            link.node_name + "_scene", link.domain_id, link.address, link.allow_network
        )
        self._timeout_s = timeout_s
        self._open = False
        self.status: dict[str, Any] = {}
        """What the twin last said about itself."""

    def open(self) -> None:
        """Join the domain and wait for the twin."""
        node, topics = self._node, self._topics
        node.open()
        self._resets = node.publisher(topics.reset, rt.String)
        self._faults = node.publisher(topics.fault, rt.String)
        self._statuses = node.subscription(topics.status, rt.String, reliable=True)
        self._truths = node.subscription(topics.truth, rt.Float64MultiArray, depth=200)
        # Any start that another client is unlikely to have used: resets are told apart by it.
        self._sequence = itertools.count(time.monotonic_ns() % 10**9 + 1)
        self._open = True
        self._wait(
            lambda: (
                self._resets.matched() > 0
                and self._faults.matched() > 0
                and self._truths.matched() > 0
                and self._statuses.matched() > 0
            ),
            "no twin answers",
        )

    def close(self) -> None:
        """Leave the domain. Idempotent."""
        self._node.close()
        self._open = False

    def reset_scene(
        self, q_rad: np.ndarray, objects: Mapping[str, Pose], targets: Mapping[str, Pose]
    ) -> None:
        """Put the twin into a state and wait until it says so."""
        if not self._open:
            raise NotConnected("TwinScene: reset_scene before open()")
        seq = next(self._sequence)
        request = {
            "seq": seq,
            "q_rad": np.asarray(q_rad).tolist(),
            "objects": {name: pose_to_list(pose) for name, pose in objects.items()},
            "targets": {name: pose_to_list(pose) for name, pose in targets.items()},
        }
        self._resets.publish(rt.String(json.dumps(request)))
        self._wait(lambda: self._answered(seq), f"reset {seq} was not answered")

    def order_fault(self, mute_s: float = 0.0, deaf_s: float = 0.0) -> None:
        """Let the twin be silent, or deaf to commands, for some seconds from now."""
        self._faults.publish(rt.String(json.dumps({"mute_s": mute_s, "deaf_s": deaf_s})))

    def truths(self) -> list[TwinTruth]:
        """What the arm really did since the last call, oldest first."""
        return [TwinTruth.from_message(message) for message in self._truths.take()]

    def _answered(self, seq: int) -> bool:
        for message in self._statuses.take():
            self.status = json.loads(message.data)
            if self.status["reset"] == -1:
                raise ValueError(f"the twin refused a reset: {self.status['error']}")
            if self.status["reset"] == seq:
                return True
        return False

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while not done():
            if time.monotonic() > deadline_s:
                raise NotConnected(
                    f"twin on DDS domain {self._node.domain_id}: {what} within {self._timeout_s} s"
                )
            time.sleep(0.002)


_SETTLE_S = 0.05
"""Some ticks of the robot process, and the way of the last command over the wire."""


class RemoteScene(SceneReset):
    """Resets the scene behind a robot in another process: hold, reset, and wait until it shows."""

    def __init__(self, scene: TwinScene, robot: Robot, timeout_s: float = 2.0) -> None:
        self._scene = scene
        self._robot = robot
        self._timeout_s = timeout_s

    def reset_scene(
        self, q_rad: np.ndarray, objects: Mapping[str, Pose], targets: Mapping[str, Pose]
    ) -> None:
        """Disarm, reset, and return once the robot's own states come from the new scene.

        The robot goes on writing while it brakes: a reset before it is done would be followed by
        commands that lead back to the old scene.
        """
        self._robot.disarm()
        spec = self._robot.spec
        brake_s = max(np.divide(spec.velocity_rad_s, spec.acceleration_rad_s2))
        time.sleep(float(brake_s) + _SETTLE_S)
        self._scene.reset_scene(q_rad, objects, targets)
        done_s = self._robot.now_s()
        while self._robot.latest().t_host_s < done_s:
            if self._robot.now_s() > done_s + self._timeout_s:
                raise NotConnected("no joint state arrived after a reset of the scene")
            time.sleep(0.002)
