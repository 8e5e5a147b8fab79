"""Flight recordings: what other readers make of them, and what is left after a crash."""

import dataclasses
import errno
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import storage_mcap

from robo_rl.hardware import recorder as rec
from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmState,
    BarrierReport,
    CommandMode,
    Pose,
    Reason,
    Receipt,
    Verdict,
)
from robo_rl.hardware.robots.ur5e.spec import UR5E

Q = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6])
STATE = ArmState(
    t_host_s=10.0,
    t_source_s=20.0,
    seq=1,
    q_rad=Q,
    dq_rad_s=-Q,
    effort_nm=10 * Q,
    tool=Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])),
    gripper_closedness=0.5,
    gripper_force_n=7.0,
    objects={"cube_0": Pose(np.array([1.0, 2.0, 3.0]), np.array([0.8, 0.6, 0.0, 0.0]))},
    objects_t_host_s=10.0,
)
REPORT = BarrierReport(Verdict.MODIFIED, Q, Q / 2, 0.012, ("keep_out_0/tool",), 0.0, "solved", 5e-5)
COMMAND = ArmCommand(CommandMode.JOINT_POSITION, Q, 0.5, 3, 10.0, 10.1)
RECEIPT = Receipt(3, False, (Reason.EXPIRED,), Q, Q, 0.5, 10.05, REPORT)
TYPES = {
    "/joint_states": "sensor_msgs/msg/JointState",
    "/objects/cube_0/pose": "geometry_msgs/msg/PoseStamped",
    "/robo_rl/sent": "trajectory_msgs/msg/JointTrajectory",
    "/robo_rl/request": "std_msgs/msg/String",
    "/robo_rl/receipt": "std_msgs/msg/String",
    "/robo_rl/verdict": "diagnostic_msgs/msg/DiagnosticArray",
    "/robo_rl/event": "std_msgs/msg/String",
}


def record_all(path: pathlib.Path, states: int = 1) -> None:
    recorder = rec.Recorder(path, UR5E)
    recorder.start()
    for k in range(states):
        recorder.state(dataclasses.replace(STATE, t_host_s=10.0 + k * 0.004))
    recorder.sent(10.0, Q, -Q, 0.25)
    recorder.request(10.0, COMMAND)
    recorder.receipt(RECEIPT)
    recorder.verdict(10.0, REPORT)
    recorder.event(10.0, "arm", mode="joint_position")
    recorder.close()
    assert not recorder.error
    assert recorder.dropped == 0


