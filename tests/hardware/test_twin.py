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
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node, Ros2Link
from robo_rl.hardware.bridges.messages import TwinTruth, from_ros_pose, to_ros_pose
from robo_rl.hardware.contracts import Pose
from robo_rl.hardware.drivers.ros2_device import JointBuffer, Ros2Device, TwinScene
from robo_rl.hardware.errors import HardwareError, NotConnected
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT, UR_TOPICS
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.server.process import Cadence, Child
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, load_scene
from robo_rl.hardware.twin.process import Ros2Controllers, TwinConfig, parse_config

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
