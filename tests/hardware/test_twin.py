"""The twin as its peers see it, and the device that is one of them."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
import pytest

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node, Ros2Link
from robo_rl.hardware.bridges.messages import TwinTruth, from_ros_pose, to_ros_pose
from robo_rl.hardware.contracts import Pose
from robo_rl.hardware.drivers import ros2_device
from robo_rl.hardware.drivers.ros2_device import JointBuffer, Ros2Device, TwinScene
from robo_rl.hardware.errors import HardwareError, NotConnected
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT, UR_TOPICS
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.server.process import Cadence, Child
from robo_rl.hardware.twin import process
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, load_scene
from robo_rl.hardware.twin.process import (
    Ros2Controllers,
    Twin,
    TwinConfig,
    parse_config,
    run_twin,
)

HOME = np.array(UR5E.home_rad)
ARM = list(UR5E.joint_names)


def kit_with(arm_path: str) -> RobotKit:
    """The kit whose nominal model is read from a file."""
    load = functools.partial(mujoco.MjModel.from_binary_path, arm_path)
    return dataclasses.replace(UR5E_KIT, model=load)


GRIPPER = "robotiq_85_left_knuckle_joint"
Q = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


# The controllers of ros2_control


def test_streamed_positions_persist() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, HOME)
    np.testing.assert_array_equal(controllers.target(0.0), HOME)
    controllers.stream(rt.Float64MultiArray(data=Q))
    np.testing.assert_array_equal(controllers.target(1e6), Q)


@pytest.mark.parametrize(
    "data", [[math.nan, *Q[1:]], [*Q[:5], math.inf], Q[:5], [*Q, 0.0], []], ids=str
)
def test_a_bad_stream_is_dropped_whole(data: list[float]) -> None:
    controllers = Ros2Controllers(UR5E.joint_names, HOME)
    controllers.stream(rt.Float64MultiArray(data=data))
    np.testing.assert_array_equal(controllers.target(1.0), HOME)
    assert controllers.refused == 1


def test_the_gripper_is_clipped_and_never_nan() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, HOME)
    for data, expected in [([0.3], 0.3), ([math.nan], 0.3), ([7.0], 1.0), ([0.1, 0.2], 1.0)]:
        controllers.stream_gripper(rt.Float64MultiArray(data=data))
        assert controllers.gripper == expected


def trajectory(*points: tuple[float, list[float], list[float]]) -> rt.JointTrajectory:
    """Points as (time, positions, velocities), joints in reverse order."""
    return rt.JointTrajectory(
        joint_names=ARM[::-1],
        points=[
            rt.JointTrajectoryPoint(
                q[::-1], dq[::-1], [], [], rt.Duration(int(t), int(t % 1 * 1e9))
            )
            for t, q, dq in points
        ],
    )


def test_a_trajectory_is_matched_by_name_and_interpolated() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((1.0, Q, []), (2.5, [0.0] * 6, [])), now_s=10.0)
    np.testing.assert_allclose(controllers.target(10.5), np.array(Q) / 2)
    np.testing.assert_allclose(controllers.target(11.0), Q)
    np.testing.assert_allclose(controllers.target(11.75), np.array(Q) / 2)
    np.testing.assert_allclose(controllers.target(99.0), np.zeros(6))


def test_a_trajectory_with_velocities_is_a_cubic() -> None:
    """From rest to 1 at rest in 1 s: 3 s^2 - 2 s^3."""
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((1.0, [1.0] * 6, [0.0] * 6)), now_s=0.0)
    np.testing.assert_allclose(controllers.target(0.25), [3 / 16 - 2 / 64] * 6)


def test_a_stream_takes_over_from_a_trajectory_and_back() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((1.0, Q, [])), now_s=0.0)
    controllers.stream(rt.Float64MultiArray(data=[0.0] * 6))
    np.testing.assert_array_equal(controllers.target(0.5), np.zeros(6))
    controllers.follow(trajectory((1.0, Q, [])), now_s=2.0)
    np.testing.assert_allclose(controllers.target(3.0), Q)


def test_an_empty_trajectory_stops_where_it_is() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((1.0, Q, [])), now_s=0.0)
    controllers.follow(rt.JointTrajectory(joint_names=ARM), now_s=0.5)
    np.testing.assert_allclose(controllers.target(9.0), np.array(Q) / 2)


@pytest.mark.parametrize(
    "bad",
    [
        rt.JointTrajectory(joint_names=ARM[:5], points=trajectory((1.0, Q, [])).points),
        rt.JointTrajectory(joint_names=[*ARM, "x"], points=trajectory((1.0, [*Q, 0.0], [])).points),
        trajectory((1.0, Q[:5], [])),
        trajectory((1.0, [math.nan, *Q[1:]], [])),
        trajectory((1.0, Q, []), (0.5, Q, [])),
    ],
    ids=["missing joint", "unknown joint", "short point", "not finite", "back in time"],
)
def test_a_bad_trajectory_is_refused_whole(bad: rt.JointTrajectory) -> None:
    controllers = Ros2Controllers(UR5E.joint_names, HOME)
    controllers.follow(bad, now_s=0.0)
    np.testing.assert_array_equal(controllers.target(5.0), HOME)
    assert controllers.refused == 1


# Joint states as ROS sends them


def joint_state(names: list[str], values: list[float], **fields: list[float]) -> rt.JointState:
    return rt.JointState(rt.Header(rt.Time(7, 0)), names, values, **fields)


def test_joints_are_merged_by_name_from_many_messages() -> None:
    buffer = JointBuffer(UR5E)
    buffer.take(joint_state(["other", *ARM[:1:-1]], [9.0, *Q[:1:-1]]), now_s=1.0)
    assert buffer.missing() == [*ARM[:2], GRIPPER]
    buffer.take(joint_state([GRIPPER, ARM[1], ARM[0]], [0.4, *Q[1::-1]]), now_s=2.0)
    assert buffer.missing() == []
    np.testing.assert_array_equal(buffer.position, [*Q, 0.4])
    np.testing.assert_array_equal(buffer.t_host_s, [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    # Neither message had velocities.
    assert np.isnan(buffer.velocity).all()


@pytest.mark.parametrize(
    "message",
    [
        joint_state(ARM, Q[:5]),
        joint_state(ARM, Q, velocity=[1.0]),
        joint_state([*ARM[:5], ARM[0]], Q),
    ],
    ids=["short positions", "short velocities", "name twice"],
)
def test_a_message_that_contradicts_itself_is_refused(message: rt.JointState) -> None:
    buffer = JointBuffer(UR5E)
    buffer.take(message, now_s=1.0)
    assert np.isnan(buffer.position).all()
    assert buffer.malformed == 1


def test_poses_change_order_at_the_edge() -> None:
    pose = Pose(np.array([1.0, 2.0, 3.0]), np.array([0.8, 0.6, 0.0, 0.0]))
    ros = to_ros_pose(pose)
    assert (ros.orientation.x, ros.orientation.w) == (0.6, 0.8)
    back = from_ros_pose(ros)
    assert back is not None
    np.testing.assert_allclose(back.quaternion_wxyz, pose.quaternion_wxyz)


@pytest.mark.parametrize(
    "pose",
    [
        rt.RosPose(rt.Point(math.nan, 0.0, 0.0)),
        rt.RosPose(orientation=rt.Quaternion(0.0, 0.0, 0.0, 0.0)),
        rt.RosPose(orientation=rt.Quaternion(math.nan, 0.0, 0.0, 1.0)),
    ],
)
def test_a_pose_that_is_none_is_refused(pose: rt.RosPose) -> None:
    assert from_ros_pose(pose) is None


def test_truth_survives_the_wire() -> None:
    truth = TwinTruth(3, 1.5, np.array(Q), -np.array(Q), np.array([7.0, 8.0, 9.0]))
    back = TwinTruth.from_message(truth.to_message())
    assert (back.reset, back.t_host_s) == (3, 1.5)
    np.testing.assert_array_equal(back.dq_rad_s, -np.array(Q))
    np.testing.assert_array_equal(back.tool_m, [7.0, 8.0, 9.0])


def test_missed_deadlines_are_counted_and_not_caught_up() -> None:
    cadence = Cadence(1.0, 0.0)
    assert cadence.reached(1.25) == 0.25
    assert (cadence.next_s, cadence.misses) == (2.0, 0)
    # Two whole deadlines, 3 and 4, pass unserved.
    assert cadence.reached(4.5) == 2.5
    assert (cadence.next_s, cadence.misses, cadence.worst_late_s) == (5.0, 2, 2.5)


# The process


@pytest.fixture(scope="module")
def twin(scene_path: str, module_domain_id: int) -> Iterator[TwinConfig]:
    config = TwinConfig(scene_path, module_domain_id, parent_pid=os.getpid())
    with Child("robo_rl.hardware.twin.process", config):
        yield config


@pytest.fixture
def device(twin: TwinConfig, arm_path: str) -> Iterator[Ros2Device]:
    device = Ros2Device(kit_with(arm_path), Ros2Link(twin.domain_id), ("cube_0",))
    device.open()
    yield device
    device.close()


@pytest.fixture
def scene(twin: TwinConfig) -> Iterator[TwinScene]:
    scene = TwinScene(Ros2Link(twin.domain_id))
    scene.open()
    yield scene
    scene.close()


def test_a_reset_shows_in_the_states(device: Ros2Device, scene: TwinScene) -> None:
    q = HOME + np.array([0.3, 0.1, 0.0, 0.0, 0.0, 0.0])
    cube = Pose(np.array([0.4, 0.1, 0.02]), np.array([1.0, 0.0, 0.0, 0.0]))
    scene.reset_scene(q, {"cube_0": cube}, {"cube_0": cube})
    assert eventually(lambda: float(np.abs(device.read().q_rad - q).max()) < 0.02)
    state = device.read()
    assert state.valid
    assert state.gripper_closedness == pytest.approx(0.0, abs=0.02)
    np.testing.assert_allclose(state.objects["cube_0"].position_m, cube.position_m, atol=2e-3)
    assert device.now_s() - state.objects_t_host_s < 1.0


def test_the_tool_pose_is_that_of_the_simulator(
    device: Ros2Device, scene: TwinScene, scene_path: str
) -> None:
    """Forward kinematics of the arm alone against MuJoCo's tool site in the whole scene."""
    scene.reset_scene(HOME, {}, {})
    simulator = MujocoDevice(load_scene(scene_path), UR5E)
    simulator.open()
    state = device.read()
    simulator.reset_scene(state.q_rad, {}, {})
    expected = simulator.read().tool
    np.testing.assert_allclose(state.tool.position_m, expected.position_m, atol=1e-6)
    same = abs(float(state.tool.quaternion_wxyz @ expected.quaternion_wxyz))
    assert same == pytest.approx(1.0, abs=1e-9)


