"""The local socket between the robot process and a policy: framed JSON, checked on both sides.

A frame is a length (4 bytes, big endian) and a JSON object with the protocol version `v`, a `kind`
and the fields of that kind. Numbers may be NaN or infinite: refusing those is the guards' work.
"""

import collections
import contextlib
import dataclasses
import enum
import json
import math
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

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
    Verdict,
)
from robo_rl.hardware.errors import HardwareError, NotConnected

VERSION = 1
MAX_FRAME_BYTES = 65536
_MAX_BACKLOG_BYTES = 4 * MAX_FRAME_BYTES
_LENGTH = struct.Struct(">I")
_LONGEST_ADDRESS_BYTES = 107


class ProtocolError(HardwareError):
    """The peer sent what the protocol does not allow."""


@contextlib.contextmanager
def address(path: str) -> Iterator[str]:
    """A name for the socket at `path` that a socket's address has room for, meanwhile.

    An address holds 107 bytes; temporary folders of clusters are often longer.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


class Channel:
    """One end of the socket. Never blocks; a peer that does not read cannot hold us up."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = bytearray()
        self._unsent = bytearray()
        self.pushes_skipped = 0

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    @property
    def backlog(self) -> bool:
        """Whether something waits until the peer reads."""
        return bool(self._unsent)

    def send(self, kind: str, **fields: Any) -> None:
        """Send a frame, or queue what the peer has no room for."""
        self._unsent += encode(kind, fields)
        if len(self._unsent) > _MAX_BACKLOG_BYTES:
            raise NotConnected("the peer does not read its socket")
        self.flush()

    def push(self, kind: str, **fields: Any) -> None:
        """Send a frame unless earlier ones still wait: the next push will be newer anyway."""
        if self._unsent:
            self.flush()
        if self._unsent:
            self.pushes_skipped += 1
        else:
            self.send(kind, **fields)

    def flush(self) -> None:
        """Hand over as much as the peer has room for."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise NotConnected(f"the local socket is gone: {error}") from error

    def receive(self) -> list[dict[str, Any]]:
        """Frames that have arrived. Raises NotConnected when the peer is gone."""
        frames: collections.deque[dict[str, Any]] = collections.deque()
        try:
            while True:
                got = self._socket.recv(MAX_FRAME_BYTES)
                if not got and frames:  # its last words first
                    return list(frames)
                if not got:
                    raise NotConnected("the peer closed the local socket")
                self._received += got
                self._split(frames)
        except BlockingIOError:
            return list(frames)
        except ConnectionError as error:
            raise NotConnected(f"the local socket is gone: {error}") from error

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def _split(self, frames: collections.deque[dict[str, Any]]) -> None:
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"frame of {length} bytes, allowed {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._received) < end:
                return
            frames.append(decode(bytes(self._received[_LENGTH.size : end])))
            del self._received[:end]


def encode(kind: str, fields: Mapping[str, Any]) -> bytes:
    """One frame. Arrays become lists, enumerations their values, dataclasses objects."""
    body = json.dumps({"v": VERSION, "kind": kind, **fields}, default=plain).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"{kind}: {len(body)} bytes, allowed {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """The object in a frame, with `v` and `kind` checked."""
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {body[:80]!r}") from error
    if not isinstance(frame, dict) or frame.get("v") != VERSION:
        raise ProtocolError(f"expected an object of version {VERSION}, got {body[:80]!r}")
    if not isinstance(frame.get("kind"), str):
        raise ProtocolError(f"a frame needs a kind, got {body[:80]!r}")
    return frame


def plain(value: Any) -> Any:
    """What `json` cannot encode by itself: arrays, enumerations, dataclasses."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot send a {type(value).__name__}")


