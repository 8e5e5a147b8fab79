"""The robot process: sole writer of the arm, guards, recorder and watchdog. No JAX, no GPU.

It ticks the controller on absolute deadlines and serves one client at a time over a local socket.
Whatever happens to that client, the loop goes on: a client that dies is noticed by its socket, one
that is silent by the expiry of its commands, and the arm brakes and holds.

    python -m robo_rl.hardware.server.robot_process \
        '{"socket": "/run/me/robot.sock", "domain_id": 7}'
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rl.hardware import robots
from robo_rl.hardware.bridges.dds import LOOPBACK, Ros2Link
from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmState,
    CommandMode,
    Device,
    Lifecycle,
    Receipt,
    StopKind,
)
from robo_rl.hardware.drivers.ros2_device import Ros2Device
from robo_rl.hardware.errors import HardwareError, NotConnected
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.recorder import Recorder
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.server import wire
from robo_rl.hardware.server.process import (
    Cadence,
    Termination,
    announce_ready,
    raise_priority,
    settle_interpreter,
)

log = logging.getLogger(__name__)

_SILENT_S = 1.0
"""A client that said nothing for so long loses the robot to the next one that asks."""
_BRAKE_S = 0.5
"""How long the loop goes on after it was asked to end, so that the arm comes to rest."""


@dataclasses.dataclass(frozen=True)
class RobotProcessConfig:
    """One arm, the socket of its client, and what the guards know."""

    socket: str
    """Path of the local socket; its folder must belong to this user alone."""
    domain_id: int
    robot: str = robots.DEFAULT
    """Name of the robot, or path of a file that holds its `RobotKit`."""
    objects: tuple[str, ...] = ()
    """Tracked objects to read."""
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    barrier: BarrierConfig | None = dataclasses.field(default_factory=BarrierConfig)
    """None switches the barrier filter off; every other guard stays on."""
    model: str = ""
    """Path of the nominal arm as .mjb; the kit's own when empty."""
    recording: str = ""
    """Path of the flight recording; none when empty."""
    tick_hz: float = 250.0
    push_hz: float = 125.0
    """Rate at which the client is told the state."""
    open_timeout_s: float = 5.0
    address: str = LOOPBACK
    allow_network: bool = False
    parent_pid: int = 0
    """End when this process is no longer the parent; 0 for never."""


class RecordedDevice(Device):
    """Passes everything on and tells the recorder what was written: what crossed the wire."""

    def __init__(self, device: Device, recorder: Recorder) -> None:
        self.spec = device.spec
        self.simulated = device.simulated
        self._device = device
        self._recorder = recorder
        self.tick_s: float | None = None
        """Time of the tick that is being computed, on which the guards counted; None outside."""

    def open(self) -> None:
        """Open the device."""
        self._device.open()

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def now_s(self) -> float:
        """The clock of the device."""
        return self._device.now_s()

    def read(self) -> ArmState:
        """Read the device."""
        return self._device.read()

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        """Write and record."""
        self._device.write(q_rad, dq_rad_s, gripper_closedness)
        at_s = self.now_s() if self.tick_s is None else self.tick_s
        self._recorder.sent(at_s, q_rad, dq_rad_s, gripper_closedness)

    def pass_time(self, until_s: float) -> None:
        """Wait as the device does."""
        self._device.pass_time(until_s)


class _Log:
    """Listens to a controller: keeps the newest state, tells the recorder."""

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self.state: ArmState | None = None

    def on_state(self, state: ArmState) -> None:
        """A new state was read."""
        self.state = state
        if self._recorder is not None:
            self._recorder.state(state)

    def on_command(self, command: ArmCommand, receipt: Receipt) -> None:
        """A command was offered."""
        if self._recorder is not None:
            self._recorder.request(receipt.t_host_s, command)
            self._recorder.receipt(receipt)

    def on_receipt(self, receipt: Receipt) -> None:
        """A tick was sent."""
        if self._recorder is not None and receipt.barrier is not None:
            self._recorder.verdict(receipt.t_host_s, receipt.barrier)


def listen(path: str) -> socket.socket:
    """A listening local socket in a folder that only this user can enter."""
    folder = pathlib.Path(path).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(
            f"{folder} must belong to this user alone (mode 0700), so that nobody else can move "
            f"the arm; it has mode {stat.S_IMODE(status.st_mode):04o}"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        pathlib.Path(path).unlink(missing_ok=True)
        with wire.address(path) as address:
            listener.bind(address)
        listener.listen(2)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error}") from error
    listener.setblocking(False)
    return listener