def test_streamed_positions_move_the_arm_and_the_gripper(
    device: Ros2Device, scene: TwinScene
) -> None:
    scene.reset_scene(HOME, {}, {})
    target = HOME + np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.5])
    device.write(target, np.zeros(6), 1.0)
    assert eventually(lambda: float(np.abs(device.read().q_rad - target).max()) < 0.03)
    assert eventually(lambda: device.read().gripper_closedness > 0.9)
    truth = scene.truths()[-1]
    np.testing.assert_allclose(truth.q_rad, device.read().q_rad, atol=0.01)
    # One message is enough: there is no time-out.
    time.sleep(0.3)
    assert float(np.abs(device.read().q_rad - target).max()) < 0.03


def test_joint_states_come_at_about_their_rate(twin: TwinConfig) -> None:
    with Node("counter", twin.domain_id) as node:
        states = node.subscription(UR_TOPICS.joint_states, rt.JointState, depth=1000)
        assert eventually(lambda: len(states.take()) > 0)
        time.sleep(0.5)
        count = len(states.take())
    # 500 Hz; a busy machine may miss many.
    assert 50 < count < 300


def test_a_state_is_never_newer_than_the_time_asked_for_before(device: Ros2Device) -> None:
    for _ in range(200):
        now = device.now_s()
        time.sleep(0.001)
        assert device.read().t_host_s <= now


