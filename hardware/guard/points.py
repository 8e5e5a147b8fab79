"""Points and balls fixed to the bodies of an arm, and where they are at a posture."""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

Point = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class BodyPoint:
    """A point fixed to a body, with a radius: a sphere that covers a part of the arm."""

    name: str
    body: str
    position_m: Point
    radius_m: float = 0.0


def balls_along(
    name: str, body: str, start_m: Point, end_m: Point, radius_m: float, count: int
) -> tuple[BodyPoint, ...]:
    """`count` balls that cover a capsule: all within `radius_m` of a line fixed to a body."""
    if count < 2:
        raise ValueError(f"balls_along: a capsule needs 2 balls at least, got {count}")
    start, end = np.array(start_m), np.array(end_m)
    half_gap = float(np.linalg.norm(end - start)) / (count - 1) / 2
    # Midway between two balls, the rim of the capsule is the point farthest from both.
    radius = float(np.hypot(radius_m, half_gap))
    return tuple(
        BodyPoint(f"{name}_{i}", body, tuple((start + t * (end - start)).tolist()), radius)
        for i, t in enumerate(np.linspace(0.0, 1.0, count))
    )


@dataclasses.dataclass(frozen=True)
class ArmBody:
    """What the barrier filter takes an arm for. Together the parts must cover all that moves."""

    links: tuple[BodyPoint, ...]
    """Balls over arm and gripper housing, from the first link that can come near anything."""
    fingers: tuple[BodyPoint, ...]
    """Balls over the fingers at every opening."""
    corners: tuple[BodyPoint, ...]
    """Points whose hull, with the gripper housing's balls, holds the fingers at every opening:
    exact where they meet a table."""
    tool: BodyPoint
    """The point that is kept in the workspace, and that carries a held object."""
    above_table: tuple[BodyPoint, ...]
    """Those of the links that can reach a table, and all corners."""

    @property
    def parts(self) -> tuple[BodyPoint, ...]:
        """All of them: links, fingers, the tool point, corners."""
        return (*self.links, *self.fingers, self.tool, *self.corners)


class PointKinematics:
    """World positions and derivatives of K points of an arm with J joints, by MuJoCo's kinematics.

    Derivatives are formed from the joint axes and anchors: for many points at once that costs less
    than `mj_jac`, to which they are equal.
    """

    def __init__(
        self, model: mujoco.MjModel, joint_names: Sequence[str], points: Sequence[BodyPoint]
    ) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        joints = [model.joint(name).id for name in joint_names]
        bodies = [model.body(point.body).id for point in points]
        chains = [_chain(model, body) for body in bodies]
        self._joints = _run(joints)
        self._dofs = _run([int(model.jnt_qposadr[joint]) for joint in joints])
        moves = [[model.jnt_bodyid[joint] in chain for joint in joints] for chain in chains]
        self.moves = np.array(moves, float)
        """(K, J) 1 where a joint moves a point."""
        self.reach_m = self.moves * np.array(
            [
                [_reach(model, joint, chain, point) for joint in joints]
                for chain, point in zip(chains, points, strict=True)
            ]
        )
        """(K, J) upper bound of the distance of a point from a joint's axis, in any posture."""
        first, last = min(bodies), max(bodies) + 1
        # Points are linear in the positions and rotations of the bodies.
        self._from_position = np.zeros((len(points), 3, last - first, 3))
        self._from_rotation = np.zeros((len(points), 3, last - first, 3, 3))
        for k, (body, point) in enumerate(zip(bodies, points, strict=True)):
            for axis in range(3):
                self._from_position[k, axis, body - first, axis] = 1.0
                self._from_rotation[k, axis, body - first, axis] = point.position_m
        self._from_position = self._from_position.reshape(3 * len(points), -1)
        self._from_rotation = self._from_rotation.reshape(3 * len(points), -1)
        # MjData keeps these buffers for life.
        self._qpos = self._data.qpos[self._dofs]
        self._position = self._data.xpos[first:last].reshape(-1)
        self._rotation = self._data.xmat[first:last].reshape(-1)
        self._axis, self._anchor = self._data.xaxis[self._joints], self._data.xanchor[self._joints]

    def update(self, q: np.ndarray) -> np.ndarray:
        """Put the arm at q (J,) and return the points (K, 3) in m."""
        self._qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)
        points: np.ndarray = self._from_position @ self._position
        points += self._from_rotation @ self._rotation
        return points.reshape(-1, 3)

    def screws(self) -> np.ndarray:
        """(J, 6) rows (a, o x a) of joint axis a through o, at the posture of the last `update`.

        A point p moves along n by (p x n, n) . screw per rad, where `moves` says that it moves.
        """
        screws = np.empty((len(self._axis), 6))
        screws[:, :3] = self._axis
        crossed = (self._axis @ _CROSS).reshape(-1, 3, 3)
        screws[:, 3:] = (self._anchor[:, None, :] @ crossed)[:, 0]
        return screws

    def first_axis(self) -> np.ndarray:
        """World direction (3,) of the first joint's axis, which no joint moves."""
        direction: np.ndarray = self._axis[0].copy()
        return direction


def cross_matrix(a: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix M with p @ M = p x a, linear in a (3,)."""
    x, y, z = a
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


_CROSS = np.stack([cross_matrix(e).ravel() for e in np.eye(3)])
"""(3, 9): a @ _CROSS is `cross_matrix(a)`, raveled."""


def _run(indices: Sequence[int]) -> slice:
    """The slice equal to `indices`, so that looking it up costs no copy."""
    run = slice(indices[0], indices[0] + len(indices))
    if list(indices) != list(range(run.start, run.stop)):
        raise ValueError(f"PointKinematics: the arm's joints must be consecutive, got {indices}")
    return run


def _chain(model: mujoco.MjModel, body: int) -> list[int]:
    """Bodies from `body` down to the base."""
    chain = []
    while body != 0:
        chain.append(body)
        body = int(model.body_parentid[body])
    return chain


def _reach(model: mujoco.MjModel, joint: int, chain: list[int], point: BodyPoint) -> float:
    """Length of the chain of offsets between a joint's anchor and a point."""
    below = []
    for body in chain:
        if body == model.jnt_bodyid[joint]:
            break
        below.append(body)
    lengths = np.linalg.norm(model.body_pos[below], axis=1) if below else np.zeros(1)
    anchor = np.linalg.norm(model.jnt_pos[joint])
    return float(lengths.sum() + anchor + np.linalg.norm(point.position_m))
