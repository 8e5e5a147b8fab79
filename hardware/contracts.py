"""The language every robot, guard and driver speaks. SI units; quaternions are wxyz; no JAX.

Two clocks: `t_host_s` is this machine's monotonic clock (time-outs), `t_source_s` the stamp of the
device (alignment of logs). A simulated robot counts simulated time on both, so that a slow computer
does not make its commands expire.
"""

import abc
import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping

import numpy as np

from robo_rl.hardware.errors import StaleState


class CommandMode(enum.StrEnum):
    """What the values of a command mean."""

    JOINT_POSITION = "joint_position"
    """Joint position targets in rad, (J,); approached within the limits of the spec."""
    JOINT_VELOCITY = "joint_velocity"
    """Joint velocities in rad/s, (J,); held until the command expires."""
    JOINT_TRAJECTORY = "joint_trajectory"
    """Joint waypoints in rad, (N, J), with `times_s` (N,) from the start of the command."""


class CommandSource(enum.StrEnum):
    """Who asked for the motion."""

    POLICY = "policy"
    HUMAN = "human"
    RECOVERY = "recovery"
    TEST = "test"


class Lifecycle(enum.StrEnum):
    """Connecting never moves or energises; arming is explicit; a fault is cleared by a person."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    ARMED = "armed"
    STREAMING = "streaming"
    HOLDING = "holding"
    FAULT = "fault"


class StopKind(enum.StrEnum):
    """How `Robot.stop` ends motion."""

    RAMP = "ramp"
    """Brake at the acceleration limit along the present direction, then hold."""
    HOLD = "hold"
    """Freeze the commanded position at once. For a link that is about to go away."""


class Reason(enum.StrEnum):
    """Why a command was not sent as it was asked for."""

    NON_FINITE = "non_finite"
    INCOMPLETE = "incomplete"
    NOT_ARMED = "not_armed"
    WRONG_MODE = "wrong_mode"
    FAULTED = "faulted"
    STALE_STATE = "stale_state"
    INVALID_STATE = "invalid_state"
    EXPIRED = "expired"
    NO_EXPIRY = "no_expiry"
    OUT_OF_ORDER = "out_of_order"
    NO_COMMAND = "no_command"
    RATE_LIMITED = "rate_limited"
    SOFT_LIMIT = "soft_limit"
    WORKSPACE = "workspace"
    BARRIER = "barrier"
    BARRIER_INFEASIBLE = "barrier_infeasible"
    BARRIER_ERROR = "barrier_error"
    HARD_CLAMP = "hard_clamp"
    LINK_LOST = "link_lost"
    STOPPED = "stopped"
    TRACKING_ERROR = "tracking_error"
    GUARD_ERROR = "guard_error"


class Verdict(enum.StrEnum):
    """What the barrier filter did to one command."""

    PASS = "pass"
    MODIFIED = "modified"
    INFEASIBLE = "infeasible"
    ERROR = "error"


@dataclasses.dataclass(frozen=True)
class GripperSpec:
    """A one-finger-joint gripper, commanded as closedness: 0 open, 1 closed."""

    joint_name: str
    closed_rad: float
    """Finger joint position at closedness 1."""
    opening_m: float
    """Distance between the pads at closedness 0."""
    force_n: float
    """Largest grip force."""


@dataclasses.dataclass(frozen=True)
class ArmSpec:
    """What one arm can do. Arrays are tuples of J floats in the order of `joint_names`."""

    name: str
    joint_names: tuple[str, ...]
    position_lower_rad: tuple[float, ...]
    position_upper_rad: tuple[float, ...]
    soft_margin_rad: float
    """Distance kept from the hard position limits."""
    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    effort_nm: tuple[float, ...]
    base_frame: str
    tool_frame: str
    home_rad: tuple[float, ...]
    modes: tuple[CommandMode, ...]
    servo_hz: float
    """Nominal rate of the device's own position loop."""
    watchdog_s: float
    """A command older than this is never followed; a state older than this is stale."""
    gripper: GripperSpec | None
    source: str
    """Where each number comes from."""

    def __post_init__(self) -> None:
        joints = len(self.joint_names)
        for field in (
            "position_lower_rad",
            "position_upper_rad",
            "velocity_rad_s",
            "acceleration_rad_s2",
            "effort_nm",
            "home_rad",
        ):
            values = getattr(self, field)
            if len(values) != joints or not np.isfinite(values).all():
                raise ValueError(f"ArmSpec.{field} must be {joints} finite numbers, got {values}")
        for field in ("velocity_rad_s", "acceleration_rad_s2", "effort_nm"):
            if min(getattr(self, field)) <= 0.0:
                raise ValueError(f"ArmSpec.{field} must be > 0, got {getattr(self, field)}")
        for field in ("servo_hz", "watchdog_s"):
            if not getattr(self, field) > 0.0:
                raise ValueError(f"ArmSpec.{field} must be > 0, got {getattr(self, field)}")
        span = np.subtract(self.position_upper_rad, self.position_lower_rad)
        if not 0.0 <= self.soft_margin_rad < span.min() / 2:
            raise ValueError(
                f"ArmSpec.soft_margin_rad must be in [0, {span.min() / 2}), "
                f"got {self.soft_margin_rad}"
            )

    @property
    def joints(self) -> int:
        """J, the number of arm joints."""
        return len(self.joint_names)

    def digest(self) -> str:
        """Hash of every number in the spec; travels with datasets and checkpoints."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Pose:
    """A pose in the base frame: position in m, unit quaternion wxyz."""

    position_m: np.ndarray
    quaternion_wxyz: np.ndarray


@dataclasses.dataclass(frozen=True)
class ArmState:
    """One measurement. A joint that was not measured is NaN and not valid, never zero."""

    t_host_s: float
    t_source_s: float
    seq: int
    q_rad: np.ndarray  # (J,)
    dq_rad_s: np.ndarray  # (J,)
    effort_nm: np.ndarray  # (J,)
    tool: Pose
    gripper_closedness: float
    gripper_force_n: float
    """Contact force on a finger pad."""
    objects: Mapping[str, Pose] = dataclasses.field(default_factory=dict)
    """Tracked objects by name."""
    objects_t_host_s: float = float("nan")
    """Host time of the oldest pose in `objects`."""
    valid: bool = True
    """Every joint was measured and is finite."""

    def age_s(self, now_s: float) -> float:
        """Seconds since the measurement arrived."""
        return now_s - self.t_host_s


@dataclasses.dataclass(frozen=True)
class ArmCommand:
    """A wish. It is followed only while `now < expires_at_s` on the host clock."""

    mode: CommandMode
    values: np.ndarray
    gripper_closedness: float
    seq: int
    t_observation_s: float
    """Host time of the state that it answers."""
    expires_at_s: float
    source: CommandSource = CommandSource.POLICY
    times_s: np.ndarray | None = None
    """(N,) for JOINT_TRAJECTORY, from the time the command is accepted."""


@dataclasses.dataclass(frozen=True)
class BarrierReport:
    """What the barrier filter saw and did in one tick."""

    verdict: Verdict
    nominal_rad_s: np.ndarray  # (J,)
    filtered_rad_s: np.ndarray  # (J,)
    min_barrier: float
    """Smallest barrier value, in its own unit (m or rad); >= 0 is safe."""
    active: tuple[str, ...]
    """Names of the constraints that changed the command."""
    slack: float
    status: str
    """Solver status in words."""
    solve_s: float


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What became of a command. `sent_rad` is what training and logs record."""

    seq: int
    accepted: bool
    reasons: tuple[Reason, ...]
    requested: np.ndarray
    sent_rad: np.ndarray
    """(J,) the joint position command that left for the device last."""
    sent_gripper: float
    t_host_s: float
    barrier: BarrierReport | None = None


