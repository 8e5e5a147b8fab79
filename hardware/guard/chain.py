"""The guard chain: what a command must pass before it moves an arm, in a fixed order.

    finite > complete > armed and mode > state fresh > command unexpired      (admission, and again
                                                                              in every tick)
    > speed and step against the last sent command > soft limits              (shaping.Shaper)
    > workspace > barrier                                        (one QP: barrier.BarrierFilter)
    > hard clamp

Workspace and barrier are solved together: two corrections in a row could undo one another.
Every guard is a pure function that returns None or a reason; what cannot be evaluated is a reason
to hold.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmSpec,
    ArmState,
    BarrierReport,
    CommandMode,
    Lifecycle,
    Reason,
    Verdict,
)
from robo_rl.hardware.guard.barrier import BarrierFilter
from robo_rl.hardware.guard.shaping import Shaper

_MAX_WAYPOINTS = 10_000


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """How the chain is set. Limits come from the spec; this only lowers them."""

    enforce: bool = True
    """False: commands are still checked at admission and the arm still holds without a fresh state
    or command, but targets go to the device as they are and only the reasons are reported."""
    tick_s: float = 0.01
    """Length of a tick in `advance`."""
    max_tick_s: float = 0.02
    """A longer tick moves the command no further than one of this length."""
    velocity_scale: float = 1.0
    """Fraction of the spec's velocities."""
    acceleration_rad_s2: float | None = None
    """Lower than the spec's, if set."""
    creep_rad_s: float = 0.05
    """Speed at which a joint outside its soft limits may come back."""
    horizon_s: float = 1.0
    """A command may not expire, nor a trajectory end, later than this after it is offered."""
    observation_age_s: float = 0.5
    """A command that answers an older state is refused."""
    tracking_rad: float = 0.6
    """The arm holds while it is further than this from its command: 0.1 s of lag at full speed is
    0.31 rad."""

    def __post_init__(self) -> None:
        for name in (
            "tick_s",
            "max_tick_s",
            "creep_rad_s",
            "horizon_s",
            "observation_age_s",
            "tracking_rad",
        ):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"GuardConfig.{name} must be > 0, got {getattr(self, name)}")
        if not 0.0 < self.velocity_scale <= 1.0:
            raise ValueError(
                f"GuardConfig.velocity_scale must be in (0, 1], got {self.velocity_scale}"
            )
        if self.acceleration_rad_s2 is not None and not self.acceleration_rad_s2 > 0.0:
            raise ValueError(
                f"GuardConfig.acceleration_rad_s2 must be > 0, got {self.acceleration_rad_s2}"
            )
        if self.tick_s > self.max_tick_s:
            raise ValueError(
                f"GuardConfig.tick_s must be <= max_tick_s {self.max_tick_s}, got {self.tick_s}"
            )


def make_shaper(spec: ArmSpec, config: GuardConfig) -> Shaper:
    """The shaper with the limits of the spec, lowered as the config says."""
    return Shaper(
        spec,
        velocity_scale=config.velocity_scale,
        acceleration_rad_s2=config.acceleration_rad_s2,
        max_tick_s=config.max_tick_s,
        creep_rad_s=config.creep_rad_s,
    )


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A command that passed admission."""

    command: ArmCommand
    values: np.ndarray
    gripper: float
    accepted_s: float
    until_s: float
    times_s: np.ndarray | None = None
    """(N,) for a trajectory; it starts at 0 where the sent command was at acceptance."""


class Armed(NamedTuple):
    """What a command is admitted into."""

    lifecycle: Lifecycle
    stopped: bool
    """`hold` or `stop` was called: only `arm` lets the arm move again."""
    mode: CommandMode | None
    last_seq: int | None


def admit(
    command: ArmCommand,
    spec: ArmSpec,
    config: GuardConfig,
    armed: Armed,
    c: np.ndarray,
    now_s: float,
    read: Callable[[], ArmState | None],
) -> tuple[Accepted | None, Reason | None]:
    """The first half of the chain, once per command; c (J,) is the last sent position."""
    values = as_numbers(command.values)
    why = (
        check_finite(command, values)
        or check_complete(command, values, spec, config.horizon_s)
        or check_armed(armed, command)
        or check_state(read(), now_s, spec.watchdog_s)
        or check_expiry(command, now_s, config)
        or check_order(command, armed.last_seq)
    )
    if why is not None or values is None:
        return None, why
    gripper = min(max(float(command.gripper_closedness), 0.0), 1.0)
    until = float(command.expires_at_s)
    if command.mode != CommandMode.JOINT_TRAJECTORY:
        until = min(until, now_s + spec.watchdog_s)
        return Accepted(command, values, gripper, now_s, until), None
    times = as_numbers(command.times_s)
    assert times is not None  # complete
    if times[0] > 0.0:
        times, values = np.append(0.0, times), np.vstack((c, values))
    return Accepted(command, values, gripper, now_s, until, times), None


def as_numbers(values: object) -> np.ndarray | None:
    """A new float64 array; None for what is not an array of real numbers."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        return None
    return np.array(values, dtype=np.float64)


