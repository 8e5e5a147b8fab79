"""Control barrier functions on joint velocities: table, tool workspace, keep-out spheres, limits.

The last sent command (c, v), (J,), is the state and the next velocity u is the input; the command
moves by (v + u) / 2 * dt in a tick. Every constraint is a height h(c) >= 0 in m with gradient g.
Two layers, because a first-order barrier alone knows no acceleration limit:

1. A QP: min |u - u_nominal|^2 with g u >= -alpha (h - band) for every constraint, inside the hard
   box of velocity, acceleration and soft limits. To follow h' = -alpha h takes a braking of
   alpha |h'|, so alpha <= acceleration / velocity leaves every joint able to give it; a larger
   alpha is lowered to that. `band` is the reserve for what a straight line through c leaves out.
2. A certificate: u is sent only if the tick, and a full stop along u after it, stay at h >= 0.
   At a path point c + d, h >= h(c) + g d - |d|' Q |d| / 2 with Q from the lengths of the links
   (the distance to a centre is convex, which only helps). The bound is concave on straight pieces,
   so the corners of the path decide; the tick lies in the triangle of its Bezier points.

By induction the backup action, braking along the present direction, is safe at every tick: it was
certified one tick earlier, for any lengths of ticks. It is taken when the QP is infeasible, fails,
is late, or when neither its answer nor a blend with braking is certified.

A constraint that is violated (h < band) must rise at up to `recovery_m_s`; of that much, and of
nothing else, slack is allowed, and below zero h may not fall.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import daqp
import numpy as np

from robo_rl.hardware.contracts import BarrierReport, Verdict
from robo_rl.hardware.guard.points import PointKinematics, cross_matrix
from robo_rl.hardware.guard.shaping import Bounds, Shaper, same
from robo_rl.hardware.robots.kit import RobotKit

Vector3 = tuple[float, float, float]
Solver = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray | None]
"""(nominal (J,), rows (K, J), least (K,), lower (J,), upper (J,)) -> u (J,); None: infeasible."""

_TOLERANCE = 1e-9
_THREE = np.ones(3)  # x @ ones is the cheapest way to sum a few columns
_BLENDS = (1.0, 0.5, 0.25)
_Decision = tuple[np.ndarray, Verdict, tuple[str, ...], float, str]
"""Velocity, verdict, active constraints, slack, status."""
_FREE = 1e30  # daqp's infinity


@dataclasses.dataclass(frozen=True)
class BarrierConfig:
    """What the arm must stay clear of. Lengths in m in the base frame; None switches a part off."""

    table_z_m: float | None = 0.0
    workspace_lower_m: Vector3 | None = (0.15, -0.45, 0.0)
    workspace_upper_m: Vector3 | None = (0.70, 0.45, 0.60)
    """Box for the tool point. The default holds OGBench's targets and home with room to swing."""
    keep_out: tuple[tuple[float, float, float, float], ...] = ()
    """Spheres (x, y, z, radius) that no part of the arm beyond the shoulder may enter."""
    keep_out_margin_m: float = 0.03
    """Extra distance to spheres: the arm lags behind its command and cuts corners, and its tool may
    sit up to about 2 cm from where the model has it."""
    held_object_m: float = 0.035
    """Radius around the tool point that is kept out too; a 4 cm cube's corner is at 0.035."""
    alpha: float = 10.0
    """Largest decay rate of h in 1/s; lowered to acceleration / velocity."""
    band_m: float = 0.001
    """Distance to the boundary at which the QP stops an approach."""
    recovery_m_s: float = 0.02
    """Rate at which a violated constraint must rise, where feasible."""
    time_budget_s: float | None = None
    """A later answer is not used. Off for simulated time."""

    @classmethod
    def of(cls, kit: RobotKit, **fields: Any) -> "BarrierConfig":
        """The defaults for a robot, whose tool has a box of its own, under these fields."""
        lower, upper = kit.tool_box_m
        return cls(**{"workspace_lower_m": lower, "workspace_upper_m": upper, **fields})

    def __post_init__(self) -> None:
        for name in ("alpha", "band_m", "recovery_m_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"BarrierConfig.{name} must be > 0, got {getattr(self, name)}")
        for name in ("keep_out_margin_m", "held_object_m"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"BarrierConfig.{name} must be >= 0, got {getattr(self, name)}")
        if self.time_budget_s is not None and not self.time_budget_s > 0.0:
            raise ValueError(f"BarrierConfig.time_budget_s must be > 0, got {self.time_budget_s}")
        if self.table_z_m is not None and not math.isfinite(self.table_z_m):
            raise ValueError(f"BarrierConfig.table_z_m must be finite, got {self.table_z_m}")
        low, high = self.workspace_lower_m, self.workspace_upper_m
        if (low is None) != (high is None) or (
            low is not None and high is not None and not np.all(np.less(low, high))
        ):
            raise ValueError(
                f"BarrierConfig: workspace_lower_m must lie below workspace_upper_m, "
                f"got {low} and {high}"
            )
        for sphere in self.keep_out:
            if len(sphere) != 4 or not np.isfinite(sphere).all() or not sphere[3] > 0.0:
                raise ValueError(
                    f"BarrierConfig.keep_out: expected (x, y, z, radius > 0), got {sphere}"
                )


def solve_qp(
    nominal: np.ndarray,
    rows: np.ndarray,
    least: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray | None:
    """Point of the box (J,) nearest to `nominal` with rows (K, J) @ u >= least; None if empty."""
    joints, count = len(nominal), len(least)
    u, _, flag, _ = daqp.solve(
        np.eye(joints),
        -nominal,
        rows,
        np.concatenate((upper, np.full(count, _FREE))),
        np.concatenate((lower, least)),
        np.zeros(joints + count, np.int32),
        primal_tol=_TOLERANCE,
    )
    if flag <= 0:
        return None
    clipped: np.ndarray = np.minimum(np.maximum(u, lower), upper)
    return clipped


class _Task(NamedTuple):
    """One call of `filter`."""

    c: np.ndarray
    v: np.ndarray
    dt: float
    bounds: Bounds
    h: np.ndarray
    g: np.ndarray
    nominal: np.ndarray
    lowest: float


class BarrierFilter:
    """Changes joint velocities as little as the constraints ask for. One thread at a time."""

    def __init__(
        self,
        kit: RobotKit,
        shaper: Shaper,
        config: BarrierConfig | None = None,
        *,
        solver: Solver = solve_qp,
    ) -> None:
        self.config = config = config or BarrierConfig()
        self._shaper, self._solver = shaper, solver
        self.alpha = min(config.alpha, float(np.min(shaper.acceleration / shaper.velocity)))
        self._joint_names = kit.spec.joint_names
        self._body, self._parts = kit.body, kit.body.parts
        self._kinematics = PointKinematics(kit.model(), kit.names.arm_joints, self._parts)
        self.names: tuple[str, ...] = ()
        """Names of the K constraints, in the order of `heights`."""
        self._lay_out_planes()
        self._lay_out_spheres()
        balls = np.repeat(np.arange(len(self._parts))[self._balls], len(config.keep_out))
        which = np.concatenate([self._plane_parts, balls])
        self._moves = self._kinematics.moves[which]
        # (p x n, n) of every constraint; the normals of the planes stay.
        self._wrenches = np.zeros((len(which), 6))
        self._wrenches[np.arange(self._planes), 3 + self._plane_axes] = self._signs
        farthest = self._kinematics.reach_m.max(axis=0)
        order = np.arange(kit.spec.joints)
        later = np.maximum.outer(order, order)
        self._ones = np.ones(kit.spec.joints)
        self._fastest = float(shaper.velocity.max())
        self._half_curvature = 0.5 * farthest[later]

    def _lay_out_planes(self) -> None:
        """Table and workspace: h = sign * p[axis] - offset for a part p."""
        config = self.config
        rows: list[tuple[str, int, int, float, float]] = []
        if config.table_z_m is not None:
            rows += [
                (f"table/{part.name}", k, 2, 1.0, config.table_z_m + part.radius_m)
                for k, part in enumerate(self._parts)
                if part in self._body.above_table
            ]
        if config.workspace_lower_m is not None and config.workspace_upper_m is not None:
            tool = self._parts.index(self._body.tool)
            for axis, letter in enumerate("xyz"):
                low, high = config.workspace_lower_m[axis], config.workspace_upper_m[axis]
                rows.append((f"workspace/{letter}_lower", tool, axis, 1.0, low))
                rows.append((f"workspace/{letter}_upper", tool, axis, -1.0, -high))
        self.names += tuple(row[0] for row in rows)
        self._planes = len(rows)
        self._plane_parts = np.array([row[1] for row in rows], int)
        self._plane_axes = axes = np.array([row[2] for row in rows], int)
        self._signs = np.array([row[3] for row in rows])
        self._offsets = np.array([row[4] for row in rows])
        self._coordinate = 3 * self._plane_parts + axes
        # p x e_k is p[k + 2] along k + 1 and -p[k + 1] along k + 2 (axes modulo 3).
        turn = np.zeros((len(rows), 3))
        source = np.zeros((len(rows), 3), int) + 3 * self._plane_parts[:, None]
        for row, axis in enumerate(axes):
            after, last = (axis + 1) % 3, (axis + 2) % 3
            turn[row, [after, last]] = self._signs[row], -self._signs[row]
            source[row, [after, last]] += last, after
        self._turn, self._turn_source = turn, source

    def _lay_out_spheres(self) -> None:
        """Keep-out: h = |p - centre| - clearance for M spheres and B balls on the arm."""
        config = self.config
        radii = [part.radius_m for part in (*self._body.links, *self._body.fingers)]
        if config.held_object_m > 0.0:
            radii.append(config.held_object_m)
        self._balls = slice(0, len(radii))
        self.names += tuple(
            f"keep_out_{m}/{part.name}"
            for part in self._parts[self._balls]
            for m in range(len(config.keep_out))
        )
        centres = np.array([sphere[:3] for sphere in config.keep_out]).reshape(-1, 3)
        obstacles = np.array([sphere[3] for sphere in config.keep_out])
        self._clearance = np.add.outer(radii, obstacles).ravel() + config.keep_out_margin_m
        # p @ lift - shift = (p x (p - centre), p - centre) for every centre, side by side, since
        # p x (p - centre) = -p x centre.
        self._lift = np.zeros((3, 6 * len(centres)))
        self._shift = np.zeros(6 * len(centres))
        for m, centre in enumerate(centres):
            self._lift[:, 6 * m : 6 * m + 3] = -cross_matrix(centre)
            self._lift[:, 6 * m + 3 : 6 * m + 6] = np.eye(3)
            self._shift[6 * m + 3 : 6 * m + 6] = centre

    def heights(self, q: np.ndarray) -> np.ndarray:
        """Constraint values (K,) in m at posture q (J,); >= 0 is safe."""
        points = self._kinematics.update(q)
        n, flat = self._planes, points.ravel()
        h = np.empty(len(self.names))
        h[:n] = flat.take(self._coordinate) * self._signs - self._offsets
        self._wrenches[:n, :3] = flat.take(self._turn_source) * self._turn
        if n < len(h):
            wrenches = points[self._balls] @ self._lift - self._shift
            wrenches = wrenches.reshape(-1, 6)
            away = wrenches[:, 3:]
            # No direction leads out of the very centre, so zero may stay zero there.
            distance = np.maximum(np.sqrt((away * away) @ _THREE), 1e-12)
            h[n:] = distance - self._clearance
            np.divide(wrenches, distance[:, None], out=self._wrenches[n:])
        return h

    def gradients(self) -> np.ndarray:
        """dh/dq (K, J) in m/rad at the posture of the last `heights`."""
        gradients: np.ndarray = self._wrenches @ self._kinematics.screws().T
        gradients *= self._moves
        return gradients

    def min_height(self, q: np.ndarray) -> float:
        """Smallest constraint value in m at posture q (J,); infinite without constraints."""
        return float(self.heights(q).min(initial=math.inf))

    def filter(
        self, c: np.ndarray, v: np.ndarray, nominal: np.ndarray, dt: float, bounds: Bounds
    ) -> BarrierReport:
        """The velocity to send instead of `nominal` (J,). Never raises; what fails is braked."""
        started = time.perf_counter()
        least = math.nan
        try:
            h = self.heights(c)
            lowest = float(h.min()) if self.names else math.inf
            least = min(lowest, bounds.room_rad)
            bounds = self._narrow(c, bounds)
            task = _Task(c, v, dt, bounds, h, self.gradients(), nominal, lowest)
            u, verdict, active, slack, status = self._decide(task)
            if not math.isfinite(u @ u + least):
                u, verdict, active, slack, status = v, Verdict.ERROR, (), 0.0, "not finite"
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the arm must brake
            u, verdict, active, slack = v, Verdict.ERROR, (), 0.0
            status = f"{type(error).__name__}: {error}"
        elapsed = time.perf_counter() - started
        budget = self.config.time_budget_s
        if budget is not None and elapsed > budget:
            verdict, active, status = Verdict.ERROR, (), f"late: {elapsed:.6f} s"
        if verdict is Verdict.ERROR:
            u = self._shaper.brake(c, v, dt)
        return BarrierReport(verdict, nominal, u, least, active, slack, status, elapsed)

    def _decide(self, task: _Task) -> _Decision:
        lower, upper, _ = task.bounds
        wish = np.minimum(np.maximum(task.nominal, lower), upper)
        asked = rows = self.alpha * (self.config.band_m - task.h)
        if task.lowest < self.config.band_m:
            asked = np.minimum(asked, self.config.recovery_m_s)
            rows = self._attainable(asked, task)
        if self._certified(task, wish, rows):
            return self._judge(task, wish, wish, "as asked")
        backup = self._shaper.brake(task.c, task.v, task.dt)
        solved = self._solve(task, wish, rows)
        if solved is None:
            return backup, Verdict.INFEASIBLE, self._tight(task, backup, rows), 0.0, "infeasible"
        active = self._tight(task, solved, rows)
        for blend in _BLENDS:
            u = backup + blend * (solved - backup)
            if self._certified(task, u):
                shortfall = np.where(task.h < self.config.band_m, asked - task.g @ u, 0.0)
                slack = max(0.0, float(shortfall.max(initial=0.0)))
                return self._judge(task, wish, u, f"solved, {blend:g} of the way", active, slack)
        return backup, Verdict.INFEASIBLE, active, 0.0, "no certified stop"

    def _narrow(self, c: np.ndarray, bounds: Bounds) -> Bounds:
        """The hard bounds with the joint limits' own barriers inside them."""
        if bounds.room_rad * self.alpha >= self._fastest:
            return bounds
        slowest = np.minimum(-self.alpha * (c - self._shaper.lower), 0.0)
        fastest = np.maximum(self.alpha * (self._shaper.upper - c), 0.0)
        # Where braking is all that the acceleration allows, the hard bounds win.
        lower = np.minimum(np.maximum(bounds.lower, slowest), bounds.upper)
        upper = np.maximum(np.minimum(bounds.upper, fastest), bounds.lower)
        return Bounds(lower, upper, bounds.room_rad)

    def _attainable(self, asked: np.ndarray, task: _Task) -> np.ndarray:
        """Rates of h (K,) for the QP: what a violated constraint asks for, as far as possible."""
        lower, upper, _ = task.bounds
        best = 0.5 * (task.g @ (upper + lower) + np.abs(task.g) @ (upper - lower))
        rows = np.minimum(asked, best - 0.5 * np.abs(best))
        return np.where(task.h < self.config.band_m, rows, asked)

    def _solve(self, task: _Task, wish: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """The QP over the constraints that can bind in the box."""
        lower, upper, _ = task.bounds
        worst = 0.5 * (task.g @ (upper + lower) - np.abs(task.g) @ (upper - lower))
        near = worst < rows
        if not near.any():
            return wish
        return self._solver(wish, task.g[near], rows[near], lower, upper)

    def _certified(self, task: _Task, u: np.ndarray, rows: np.ndarray | None = None) -> bool:
        """Whether the tick and a full stop after it stay safe, for any lengths of later ticks.

        With `rows`, also whether u gives every constraint the rate asked for.
        """
        moves = np.empty((4, len(u)))
        moves[0] = task.v * (0.5 * task.dt)
        moves[1] = moves[0] + u * (0.5 * task.dt)
        moves[2] = moves[1] + u * self._shaper.stop_way_s(u)
        moves[3] = u
        if self.names:
            size = np.abs(moves[:3])
            spare = moves @ task.g.T
            spare[:3] += np.maximum(task.h, 0.0)
            spare[:3] -= (((size @ self._half_curvature) * size) @ self._ones)[:, None]
            if rows is None:
                spare = spare[:3]
            else:
                spare[3] -= rows
            if not spare.min() >= -_TOLERANCE:  # NaN too
                return False
        if task.bounds.room_rad > self._shaper.far:
            return True
        end = task.c + moves[2]
        low = np.minimum(self._shaper.lower, task.c) - _TOLERANCE
        high = np.maximum(self._shaper.upper, task.c) + _TOLERANCE
        return bool((end >= low).all() and (end <= high).all())

    def _tight(self, task: _Task, u: np.ndarray, rows: np.ndarray) -> tuple[str, ...]:
        """Names of the constraints that leave u no way on."""
        return tuple(self.names[k] for k in np.flatnonzero(task.g @ u - rows < 1e-6))

    def _judge(
        self,
        task: _Task,
        wish: np.ndarray,
        u: np.ndarray,
        status: str,
        active: tuple[str, ...] = (),
        slack: float = 0.0,
    ) -> _Decision:
        """Pass if `u` is what was asked for; the box counts as the joint limits' constraint."""
        if same(u, task.nominal):
            return task.nominal, Verdict.PASS, (), 0.0, status
        boxed = (self._joint_names[k] for k in np.flatnonzero(wish != task.nominal))
        return u, Verdict.MODIFIED, (*active, *(f"joint/{name}" for name in boxed)), slack, status