@dataclasses.dataclass(frozen=True)
class Health:
    """What a person or a monitor wants to know at a glance."""

    lifecycle: Lifecycle
    state_age_s: float
    command_age_s: float
    ticks: int
    deadline_misses: int
    worst_lateness_s: float
    reasons: Mapping[str, int]
    """How often each reason code was given since `connect`."""
    fault: str = ""


class Device(abc.ABC):
    """One arm behind one wire: reads states, writes joint position commands, guards nothing.

    Only `hardware.controller.ArmController` may call `write`; everyone else talks to a `Robot`.
    Constructors do no I/O.
    """

    spec: ArmSpec
    simulated: bool = False
    """True when `now_s` is simulated time that passes only in `pass_time`."""

    @abc.abstractmethod
    def open(self) -> None:
        """Open the link and wait for the first complete state. Never moves or energises."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the link. Idempotent, safe in any state, never raises."""

    @abc.abstractmethod
    def now_s(self) -> float:
        """The host clock of this device: monotonic, or simulated time."""

    @abc.abstractmethod
    def read(self) -> ArmState:
        """The newest state, however old. Raises NotConnected when there never was one."""

    @abc.abstractmethod
    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        """Send one position command (J,), the velocity it moves at (J,) and the gripper target."""

    @abc.abstractmethod
    def pass_time(self, until_s: float) -> None:
        """Return when `now_s()` >= until_s: a simulator steps, a real device waits."""


