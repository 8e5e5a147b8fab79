"""Metrics for TensorBoard: event files, written at once, without a thread or a queue.

A record is its length (8 bytes), a checksum of that, the event as a protocol buffer, and a checksum
of it.
"""

import pathlib
import platform
import struct
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from robo_rl import files


class EventFile:
    """A new event file in a folder."""

    def __init__(self, folder: pathlib.Path, purge_step: int | None):
        """TensorBoard hides what older files say of `purge_step` and later. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{platform.node()}.{files.token()}"
        self._path = folder / name
        start = _record(file_version="brain.Event:2")
        if purge_step is not None:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            start += _record(step=purge_step, session_log=log)
        files.append_bytes(self._path, start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the scalars of a step. Raises OSError."""
        scalars = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
        ]
        record = _record(step=step, summary=summary_pb2.Summary(value=scalars))
        files.append_bytes(self._path, record)


def _record(**fields: Any) -> bytes:
    event: bytes = event_pb2.Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