def test_a_mute_twin_leaves_old_states_that_age(device: Ros2Device, scene: TwinScene) -> None:
    scene.order_fault(mute_s=0.4)
    assert eventually(lambda: device.read().age_s(device.now_s()) > 0.15, timeout_s=2.0)
    assert eventually(lambda: device.read().age_s(device.now_s()) < 0.05, timeout_s=2.0)


def test_an_impossible_reset_is_refused_with_the_reason(scene: TwinScene) -> None:
    with pytest.raises(ValueError, match="6 finite numbers"):
        scene.reset_scene(np.zeros(3), {}, {})


def test_a_gap_moves_the_real_tool_and_not_the_reported_one(
    scene_path: str, arm_path: str, domain_id: int
) -> None:
    gap = DomainGap(tool_offset_m=(0.02, 0.0, 0.0))
    config = TwinConfig(scene_path, domain_id, gap=gap, parent_pid=os.getpid())
    with Child("robo_rl.hardware.twin.process", config):
        device = Ros2Device(kit_with(arm_path), Ros2Link(domain_id))
        scene = TwinScene(Ros2Link(domain_id, node_name="truth"))
        device.open()
        scene.open()
        scene.reset_scene(HOME, {}, {})
        time.sleep(0.1)
        apart = scene.truths()[-1].tool_m - device.read().tool.position_m
        device.close()
        scene.close()
    assert float(np.linalg.norm(apart)) == pytest.approx(0.02, abs=2e-3)