def number(fields: Mapping[str, Any], name: str) -> float:
    """A float field."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf


def integer(fields: Mapping[str, Any], name: str) -> int:
    """An int field that fits into 64 bits."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ProtocolError(f"{name} must be an integer in [0, 2**63), got {value!r}")
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """A string field."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be a string, got {value!r}")
    return value


def array(fields: Mapping[str, Any], name: str) -> np.ndarray:
    """A field that is a list of numbers, or a list of equally long lists of numbers."""
    value = fields.get(name)
    try:
        result = np.array(value)
    except ValueError as error:
        raise ProtocolError(f"{name} must be an array of numbers, got {value!r:.200}") from error
    if not isinstance(value, list) or result.ndim not in (1, 2) or result.dtype.kind not in "iuf":
        raise ProtocolError(f"{name} must be an array of numbers, got {value!r:.200}")
    return result.astype(np.float64)


def member(fields: Mapping[str, Any], name: str, kind: type[enum.StrEnum]) -> Any:
    """A field that is a member of an enumeration."""
    try:
        return kind(text(fields, name))
    except ValueError as error:
        raise ProtocolError(
            f"{name} must be one of {[str(m) for m in kind]}, got {fields[name]!r}"
        ) from error


def to_command(fields: Mapping[str, Any]) -> ArmCommand:
    """A command as it was submitted; its values may still be anything the guards refuse."""
    return ArmCommand(
        mode=member(fields, "mode", CommandMode),
        values=array(fields, "values"),
        gripper_closedness=number(fields, "gripper_closedness"),
        seq=integer(fields, "seq"),
        t_observation_s=number(fields, "t_observation_s"),
        expires_at_s=number(fields, "expires_at_s"),
        source=member(fields, "source", CommandSource),
        times_s=None if fields.get("times_s") is None else array(fields, "times_s"),
    )


def to_pose(fields: Mapping[str, Any]) -> Pose:
    """A pose."""
    return Pose(array(fields, "position_m"), array(fields, "quaternion_wxyz"))


def to_state(fields: Mapping[str, Any]) -> ArmState:
    """A state as the robot process has it."""
    return ArmState(
        t_host_s=number(fields, "t_host_s"),
        t_source_s=number(fields, "t_source_s"),
        seq=integer(fields, "seq"),
        q_rad=array(fields, "q_rad"),
        dq_rad_s=array(fields, "dq_rad_s"),
        effort_nm=array(fields, "effort_nm"),
        tool=to_pose(fields["tool"]),
        gripper_closedness=number(fields, "gripper_closedness"),
        gripper_force_n=number(fields, "gripper_force_n"),
        objects={name: to_pose(pose) for name, pose in fields["objects"].items()},
        objects_t_host_s=number(fields, "objects_t_host_s"),
        valid=bool(fields["valid"]),
    )


def to_receipt(fields: Mapping[str, Any]) -> Receipt:
    """What became of a command."""
    barrier = fields.get("barrier")
    return Receipt(
        seq=integer(fields, "seq"),
        accepted=bool(fields["accepted"]),
        reasons=tuple(Reason(reason) for reason in fields["reasons"]),
        requested=array(fields, "requested"),
        sent_rad=array(fields, "sent_rad"),
        sent_gripper=number(fields, "sent_gripper"),
        t_host_s=number(fields, "t_host_s"),
        barrier=None if barrier is None else _to_barrier(barrier),
    )


def _to_barrier(fields: Mapping[str, Any]) -> BarrierReport:
    return BarrierReport(
        verdict=member(fields, "verdict", Verdict),
        nominal_rad_s=array(fields, "nominal_rad_s"),
        filtered_rad_s=array(fields, "filtered_rad_s"),
        min_barrier=number(fields, "min_barrier"),
        active=tuple(str(name) for name in fields["active"]),
        slack=number(fields, "slack"),
        status=text(fields, "status"),
        solve_s=number(fields, "solve_s"),
    )


def to_health(fields: Mapping[str, Any]) -> Health:
    """Ages, counts and the lifecycle."""
    return Health(
        lifecycle=member(fields, "lifecycle", Lifecycle),
        state_age_s=number(fields, "state_age_s"),
        command_age_s=number(fields, "command_age_s"),
        ticks=integer(fields, "ticks"),
        deadline_misses=integer(fields, "deadline_misses"),
        worst_lateness_s=number(fields, "worst_lateness_s"),
        reasons={str(name): int(count) for name, count in fields["reasons"].items()},
        fault=text(fields, "fault"),
    )
