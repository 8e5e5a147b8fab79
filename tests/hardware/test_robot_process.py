"""The robot process and its clients: the lease, the wire, the watchdog."""

import dataclasses
import json
import math
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rl.hardware.bridges.dds import Ros2Link
from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmState,
    BarrierReport,
    CommandMode,
    CommandSource,
    Health,
    Lifecycle,
    Pose,
    Reason,
    Receipt,
    StopKind,
    Verdict,
)
from robo_rl.hardware.drivers.ros2_device import RemoteScene, TwinScene
from robo_rl.hardware.errors import HardwareError, NotConnected, UnsupportedMode
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.recorder import EVENT, RECEIPT, VERDICT, read_recording, sent_commands
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.server import robot_process, wire
from robo_rl.hardware.server.client import RemoteRobot
from robo_rl.hardware.server.process import Child
from robo_rl.hardware.server.robot_process import (
    RecordedDevice,
    RobotProcessConfig,
    RobotServer,
    listen,
    parse_config,
)
from robo_rl.hardware.twin.process import TwinConfig
from robo_rl.hardware.twin.stop_test import measure_stop
from tests.fakes import FakeDevice

HOME = np.array(UR5E.home_rad)
Q = np.array([0.1, -0.2, 0.3, -0.4, 0.5, math.nan])
STATE = ArmState(
    1.5, 2.5, 3, Q, -Q, 2 * Q, Pose(Q[:3], Q[:4]), 0.5, 7.0, {"cube": Pose(Q[3:], Q[:4])}, 1.25
)
REPORT = BarrierReport(Verdict.MODIFIED, Q, -Q, 0.01, ("table/tool",), 0.0, "solved", 1e-5)
RECEIPT_ = Receipt(4, True, (Reason.RATE_LIMITED, Reason.BARRIER), Q, -Q, 0.25, 9.0, REPORT)
COMMAND = ArmCommand(
    CommandMode.JOINT_TRAJECTORY,
    np.array([Q, Q]),
    0.5,
    8,
    1.0,
    math.inf,
    CommandSource.HUMAN,
    np.array([0.1, 0.2]),
)
HEALTH = Health(Lifecycle.FAULT, 0.1, math.nan, 5, 6, 0.2, {"expired": 3}, "a fault")


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


