"""The last sent command of one arm, and the guarded step from it to the next."""

import math
from typing import NamedTuple

import numpy as np

from robo_rl.hardware.contracts import ArmSpec, BarrierReport, CommandMode, Reason
from robo_rl.hardware.guard import chain
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter
from robo_rl.hardware.guard.chain import Accepted, GuardConfig
from robo_rl.hardware.guard.shaping import same
from robo_rl.hardware.robots.kit import RobotKit


class Step(NamedTuple):
    """One tick: where the command goes, and what is written for it."""

    c: np.ndarray  # (J,) rad
    v: np.ndarray  # (J,) rad/s
    write_rad: np.ndarray  # (J,)
    write_rad_s: np.ndarray  # (J,)
    gripper: float
    reasons: tuple[Reason, ...]
    report: BarrierReport | None


class CommandMotion:
    """Position c and velocity v (J,) of the command; every change of them goes through `commit`."""

    def __init__(
        self,
        spec: ArmSpec,
        config: GuardConfig,
        barrier: BarrierConfig | None,
        kit: RobotKit | None,
    ) -> None:
        self._config = config
        self._shaper = chain.make_shaper(spec, config)
        self._clamp = chain.HardClamp(spec, self._shaper)
        self.barrier: BarrierFilter | None = None
        if barrier is not None:
            if kit is None:
                raise ValueError(
                    f"{spec.name}: the barrier filter needs the robot's kit, which says where the "
                    "arm is; give kit=robots.get(NAME), or barrier=None"
                )
            self.barrier = BarrierFilter(kit, self._shaper, barrier)
        self._still = np.zeros(spec.joints)
        self._step_velocity = np.full(spec.joints, np.nan)
        self.seed(np.asarray(spec.home_rad, float), 0.0)

    def seed(self, q: np.ndarray, gripper: float) -> None:
        """Start at rest at q (J,)."""
        self.c = self.sent = q
        self.v = self._still
        self.gripper = gripper

    def freeze(self) -> None:
        """Take the velocity of the command for gone."""
        self.v = self._still

    @property
    def at_rest(self) -> bool:
        """The command does not move."""
        return not self.v.any()

    def commit(self, step: Step) -> None:
        """`step` was sent."""
        self.c, self.v, self.sent, self.gripper = step.c, step.v, step.write_rad, step.gripper

    def follow(self, accepted: Accepted, at_s: float, dt: float) -> Step:
        """A tick, ending at host time `at_s`, towards what the command asks for."""
        c, v, shaper = self.c, self.v, self._shaper
        reasons: list[Reason] = []
        report = None
        if accepted.command.mode == CommandMode.JOINT_VELOCITY:
            wanted, raw = accepted.values, self.sent + accepted.values * dt
        else:
            raw = accepted.values
            if accepted.times_s is not None:
                raw = _interpolate(accepted.times_s, raw, at_s - accepted.accepted_s)
            inside = np.minimum(np.maximum(raw, shaper.lower), shaper.upper)
            if not same(inside, raw):
                reasons.append(Reason.SOFT_LIMIT)
            wanted = shaper.toward(c, v, inside, dt)
        bounds = shaper.bounds(c, v, dt)
        v1 = np.minimum(np.maximum(wanted, bounds.lower), bounds.upper)
        if not same(v1, wanted):
            reasons.append(Reason.RATE_LIMITED)
        if self.barrier is not None:
            report = self.barrier.filter(c, v, v1, dt, bounds)
            reasons += chain.barrier_reasons(report)
            v1 = report.filtered_rad_s
        return self._finish(v1, dt, accepted.gripper, reasons, report, raw)

    def brake(self, dt: float) -> Step:
        """A tick towards rest; the gripper keeps its target."""
        v1 = self._still if self.at_rest else self._shaper.brake(self.c, self.v, dt)
        return self._finish(v1, dt, self.gripper, [], None, self.sent)

    def emergency(self, dt: float) -> Step:
        """Braking after a failed guard; a freeze if even that fails."""
        try:
            step = self.brake(dt)
            if math.isfinite(float(step.c.sum() + step.v.sum())):
                return step
        except Exception:  # noqa: BLE001 - nothing is left but to stand still
            pass
        return Step(self.c, self._still, self.sent, self._still, self.gripper, (), None)

    def _finish(
        self,
        v1: np.ndarray,
        dt: float,
        gripper: float,
        reasons: list[Reason],
        report: BarrierReport | None,
        raw: np.ndarray,
    ) -> Step:
        c1, v1, clamped = self._clamp(self.c, self.v, v1, dt)
        if clamped:
            reasons.append(Reason.HARD_CLAMP)
        if self._config.enforce:
            return Step(c1, v1, c1, v1, gripper, tuple(reasons), report)
        # Report only: the target is a step, to which no velocity belongs.
        return Step(c1, v1, raw, self._step_velocity, gripper, tuple(reasons), report)


def _interpolate(times_s: np.ndarray, values: np.ndarray, at_s: float) -> np.ndarray:
    """Waypoints (N, J) on straight lines, the last one held: (J,)."""
    k = int(np.searchsorted(times_s, at_s, side="right"))
    if k == 0 or k == len(times_s):
        end: np.ndarray = values[0 if k == 0 else -1]
        return end
    part = (at_s - times_s[k - 1]) / (times_s[k] - times_s[k - 1])
    point: np.ndarray = values[k - 1] + part * (values[k] - values[k - 1])
    return point
