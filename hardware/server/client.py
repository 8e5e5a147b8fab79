"""The robot of another process, over its local socket: what a policy process holds."""

import contextlib
import itertools
import math
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from robo_rl.hardware import errors
from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmSpec,
    ArmState,
    CommandMode,
    Health,
    Lifecycle,
    Receipt,
    Robot,
    StopKind,
)
from robo_rl.hardware.errors import HardwareError, NotConnected
from robo_rl.hardware.server import wire
from robo_rl.hardware.server.process import Cadence

_PING_S = 0.3
"""A client that only listens says this often that it is alive."""


class RemoteRobot(Robot):
    """One guarded arm, run by a robot process on this host.

    Both processes read CLOCK_MONOTONIC, so times and expiries need no conversion. One thread.
    """

    def __init__(self, socket_path: str, spec: ArmSpec, timeout_s: float = 1.0) -> None:
        self.spec = spec
        self._path = socket_path
        self._timeout_s = timeout_s
        self._channel: wire.Channel | None = None
        self._ids = itertools.count()
        self._state: ArmState | None = None
        self._lifecycle = Lifecycle.DISCONNECTED
        self._cadence: Cadence | None = None
        self._said_s = -math.inf

    @property
    def cadence(self) -> Cadence | None:
        """How well `advance` kept time since the robot was armed; None before the first period."""
        return self._cadence

    def connect(self) -> None:
        """Take the robot process's only lease."""
        if self._channel is not None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            with wire.address(self._path) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise NotConnected(
                f"{self.spec.name}: no robot process listens on {self._path}: {error}"
            ) from error
        self._channel = wire.Channel(connection)
        try:
            self._await_welcome()
            reply = self._ask("connect", spec=self.spec.digest())
            self._state = wire.to_state(reply["state"])
        except (HardwareError, ValueError):
            self._drop()
            raise

    def disconnect(self) -> None:
        """Hold and give the lease back. Idempotent, never raises."""
        if self._channel is None:
            return
        # Without an answer nothing is lost: the robot process holds when its client is gone.
        with contextlib.suppress(HardwareError):
            self._ask("disarm")
        self._drop()

    def arm(self, mode: CommandMode) -> None:
        """Arm; the schedule of `advance` starts anew."""
        self._ask("arm", mode=mode)
        self._cadence = None

    def disarm(self) -> None:
        """Hold, then back to CONNECTED."""
        self._ask("disarm")

    @property
    def lifecycle(self) -> Lifecycle:
        """As the robot process said last."""
        self._listen(0.0)
        return self._lifecycle

    def now_s(self) -> float:
        """CLOCK_MONOTONIC."""
        return time.monotonic()

    def latest(self) -> ArmState:
        """The newest state that has arrived."""
        self._listen(0.0)
        if self._state is None:
            raise NotConnected(f"{self.spec.name}: no state before connect()")
        return self._state

    def submit(self, command: ArmCommand) -> Receipt:
        """Offer a command to the guards of the robot process."""
        reply = self._ask(
            "submit",
            mode=command.mode,
            values=command.values,
            gripper_closedness=float(command.gripper_closedness),
            seq=command.seq,
            t_observation_s=command.t_observation_s,
            expires_at_s=command.expires_at_s,
            source=command.source,
            times_s=command.times_s,
        )
        return wire.to_receipt(reply["receipt"])

    def advance(self, period_s: float) -> ArmState:
        """Wait for the end of the period, counted from the end of the one before."""
        now = time.monotonic()
        if self._cadence is None or self._cadence.period_s != period_s:
            self._cadence = Cadence(period_s, now)
        deadline_s = self._cadence.next_s
        while now < deadline_s:
            self._listen(deadline_s - now)
            now = time.monotonic()
        self._cadence.reached(now)
        return self.latest()

    def hold(self) -> None:
        """Brake and hold position."""
        self._ask("hold")

    def stop(self, kind: StopKind) -> None:
        """End motion; without a link the robot process holds by itself."""
        try:
            self._ask("stop", stop_kind=kind)
        except HardwareError:
            self._drop()

    def clear_fault(self, operator: str, reason: str) -> None:
        """FAULT -> CONNECTED, by a named person with a reason."""
        self._ask("clear_fault", operator=operator, reason=reason)

    def health(self) -> Health:
        """As the robot process sees itself: its ticks, its misses."""
        return wire.to_health(self._ask("health")["health"])

    def _await_welcome(self) -> None:
        """Say nothing before the robot process has said that this client may have the robot."""
        deadline_s = time.monotonic() + self._timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            if any(frame["kind"] == "welcome" for frame in self._receive(left_s)):
                return
        raise NotConnected(f"{self.spec.name}: no welcome within {self._timeout_s} s")

    def _ask(self, kind: str, **fields: Any) -> Mapping[str, Any]:
        if self._channel is None:
            raise NotConnected(f"{self.spec.name}: {kind} before connect()")
        request = next(self._ids)
        deadline_s = time.monotonic() + self._timeout_s
        try:
            self._channel.send(kind, id=request, **fields)
            self._said_s = time.monotonic()
            while True:
                for frame in self._receive(deadline_s - time.monotonic()):
                    if frame["kind"] == "reply" and frame.get("id") == request:
                        return self._checked(frame)
                if time.monotonic() > deadline_s:
                    raise NotConnected(f"{kind}: no answer within {self._timeout_s} s")
        except (NotConnected, wire.ProtocolError) as error:
            self._drop()
            raise NotConnected(f"{self.spec.name}: {error}") from error

    def _checked(self, frame: Mapping[str, Any]) -> Mapping[str, Any]:
        self._lifecycle = wire.member(frame, "lifecycle", Lifecycle)
        if "error" not in frame:
            return frame
        name, message = wire.text(frame, "error"), wire.text(frame, "message")
        known = getattr(errors, name, None) or {"ValueError": ValueError}.get(name)
        raise (known or HardwareError)(message)

    def _listen(self, timeout_s: float) -> None:
        """Take in what arrives within the time; returns after the first that did."""
        if self._channel is None:
            return
        try:
            if time.monotonic() - self._said_s > _PING_S:
                self._said_s = time.monotonic()
                self._channel.send("ping", id=next(self._ids))
            self._receive(timeout_s)
        except (NotConnected, wire.ProtocolError) as error:
            self._drop()
            raise NotConnected(f"{self.spec.name}: {error}") from error

    def _receive(self, timeout_s: float) -> list[dict[str, Any]]:
        """Frames that arrive within the time, with the newest state taken out of them."""
        assert self._channel is not None
        if not select.select([self._channel], [], [], max(timeout_s, 0.0))[0]:
            return []
        frames = self._channel.receive()
        for frame in frames:
            if frame["kind"] == "refused":
                raise NotConnected(wire.text(frame, "message"))
        pushed = [frame for frame in frames if frame["kind"] == "state"]
        if pushed:
            self._state = wire.to_state(pushed[-1]["state"])
            self._lifecycle = wire.member(pushed[-1], "lifecycle", Lifecycle)
        return frames

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        self._lifecycle = Lifecycle.DISCONNECTED