def check_finite(command: ArmCommand, values: np.ndarray | None) -> Reason | None:
    """Every number is finite. What is not a number is for `check_complete`."""
    if values is not None and not np.isfinite(values).all():
        return Reason.NON_FINITE
    for number in (command.gripper_closedness, command.t_observation_s):
        if _is_real(number) and not math.isfinite(number):
            return Reason.NON_FINITE
    if command.times_s is not None:
        times = as_numbers(command.times_s)
        if times is not None and not np.isfinite(times).all():
            return Reason.NON_FINITE
    return None


def check_complete(
    command: ArmCommand, values: np.ndarray | None, spec: ArmSpec, horizon_s: float
) -> Reason | None:
    """Values of the right shape for the mode, and a gripper, a sequence number, an observation."""
    if (
        values is None
        or not isinstance(command.seq, int | np.integer)
        or not _is_real(command.gripper_closedness)
        or not _is_real(command.t_observation_s)
    ):
        return Reason.INCOMPLETE
    if command.mode != CommandMode.JOINT_TRAJECTORY:
        return None if values.shape == (spec.joints,) else Reason.INCOMPLETE
    times = as_numbers(command.times_s)
    if (
        times is None
        or not 0 < times.size <= _MAX_WAYPOINTS
        or values.shape != (times.size, spec.joints)
        or times.ndim != 1
        or times[0] < 0.0
        or times[-1] > horizon_s
        or not (np.diff(times) > 0.0).all()
    ):
        return Reason.INCOMPLETE
    return None


def check_armed(armed: Armed, command: ArmCommand) -> Reason | None:
    """Motion is allowed now, in this mode."""
    if armed.lifecycle is Lifecycle.FAULT:
        return Reason.FAULTED
    if armed.mode is None or armed.lifecycle in (Lifecycle.DISCONNECTED, Lifecycle.CONNECTED):
        return Reason.NOT_ARMED
    if armed.stopped:
        return Reason.STOPPED
    return None if command.mode == armed.mode else Reason.WRONG_MODE


def check_state(state: ArmState | None, now_s: float, watchdog_s: float) -> Reason | None:
    """The state is fresh, complete and finite. A state from the future is not fresh."""
    if state is None:
        return Reason.LINK_LOST
    age = now_s - state.t_host_s
    if not -_CLOCK_SLACK_S <= age <= watchdog_s:
        return Reason.STALE_STATE
    # A sum of squares is finite only if every term is.
    squares = state.q_rad @ state.q_rad + state.dq_rad_s @ state.dq_rad_s
    if not state.valid or not math.isfinite(squares):
        return Reason.INVALID_STATE
    return None


def check_expiry(command: ArmCommand, now_s: float, config: GuardConfig) -> Reason | None:
    """The command says when it ends, soon but not yet, and answers a recent state."""
    expires = command.expires_at_s
    if not _is_real(expires) or not math.isfinite(expires) or expires > now_s + config.horizon_s:
        return Reason.NO_EXPIRY
    age = now_s - command.t_observation_s
    if expires <= now_s or not -_CLOCK_SLACK_S <= age <= config.observation_age_s:
        return Reason.EXPIRED
    return None


def check_order(command: ArmCommand, last_seq: int | None) -> Reason | None:
    """Sequence numbers rise from one accepted command to the next."""
    if last_seq is not None and command.seq <= last_seq:
        return Reason.OUT_OF_ORDER
    return None


def check_tracking(c: np.ndarray, state: ArmState, tracking_rad: float) -> Reason | None:
    """The arm is near its command (J,)."""
    error = float(np.abs(state.q_rad - c).max())
    return None if error <= tracking_rad else Reason.TRACKING_ERROR