class Robot(abc.ABC):
    """One guarded arm. The same contract in simulation, in another process and on hardware."""

    spec: ArmSpec

    @abc.abstractmethod
    def connect(self) -> None:
        """Open the link: DISCONNECTED -> CONNECTED. Never moves or energises."""

    @abc.abstractmethod
    def disconnect(self) -> None:
        """Hold and close the link. Idempotent, never raises."""

    @abc.abstractmethod
    def arm(self, mode: CommandMode) -> None:
        """CONNECTED or HOLDING -> ARMED; the command is seeded from the measured position."""

    @abc.abstractmethod
    def disarm(self) -> None:
        """Hold, then back to CONNECTED."""

    @property
    @abc.abstractmethod
    def lifecycle(self) -> Lifecycle:
        """Where in the lifecycle the robot is."""

    @abc.abstractmethod
    def now_s(self) -> float:
        """The host clock that states, commands and expiries are counted on."""

    @abc.abstractmethod
    def latest(self) -> ArmState:
        """The newest state, however old."""

    def read(self, max_age_s: float) -> ArmState:
        """The newest state. Raises StaleState when it is older than `max_age_s`."""
        state = self.latest()
        age = state.age_s(self.now_s())
        if not age <= max_age_s:
            raise StaleState(f"{self.spec.name}: state is {age:.3f} s old, allowed {max_age_s} s")
        return state

    @abc.abstractmethod
    def submit(self, command: ArmCommand) -> Receipt:
        """Offer a command. Refusal is a receipt with reasons, not an exception."""

    @abc.abstractmethod
    def advance(self, period_s: float) -> ArmState:
        """Let one control period pass and return the state at its end.

        Counted from the end of the previous period on an absolute schedule: a simulated robot
        computes it, a real one waits for the deadline (a missed one is counted, not caught up).
        """

    @abc.abstractmethod
    def hold(self) -> None:
        """Brake and hold position; the lifecycle becomes HOLDING."""

    @abc.abstractmethod
    def stop(self, kind: StopKind) -> None:
        """End motion. Idempotent, safe in any state, never raises."""

    @abc.abstractmethod
    def clear_fault(self, operator: str, reason: str) -> None:
        """FAULT -> CONNECTED, by a named person with a reason. Comes back disarmed."""

    @abc.abstractmethod
    def health(self) -> Health:
        """Ages, counts and the lifecycle."""


class SceneReset(abc.ABC):
    """What a simulated scene can do and a real one cannot: be put into a given state."""

    @abc.abstractmethod
    def reset_scene(
        self, q_rad: np.ndarray, objects: Mapping[str, Pose], targets: Mapping[str, Pose]
    ) -> None:
        """Put the arm at rest at q (J,), gripper open, objects at their poses (at rest), and move
        the target markers. Any earlier command is forgotten; the robot must be re-armed."""
