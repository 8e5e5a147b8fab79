"""The one writer of an arm: takes commands, runs the guard chain every tick, writes to the device.

`submit` may come from any thread. `tick` belongs to one thread: a real-time loop calls it, or
`advance` does for a whole control period.
"""

import contextlib
import logging
import math
import threading
from collections import Counter

import numpy as np

from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmState,
    BarrierReport,
    CommandMode,
    Device,
    Health,
    Lifecycle,
    Reason,
    Receipt,
    Robot,
    StopKind,
)
from robo_rl.hardware.errors import (
    Faulted,
    HardwareError,
    NotArmed,
    NotConnected,
    StaleState,
    UnsupportedMode,
)
from robo_rl.hardware.guard import chain
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter
from robo_rl.hardware.guard.chain import Accepted, GuardConfig
from robo_rl.hardware.guard.listeners import Listeners
from robo_rl.hardware.guard.motion import CommandMotion, Step
from robo_rl.hardware.robots.kit import RobotKit

log = logging.getLogger(__name__)

_MOVABLE = (Lifecycle.ARMED, Lifecycle.STREAMING, Lifecycle.HOLDING)
_AT_REST_RAD_S = 0.1
_SIMULATED_READ_S = 0.045
"""A simulator's state of the same control period need not be read again in every tick."""