def barrier_reasons(report: BarrierReport) -> tuple[Reason, ...]:
    """The reasons that a verdict stands for."""
    if report.verdict is Verdict.PASS:
        return ()
    if report.verdict is Verdict.INFEASIBLE:
        return (Reason.BARRIER_INFEASIBLE,)
    if report.verdict is Verdict.ERROR:
        return (Reason.BARRIER_ERROR,)
    kinds = {name.split("/", 1)[0] for name in report.active}
    reasons = []
    if "joint" in kinds:
        reasons.append(Reason.SOFT_LIMIT)
    if "workspace" in kinds:
        reasons.append(Reason.WORKSPACE)
    if kinds - {"joint", "workspace"} or not kinds:
        reasons.append(Reason.BARRIER)
    return tuple(reasons)


class HardClamp:
    """The last word before the wire: position, velocity and acceleration of the spec."""

    def __init__(self, spec: ArmSpec, shaper: Shaper) -> None:
        self._joints = spec.joints
        lower, upper = np.array(spec.position_lower_rad), np.array(spec.position_upper_rad)
        self._middle, self._half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        self._lower, self._upper = lower, upper
        self._shaper = shaper
        # |v1| / velocity, |v1 - v| / acceleration, |c1 - middle| / half range: none above 1.
        self._scale = np.concatenate([shaper.velocity, shaper.acceleration, self._half])

    def __call__(
        self, c: np.ndarray, v: np.ndarray, v1: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Position and velocity (J,) to send, and whether `v1` had to be changed."""
        joints = self._joints
        c1 = c + (v + v1) * (0.5 * dt)
        use = np.empty(3 * joints)
        use[:joints] = v1
        np.subtract(v1, v, out=use[joints : 2 * joints])
        use[joints : 2 * joints] /= dt
        np.subtract(c1, self._middle, out=use[2 * joints :])
        np.abs(use, out=use)
        if (use / self._scale).max() <= 1.0 + 1e-9:  # false for NaN
            return c1, v1, False
        return *self._clamp(c, v, v1, dt), True

    def _clamp(
        self, c: np.ndarray, v: np.ndarray, v1: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        if not np.isfinite(v1).all():
            v1 = self._shaper.brake(c, v, dt)
        step = self._shaper.acceleration * dt
        v1 = np.clip(v1, -self._shaper.velocity, self._shaper.velocity)
        v1 = np.clip(v1, v - step, v + step)
        c1 = c + (v + v1) * (0.5 * dt)
        # Found outside the hard limits: no jump back, but no further out either.
        out = ((c1 > self._upper) & (v1 > 0.0)) | ((c1 < self._lower) & (v1 < 0.0))
        return np.where(out, c, c1), np.where(out, 0.0, v1)


def describe(spec: ArmSpec, config: GuardConfig, barrier: BarrierFilter | None = None) -> str:
    """Every limit in force and where it comes from, a line each."""
    shaper = make_shaper(spec, config)
    mode = "enforced" if config.enforce else "REPORT ONLY: targets reach the device unguarded"
    lines = [f"guards of {spec.name}: {mode}"]
    source = "spec" if config.velocity_scale == 1.0 else f"spec x {config.velocity_scale:g}"
    faster = "spec" if config.acceleration_rad_s2 is None else "guard config, at most the spec"
    for k, name in enumerate(spec.joint_names):
        lines.append(
            f"  {name}: {shaper.lower[k]:.3f} to {shaper.upper[k]:.3f} rad (spec, less "
            f"{spec.soft_margin_rad:g}), {shaper.velocity[k]:.3f} rad/s ({source}), "
            f"{shaper.acceleration[k]:.1f} rad/s^2 ({faster})"
        )
    lines += [
        f"  state older than {spec.watchdog_s:g} s: hold (spec watchdog)",
        f"  position or velocity command: followed for at most {spec.watchdog_s:g} s (spec "
        f"watchdog); expiry at most {config.horizon_s:g} s ahead (guard config)",
        f"  arm further than {config.tracking_rad:g} rad from its command: hold (guard config)",
        f"  limits from: {spec.source}",
    ]
    if barrier is None:
        return "\n".join([*lines, "  barrier filter: none"])
    box = barrier.config
    lines += [
        f"  barrier filter: {len(barrier.names)} constraints, alpha {barrier.alpha:.2f} 1/s "
        f"(config {box.alpha:g}, at most acceleration / velocity), band {box.band_m:g} m",
        f"  table at z = {box.table_z_m} m; tool in {box.workspace_lower_m} to "
        f"{box.workspace_upper_m} m (barrier config)",
        f"  keep-out spheres (x, y, z, r): {box.keep_out or 'none'}, margin "
        f"{box.keep_out_margin_m:g} m (barrier config)",
    ]
    return "\n".join(lines)


_CLOCK_SLACK_S = 1e-6


def _is_real(number: object) -> bool:
    return type(number) is float or isinstance(number, float | int | np.floating | np.integer)
