"""The flight recorder: MCAP files with ROS 2 schemas that `mcap`, `rosbags` and Foxglove read.

| topic | type | what |
|---|---|---|
| /joint_states | sensor_msgs/JointState | each state that the controller saw |
| /objects/NAME/pose | geometry_msgs/PoseStamped | object poses, when they change |
| /robo_rl/sent | trajectory_msgs/JointTrajectory | each command that left; gripper last |
| /robo_rl/request | std_msgs/String | each command that was offered, as JSON |
| /robo_rl/receipt | std_msgs/String | what became of it, as JSON |
| /robo_rl/verdict | diagnostic_msgs/DiagnosticArray | what the barrier filter did |
| /robo_rl/event | std_msgs/String | lifecycle, clients, faults, as JSON |

The file is written in chunks that reach the disk twice a second. A process that is killed loses the
chunk in progress, no more: `read_recording` reads such a file, `recover` makes it whole.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import logging
import os
import pathlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap.writer import Writer
from rosbags.typesys import Stores, get_typestore
from zstandard import ZstdError

from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmSpec,
    ArmState,
    BarrierReport,
    Pose,
    Receipt,
    Verdict,
)
from robo_rl.hardware.server import wire

log = logging.getLogger(__name__)

SENT, REQUEST, RECEIPT = "/robo_rl/sent", "/robo_rl/request", "/robo_rl/receipt"
VERDICT, EVENT, JOINT_STATES = "/robo_rl/verdict", "/robo_rl/event", "/joint_states"

_FLUSH_S = 0.5
_WAKE_S = 0.05
_MAX_QUEUE = 20_000
"""Entries; about 20 s at 250 Hz."""
_HEADER_BYTES = 8
_LEVELS = {Verdict.PASS: 0, Verdict.MODIFIED: 1, Verdict.INFEASIBLE: 2, Verdict.ERROR: 2}


@dataclasses.dataclass(frozen=True)
class LoggedMessage:
    """One message of a recording."""

    topic: str
    t_ns: int
    """Wall clock of the robot process, ns since 1970."""
    type: str
    message: Any


@functools.cache
def _store() -> Any:
    return get_typestore(Stores.ROS2_JAZZY)


class Recorder:
    """Takes what happens from the control loop without waiting; a thread writes it.

    When the disk cannot keep up, messages are dropped and counted; when it fails, `error` says so
    and the control loop goes on.
    """

    def __init__(self, path: str | os.PathLike[str], spec: ArmSpec) -> None:
        self.path = pathlib.Path(path)
        self._spec = spec
        self._queue: collections.deque[tuple[Callable[..., None], float, tuple[Any, ...]]] = (
            collections.deque()
        )
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._object_numbers: dict[str, bytes] = {}
        self._host_to_wall_ns = 0
        self.dropped = 0
        self.error = ""

    def start(self) -> None:
        """Create the file and the thread that writes it. An existing file is never overwritten."""
        self._stream = open(self.path, "xb")  # noqa: SIM115 closed by the thread
        self._file = _McapFile(self._stream)
        self._host_to_wall_ns = time.time_ns() - time.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued and finish the file. Idempotent."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def state(self, state: ArmState) -> None:
        """Record a state."""
        self._put(self._write_state, state.t_host_s, state)

    def sent(
        self, t_host_s: float, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float
    ) -> None:
        """Record a command that left for the device."""
        self._put(self._write_sent, t_host_s, q_rad.copy(), dq_rad_s.copy(), gripper_closedness)

    def request(self, t_host_s: float, command: ArmCommand) -> None:
        """Record a command that was offered."""
        self._put(self._write_json, t_host_s, REQUEST, command)

    def receipt(self, receipt: Receipt) -> None:
        """Record what became of an offered command."""
        self._put(self._write_json, receipt.t_host_s, RECEIPT, receipt)

    def verdict(self, t_host_s: float, report: BarrierReport) -> None:
        """Record what the barrier filter did."""
        self._put(self._write_verdict, t_host_s, report)

    def event(self, t_host_s: float, name: str, **facts: Any) -> None:
        """Record something that happened."""
        self._put(self._write_json, t_host_s, EVENT, {"event": name, **facts})

    def _put(self, write: Callable[..., None], t_host_s: float, *what: Any) -> None:
        if len(self._queue) >= _MAX_QUEUE or self.error:
            self.dropped += 1
        else:
            self._queue.append((write, t_host_s, what))

    def _run(self) -> None:
        next_flush_s = time.monotonic() + _FLUSH_S
        try:
            while not self._ended.wait(_WAKE_S):
                self._drain()
                if time.monotonic() >= next_flush_s:
                    next_flush_s = time.monotonic() + _FLUSH_S
                    self._file.flush()
            self._drain()
            self._file.finish()
        except OSError as error:
            self.error = f"recording to {self.path} failed: {error}"
            log.error("%s; %d messages are lost so far", self.error, len(self._queue))
            self.dropped += len(self._queue)
            self._queue.clear()
        finally:
            with contextlib.suppress(OSError):  # on a full disk: already reported
                self._stream.close()

    def _drain(self) -> None:
        while self._queue:
            write, t_host_s, what = self._queue.popleft()
            # Added as integers: a float of wall time resolves no better than 0.2 us.
            write(round(t_host_s * 1e9) + self._host_to_wall_ns, *what)

    def _write_state(self, t_ns: int, state: ArmState) -> None:
        gripper = self._spec.gripper
        names = list(self._spec.joint_names)
        columns = [state.q_rad, state.dq_rad_s, state.effort_nm]
        if gripper is not None:
            names.append(gripper.joint_name)
            last = (state.gripper_closedness * gripper.closed_rad, np.nan, state.gripper_force_n)
            columns = [np.append(column, x) for column, x in zip(columns, last, strict=True)]
        message = _make("sensor_msgs/msg/JointState", self._header(t_ns), names, *columns)
        self._file.write(JOINT_STATES, t_ns, message)
        for name, pose in state.objects.items():
            numbers = pose.position_m.tobytes() + pose.quaternion_wxyz.tobytes()
            if self._object_numbers.get(name) != numbers:
                self._object_numbers[name] = numbers
                self._write_pose(t_ns, name, pose)

    def _write_pose(self, t_ns: int, name: str, pose: Pose) -> None:
        w, x, y, z = pose.quaternion_wxyz
        ros_pose = _make(
            "geometry_msgs/msg/Pose",
            _make("geometry_msgs/msg/Point", *pose.position_m),
            _make("geometry_msgs/msg/Quaternion", x, y, z, w),
        )
        message = _make("geometry_msgs/msg/PoseStamped", self._header(t_ns), ros_pose)
        self._file.write(f"/objects/{name}/pose", t_ns, message)

    def _write_sent(self, t_ns: int, q: np.ndarray, dq: np.ndarray, closedness: float) -> None:
        names = list(self._spec.joint_names)
        if self._spec.gripper is not None:
            names.append(self._spec.gripper.joint_name)
            q = np.append(q, closedness * self._spec.gripper.closed_rad)
            dq = np.append(dq, np.nan)
        now = _make("builtin_interfaces/msg/Duration", 0, 0)
        none = np.empty(0)
        point = _make("trajectory_msgs/msg/JointTrajectoryPoint", q, dq, none, none, now)
        message = _make("trajectory_msgs/msg/JointTrajectory", self._header(t_ns), names, [point])
        self._file.write(SENT, t_ns, message)

    def _write_json(self, t_ns: int, topic: str, what: Any) -> None:
        text = json.dumps(what, default=wire.plain)
        self._file.write(topic, t_ns, _make("std_msgs/msg/String", text))

    def _write_verdict(self, t_ns: int, report: BarrierReport) -> None:
        facts = {
            "min_barrier": f"{report.min_barrier:.6g}",
            "active": ",".join(report.active),
            "slack": f"{report.slack:.6g}",
            "solver": report.status,
            "solve_us": f"{report.solve_s * 1e6:.0f}",
            "nominal_rad_s": json.dumps(report.nominal_rad_s.tolist()),
            "filtered_rad_s": json.dumps(report.filtered_rad_s.tolist()),
        }
        values = [_make("diagnostic_msgs/msg/KeyValue", key, text) for key, text in facts.items()]
        level = _LEVELS[report.verdict]
        name = f"{self._spec.name}: barrier filter"
        status = _make(
            "diagnostic_msgs/msg/DiagnosticStatus", level, name, str(report.verdict), "", values
        )
        message = _make("diagnostic_msgs/msg/DiagnosticArray", self._header(t_ns), [status])
        self._file.write(VERDICT, t_ns, message)

    def _header(self, t_ns: int) -> Any:
        time_ = _make("builtin_interfaces/msg/Time", t_ns // 10**9, t_ns % 10**9)
        return _make("std_msgs/msg/Header", time_, self._spec.base_frame)


def _make(type_: str, *fields: Any) -> Any:
    return _store().types[type_](*fields)


class _McapFile:
    """Messages of rosbags into an MCAP file; channels appear when first written to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._writer: Any = Writer(stream)
        self._writer.start(profile="ros2", library="robo_rl")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}
        self._count = 0

    def write(self, topic: str, t_ns: int, message: Any) -> None:
        """Add a message to the chunk in progress."""
        if topic not in self._channels:
            self._channels[topic] = self._add_channel(topic, message.__msgtype__)
        channel, type_ = self._channels[topic]
        data = bytes(_store().serialize_cdr(message, type_))
        self._count += 1
        self._writer.add_message(channel, t_ns, data, t_ns, self._count)

    def flush(self) -> None:
        """End the chunk in progress and bring it to the disk."""
        self._writer.flush()
        os.fsync(self._stream.fileno())

    def finish(self) -> None:
        """End the file with its index."""
        self._writer.finish()
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _add_channel(self, topic: str, type_: str) -> tuple[int, str]:
        if type_ not in self._schemas:
            text, _ = _store().generate_msgdef(type_, ros_version=2)
            self._schemas[type_] = self._writer.register_schema(type_, "ros2msg", text.encode())
        return self._writer.register_channel(topic, "cdr", self._schemas[type_]), type_