class RobotServer:
    """One controller, one client, one loop."""

    def __init__(
        self,
        controller: ArmController,
        listener: socket.socket,
        config: RobotProcessConfig,
        recorder: Recorder | None,
        device: Device,
    ) -> None:
        self._controller = controller
        self._device = device
        self._log = _Log(recorder)
        self._lifecycle = controller.lifecycle
        self._listener = listener
        self._config = config
        self._recorder = recorder
        self._client: wire.Channel | None = None
        self._heard_s = 0.0
        self._cadence = Cadence(1.0 / config.tick_hz, 0.0)
        self._requests: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "connect": self._connect,
            "ping": lambda fields: {},
            "arm": self._arm,
            "disarm": lambda fields: self._do(controller.disarm),
            "submit": self._submit,
            "hold": lambda fields: self._do(controller.hold),
            "stop": lambda fields: self._do(
                controller.stop, wire.member(fields, "stop_kind", StopKind)
            ),
            "clear_fault": lambda fields: self._do(
                controller.clear_fault, wire.text(fields, "operator"), wire.text(fields, "reason")
            ),
            "health": self._health,
        }

    def run(self, ended: Termination) -> None:
        """Tick until asked to end; then brake, and leave the arm holding."""
        self._controller.listeners.append(self._log)
        now = time.monotonic()
        cadence = self._cadence = Cadence(1.0 / self._config.tick_hz, now)
        push = Cadence(1.0 / self._config.push_hz, now)
        last_s, end_s = now, float("inf")
        while now < end_s:
            self._serve_until(cadence.next_s)
            now = time.monotonic()
            cadence.reached(now)
            # The time that really passed: limits hold on the wire even when a tick is late.
            self._tick(now, now - last_s)
            last_s = now
            if now >= push.next_s:
                push.reached(now)
                self._push_state()
            if end_s == float("inf") and ended.asked(now):
                self._controller.stop(StopKind.RAMP)
                end_s = now + _BRAKE_S
        self._event("end", ticks=cadence.ticks, deadline_misses=cadence.misses)
        self._drop_client("the robot process ends")

    def _tick(self, now_s: float, dt: float) -> None:
        if isinstance(self._device, RecordedDevice):
            self._device.tick_s = now_s
        self._controller.tick(dt)
        if isinstance(self._device, RecordedDevice):
            self._device.tick_s = None
        if self._controller.lifecycle is not self._lifecycle:
            self._lifecycle = self._controller.lifecycle
            self._event("lifecycle", to=self._lifecycle, fault=self._controller.health().fault)

    def _serve_until(self, deadline_s: float) -> None:
        """Answer the client as it asks, until the next tick is due."""
        while True:
            waiting: list[Any] = [self._listener]
            if self._client is not None:
                waiting.append(self._client)
            left_s = max(deadline_s - time.monotonic(), 0.0)
            ready, _, _ = select.select(waiting, [], [], left_s)
            # A client that has left makes room for one that comes at the same moment.
            if self._client is not None and self._client in ready:
                self._serve(self._client)
            if self._listener in ready:
                self._accept()
            if not ready or time.monotonic() >= deadline_s:
                return

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # gone again before we looked
            return
        channel = wire.Channel(accepted)
        silent_s = time.monotonic() - self._heard_s
        if self._client is not None and silent_s < _SILENT_S:
            try:
                channel.send("refused", message="another client has the robot")
            except NotConnected:
                log.info("a refused client did not wait for the answer")
            channel.close()
            return
        if self._client is not None:
            self._drop_client(f"silent for {silent_s:.1f} s while another client asked")
        try:
            channel.send("welcome")
        except NotConnected:
            channel.close()
            return
        self._client, self._heard_s = channel, time.monotonic()
        self._event("client")

    def _serve(self, client: wire.Channel) -> None:
        try:
            for frame in client.receive():
                self._heard_s = time.monotonic()
                client.send("reply", id=wire.integer(frame, "id"), **self._answer(frame))
        except (NotConnected, wire.ProtocolError) as error:
            self._drop_client(str(error))

    def _answer(self, frame: Mapping[str, Any]) -> Mapping[str, Any]:
        request = self._requests.get(frame["kind"])
        if request is None:
            raise wire.ProtocolError(
                f"unknown request {frame['kind']!r}; known: {', '.join(self._requests)}"
            )
        try:
            answer = request(frame)
        except wire.ProtocolError:
            raise
        except (HardwareError, ValueError) as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        return {"lifecycle": self._controller.lifecycle, **answer}

    def _connect(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        spec = self._controller.spec
        if (digest := wire.text(fields, "spec")) != spec.digest():
            raise ValueError(
                f"the client's spec of {spec.name} has digest {digest}, ours {spec.digest()}: "
                "the two run different versions"
            )
        # A client before this one may have left the robot armed.
        self._controller.disarm()
        return {"state": self._controller.latest()}

    def _arm(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        mode = wire.member(fields, "mode", CommandMode)
        return self._do(self._controller.arm, mode)

    def _submit(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"receipt": self._controller.submit(wire.to_command(fields))}

    def _health(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        health = dataclasses.replace(
            self._controller.health(),
            ticks=self._cadence.ticks,
            deadline_misses=self._cadence.misses,
            worst_lateness_s=self._cadence.worst_late_s,
        )
        return {"health": health}

    def _do(self, action: Callable[..., None], *arguments: Any) -> Mapping[str, Any]:
        action(*arguments)
        self._event(action.__name__, arguments=[str(a) for a in arguments])
        return {}

    def _push_state(self) -> None:
        if self._client is None or self._log.state is None:
            return
        try:
            self._client.push("state", state=self._log.state, lifecycle=self._controller.lifecycle)
        except NotConnected as error:
            self._drop_client(str(error))

    def _drop_client(self, why: str) -> None:
        """Let go of the client and come to rest."""
        if self._client is None:
            return
        self._client.close()
        self._client = None
        if self._controller.lifecycle in (Lifecycle.ARMED, Lifecycle.STREAMING):
            self._controller.hold()
        self._event("client_lost", why=why)

    def _event(self, name: str, **facts: Any) -> None:
        log.info("%s %s", name, facts or "")
        if self._recorder is not None:
            self._recorder.event(time.monotonic(), name, **facts)


def run_robot(config: RobotProcessConfig) -> None:
    """Run the robot process until SIGTERM. Announces on standard output when it is ready."""
    ended = Termination(config.parent_pid)
    ended.install()
    raise_priority()
    kit = kit_of(config)
    device = arm_device(kit, config)
    recorder = Recorder(config.recording, kit.spec) if config.recording else None
    listener = listen(config.socket)
    try:
        if recorder is not None:
            recorder.start()
            device = RecordedDevice(device, recorder)
        controller = ArmController(device, config.guard, barrier=config.barrier, kit=kit)
        controller.connect()
        try:
            settle_interpreter()
            announce_ready(socket=config.socket)
            RobotServer(controller, listener, config, recorder, device).run(ended)
        finally:
            controller.disconnect()
    finally:
        listener.close()
        pathlib.Path(config.socket).unlink(missing_ok=True)
        if recorder is not None:
            recorder.close()


def kit_of(config: RobotProcessConfig) -> RobotKit:
    """The robot, with the nominal model that the config names."""
    kit = robots.get(config.robot)
    if not config.model:
        return kit
    load = functools.partial(mujoco.MjModel.from_binary_path, config.model)
    return dataclasses.replace(kit, model=functools.cache(load))


def arm_device(kit: RobotKit, config: RobotProcessConfig) -> Device:
    """What the robot's kit opens, by default an arm under ros2_control."""
    link = Ros2Link(config.domain_id, config.address, config.allow_network, "robo_rl_robot")
    if kit.device is not None:
        return kit.device(link, config.objects, config.open_timeout_s)
    return Ros2Device(kit, link, config.objects, open_timeout_s=config.open_timeout_s)


def parse_config(text: str) -> RobotProcessConfig:
    """The config that a JSON object of `RobotProcessConfig`'s fields describes.

    What it does not say of the barrier is as the robot's kit has it.
    """
    fields = json.loads(text)
    fields["objects"] = tuple(fields.get("objects", ()))
    fields["guard"] = GuardConfig(**fields.get("guard", {}))
    if fields.get("barrier", {}) is not None:
        barrier: dict[str, Any] = {n: _tuple(x) for n, x in fields.get("barrier", {}).items()}
        kit = robots.get(fields.get("robot", robots.DEFAULT))
        fields["barrier"] = BarrierConfig.of(kit, **barrier)
    return RobotProcessConfig(**fields)


def _tuple(value: Any) -> Any:
    """JSON's lists, however deep, as the tuples they were."""
    return tuple(_tuple(x) for x in value) if isinstance(value, list) else value


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run_robot(parse_config(sys.argv[1]))