def test_nobody_there_is_said_by_name(arm_path: str, domain_id: int) -> None:
    device = Ros2Device(kit_with(arm_path), Ros2Link(domain_id), ("cube_0",), open_timeout_s=0.05)
    with pytest.raises(
        NotConnected, match=r"no /joint_states with shoulder_pan_joint.*cube_0/pose"
    ):
        device.open()
    with pytest.raises(NotConnected, match="before open"):
        device.read()


def test_a_twin_without_a_scene_says_why(domain_id: int, tmp_path: os.PathLike[str]) -> None:
    config = TwinConfig(f"{tmp_path}/missing.mjb", domain_id)
    with pytest.raises(HardwareError, match=r"(?s)ended with code 1.*missing\.json"):
        Child("robo_rl.hardware.twin.process", config).start().wait_ready()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs procfs")
def test_a_twin_ends_with_its_parent(scene_path: str, domain_id: int) -> None:
    config = TwinConfig(scene_path, domain_id)
    script = (
        "import os, time\n"
        "from robo_rl.hardware.server.process import Child\n"
        "from robo_rl.hardware.twin.process import TwinConfig\n"
        f"config = TwinConfig({config.scene!r}, {domain_id}, parent_pid=os.getpid())\n"
        "twin = Child('robo_rl.hardware.twin.process', config).start().wait_ready()\n"
        "print(twin.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that nobody waits for."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_sigterm_ends_a_twin_cleanly(scene_path: str, domain_id: int) -> None:
    child = Child("robo_rl.hardware.twin.process", TwinConfig(scene_path, domain_id))
    child.start().wait_ready()
    assert child.stop() == 0
    assert not child.alive


def test_every_option_of_the_gap_crosses_to_the_process() -> None:
    """The command line of the process is JSON: nothing may be lost on the way."""
    gap = DomainGap((0.01, 0.02, 0.03), 0.5, 0.8, 0.02, 0.001, 0.002, 7)
    config = TwinConfig("x.mjb", 3, gap, 250.0, 50.0, 20.0, "127.0.0.2", True, 99)
    assert parse_config(json.dumps(dataclasses.asdict(config))) == config


def test_a_first_waypoint_of_now_is_where_to_be_at_once() -> None:
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((0.0, Q, []), (1.0, [0.0] * 6, [])), now_s=3.0)
    np.testing.assert_allclose(controllers.target(3.0), Q)
    np.testing.assert_allclose(controllers.target(3.5), np.array(Q) / 2)
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    controllers.follow(trajectory((1.0, Q, []), (2.0, [0.0] * 6, [])), now_s=3.0)
    np.testing.assert_allclose(controllers.target(3.0), np.zeros(6))