class ArmController(Robot):
    """Guards between commands and one device. Constructors do no I/O."""

    def __init__(
        self,
        device: Device,
        guard: GuardConfig | None = None,
        *,
        barrier: BarrierConfig | None = None,
        kit: RobotKit | None = None,
    ) -> None:
        """`barrier` None leaves the barrier filter out; with it, `kit` is the robot of the device,
        whose nominal model and body the filter keeps clear."""
        self.spec = device.spec
        self.config = guard or GuardConfig()
        self.listeners = Listeners(self.spec.name)
        self._device = device
        self._motion = CommandMotion(self.spec, self.config, barrier, kit)
        self._lock = threading.RLock()
        self._lifecycle = Lifecycle.DISCONNECTED
        self._fault = ""
        self._forget()

    @property
    def barrier(self) -> BarrierFilter | None:
        """The filter, for its heights and names; not to be used during a tick."""
        return self._motion.barrier

    def _forget(self) -> None:
        """Everything that lasts from `connect` to `disconnect`."""
        self._mode: CommandMode | None = None
        self._stopped = False
        self._active: Accepted | None = None
        self._last_seq: int | None = None
        self._latest_command: ArmCommand | None = None
        self._reasons: dict[Reason, None] = {}  # of the newest command, in order
        self._counts: Counter[Reason] = Counter()
        self._report: BarrierReport | None = None
        self._state: ArmState | None = None
        self._now_s = -math.inf
        self._ticks = self._misses = 0
        self._worst_late_s = 0.0
        self._due_s = math.nan

    def connect(self) -> None:
        """Open the link: DISCONNECTED -> CONNECTED. Never moves or energises."""
        with self._lock:
            if self._lifecycle is not Lifecycle.DISCONNECTED:
                raise HardwareError(f"{self.spec.name}: connect: already {self._lifecycle.value}")
            self._device.open()
            self._forget()
            self._fault = ""
            self._lifecycle = Lifecycle.CONNECTED
        log.info("%s", chain.describe(self.spec, self.config, self.barrier))

    def disconnect(self) -> None:
        """Hold and close the link. Idempotent, never raises."""
        with self._lock:
            if self._lifecycle is Lifecycle.DISCONNECTED:
                return
            self.stop(StopKind.HOLD)
            with contextlib.suppress(Exception):
                self._device.close()
            self._lifecycle = Lifecycle.DISCONNECTED

    def arm(self, mode: CommandMode) -> None:
        """CONNECTED, ARMED or HOLDING -> ARMED, at rest, seeded from the measured position."""
        with self._lock:
            name = self.spec.name
            if self._lifecycle is Lifecycle.FAULT:
                raise Faulted(f"{name}: arm: {self._fault}; clear_fault first")
            if self._lifecycle is Lifecycle.DISCONNECTED:
                raise NotConnected(f"{name}: arm: connect first")
            if self._lifecycle is Lifecycle.STREAMING:
                raise HardwareError(f"{name}: arm: a command is being followed; hold() first")
            if mode not in self.spec.modes:
                known = ", ".join(known.value for known in self.spec.modes)
                raise UnsupportedMode(f"{name}: arm: {mode!r} is not one of {known}")
            state, now = self._device.read(), self._device.now_s()
            self._seed(state, now)
            self._mode = CommandMode(mode)
            self._stopped = False
            self._active = self._last_seq = self._latest_command = self._report = None
            self._reasons = {}
            self._lifecycle = Lifecycle.ARMED

    def _seed(self, state: ArmState, now_s: float) -> None:
        """Start from the measured position, or raise."""
        name = self.spec.name
        why = chain.check_state(state, now_s, self.spec.watchdog_s)
        if why is Reason.STALE_STATE:
            raise StaleState(
                f"{name}: arm: state is {state.age_s(now_s):.3f} s old, allowed "
                f"{self.spec.watchdog_s} s; if the driver is running, the clock of its computer is "
                "behind this one's: synchronise them"
            )
        if why is not None:
            raise HardwareError(f"{name}: arm: no valid state of every joint ({why.value})")
        speed = float(np.abs(state.dq_rad_s).max())
        if speed > _AT_REST_RAD_S:
            raise HardwareError(
                f"{name}: arm: still moving at {speed:.2f} rad/s; wait until it is at rest"
            )
        if self.spec.gripper is not None and not math.isfinite(state.gripper_closedness):
            raise HardwareError(f"{name}: arm: the gripper's position was not measured")
        self._state, self._now_s, self._due_s = state, now_s, math.nan
        gripper = 0.0
        if self.spec.gripper is not None:
            gripper = min(max(float(state.gripper_closedness), 0.0), 1.0)
        self._motion.seed(np.array(state.q_rad, float), gripper)

    def disarm(self) -> None:
        """Brake, then hold, in CONNECTED; a FAULT stays one."""
        with self._lock:
            if self._lifecycle is Lifecycle.DISCONNECTED:
                raise NotConnected(f"{self.spec.name}: disarm: not connected")
            self._active = self._mode = None
            if self._lifecycle is not Lifecycle.FAULT:
                self._lifecycle = Lifecycle.CONNECTED

    @property
    def lifecycle(self) -> Lifecycle:
        """Where in the lifecycle the robot is."""
        return self._lifecycle

    def now_s(self) -> float:
        """The device's host clock."""
        return self._device.now_s()

    def latest(self) -> ArmState:
        """The newest state, however old."""
        with self._lock:
            if self._lifecycle is Lifecycle.DISCONNECTED:
                raise NotConnected(f"{self.spec.name}: connect first")
            state = self._state
            if (
                state is not None
                and self._device.simulated
                and self._lifecycle in (Lifecycle.ARMED, Lifecycle.STREAMING)
                and state.t_host_s >= self._device.now_s()
            ):
                return state
            return self._device.read()

    def hold(self) -> None:
        """Brake and hold position until armed again; the lifecycle becomes HOLDING."""
        with self._lock:
            if self._lifecycle not in _MOVABLE:
                raise NotArmed(f"{self.spec.name}: hold: {self._lifecycle.value}, not armed")
            self._stop_moving()

    def stop(self, kind: StopKind) -> None:
        """End motion, until armed again. RAMP needs ticks to brake in; HOLD writes at once."""
        with self._lock:
            if self._lifecycle in _MOVABLE:
                self._stop_moving()
            elif self._motion.at_rest:
                return
            if kind is StopKind.HOLD:
                motion = self._motion
                motion.freeze()
                try:
                    self._device.write(motion.sent, motion.v, motion.gripper)
                except Exception:  # stop never raises
                    log.warning("%s: stop: the device took no hold", self.spec.name, exc_info=True)

    def _stop_moving(self) -> None:
        self._active = None
        self._stopped = True
        self._note(Reason.STOPPED)
        self._lifecycle = Lifecycle.HOLDING

    def clear_fault(self, operator: str, reason: str) -> None:
        """FAULT -> CONNECTED, by a named person with a reason. Comes back disarmed."""
        with self._lock:
            if not operator.strip() or not reason.strip():
                raise ValueError("clear_fault: say who clears the fault, and why")
            if self._lifecycle is not Lifecycle.FAULT:
                raise HardwareError(f"{self.spec.name}: clear_fault: no fault to clear")
            log.warning("%s: %r cleared by %s: %s", self.spec.name, self._fault, operator, reason)
            self._fault = ""
            self._active = self._mode = None
            self._stopped = False
            self._lifecycle = Lifecycle.CONNECTED

    def submit(self, command: ArmCommand) -> Receipt:
        """Offer a command. Refusal is a receipt with reasons, not an exception."""
        with self._lock:
            try:
                active, why = self._admit(command)
            except Exception:  # what cannot be evaluated is refused
                log.warning("%s: submit: guard failed", self.spec.name, exc_info=True)
                active, why = None, Reason.GUARD_ERROR
            if why is not None:
                self._counts[why] += 1
            if active is not None:
                self._active, self._latest_command = active, command
                self._last_seq = command.seq
                self._reasons, self._report = {}, None
                self._lifecycle = Lifecycle.STREAMING
            receipt = Receipt(
                seq=command.seq,
                accepted=active is not None,
                reasons=() if why is None else (why,),
                requested=command.values,
                sent_rad=self._motion.sent,
                sent_gripper=self._motion.gripper,
                t_host_s=self._now_s,
            )
            self.listeners.on_command(command, receipt)
            return receipt

    def _admit(self, command: ArmCommand) -> tuple[Accepted | None, Reason | None]:
        """The first part of the chain, once per command."""
        now = self._device.now_s()
        armed = chain.Armed(self._lifecycle, self._stopped, self._mode, self._last_seq)
        # The state is read only for a command that gets that far.
        return chain.admit(
            command, self.spec, self.config, armed, self._motion.c, now, lambda: self._read(now)
        )

    def advance(self, period_s: float) -> ArmState:
        """Let one control period pass in ticks of about `config.tick_s`; the state at its end."""
        if not 0.0 < period_s < math.inf:
            raise ValueError(f"ArmController.advance: period_s must be > 0, got {period_s}")
        device = self._device
        count = max(1, round(period_s / self.config.tick_s))
        tick_s = period_s / count
        now = device.now_s()
        start = now
        if not device.simulated and 0.0 <= now - self._due_s < period_s:
            start = self._due_s
        for k in range(count):
            self.tick(tick_s)
            deadline = start + (k + 1) * tick_s
            device.pass_time(deadline)
            if not device.simulated:
                self.record_lateness(device.now_s() - deadline)
        self._due_s = start + period_s
        with self._lock:
            self._state = device.read()
            self.listeners.on_state(self._state)
            return self._state

    def record_lateness(self, late_s: float) -> None:
        """Count a deadline; one missed by a whole tick is a miss. For real-time loops."""
        if late_s > self.config.tick_s:
            self._misses += 1
        self._worst_late_s = max(self._worst_late_s, late_s)

    def tick(self, dt: float) -> None:
        """One turn of the chain; the command moves by `dt` seconds. Never raises.

        Without a command that may be followed, the arm brakes and holds.
        """
        with self._lock:
            if self._lifecycle is Lifecycle.DISCONNECTED:
                return
            self._ticks += 1
            try:
                if not dt > 0.0:
                    dt, wrong = self.config.tick_s, dt
                    raise ValueError(f"tick: dt must be > 0 s, got {wrong}")
                dt = min(dt, self.config.max_tick_s)
                step = self._next(dt)
            except Exception:  # the arm must come to rest whatever went wrong
                log.warning("%s: tick: guard failed", self.spec.name, exc_info=True)
                self._pause(Reason.GUARD_ERROR)
                step = self._motion.emergency(dt)
            # Connecting and disarming leave the device alone, once the command is at rest.
            if self._lifecycle is not Lifecycle.CONNECTED or not self._motion.at_rest:
                self._send(step)

    def _next(self, dt: float) -> Step:
        """The part of the chain that runs in every tick."""
        now = self._device.now_s()
        state = self._read(now)
        active, motion = self._active, self._motion
        why = chain.check_state(state, now, self.spec.watchdog_s)
        if now < self._now_s - 1e-6:  # the clock went back: no expiry can be trusted
            why = why or Reason.STALE_STATE
        self._now_s = now
        if active is None:
            if why is not None and self._lifecycle in _MOVABLE:
                self._note(why)
            return motion.brake(dt)
        if why is None and not now < active.until_s:
            why = Reason.EXPIRED
        if why is None and state is not None:
            why = chain.check_tracking(motion.c, state, self.config.tracking_rad)
            if why is not None and not self.config.enforce:
                self._note(why)
                why = None
        if why is not None:
            self._pause(why)
            return motion.brake(dt)
        return motion.follow(active, now + dt, dt)

    def _send(self, step: Step) -> None:
        for reason in step.reasons:
            self._note(reason)
        try:
            self._device.write(step.write_rad, step.write_rad_s, step.gripper)
        except Exception as error:  # a dead link must not end the loop
            self._motion.freeze()
            self._note(Reason.LINK_LOST)
            if self._lifecycle is not Lifecycle.FAULT:
                self._fault = f"write failed: {type(error).__name__}: {error}"
                log.exception("%s: %s", self.spec.name, self._fault)
            self._active, self._lifecycle = None, Lifecycle.FAULT
            return
        self._motion.commit(step)
        self._report = step.report
        if self.listeners and (receipt := self.last_receipt) is not None:
            self.listeners.on_receipt(receipt)

    def _read(self, now_s: float) -> ArmState | None:
        """The newest state; None when the link is gone."""
        state = self._state
        if (
            state is not None
            and self._active is not None
            and self._device.simulated
            and 0.0 <= now_s - state.t_host_s < _SIMULATED_READ_S
        ):
            return state
        try:
            read = self._device.read()
        except Exception:  # noqa: BLE001 - any failure to read is a lost link
            return None
        self._state = read
        if self.listeners and (state is None or read.seq != state.seq):
            self.listeners.on_state(read)
        return read

    def _pause(self, why: Reason) -> None:
        """Drop the command: the arm brakes, and moves again with the next valid one."""
        self._active = None
        self._note(why)
        if self._lifecycle in (Lifecycle.ARMED, Lifecycle.STREAMING):
            self._lifecycle = Lifecycle.HOLDING

    def _note(self, reason: Reason) -> None:
        self._reasons[reason] = None
        self._counts[reason] += 1

    @property
    def last_receipt(self) -> Receipt | None:
        """What became of the newest accepted command so far; None before the first."""
        with self._lock:
            command = self._latest_command
            if command is None:
                return None
            return Receipt(
                seq=command.seq,
                accepted=True,
                reasons=tuple(self._reasons),
                requested=command.values,
                sent_rad=self._motion.sent,
                sent_gripper=self._motion.gripper,
                t_host_s=self._now_s,
                barrier=self._report,
            )

    def health(self) -> Health:
        """Ages, counts and the lifecycle."""
        with self._lock:
            now = math.nan
            if self._lifecycle is not Lifecycle.DISCONNECTED:
                with contextlib.suppress(HardwareError):
                    now = self._device.now_s()
            active, state = self._active, self._state
            return Health(
                lifecycle=self._lifecycle,
                state_age_s=math.nan if state is None else state.age_s(now),
                command_age_s=math.nan if active is None else now - active.accepted_s,
                ticks=self._ticks,
                deadline_misses=self._misses,
                worst_lateness_s=self._worst_late_s,
                reasons={reason.value: count for reason, count in self._counts.items()},
                fault=self._fault,
            )