# The wire


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (STATE, wire.to_state),
        (RECEIPT_, wire.to_receipt),
        (dataclasses.replace(RECEIPT_, barrier=None), wire.to_receipt),
        (COMMAND, wire.to_command),
        (HEALTH, wire.to_health),
    ],
    ids=["state", "receipt", "receipt without barrier", "command", "health"],
)
def test_values_survive_the_wire(value: Any, read: Callable[[Any], Any]) -> None:
    frame = wire.decode(wire.encode("x", {"it": value})[4:])
    assert repr(read(frame["it"])) == repr(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_protocol_error(body: bytes) -> None:
    try:
        frame = wire.decode(body)
    except wire.ProtocolError:
        return
    assert frame["v"] == wire.VERSION
    assert isinstance(frame["kind"], str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
command_fields = st.fixed_dictionaries(
    {
        name: json_values | st.just(value)
        for name, value in json.loads(json.dumps(COMMAND, default=wire.plain)).items()
    }
)


@given(command_fields)
def test_any_json_is_a_command_or_a_protocol_error(fields: dict[str, Any]) -> None:
    try:
        command = wire.to_command(fields)
    except wire.ProtocolError:
        return
    assert command.values.dtype == np.float64
    assert isinstance(command.seq, int)


@pytest.mark.parametrize("name", ["gripper_closedness", "t_observation_s", "expires_at_s"])
def test_an_integer_that_no_float_holds_is_endless_and_ends_nothing(name: str) -> None:
    """The guards refuse what is not finite; an exception would end the robot process."""
    fields = json.loads(json.dumps(COMMAND, default=wire.plain))
    for huge, read in ((10**400, math.inf), (-(10**400), -math.inf)):
        sent = wire.decode(wire.encode("submit", {**fields, name: huge})[4:])
        assert getattr(wire.to_command(sent), name) == read


def test_an_old_version_is_refused() -> None:
    with pytest.raises(wire.ProtocolError, match="expected an object of version 1"):
        wire.decode(b'{"v": 0, "kind": "ping"}')


def test_frames_are_put_together_and_split_again() -> None:
    ours, theirs = socket.socketpair()
    channel = wire.Channel(ours)
    frames = wire.encode("a", {}) + wire.encode("b", {"n": 1})
    for k in range(len(frames)):
        assert channel.receive() == []
        theirs.send(frames[k : k + 1])
        if k + 1 == len(wire.encode("a", {})):
            assert [frame["kind"] for frame in channel.receive()] == ["a"]
    assert [frame["n"] for frame in channel.receive()] == [1]
    theirs.close()
    with pytest.raises(NotConnected, match="closed"):
        channel.receive()
    channel.close()


def test_a_peer_that_does_not_read_costs_neither_time_nor_memory() -> None:
    ours, theirs = socket.socketpair()
    channel = wire.Channel(ours)
    for k in range(5000):
        channel.push("state", number=k, filling="x" * 500)
    assert channel.backlog
    assert channel.pushes_skipped > 1000
    reader = wire.Channel(theirs)
    numbers = []
    while channel.backlog or not numbers:
        numbers += [frame["number"] for frame in reader.receive()]
        channel.flush()
    assert numbers == list(range(len(numbers)))
    channel.close()
    reader.close()


def test_a_huge_frame_is_refused_before_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    channel = wire.Channel(ours)
    theirs.send(struct.pack(">I", wire.MAX_FRAME_BYTES + 1))
    with pytest.raises(wire.ProtocolError, match="allowed 65536"):
        channel.receive()
    channel.close()
    theirs.close()


def test_the_socket_lives_in_a_private_folder(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        listen(str(folder / "robot.sock"))
    listen(str(tmp_path / "private" / "robot.sock")).close()
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_a_socket_may_lie_deeper_than_its_address_has_room_for(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / ("scratch-of-a-job-" + "x" * 90) / "private" / "robot.sock")
    assert len(path) > 107
    with listen(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        with wire.address(path) as address:
            client.connect(address)
        assert pathlib.Path(path).is_socket()


def test_every_option_crosses_to_the_process() -> None:
    config = RobotProcessConfig(
        socket="s",
        domain_id=3,
        objects=("a", "b"),
        guard=GuardConfig(velocity_scale=0.5),
        barrier=BarrierConfig(keep_out=((0.1, 0.2, 0.3, 0.4),), table_z_m=None),
        model="m",
        recording="r",
        tick_hz=100.0,
        push_hz=20.0,
        open_timeout_s=1.0,
        address="127.0.0.2",
        allow_network=True,
        parent_pid=9,
    )
    assert parse_config(json.dumps(dataclasses.asdict(config))) == config
    without = dataclasses.replace(config, barrier=None)
    assert parse_config(json.dumps(dataclasses.asdict(without))) == without


def test_the_robot_process_knows_no_jax_and_no_environment() -> None:
    script = (
        "import sys, robo_rl.hardware.server.robot_process, robo_rl.hardware.server.client\n"
        "forbidden = {'jax', 'flax', 'optax', 'orbax', 'minari', 'ogbench', 'gymnasium'}\n"
        "print(sorted(forbidden & set(sys.modules)))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert output == "[]\n"


# The processes


@dataclasses.dataclass
class Bench:
    """A twin, a robot process, and where to reach them."""

    config: RobotProcessConfig
    twin: Child
    process: Child

    def client(self, timeout_s: float = 2.0) -> RemoteRobot:
        return RemoteRobot(self.config.socket, UR5E, timeout_s)


@pytest.fixture(scope="module")
def bench(
    scene_path: str,
    arm_path: str,
    module_domain_id: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    config = RobotProcessConfig(
        socket=str(folder / "private" / "robot.sock"),
        domain_id=module_domain_id,
        objects=("cube_0",),
        model=arm_path,
        recording=str(folder / "flight.mcap"),
        parent_pid=os.getpid(),
    )
    twin_config = TwinConfig(scene_path, config.domain_id, parent_pid=os.getpid())
    with (
        Child("robo_rl.hardware.twin.process", twin_config) as twin,
        Child("robo_rl.hardware.server.robot_process", config) as process,
    ):
        yield Bench(config, twin, process)


@pytest.fixture
def robot(bench: Bench) -> Iterator[RemoteRobot]:
    robot = bench.client()
    robot.connect()
    scene = TwinScene(Ros2Link(bench.config.domain_id, node_name="tester"))
    scene.open()
    RemoteScene(scene, robot).reset_scene(HOME, {}, {})
    scene.close()
    assert eventually(lambda: float(np.abs(robot.latest().dq_rad_s).max()) < 0.09)
    yield robot
    robot.disconnect()


def command(robot: RemoteRobot, q_rad: np.ndarray, seq: int, **changes: Any) -> ArmCommand:
    now = robot.now_s()
    made = ArmCommand(
        CommandMode.JOINT_POSITION, q_rad, 0.0, seq, now, now + 0.3, CommandSource.TEST
    )
    return dataclasses.replace(made, **changes)


def test_a_command_goes_all_the_way_to_the_arm(robot: RemoteRobot) -> None:
    assert robot.lifecycle is Lifecycle.CONNECTED
    robot.arm(CommandMode.JOINT_POSITION)
    target = HOME + np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.4])
    receipts = []
    for seq in range(1, 41):
        receipts.append(robot.submit(command(robot, target, seq)))
        state = robot.advance(0.05)
    # On a busy machine a state may now and then be too old to move on.
    assert sum(receipt.accepted for receipt in receipts) > 30
    assert robot.lifecycle is Lifecycle.STREAMING
    np.testing.assert_allclose(state.q_rad, target, atol=0.03)
    assert state.age_s(robot.now_s()) < 0.2
    assert "cube_0" in state.objects
    health = robot.health()
    assert health.ticks > 100
    assert health.lifecycle is Lifecycle.STREAMING


def test_refusals_come_back_as_receipts(robot: RemoteRobot) -> None:
    refused = robot.submit(command(robot, HOME, 1))
    assert refused.reasons == (Reason.NOT_ARMED,)
    robot.arm(CommandMode.JOINT_POSITION)
    bad = np.array([math.nan, *HOME[1:]])
    assert robot.submit(command(robot, bad, 2)).reasons == (Reason.NON_FINITE,)
    assert robot.submit(command(robot, HOME[:5], 3)).reasons == (Reason.INCOMPLETE,)
    late = command(robot, HOME, 4, expires_at_s=robot.now_s() - 0.01)
    assert robot.submit(late).reasons == (Reason.EXPIRED,)


def test_errors_come_back_as_what_they_are(robot: RemoteRobot) -> None:
    with pytest.raises(ValueError, match="say who clears the fault"):
        robot._ask("clear_fault", operator="", reason="")
    with pytest.raises(HardwareError, match="no fault to clear"):
        robot.clear_fault("tester", "nothing was wrong")
    with pytest.raises(HardwareError, match="not armed"):
        robot.hold()
    assert robot.lifecycle is Lifecycle.CONNECTED


def test_stop_and_hold_need_a_new_arming(robot: RemoteRobot) -> None:
    robot.arm(CommandMode.JOINT_POSITION)
    robot.stop(StopKind.RAMP)
    assert robot.lifecycle is Lifecycle.HOLDING
    assert robot.submit(command(robot, HOME, 1)).reasons == (Reason.STOPPED,)
    robot.arm(CommandMode.JOINT_POSITION)
    assert robot.submit(command(robot, HOME, 1)).accepted
    robot.hold()
    assert robot.lifecycle is Lifecycle.HOLDING


def test_only_one_client_has_the_robot(bench: Bench, robot: RemoteRobot) -> None:
    robot.latest()
    with pytest.raises(NotConnected, match="another client has the robot"):
        bench.client().connect()
    assert robot.lifecycle is Lifecycle.CONNECTED


def test_a_reconnect_comes_back_disarmed(bench: Bench, robot: RemoteRobot) -> None:
    robot.arm(CommandMode.JOINT_POSITION)
    assert robot.submit(command(robot, HOME, 1)).accepted
    robot._drop()  # the link is gone, without a word
    again = bench.client()
    assert eventually(lambda: connects(again))
    assert again.lifecycle is Lifecycle.CONNECTED
    again.disconnect()


def connects(robot: RemoteRobot) -> bool:
    try:
        robot.connect()
    except NotConnected:
        return False
    return True


def test_a_client_that_talks_nonsense_is_dropped_and_the_next_served(
    bench: Bench, robot: RemoteRobot
) -> None:
    robot.disconnect()
    for nonsense in (b"\0\0\0\4null", b"\xff\xff\xff\xff", wire.encode("fly", {"id": 1})):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(bench.config.socket)
            raw.settimeout(5.0)
            raw.sendall(nonsense)
            while raw.recv(65536):
                pass
    assert eventually(lambda: connects(robot))
    assert robot.latest().valid


def test_another_spec_is_refused(bench: Bench, robot: RemoteRobot) -> None:
    robot.disconnect()
    other = RemoteRobot(bench.config.socket, dataclasses.replace(UR5E, name="ur10e"))
    with pytest.raises(ValueError, match="run different versions"):
        other.connect()
    other.disconnect()


def test_an_unknown_mode_is_refused(robot: RemoteRobot) -> None:
    with pytest.raises((UnsupportedMode, NotConnected)):
        robot._ask("arm", mode="teleport")


def test_nobody_listens_is_said(tmp_path: pathlib.Path) -> None:
    robot = RemoteRobot(str(tmp_path / "robot.sock"), UR5E)
    with pytest.raises(NotConnected, match="no robot process listens"):
        robot.connect()
    with pytest.raises(NotConnected, match="before connect"):
        robot.latest()
    robot.stop(StopKind.RAMP)
    robot.disconnect()


def test_a_paused_robot_process_is_an_error_within_the_time_out(
    bench: Bench, robot: RemoteRobot
) -> None:
    robot.disconnect()
    impatient = bench.client(timeout_s=0.3)
    impatient.connect()
    bench.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(NotConnected, match=r"no answer within 0\.3 s"):
            impatient.health()
        assert impatient.lifecycle is Lifecycle.DISCONNECTED
    finally:
        bench.process.send_signal(signal.SIGCONT)


def test_the_recording_tells_the_whole_story(
    scene_path: str, arm_path: str, tmp_path: pathlib.Path, domain_id: int
) -> None:
    """Swept at full speed into the barrier: every sent command is within every limit."""
    config = RobotProcessConfig(
        socket=str(tmp_path / "private" / "robot.sock"),
        domain_id=domain_id,
        barrier=BarrierConfig(keep_out=((0.425, -0.3, 0.3, 0.1),)),
        model=arm_path,
        recording=str(tmp_path / "flight.mcap"),
        parent_pid=os.getpid(),
    )
    with (
        Child("robo_rl.hardware.twin.process", TwinConfig(scene_path, domain_id)),
        Child("robo_rl.hardware.server.robot_process", config),
    ):
        robot = RemoteRobot(config.socket, UR5E, 2.0)
        robot.connect()
        assert eventually(lambda: float(np.abs(robot.latest().dq_rad_s).max()) < 0.09)
        robot.arm(CommandMode.JOINT_POSITION)
        for seq in range(1, 31):
            # Far off to either side, in turns of half a second.
            target = HOME + np.array([2.0 if seq // 10 % 2 else -2.0, 0.0, 0.0, 0.0, 0.0, 0.0])
            robot.submit(command(robot, target, seq))
            robot.advance(0.05)
        robot.disconnect()
    recorded = list(read_recording(config.recording))
    topics = {r.topic for r in recorded}
    assert {EVENT, RECEIPT, VERDICT, "/robo_rl/request", "/joint_states"} <= topics
    verdicts = {r.message.status[0].message for r in recorded if r.topic == VERDICT}
    assert "modified" in verdicts
    [sent] = sent_commands(config.recording, 6)
    assert len(sent.t_s) > 100
    excess = sent.excess(UR5E)
    assert excess["position_rad"] <= 0.0
    # Rounding to the nanosecond of the recording.
    assert excess["velocity_rad_s"] <= 1e-4
    assert excess["acceleration_rad_s2"] <= 0.1


def test_the_watchdog_brings_the_arm_to_rest(
    scene_path: str, arm_path: str, tmp_path: pathlib.Path, domain_id: int
) -> None:
    report = measure_stop(scene_path, tmp_path, domain_id, arm_path)
    assert set(report.stop_ms) == {"policy_killed", "policy_paused", "bridge_cut"}
    assert min(report.speed_rad_s.values()) > 0.5
    assert max(report.stop_ms.values()) < 600.0, report
    assert report.excess["position_rad"] <= 0.0
    assert report.excess["velocity_rad_s"] <= 1e-4
    assert report.excess["acceleration_rad_s2"] <= 0.1


def test_the_arm_rests_when_the_robot_process_is_killed(
    scene_path: str, arm_path: str, tmp_path: pathlib.Path, domain_id: int
) -> None:
    """The forward controller keeps the last position: nobody is left to ask for motion."""
    config = RobotProcessConfig(
        socket=str(tmp_path / "private" / "robot.sock"),
        domain_id=domain_id,
        barrier=None,
        model=arm_path,
    )
    with (
        Child("robo_rl.hardware.twin.process", TwinConfig(scene_path, domain_id)),
        Child("robo_rl.hardware.server.robot_process", config) as process,
    ):
        robot = RemoteRobot(config.socket, UR5E, 2.0)
        robot.connect()
        assert eventually(lambda: float(np.abs(robot.latest().dq_rad_s).max()) < 0.09)
        robot.arm(CommandMode.JOINT_VELOCITY)
        for seq in range(1, 8):
            wish = command(robot, np.array([0.8, 0, 0, 0, 0, 0.0]), seq)
            robot.submit(dataclasses.replace(wish, mode=CommandMode.JOINT_VELOCITY))
            robot.advance(0.05)
        process.kill()
        with pytest.raises(NotConnected):
            robot.health()
        truth = TwinScene(Ros2Link(domain_id, node_name="truth"))
        truth.open()
        time.sleep(0.8)
        truth.truths()
        time.sleep(0.05)
        assert max(float(np.abs(t.dq_rad_s).max()) for t in truth.truths()) < 0.05
        truth.close()


# The loop of the robot process, in this process


class Notes:
    """A recorder that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def event(self, t_host_s: float, name: str, **facts: Any) -> None:
        self.events.append((name, facts))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *facts: self.told.append((name, facts))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Room:
    """A server over a fake arm, with a clock that is set by hand and clients on the socket."""

    def __init__(self, folder: pathlib.Path, recorded: bool = True) -> None:
        self.notes = Notes()
        self.arm = FakeDevice()
        device = RecordedDevice(self.arm, self.notes) if recorded else self.arm
        self.device = device
        self.controller = ArmController(device)
        self.controller.connect()
        self.config = RobotProcessConfig(socket=str(folder / "private" / "robot.sock"), domain_id=1)
        self.listener = listen(self.config.socket)
        self.server = RobotServer(
            self.controller, self.listener, self.config, self.notes, self.device
        )
        self.clients: list[wire.Channel] = []

    def client(self) -> wire.Channel:
        """Another client, after the server has looked."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(self.config.socket)
        self.clients.append(wire.Channel(sock))
        self.serve()
        return self.clients[-1]

    def serve(self) -> None:
        self.server._serve_until(time.monotonic() + 0.01)

    def ask(self, client: wire.Channel, kind: str, **fields: Any) -> dict[str, Any]:
        client.send(kind, id=7, **fields)
        self.serve()
        [answer] = client.receive()
        assert (answer["kind"], answer["id"]) == ("reply", 7)
        return answer

    def close(self) -> None:
        for channel in self.clients:
            channel.close()
        self.server._drop_client("the test ends")
        self.listener.close()


@pytest.fixture
def room(tmp_path: pathlib.Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def welcome(client: wire.Channel) -> list[str]:
    return [frame["kind"] for frame in client.receive()]


def test_only_a_change_of_the_lifecycle_is_an_event(room: Room) -> None:
    room.server._tick(1.0, 0.004)
    assert room.notes.events == []
    room.controller.arm(CommandMode.JOINT_POSITION)
    for _ in range(3):
        room.server._tick(1.0, 0.004)
    assert room.notes.events == [("lifecycle", {"to": Lifecycle.ARMED, "fault": ""})]
    room.arm.write_fault = OSError("cable")
    room.server._tick(1.0, 0.004)
    name, facts = room.notes.events[-1]
    assert (name, facts["to"]) == ("lifecycle", Lifecycle.FAULT)
    assert "cable" in facts["fault"]
    assert len(room.notes.events) == 2


def test_a_write_is_recorded_at_the_time_of_its_tick_and_at_the_devices_own_outside(
    room: Room,
) -> None:
    room.controller.arm(CommandMode.JOINT_POSITION)
    room.server._tick(42.0, 0.004)
    room.arm.time_s = 103.0
    room.device.write(HOME, HOME, 0.5)
    sent = [facts for name, facts in room.notes.told if name == "sent"]
    assert [facts[0] for facts in sent] == [42.0, 103.0]
    np.testing.assert_array_equal(sent[1][1], HOME)
    assert sent[1][3] == 0.5


def test_a_client_that_never_stops_asking_does_not_delay_the_tick(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer takes 3 ms; the tick is due after 10 ms, so four are given and no more."""
    clock = [100.0]
    waits = []

    class Busy:
        @staticmethod
        def select(reading: list[Any], *rest: Any) -> tuple[list[Any], list[Any], list[Any]]:
            waits.append(rest[-1])
            assert len(waits) < 20
            return [room.server._client], [], []

    def serve(client: Any) -> None:
        clock[0] += 0.003

    monkeypatch.setattr(robot_process, "select", Busy)
    monkeypatch.setattr(robot_process.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(room.server, "_serve", serve)
    ours, theirs = socket.socketpair()
    room.server._client = wire.Channel(ours)
    room.server._serve_until(100.01)
    theirs.close()
    assert waits == pytest.approx([0.01, 0.007, 0.004, 0.001])
    waits.clear()
    room.server._serve_until(100.0)  # overdue already: whoever has asked is answered once
    assert waits == [0.0]


def test_a_silent_client_gives_way_after_a_second_and_not_before(room: Room) -> None:
    first = room.client()
    assert welcome(first) == ["welcome"]
    room.server._heard_s = time.monotonic() - 0.5
    second = room.client()
    assert welcome(second) == ["refused"]
    room.server._heard_s = time.monotonic() - 1.5
    third = room.client()
    assert welcome(third) == ["welcome"]
    assert room.notes.names() == ["client", "client_lost", "client"]
    assert "silent for 1.5 s" in room.notes.events[1][1]["why"]


def test_a_client_that_leaves_brings_an_armed_arm_to_hold(room: Room) -> None:
    client = room.client()
    welcome(client)
    room.ask(client, "arm", mode="joint_position")
    assert room.controller.lifecycle is Lifecycle.ARMED
    client.close()
    room.serve()
    assert room.controller.lifecycle is Lifecycle.HOLDING
    assert room.notes.names() == ["client", "arm", "client_lost"]
    room.serve()  # nobody is lost twice
    assert room.notes.names().count("client_lost") == 1


def test_a_client_that_leaves_changes_nothing_of_an_arm_at_rest(room: Room) -> None:
    client = room.client()
    client.close()
    room.serve()
    assert room.controller.lifecycle is Lifecycle.CONNECTED
    assert room.notes.names() == ["client", "client_lost"]


def test_every_answer_tells_the_lifecycle_and_errors_have_their_names(room: Room) -> None:
    client = room.client()
    welcome(client)
    assert room.ask(client, "ping")["lifecycle"] == "connected"
    answer = room.ask(client, "hold")
    assert (answer["error"], answer["lifecycle"]) == ("NotArmed", "connected")
    assert room.ask(client, "arm", mode="joint_velocity")["lifecycle"] == "armed"
    assert room.ask(client, "stop", stop_kind="ramp")["lifecycle"] == "holding"
    assert room.ask(client, "disarm")["lifecycle"] == "connected"
    assert room.ask(client, "clear_fault", operator="ann", reason="x")["error"] == "HardwareError"
    wrong = room.ask(client, "connect", spec="0123")
    assert wrong["error"] == "ValueError"
    assert UR5E.digest() in wrong["message"]
    assert room.ask(client, "connect", spec=UR5E.digest())["state"]["seq"] >= 1
    events = dict(room.notes.events)
    assert events["arm"] == {"arguments": ["joint_velocity"]}
    assert events["stop"] == {"arguments": ["ramp"]}


def test_a_command_with_a_number_that_no_float_holds_is_refused_and_the_loop_goes_on(
    room: Room,
) -> None:
    client = room.client()
    welcome(client)
    room.ask(client, "arm", mode="joint_position")
    now = room.controller.now_s()
    fields = json.loads(
        json.dumps(
            ArmCommand(CommandMode.JOINT_POSITION, HOME, 0.5, 1, now, now + 0.1),
            default=wire.plain,
        )
    )
    for name in ("gripper_closedness", "t_observation_s", "expires_at_s"):
        for huge in (10**400, -(10**400)):
            answer = room.ask(client, "submit", **{**fields, name: huge})
            assert answer["receipt"]["accepted"] is False, name
    assert room.ask(client, "submit", **fields)["receipt"]["accepted"] is True


def test_a_new_client_finds_the_arm_disarmed(room: Room) -> None:
    first = room.client()
    room.controller.arm(CommandMode.JOINT_POSITION)
    assert room.controller.lifecycle is Lifecycle.ARMED
    welcome(first)
    assert room.ask(first, "connect", spec=UR5E.digest())["lifecycle"] == "connected"


def test_health_counts_the_ticks_of_the_loop(room: Room) -> None:
    client = room.client()
    welcome(client)
    start = room.server._cadence.next_s
    room.server._cadence.reached(start)
    room.server._cadence.reached(start + 3.5 / 250)
    health = wire.to_health(room.ask(client, "health")["health"])
    assert (health.ticks, health.deadline_misses) == (2, 2)
    assert health.worst_lateness_s == pytest.approx(2.5 / 250)


def test_states_are_pushed_to_a_client_once_there_are_any(room: Room) -> None:
    client = room.client()
    welcome(client)
    room.server._push_state()
    assert client.receive() == []
    room.controller.listeners.append(room.server._log)
    room.server._tick(1.0, 0.004)
    room.server._push_state()
    [frame] = client.receive()
    assert (frame["kind"], frame["lifecycle"]) == ("state", "connected")
    assert [name for name, _ in room.notes.told if name == "state"] == ["state"]
    client.close()
    room.server._push_state()
    assert room.server._client is None


class Asked:
    """Asked to end at its third look."""

    def __init__(self) -> None:
        self.looks = 0

    def asked(self, now_s: float) -> bool:
        self.looks += 1
        return self.looks >= 3


def waiting_clock(room: Room, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loop's clock, which goes on only where the loop waits for a tick."""
    clock = [100.0]
    monkeypatch.setattr(robot_process.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        room.server, "_serve_until", lambda due_s: clock.__setitem__(0, max(due_s, clock[0]))
    )
    return clock


def test_the_loop_goes_on_for_the_half_second_that_braking_may_take(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticks of 4 ms: two before the third look, and 125 after it, on a clock that only waits."""
    waiting_clock(room, monkeypatch)
    lengths = []
    tick = room.server._tick
    monkeypatch.setattr(
        room.server, "_tick", lambda now_s, dt: (lengths.append(dt), tick(now_s, dt))
    )
    room.controller.arm(CommandMode.JOINT_POSITION)
    ended = Asked()
    room.server.run(ended)  # type: ignore[arg-type]
    np.testing.assert_allclose(lengths, 0.004)
    assert abs(len(lengths) - (3 + 125)) <= 1
    assert ended.looks == 3
    assert room.controller.lifecycle is Lifecycle.HOLDING
    name, facts = room.notes.events[-1]
    assert (name, facts["deadline_misses"]) == ("end", 0)
    assert facts["ticks"] == len(lengths)


def test_the_client_is_told_the_state_at_its_own_rate_while_the_loop_runs(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 ticks of 4 ms, and a push at every second of them."""
    clock = waiting_clock(room, monkeypatch)
    pushed: list[float] = []
    monkeypatch.setattr(room.server, "_push_state", lambda: pushed.append(clock[0]))
    room.server.run(Asked())  # type: ignore[arg-type]
    assert abs(len(pushed) - 64) <= 2
    np.testing.assert_allclose(np.diff(pushed), 0.008, atol=0.0041)


def test_what_the_guards_say_is_recorded_where_there_is_a_verdict() -> None:
    notes = Notes()
    for recorder in (notes, None):
        log = robot_process._Log(recorder)
        log.on_receipt(RECEIPT_)
        log.on_receipt(dataclasses.replace(RECEIPT_, barrier=None))
        log.on_command(COMMAND, RECEIPT_)
        log.on_state(STATE)
        assert log.state is STATE
    assert notes.told == [
        ("verdict", (9.0, REPORT)),
        ("request", (9.0, COMMAND)),
        ("receipt", (RECEIPT_,)),
        ("state", (STATE,)),
    ]


def test_a_listener_never_waits_for_a_client(room: Room) -> None:
    assert room.listener.getblocking() is False
    room.server._accept()
    assert room.server._client is None


def test_a_client_that_is_gone_before_it_was_answered_is_none(room: Room) -> None:
    def come_and_go() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(room.config.socket)
        room.serve()

    come_and_go()
    assert room.server._client is None
    client = room.client()
    assert welcome(client) == ["welcome"]
    come_and_go()  # refused without hearing of it
    assert room.ask(client, "ping")["lifecycle"] == "connected"


def run_in_this_process(
    monkeypatch: pytest.MonkeyPatch, config: RobotProcessConfig, arm: FakeDevice
) -> None:
    class Ended(Asked):
        def __init__(self, parent_pid: int) -> None:
            super().__init__()
            assert parent_pid == 77

        def install(self) -> None:
            pass

    monkeypatch.setattr(robot_process, "Termination", Ended)
    monkeypatch.setattr(robot_process, "raise_priority", lambda: None)
    monkeypatch.setattr(robot_process, "settle_interpreter", lambda: None)
    monkeypatch.setattr(robot_process, "arm_device", lambda kit, config: arm)
    monkeypatch.setattr(robot_process, "_BRAKE_S", 0.01)
    robot_process.run_robot(config)


def test_a_robot_process_leaves_its_arm_closed_its_socket_gone_and_its_recording_whole(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "private" / "robot.sock")
    recording = tmp_path / "flight.mcap"
    config = RobotProcessConfig(
        socket=path, domain_id=1, barrier=None, recording=str(recording), parent_pid=77
    )
    arm = FakeDevice()
    run_in_this_process(monkeypatch, config, arm)
    assert (arm.opened, arm.closed) == (1, 1)
    assert not pathlib.Path(path).exists()
    assert capsys.readouterr().out == f'ready {{"socket": {json.dumps(path)}}}\n'
    [*_, last] = [r for r in read_recording(recording) if r.topic == EVENT]
    assert json.loads(last.message.data)["event"] == "end"
    assert any(r.topic == "/joint_states" for r in read_recording(recording))
    again = FakeDevice()
    run_in_this_process(monkeypatch, dataclasses.replace(config, recording=""), again)
    assert again.closed == 1


def test_a_robot_process_whose_arm_does_not_open_leaves_no_socket(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeDevice):
        def open(self) -> None:
            raise NotConnected("no arm")

    path = str(tmp_path / "private" / "robot.sock")
    recording = tmp_path / "flight.mcap"
    config = RobotProcessConfig(
        socket=path, domain_id=1, barrier=None, recording=str(recording), parent_pid=77
    )
    with pytest.raises(NotConnected, match="no arm"):
        run_in_this_process(monkeypatch, config, Broken())
    assert not pathlib.Path(path).exists()
    assert list(read_recording(recording)) == []


# Single fields of a frame


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (2**63 - 1, 2**63 - 1), (-1, None), (2**63, None), (True, None), (1.0, None)],
)
def test_an_integer_of_a_frame_fits_into_64_bits(value: object, expected: int | None) -> None:
    if expected is None:
        with pytest.raises(wire.ProtocolError, match="n must be an integer"):
            wire.integer({"n": value}, "n")
    else:
        assert wire.integer({"n": value}, "n") == expected


def test_numbers_of_a_frame_are_floats_and_texts_are_texts() -> None:
    assert wire.number({"x": 3}, "x") == 3.0
    assert isinstance(wire.number({"x": 3}, "x"), float)
    for wrong in (True, "1", None, [1.0]):
        with pytest.raises(wire.ProtocolError, match="x must be a number"):
            wire.number({"x": wrong}, "x")
    with pytest.raises(wire.ProtocolError, match="x must be a string"):
        wire.text({}, "x")


@pytest.mark.parametrize(
    "wrong", [3.0, [[[1.0]]], ["a"], [[1.0], [1.0, 2.0]], [True], None, [None]], ids=str
)
def test_what_is_no_list_of_numbers_or_of_such_lists_is_refused(wrong: object) -> None:
    with pytest.raises(wire.ProtocolError, match="a must be an array of numbers"):
        wire.array({"a": wrong}, "a")


@pytest.mark.parametrize("right", [[], [1, 2], [[1.0, 2.0], [3.0, 4.0]]], ids=str)
def test_an_array_of_a_frame_is_a_list_of_numbers_or_of_such_lists(right: list[object]) -> None:
    got = wire.array({"a": right}, "a")
    assert got.dtype == np.float64
    assert got.tolist() == right


def test_a_frame_may_be_as_long_as_is_said_and_no_longer() -> None:
    empty = len(wire.encode("x", {"s": ""})) - 4
    longest = wire.encode("x", {"s": "a" * (wire.MAX_FRAME_BYTES - empty)})
    assert longest[:4] == struct.pack(">I", wire.MAX_FRAME_BYTES)
    with pytest.raises(wire.ProtocolError, match=f"{wire.MAX_FRAME_BYTES + 1} bytes, allowed"):
        wire.encode("x", {"s": "a" * (wire.MAX_FRAME_BYTES - empty + 1)})
    ours, theirs = socket.socketpair()
    sender, reader = wire.Channel(ours), wire.Channel(theirs)
    frames: list[dict[str, Any]] = []
    sender.send("x", s="a" * (wire.MAX_FRAME_BYTES - empty))
    while not frames:
        sender.flush()
        frames += reader.receive()
    assert len(frames[0]["s"]) == wire.MAX_FRAME_BYTES - empty
    sender.close()
    with pytest.raises(NotConnected, match="closed the local socket"):
        reader.receive()
    reader.close()


def test_what_json_does_not_know_is_sent_as_what_it_stands_for() -> None:
    sent = {"a": np.arange(3), "b": np.float32(0.5), "c": Lifecycle.ARMED, "d": Pose(Q[:3], Q[:4])}
    got = json.loads(wire.encode("x", sent)[4:])
    assert (got["a"], got["b"], got["c"]) == ([0, 1, 2], 0.5, "armed")
    assert got["d"] == {"position_m": Q[:3].tolist(), "quaternion_wxyz": Q[:4].tolist()}
    with pytest.raises(TypeError, match="cannot send a object"):
        wire.plain(object())
    with pytest.raises(TypeError, match="cannot send a type"):
        wire.plain(Pose)