def read_recording(path: str | os.PathLike[str]) -> Iterator[LoggedMessage]:
    """Messages in the order they were written. A file that was cut off is read up to the cut."""
    for channel, schema, message in _messages(pathlib.Path(path).read_bytes(), path):
        decoded = _store().deserialize_cdr(message.data, schema.name)
        yield LoggedMessage(channel.topic, message.log_time, schema.name, decoded)


def recover(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> int:
    """Copy what is intact in a cut-off file into a whole one. Returns the number of messages."""
    content = pathlib.Path(path).read_bytes()
    into = pathlib.Path(into)
    aside = into.with_name(f"{into.name}.{os.getpid()}.tmp")
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    count = 0
    try:
        with open(aside, "xb") as stream:
            writer: Any = Writer(stream)
            writer.start(profile="ros2", library="robo_rl")
            for channel, schema, message in _messages(content, path):
                if schema.id not in schemas:
                    schemas[schema.id] = writer.register_schema(
                        schema.name, schema.encoding, schema.data
                    )
                if channel.id not in channels:
                    channels[channel.id] = writer.register_channel(
                        channel.topic, channel.message_encoding, schemas[schema.id]
                    )
                writer.add_message(
                    channels[channel.id],
                    message.log_time,
                    message.data,
                    message.publish_time,
                    message.sequence,
                )
                count += 1
            writer.finish()
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(into)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _messages(
    content: bytes, path: str | os.PathLike[str]
) -> Iterator[tuple[Channel, Schema, Message]]:
    intact = _intact_prefix(content)
    if intact < len(content):
        log.warning("%s was cut off: reading %d of %d bytes", path, intact, len(content))
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    records = StreamReader(io.BytesIO(content[:intact]), validate_crcs=True).records
    while True:
        try:
            record = next(records, None)
        except (CRCValidationError, ZstdError, struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: a chunk is corrupt: {error}") from error
        except McapError:  # the end of a file without a footer
            return
        if record is None:
            return
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message):
            channel = channels[record.channel_id]
            yield channel, schemas[channel.schema_id], record


def _intact_prefix(content: bytes) -> int:
    """Length of the part of an MCAP file that consists of whole records."""
    if len(content) < _HEADER_BYTES or content[1:5] != b"MCAP":
        raise ValueError(f"not an MCAP file: it starts with {content[:8]!r}")
    end = _HEADER_BYTES
    while len(content) - end >= 9:
        length = int.from_bytes(content[end + 1 : end + 9], "little")
        # After the footer comes the magic number once more.
        after = _HEADER_BYTES if content[end] == Opcode.FOOTER else 0
        if end + 9 + length + after > len(content):
            break
        end += 9 + length + after
    return end


@dataclasses.dataclass(frozen=True)
class SentCommands:
    """Commands that a recording says left for the arm, one after the other."""

    t_s: np.ndarray
    """(N,) from the first one of the recording."""
    q_rad: np.ndarray  # (N, J)
    dq_rad_s: np.ndarray  # (N, J)

    def excess(self, spec: ArmSpec, pause_s: float = 0.02) -> dict[str, float]:
        """How far the worst command is beyond each limit of the spec; <= 0 is within.

        Velocity: differences of the positions over the times at which they left. Acceleration: of
        the commanded velocities, and of the differences of positions too, except across a pause:
        where nothing was sent for longer than `pause_s`, the command does not move meanwhile.
        """
        lower, upper = np.array(spec.position_lower_rad), np.array(spec.position_upper_rad)
        dt = np.diff(self.t_s)[:, None]
        velocity = np.diff(self.q_rad, axis=0) / dt
        between = 0.5 * (dt[1:] + dt[:-1])
        steady = ((dt[1:] <= pause_s) & (dt[:-1] <= pause_s))[:, 0]
        accelerations = (
            np.diff(self.dq_rad_s, axis=0) / dt,
            (np.diff(velocity, axis=0) / between)[steady],
        )
        worst = np.abs(np.concatenate(accelerations)) - spec.acceleration_rad_s2
        return {
            "position_rad": float(np.maximum(lower - self.q_rad, self.q_rad - upper).max()),
            "velocity_rad_s": float((np.abs(velocity) - spec.velocity_rad_s).max(initial=-np.inf)),
            "acceleration_rad_s2": float(np.fmax.reduce(worst, axis=None, initial=-np.inf)),
        }


def sent_commands(path: str | os.PathLike[str], joints: int) -> list[SentCommands]:
    """The commands in a recording that left for the arm, a stretch each time it was armed.

    Arming starts from the measured position: between two stretches a person, or the reset of a
    simulated scene, may have moved the arm, and the first command after it does not.
    """
    stretches: list[list[LoggedMessage]] = [[]]
    for recorded in read_recording(path):
        if recorded.topic == SENT:
            stretches[-1].append(recorded)
        elif recorded.topic == EVENT and json.loads(recorded.message.data)["event"] == "arm":
            stretches.append([])
    stretches = [stretch for stretch in stretches if stretch]
    start_ns = stretches[0][0].t_ns if stretches else 0
    return [_sent(stretch, start_ns, joints) for stretch in stretches]


def worst_excess(stretches: Sequence[SentCommands], spec: ArmSpec) -> dict[str, float]:
    """The worst of `SentCommands.excess` over all stretches."""
    worst: dict[str, float] = {}
    for stretch in stretches:
        for limit, value in stretch.excess(spec).items():
            worst[limit] = max(value, worst.get(limit, -np.inf))
    return worst


def _sent(sent: Sequence[LoggedMessage], start_ns: int, joints: int) -> SentCommands:
    times = np.array([recorded.t_ns for recorded in sent], dtype=np.int64)
    points = [recorded.message.points[0] for recorded in sent]
    return SentCommands(
        (times - start_ns) * 1e-9,
        np.array([point.positions[:joints] for point in points]).reshape(-1, joints),
        np.array([point.velocities[:joints] for point in points]).reshape(-1, joints),
    )