def test_a_device_on_ros_waits_until_the_time_it_is_told_and_no_longer() -> None:
    clock = [5.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += 0.75 * seconds if len(slept) < 3 else seconds  # wakes too early

    slept: list[float] = []
    device = Ros2Device(UR5E_KIT, Ros2Link(domain_id=0), clock=lambda: clock[0], sleep=sleep)
    device.pass_time(4.0)
    assert not slept
    device.pass_time(6.0)
    assert slept == [1.0, 0.25, 0.0625]
    assert clock[0] == 6.0


# Twin and device without a network


class Line:
    """Both ends of a topic: what was published, and what waits to be taken."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.waiting: list[Any] = []
        self.peers = 1

    def publish(self, message: Any) -> None:
        self.sent.append(message)

    def take(self) -> list[Any]:
        taken, self.waiting = self.waiting, []
        return taken

    def matched(self) -> int:
        return self.peers


class Lines(dict[str, Line]):
    """A node whose topics are at hand."""

    domain_id = 5
    closed = 0

    def __missing__(self, topic: str) -> Line:
        self[topic] = Line()
        return self[topic]

    def open(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1

    def publisher(self, topic: str, *about: Any, **more: Any) -> Line:
        return self[topic]

    subscription = publisher


def twin_at_hand(scene_path: str, **options: Any) -> tuple[Twin, Lines, MujocoDevice]:
    lines = Lines()
    device = MujocoDevice(load_scene(scene_path), UR5E)
    twin = Twin(TwinConfig(scene_path, 5, **options), UR5E_KIT, device, lines)  # type: ignore[arg-type]
    twin.open()
    return twin, lines, device


def test_a_twin_publishes_the_states_of_its_joints_and_of_the_gripper(scene_path: str) -> None:
    twin, lines, device = twin_at_hand(scene_path)
    device.reset_scene(HOME, {}, {})
    twin._publish_joints(0.0)
    [message] = lines[UR_TOPICS.joint_states].sent
    state = device.read()
    assert message.name == [*ARM, GRIPPER]
    np.testing.assert_allclose(message.position[:6], HOME)
    assert message.position[6] == pytest.approx(0.8 * state.gripper_closedness)
    assert len(message.velocity) == len(message.effort) == 7
    assert math.isnan(message.velocity[6])
    assert message.header.frame_id == UR5E.base_frame
    assert abs(rt.seconds(message.header.stamp) - time.time()) < 60.0
    twin._publish_objects()
    [cube] = lines[UR_TOPICS.object_pose("cube_0")].sent
    expected = state.objects["cube_0"]
    assert cube.pose.position.z == pytest.approx(expected.position_m[2])
    assert cube.pose.orientation.w == pytest.approx(expected.quaternion_wxyz[0])


def test_a_mute_twin_says_nothing_and_a_deaf_one_hears_nothing_until_the_time_is_over(
    scene_path: str,
) -> None:
    twin, lines, _ = twin_at_hand(scene_path)
    states, positions = lines[UR_TOPICS.joint_states], lines[UR_TOPICS.positions]
    now = time.monotonic() + 100.0

    def offer(at_s: float) -> np.ndarray:
        positions.waiting = [rt.Float64MultiArray(data=(HOME + 0.1).tolist())]
        lines[UR_TOPICS.gripper].waiting = [rt.Float64MultiArray(data=[0.7])]
        twin._take_messages(at_s)
        return twin._controllers.target(at_s)

    twin._order_fault(json.dumps({"mute_s": 2.0, "deaf_s": 3.0}), now)
    twin._publish_joints(now + 1.9)
    twin._publish_objects()
    assert states.sent == lines[UR_TOPICS.object_pose("cube_0")].sent == []
    twin._publish_joints(now + 2.0)
    assert len(states.sent) == 1
    np.testing.assert_array_equal(offer(now + 2.9), HOME)
    assert twin._controllers.gripper == 0.0
    lines[UR_TOPICS.trajectory].waiting = [trajectory((1.0, Q, []))]
    np.testing.assert_array_equal(offer(now + 2.9), HOME)
    np.testing.assert_array_equal(twin._controllers.target(now + 9.0), HOME)
    np.testing.assert_allclose(offer(now + 3.0), HOME + 0.1)
    assert twin._controllers.gripper == 0.7
    lines[UR_TOPICS.trajectory].waiting = [trajectory((1.0, Q, []))]
    twin._take_messages(now + 3.0)
    np.testing.assert_allclose(twin._controllers.target(now + 4.0), Q)
    for wrong in ("{", "[1]", json.dumps({"mute_s": "x"})):
        twin._order_fault(wrong, now)
    twin._order_fault("{}", now + 50.0)
    assert (twin._muted_until_s, twin._deaf_until_s) == (now + 50.0, now + 50.0)


def test_a_reset_is_done_once_and_answered_each_time_it_is_asked(scene_path: str) -> None:
    twin, lines, device = twin_at_hand(scene_path)
    status = lines["/twin/status"]
    cube = [0.4, 0.1, 0.3, 1.0, 0.0, 0.0, 0.0]
    q = (HOME + 0.1).tolist()
    request = {"seq": 9, "q_rad": q, "objects": {"cube_0": cube}, "targets": {}}
    twin._controllers.stream_gripper(rt.Float64MultiArray(data=[0.5]))
    twin._reset(json.dumps(request))
    np.testing.assert_allclose(device.read().q_rad, q)
    np.testing.assert_allclose(device.read().objects["cube_0"].position_m, cube[:3])
    np.testing.assert_allclose(twin._controllers.target(0.0), q)
    assert twin._controllers.gripper == 0.0
    truth = TwinTruth.from_message(lines["/twin/truth"].sent[-1])
    assert truth.reset == 9
    np.testing.assert_allclose(truth.q_rad, q)
    np.testing.assert_allclose(truth.tool_m, device.read().tool.position_m, atol=1e-9)
    twin._reset(json.dumps({**request, "q_rad": HOME.tolist()}))  # the same, heard twice
    np.testing.assert_allclose(device.read().q_rad, q)
    assert [json.loads(m.data) for m in status.sent] == [{"reset": 9}, {"reset": 9}]
    twin._reset(json.dumps({**request, "seq": 10, "q_rad": [0.0]}))
    answer = json.loads(status.sent[-1].data)
    assert answer["reset"] == -1
    assert "6 finite numbers" in answer["error"]


class Looks:
    """Asked to end after some looks."""

    def __init__(self, count: int) -> None:
        self.left = count

    def asked(self, now_s: float) -> bool:
        self.left -= 1
        return self.left < 0


def test_the_physics_runs_at_the_pace_of_the_clock_and_each_topic_at_its_rate(
    scene_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One second at 100 Hz of joints, 20 Hz of objects, 10 Hz of truth: 500 steps of 2 ms."""
    clock = [50.0]
    monkeypatch.setattr(
        process,
        "time",
        types.SimpleNamespace(
            monotonic=lambda: clock[0],
            time=time.time,
            sleep=lambda s: clock.__setitem__(0, clock[0] + s),
        ),
    )
    rates = {"joint_states_hz": 100.0, "objects_hz": 20.0, "truth_hz": 10.0}
    twin, lines, _ = twin_at_hand(scene_path, **rates)
    steps: list[float] = []
    monkeypatch.setattr(twin, "_step", lambda now_s, step_s: steps.append(step_s))
    cadence = twin.run(Looks(100))  # type: ignore[arg-type]
    assert cadence.ticks == len(lines[UR_TOPICS.joint_states].sent) == 100
    assert cadence.misses == 0
    assert abs(len(lines[UR_TOPICS.object_pose("cube_0")].sent) - 20) <= 1
    assert abs(len(lines["/twin/truth"].sent) - 10) <= 1
    assert abs(len(steps) - 500) <= 1
    assert set(steps) == {0.002}
    told = [json.loads(m.data) for m in lines["/twin/status"].sent]
    assert abs(len(told) - 2) <= 1
    assert told[0]["deadline_misses"] == told[0]["refused"] == told[0]["reset"] == 0
    assert abs(told[0]["ticks"] - 50) <= 1
    # A pause of a second is lost time but for 50 ms.
    steps.clear()
    monkeypatch.setattr(twin, "_take_messages", lambda now_s: clock.__setitem__(0, clock[0] + 1.0))
    twin.run(Looks(2))  # type: ignore[arg-type]
    assert len(steps) <= 5 + 25 + 1


def test_a_step_of_the_twin_writes_the_target_and_lets_its_time_pass(scene_path: str) -> None:
    twin, _, device = twin_at_hand(scene_path)
    device.reset_scene(HOME, {}, {})
    twin._controllers.stream(rt.Float64MultiArray(data=(HOME + 0.2).tolist()))
    start = device.now_s()
    for k in range(250):
        twin._step(0.002 * k, 0.002)
    assert device.now_s() - start == pytest.approx(0.5)
    np.testing.assert_allclose(device.read().q_rad, HOME + 0.2, atol=0.02)


def test_a_twin_that_ends_says_how_well_it_kept_time(
    scene_path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines, told = Lines(), []

    def run(self: Twin, ended: object) -> Cadence:
        cadence = Cadence(1.0, 0.0)
        cadence.reached(1.0)
        cadence.reached(4.75)  # 2.75 s late: two of a second each are missed
        return cadence

    monkeypatch.setattr(process, "Node", lambda *about: lines)
    monkeypatch.setattr(process, "raise_priority", lambda: None)
    monkeypatch.setattr(process, "settle_interpreter", lambda: None)
    monkeypatch.setattr(process.Termination, "install", lambda self: None)
    monkeypatch.setattr(process, "announce_ready", lambda **facts: told.append(facts))
    monkeypatch.setattr(Twin, "run", run)
    with caplog.at_level("INFO", process.log.name):
        assert run_twin(TwinConfig(scene_path, 5)).ticks == 2
    assert "2 ticks, 2 missed, worst 2750.0 ms late" in caplog.text
    assert told == [{"domain_id": 5}]
    assert lines.closed == 1


def test_a_cubic_passes_its_waypoints_at_the_velocities_that_they_name() -> None:
    """Waypoints of x(t) = t^3 - t: a cubic goes through it in every point between them."""
    controllers = Ros2Controllers(UR5E.joint_names, np.zeros(6))
    times = (1.0, 1.5, 3.0)
    points = [(t, [t**3 - t + 1.0] * 6, [3 * t**2 - 1.0] * 6) for t in times]
    controllers.follow(trajectory(*points), now_s=20.0)
    for t in (1.0, 1.1, 1.5, 2.0, 2.9):
        np.testing.assert_allclose(controllers.target(20.0 + t), [t**3 - t + 1.0] * 6)
    # From rest at zero to 1 at 2 rad/s within the first second: s^2 (3 - 2 s) + 2 s^2 (s - 1).
    np.testing.assert_allclose(controllers.target(20.5), [0.5 - 0.25] * 6)


@dataclasses.dataclass
class Stamped:
    """A message as a reader gets it, with the time at which its writer sent it."""

    message: Any
    source_timestamp: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.message, name)

    @property
    def sample_info(self) -> "Stamped":
        return self


def device_at_hand(objects: tuple[str, ...] = ()) -> tuple[Ros2Device, Lines, list[float]]:
    """A device whose topics are at hand, not yet open, and its clock."""
    clock = [1000.0]
    lines = Lines()
    device = Ros2Device(
        UR5E_KIT,
        Ros2Link(5),
        objects,
        open_timeout_s=1.0,
        clock=lambda: clock[0],
        sleep=lambda s: clock.__setitem__(0, clock[0] + s),
    )
    device._node = lines  # type: ignore[assignment]
    return device, lines, clock


WALL_S = 1.7e9


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day stands still."""
    monkeypatch.setattr(ros2_device, "time", types.SimpleNamespace(time=lambda: WALL_S))


def sent_ago(message: Any, seconds: float) -> Stamped:
    return Stamped(message, round((WALL_S - seconds) * 1e9))


def whole_state(gripper_rad: float = 0.4) -> rt.JointState:
    effort = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    return joint_state([*ARM, GRIPPER], [*Q, gripper_rad], effort=effort)


def test_a_device_opens_when_all_joints_and_objects_were_seen_and_someone_listens(
    wall_clock: None,
) -> None:
    device, lines, clock = device_at_hand(("cube_0",))
    lines[UR_TOPICS.positions].peers = 0
    lines[UR_TOPICS.joint_states].waiting = [sent_ago(joint_state(ARM[:5], Q[:5]), 0.1)]
    with pytest.raises(NotConnected) as caught:
        device.open()
    for missing in (f"with {ARM[5]}, {GRIPPER}", "no /objects/cube_0/pose", "no subscriber of"):
        assert missing in str(caught.value)
    assert clock[0] == pytest.approx(1001.0, abs=0.02)
    assert lines.closed == 1
    lines[UR_TOPICS.positions].peers = 1
    lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(), 0.1)]
    pose = rt.PoseStamped(pose=to_ros_pose(Pose(np.ones(3), np.array([1.0, 0.0, 0.0, 0.0]))))
    broken = rt.PoseStamped(pose=rt.RosPose(orientation=rt.Quaternion(0.0, 0.0, 0.0, 0.0)))
    lines["/objects/cube_0/pose"].waiting = [sent_ago(broken, 0.2), sent_ago(pose, 0.25)]
    device.open()
    state = device.read()
    assert state.valid
    np.testing.assert_allclose(state.q_rad, Q)
    np.testing.assert_allclose(state.effort_nm, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (state.gripper_closedness, state.gripper_force_n) == (0.5, 7.0)
    assert state.t_host_s == pytest.approx(clock[0] - 0.1, abs=1e-5)
    assert state.objects_t_host_s == pytest.approx(clock[0] - 0.25, abs=1e-5)
    assert device.malformed_poses == 1


@pytest.mark.parametrize(
    ("ago_s", "age_s"), [(0.3, 0.3), (0.9, 0.9), (1.2, 0.0), (3600.0, 0.0), (-0.5, 0.0)]
)
def test_a_state_is_as_old_as_its_stamp_unless_another_clock_stamped_it(
    ago_s: float, age_s: float, wall_clock: None
) -> None:
    device, lines, clock = device_at_hand()
    lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(), ago_s)]
    device.open()
    assert clock[0] - device.read().t_host_s == pytest.approx(age_s, abs=1e-5)


def test_the_gripper_is_clipped_to_what_is_open_and_closed(wall_clock: None) -> None:
    device, lines, _ = device_at_hand()
    for rad, closedness in ((-0.1, 0.0), (0.9, 1.0), (0.2, 0.25)):
        lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(rad), 0.0)]
        device.open()
        assert device.read().gripper_closedness == pytest.approx(closedness)
    assert device.read().seq == 4


def test_positions_are_sent_each_time_and_the_gripper_when_it_changes_or_after_a_while(
    wall_clock: None,
) -> None:
    device, lines, clock = device_at_hand()
    with pytest.raises(NotConnected, match="write before open"):
        device.write(HOME, np.zeros(6), 0.0)
    lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(), 0.0)]
    device.open()
    sent = []
    for at_s, closedness in ((0.0, 0.5), (0.05, 0.5), (0.06, 0.6), (0.15, 0.6), (0.17, 0.6)):
        clock[0] = 2000.0 + at_s
        device.write(HOME, np.zeros(6), closedness)
        sent.append(len(lines[UR_TOPICS.gripper].sent))
    assert sent == [1, 1, 2, 2, 3]
    assert [m.data for m in lines[UR_TOPICS.gripper].sent] == [[0.5], [0.6], [0.6]]
    assert len(lines[UR_TOPICS.positions].sent) == 5
    assert lines[UR_TOPICS.positions].sent[-1].data == HOME.tolist()


def test_a_state_read_in_the_turn_that_asked_for_the_time_is_not_from_after_it(
    wall_clock: None,
) -> None:
    device, lines, clock = device_at_hand()
    lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(), 0.0)]
    device.open()
    asked = device.now_s()
    for later, expected in ((0.01, asked), (0.03, asked + 0.03)):
        clock[0] = asked + later
        lines[UR_TOPICS.joint_states].waiting = [sent_ago(whole_state(), -0.5)]
        assert device.read().t_host_s == pytest.approx(expected, abs=1e-6)