def by_mcap(path: pathlib.Path) -> dict[str, object]:
    with open(path, "rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return {channel.topic: m for _, channel, _, m in reader.iter_decoded_messages()}


def count_by_rosbags(path: pathlib.Path) -> int:
    reader = storage_mcap.McapReader(path)
    reader.open()
    count = reader.metadata.message_count
    assert sum(1 for _ in reader.messages(reader.connections)) == count
    reader.close()
    return count


def test_mcap_reads_what_was_recorded(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap")
    messages = by_mcap(tmp_path / "flight.mcap")
    assert set(messages) == set(TYPES)
    joints = messages["/joint_states"]
    assert joints.name == [*UR5E.joint_names, "robotiq_85_left_knuckle_joint"]  # type: ignore[attr-defined]
    # Half closed is half of 0.8 rad.
    np.testing.assert_allclose(joints.position, [*Q, 0.4])  # type: ignore[attr-defined]
    np.testing.assert_allclose(joints.velocity, [*-Q, np.nan])  # type: ignore[attr-defined]
    np.testing.assert_allclose(joints.effort, [*(10 * Q), 7.0])  # type: ignore[attr-defined]
    q = messages["/objects/cube_0/pose"].pose.orientation  # type: ignore[attr-defined]
    assert (q.x, q.y, q.z, q.w) == (0.6, 0.0, 0.0, 0.8)
    sent = messages["/robo_rl/sent"].points[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(sent.positions, [*Q, 0.2])
    np.testing.assert_allclose(sent.velocities, [*-Q, np.nan])
    verdict = messages["/robo_rl/verdict"].status[0]  # type: ignore[attr-defined]
    assert (verdict.level, verdict.message) == (1, "modified")
    assert '"reasons": ["expired"]' in messages["/robo_rl/receipt"].data  # type: ignore[attr-defined]
    assert '"event": "arm"' in messages["/robo_rl/event"].data  # type: ignore[attr-defined]


def test_rosbags_reads_what_was_recorded(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap")
    with AnyReader([tmp_path / "flight.mcap"]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == TYPES
        [connection] = [c for c in reader.connections if c.topic == "/joint_states"]
        [(_, _, raw)] = list(reader.messages([connection]))
        np.testing.assert_allclose(reader.deserialize(raw, connection.msgtype).position, [*Q, 0.4])


def test_our_reader_agrees(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap")
    recorded = list(rec.read_recording(tmp_path / "flight.mcap"))
    assert {r.topic: r.type for r in recorded} == TYPES
    [commands] = rec.sent_commands(tmp_path / "flight.mcap", 6)
    np.testing.assert_allclose(commands.q_rad, [Q])
    np.testing.assert_allclose(commands.dq_rad_s, [-Q])


def test_arming_starts_a_new_stretch_of_commands(tmp_path: pathlib.Path) -> None:
    """The arm was moved by 1 rad between the two: no command did that."""
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    for start, offset in ((0.0, 0.0), (1.0, 1.0)):
        recorder.event(start, "arm")
        for tick in (0, 1, 2):
            recorder.sent(start + 0.004 * tick, Q + offset, np.zeros(6), 0.0)
    recorder.close()
    stretches = rec.sent_commands(tmp_path / "flight.mcap", 6)
    assert [len(stretch.t_s) for stretch in stretches] == [3, 3]
    assert stretches[1].t_s[0] == pytest.approx(1.0)
    assert rec.worst_excess(stretches, UR5E)["velocity_rad_s"] == pytest.approx(-np.pi)


def test_times_are_kept_to_the_nanosecond(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap", states=3)
    recorded = rec.read_recording(tmp_path / "flight.mcap")
    times = [r.t_ns for r in recorded if r.topic == "/joint_states"]
    assert np.diff(times).tolist() == [4_000_000, 4_000_000]


def test_an_object_at_rest_is_recorded_once(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap", states=50)
    topics = [r.topic for r in rec.read_recording(tmp_path / "flight.mcap")]
    assert topics.count("/joint_states") == 50
    assert topics.count("/objects/cube_0/pose") == 1


def test_a_file_cut_anywhere_is_read_up_to_the_cut(tmp_path: pathlib.Path) -> None:
    whole = tmp_path / "whole.mcap"
    record_all(whole, states=200)
    content = whole.read_bytes()
    everything = [r.t_ns for r in rec.read_recording(whole)]
    cut = tmp_path / "cut.mcap"
    rng = np.random.default_rng(0)
    for length in [8, 9, 30, *rng.integers(8, len(content), 30), len(content) - 1]:
        cut.write_bytes(content[:length])
        got = [r.t_ns for r in rec.read_recording(cut)]
        assert got == everything[: len(got)]
        assert rec.recover(cut, tmp_path / "recovered.mcap") == len(got)
        assert count_by_rosbags(tmp_path / "recovered.mcap") == len(got)
        assert len(list(rec.read_recording(tmp_path / "recovered.mcap"))) == len(got)


def test_a_corrupt_chunk_is_an_error_not_a_number(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "flight.mcap"
    record_all(path, states=200)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flight\.mcap: a chunk is corrupt"):
        list(rec.read_recording(path))


def test_no_mcap_file_is_said_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.mcap").write_bytes(b"hello world, this is text")
    with pytest.raises(ValueError, match="not an MCAP file"):
        list(rec.read_recording(tmp_path / "x.mcap"))


def test_an_existing_file_is_never_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "flight.mcap").write_text("precious")
    with pytest.raises(FileExistsError):
        rec.Recorder(tmp_path / "flight.mcap", UR5E).start()
    assert (tmp_path / "flight.mcap").read_text() == "precious"


WRITE_FOREVER = """
import sys, time, dataclasses
sys.path.insert(0, {folder!r})
from test_recorder import STATE, UR5E, rec
recorder = rec.Recorder({path!r}, UR5E)
recorder.start()
print("go", flush=True)
while True:
    now = time.monotonic()
    recorder.state(dataclasses.replace(STATE, t_host_s=now))
    time.sleep(0.004)
"""


def test_after_sigkill_at_most_the_last_chunk_is_lost(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "flight.mcap"
    here = str(pathlib.Path(__file__).parent)
    script = WRITE_FOREVER.format(folder=here, path=str(path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1.5)
        child.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
    times = [r.t_ns for r in rec.read_recording(path) if r.topic == "/joint_states"]
    # A chunk is ended every 0.5 s; the rest is slack for a busy machine.
    assert killed_ns - times[-1] < 1.0e9
    assert len(times) > 50
    recovered = tmp_path / "recovered.mcap"
    count = rec.recover(path, recovered)
    assert count == count_by_rosbags(recovered)
    assert set(by_mcap(recovered)) == {"/joint_states", "/objects/cube_0/pose"}


def test_a_full_queue_drops_and_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rec, "_MAX_QUEUE", 10)
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    for _ in range(15):
        recorder.state(STATE)
    assert recorder.dropped == 5


def test_a_full_disk_is_reported_and_stalls_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rec.os, "fsync", full)
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    deadline_s = time.monotonic() + 5.0
    while not recorder.error and time.monotonic() < deadline_s:
        recorder.state(STATE)
        time.sleep(0.01)
    assert "flight.mcap failed: [Errno 28] No space left" in recorder.error
    dropped = recorder.dropped
    recorder.state(STATE)
    assert recorder.dropped == dropped + 1
    recorder.close()


def test_excess_is_measured_on_the_wire() -> None:
    """1 rad in 0.1 s is 10 rad/s; from there to rest over 0.1 s is 100 rad/s2."""
    spec = dataclasses.replace(UR5E, velocity_rad_s=(3.0,) * 6, acceleration_rad_s2=(40.0,) * 6)
    q = np.zeros((3, 6))
    q[1:, 2] = 1.0
    commands = rec.SentCommands(np.array([0.0, 0.1, 0.2]), q, np.zeros((3, 6)))
    excess = commands.excess(spec, pause_s=0.15)
    assert excess["velocity_rad_s"] == pytest.approx(7.0)
    assert excess["acceleration_rad_s2"] == pytest.approx(60.0)
    # The elbow may turn to pi.
    assert excess["position_rad"] == pytest.approx(1.0 - np.pi)
    # Across a pause only the commanded velocities count, and those are at rest here.
    assert commands.excess(spec, pause_s=0.05)["acceleration_rad_s2"] == -40.0
    jerky = dataclasses.replace(commands, dq_rad_s=60.0 * q)
    # 60 rad/s more within 0.1 s.
    assert jerky.excess(spec, pause_s=0.05)["acceleration_rad_s2"] == pytest.approx(560.0)


def test_stamps_are_the_times_of_recording(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap", states=3)
    stamped = [
        r for r in rec.read_recording(tmp_path / "flight.mcap") if hasattr(r.message, "header")
    ]
    assert {r.topic for r in stamped} >= {rec.VERDICT, "/joint_states"}
    for r in stamped:
        stamp = r.message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == r.t_ns, r.topic
        assert 0 <= stamp.nanosec < 10**9
        assert r.message.header.frame_id in ("", UR5E.base_frame)


def test_a_finished_file_is_whole_to_its_last_byte(tmp_path: pathlib.Path) -> None:
    record_all(tmp_path / "flight.mcap", states=20)
    content = (tmp_path / "flight.mcap").read_bytes()
    assert rec._intact_prefix(content) == len(content)
    assert rec._intact_prefix(content[:-1]) < len(content) - 8


def test_what_happens_is_recorded_at_its_time_on_the_wall(tmp_path: pathlib.Path) -> None:
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    before = time.time_ns()
    recorder.start()
    recorder.event(time.monotonic(), "now")
    after = time.time_ns()
    recorder.close()
    [event] = rec.read_recording(tmp_path / "flight.mcap")
    # A millisecond for what steers the clock of the wall meanwhile.
    assert before - 10**6 <= event.t_ns <= after + 10**6


@pytest.mark.parametrize(
    ("verdict", "level"),
    [(Verdict.PASS, 0), (Verdict.MODIFIED, 1), (Verdict.INFEASIBLE, 2), (Verdict.ERROR, 2)],
)
def test_a_verdict_is_a_diagnostic_of_ros(
    tmp_path: pathlib.Path, verdict: Verdict, level: int
) -> None:
    """OK, WARN and ERROR are 0, 1 and 2 there; numbers are texts."""
    report = dataclasses.replace(
        REPORT, verdict=verdict, slack=0.25, active=("table/tool", "joint/x")
    )
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    recorder.verdict(10.0, report)
    recorder.close()
    [recorded] = rec.read_recording(tmp_path / "flight.mcap")
    [status] = recorded.message.status
    assert (status.level, status.message) == (level, str(verdict))
    assert status.name == f"{UR5E.name}: barrier filter"
    assert {value.key: value.value for value in status.values} == {
        "min_barrier": "0.012",
        "active": "table/tool,joint/x",
        "slack": "0.25",
        "solver": "solved",
        "solve_us": "50",
        "nominal_rad_s": "[0.1, -0.2, 0.3, -0.4, 0.5, -0.6]",
        "filtered_rad_s": "[0.05, -0.1, 0.15, -0.2, 0.25, -0.3]",
    }


def test_an_object_that_moves_is_recorded_each_time_it_does(tmp_path: pathlib.Path) -> None:
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    unit = np.array([1.0, 0.0, 0.0, 0.0])
    poses = [(0.0, unit), (0.0, unit), (1e-9, unit), (1e-9, -unit), (0.0, unit)]
    for x, quaternion in poses:
        pose = Pose(np.array([x, 2.0, 3.0]), quaternion)
        recorder.state(dataclasses.replace(STATE, objects={"a": pose, "b": Pose(unit[:3], unit)}))
    recorder.close()
    recorded = list(rec.read_recording(tmp_path / "flight.mcap"))
    moved = [r.message.pose for r in recorded if r.topic == "/objects/a/pose"]
    assert [(p.position.x, p.orientation.w) for p in moved] == [
        (0.0, 1.0),
        (1e-9, 1.0),
        (1e-9, -1.0),
        (0.0, 1.0),
    ]
    assert (moved[0].position.y, moved[0].position.z) == (2.0, 3.0)
    assert len([r for r in recorded if r.topic == "/objects/b/pose"]) == 1


def test_an_arm_without_a_gripper_is_recorded_by_its_joints_alone(tmp_path: pathlib.Path) -> None:
    recorder = rec.Recorder(tmp_path / "flight.mcap", dataclasses.replace(UR5E, gripper=None))
    recorder.start()
    recorder.state(dataclasses.replace(STATE, objects={}))
    recorder.sent(10.0, Q, -Q, 0.25)
    recorder.close()
    state, sent = rec.read_recording(tmp_path / "flight.mcap")
    assert list(state.message.name) == list(sent.message.joint_names) == list(UR5E.joint_names)
    np.testing.assert_array_equal(state.message.position, Q)
    np.testing.assert_array_equal(sent.message.points[0].velocities, -Q)


def test_what_is_sent_may_be_changed_afterwards_by_who_sent_it(tmp_path: pathlib.Path) -> None:
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    q, dq = Q.copy(), -Q
    recorder.sent(10.0, q, dq, 0.25)
    q[:], dq[:] = 9.0, 9.0
    recorder.start()
    recorder.close()
    [commands] = rec.sent_commands(tmp_path / "flight.mcap", 6)
    np.testing.assert_array_equal(commands.q_rad, [Q])
    np.testing.assert_array_equal(commands.dq_rad_s, [-Q])
    recorder.close()  # a second time does nothing


def test_messages_are_numbered_and_a_recovered_file_keeps_numbers_and_times(
    tmp_path: pathlib.Path,
) -> None:
    record_all(tmp_path / "flight.mcap", states=3)
    assert rec.recover(tmp_path / "flight.mcap", tmp_path / "again.mcap") == 3 + 1 + 5
    for name in ("flight.mcap", "again.mcap"):
        with open(tmp_path / name, "rb") as stream:
            messages = [m for _, _, m in make_reader(stream).iter_messages(log_time_order=False)]
        assert [m.sequence for m in messages] == list(range(1, 10))
        assert all(m.publish_time == m.log_time for m in messages)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.mcap", "flight.mcap"]


def test_a_recording_without_commands_has_no_stretches(tmp_path: pathlib.Path) -> None:
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    recorder.event(10.0, "arm")
    recorder.close()
    assert rec.sent_commands(tmp_path / "flight.mcap", 6) == []
    assert rec.worst_excess([], UR5E) == {}


def test_the_worst_excess_is_that_of_the_worst_stretch_for_each_limit() -> None:
    still = rec.SentCommands(np.array([0.0, 0.01]), np.zeros((2, 6)), np.zeros((2, 6)))
    fast = dataclasses.replace(still, q_rad=np.array([[0.0] * 6, [0.1] * 6]))
    far = dataclasses.replace(still, q_rad=np.full((2, 6), 7.0))
    worst = rec.worst_excess([still, fast, far, still], UR5E)
    assert worst["velocity_rad_s"] == pytest.approx(10.0 - np.pi)
    assert worst["position_rad"] == pytest.approx(7.0 - min(UR5E.position_upper_rad))
    assert worst["acceleration_rad_s2"] == pytest.approx(-min(UR5E.acceleration_rad_s2))


@pytest.mark.parametrize("flush_s", [0.02, 1000.0])
def test_the_disk_is_written_to_every_so_often_and_at_the_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flush_s: float
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(rec, "_FLUSH_S", flush_s)
    monkeypatch.setattr(rec, "_WAKE_S", 0.002)
    monkeypatch.setattr(rec.os, "fsync", synced.append)
    recorder = rec.Recorder(tmp_path / "flight.mcap", UR5E)
    recorder.start()
    recorder.event(10.0, "arm")
    if flush_s > 1.0:
        time.sleep(0.05)
        assert synced == []
    else:
        deadline_s = time.monotonic() + 10.0
        while len(synced) < 3 and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert len(synced) >= 3
        assert len(list(rec.read_recording(tmp_path / "flight.mcap"))) == 1
    before = len(synced)
    recorder.close()
    assert len(synced) > before
