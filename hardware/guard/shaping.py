"""Shapes position and velocity targets into commands that keep every joint's limits.

The state is the last sent command: position c and velocity v, (J,). A tick of dt seconds moves it
with constant acceleration: c1 = c + (v + v1) / 2 * dt. All functions choose v1 only.

Braking with at most `a` in ticks of at most h = `max_tick_s` seconds, whatever their lengths,
covers at most S(v) = v^2 / 2a + a h^2 / 8, or v h / 2 where v <= a h / 2 (the last tick may be
longer than the braking needs). S(v) - S(v - a dt) >= the way covered in a braking tick, so a
command that could stop before a limit still can after every tick: c1 + S(v1) <= limit is kept by
induction.
"""

from typing import NamedTuple

import numpy as np

from robo_rl.hardware.contracts import ArmSpec


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit; for six numbers much cheaper than `(a == b).all()`."""
    return a.tobytes() == b.tobytes()


class Bounds(NamedTuple):
    """What one tick may do."""

    lower: np.ndarray  # (J,) rad/s
    upper: np.ndarray  # (J,) rad/s
    room_rad: float
    """Distance of the nearest joint to a soft limit; negative outside."""


class Shaper:
    """Velocity bounds and target tracking for one arm. Returned arrays are new, (J,)."""

    def __init__(
        self,
        spec: ArmSpec,
        *,
        velocity_scale: float = 1.0,
        acceleration_rad_s2: float | None = None,
        max_tick_s: float = 0.02,
        creep_rad_s: float = 0.05,
    ) -> None:
        if not 0.0 < velocity_scale <= 1.0:
            raise ValueError(f"Shaper: velocity_scale must be in (0, 1], got {velocity_scale}")
        if acceleration_rad_s2 is not None and not acceleration_rad_s2 > 0.0:
            raise ValueError(f"Shaper: acceleration_rad_s2 must be > 0, got {acceleration_rad_s2}")
        if not max_tick_s > 0.0:
            raise ValueError(f"Shaper: max_tick_s must be > 0, got {max_tick_s}")
        self.lower = np.add(spec.position_lower_rad, spec.soft_margin_rad)
        self.upper = np.subtract(spec.position_upper_rad, spec.soft_margin_rad)
        self.velocity = velocity_scale * np.asarray(spec.velocity_rad_s, float)
        self.acceleration = np.asarray(spec.acceleration_rad_s2, float)
        if acceleration_rad_s2 is not None:
            self.acceleration = np.minimum(self.acceleration, acceleration_rad_s2)
        self.max_tick_s = max_tick_s
        self._creep = creep_rad_s
        longest = float(np.max(self.velocity))
        slowest = float(np.min(self.acceleration))
        self.far = longest**2 / (2 * slowest) + slowest * max_tick_s**2 + longest * max_tick_s
        """A soft limit further away than this, in rad, leaves every velocity free."""
        self._backward = -self.velocity
        self._inverse_acceleration = 1.0 / self.acceleration
        self._double_acceleration = 2.0 * self.acceleration

    def bounds(self, c: np.ndarray, v: np.ndarray, dt: float) -> Bounds:
        """Lowest and highest velocity at the end of a tick: speed, acceleration, soft limits.

        `v` must not be faster than the limit. Where it is too fast for a soft limit (never, once
        the command obeyed these bounds), braking wins.
        """
        step = self.acceleration * dt
        slowest, fastest = v - step, v + step
        lower = np.maximum(slowest, self._backward)
        upper = np.minimum(fastest, self.velocity)
        room = float(np.minimum(c - self.lower, self.upper - c).min())
        if room < self.far:
            ahead = c + v * (0.5 * dt)
            below = np.maximum(ahead - self.lower, 0.0)
            above = np.maximum(self.upper - ahead, 0.0)
            lower = np.maximum(lower, -self._stoppable(below, dt))
            upper = np.minimum(upper, self._stoppable(above, dt))
            # Found outside: no further out, and back no faster than creeping.
            lower = np.where(c > self.upper, np.maximum(lower, -self._creep), lower)
            upper = np.where(c < self.lower, np.minimum(upper, self._creep), upper)
            lower = np.minimum(np.maximum(lower, slowest), fastest)
            upper = np.minimum(np.maximum(upper, slowest), fastest)
        return Bounds(lower, upper, room)

    def toward(self, c: np.ndarray, v: np.ndarray, target: np.ndarray, dt: float) -> np.ndarray:
        """Velocity that reaches `target` (J,) as fast as braking in ticks of dt allows, unbounded.

        Clip it to `bounds`. With equal ticks it arrives at rest, without overshoot, in finite time.
        """
        way = target - c - v * (0.5 * dt)
        size = np.abs(way)
        # S(v) with h = dt, solved for v: linear within one tick, a square root beyond.
        speed = np.sqrt(self._double_acceleration * size) - self.acceleration * (0.5 * dt)
        near = size < self.acceleration * (0.5 * dt * dt)
        v1: np.ndarray = np.copysign(np.where(near, size / dt, speed), way)
        return v1

    def brake(self, c: np.ndarray, v: np.ndarray, dt: float) -> np.ndarray:
        """Velocity after one tick of braking along the present direction, inside `bounds`."""
        time_s = self.stop_time_s(v)
        if time_s == 0.0:
            return np.zeros_like(v)
        bounds = self.bounds(c, v, dt)
        wanted = v * max(0.0, 1.0 - dt / time_s)
        v1: np.ndarray = np.minimum(np.maximum(wanted, bounds.lower), bounds.upper)
        return v1

    def stop_time_s(self, v: np.ndarray) -> float:
        """Time that braking along `v` (J,) takes at the acceleration limit of the worst joint."""
        return float((np.abs(v) * self._inverse_acceleration).max())

    def stop_way_s(self, v: np.ndarray) -> float:
        """Braking along `v` (J,) ends at most this times `v` further on, for any ticks."""
        time_s = self.stop_time_s(v)
        h = self.max_tick_s
        return 0.5 * time_s + h * h / (8.0 * time_s) if time_s > 0.5 * h else 0.5 * h

    def _stoppable(self, way: np.ndarray, dt: float) -> np.ndarray:
        """Fastest v1 with v1 dt / 2 + S(v1) <= way (J,), way >= 0."""
        a, h = self.acceleration, self.max_tick_s
        root = np.sqrt(np.maximum(0.25 * (dt * dt - h * h) + 2.0 * way / a, 0.0))
        near = way < a * (0.25 * h * (dt + h))
        return np.where(near, way * (2.0 / (dt + h)), a * (root - 0.5 * dt))
