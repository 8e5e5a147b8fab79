"""The UR5e with a Robotiq 2F-85 as a MuJoCo model, from the files inside the `ogbench` wheel.

Only the files are read; the package is never imported. Names are those of OGBench's scenes:
`ur5e/` before the arm's, `ur5e/robotiq/` before the gripper's.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

ARM_PREFIX = "ur5e/"
GRIPPER_PREFIX = "robotiq/"
TOOL_SITE = ARM_PREFIX + GRIPPER_PREFIX + "pinch"


def descriptions_folder() -> pathlib.Path:
    """The folder of robot descriptions in the installed `ogbench` package."""
    spec = importlib.util.find_spec("ogbench")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "hardware.model: the UR5e's MuJoCo files ship inside the `ogbench` wheel, which is not "
            "installed here; install it with `pip install ogbench`"
        )
    folder = pathlib.Path(spec.origin).parent / "manipspace" / "descriptions"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"hardware.model: {folder} is missing: this ogbench has no robot descriptions; "
            "install ogbench >= 1.2"
        )
    return folder


def ur5e_model() -> mujoco.MjModel:
    """Arm and gripper alone, base frame at the origin; no table, no objects, OGBench's names."""
    folder = descriptions_folder()
    arm = mujoco.MjSpec.from_file(str(folder / "universal_robots_ur5e" / "ur5e.xml"))
    gripper = mujoco.MjSpec.from_file(str(folder / "robotiq_2f85" / "2f85.xml"))
    for spec in (arm, gripper):
        for key in list(spec.keys):  # a key frame holds the joints of one half only
            spec.delete(key)
    scene = mujoco.MjSpec()
    # Only the kinematics matter here, so the three files may agree on the solver's default options.
    arm.option.integrator = scene.option.integrator
    gripper.option.cone, gripper.option.impratio = scene.option.cone, scene.option.impratio
    arm.attach(gripper, site=arm.site("attachment_site"), prefix=GRIPPER_PREFIX)
    scene.attach(arm, frame=scene.worldbody.add_frame(), prefix=ARM_PREFIX)
    return scene.compile()


@dataclasses.dataclass(frozen=True)
class BodyPoint:
    """A point fixed to a body, with a radius: a sphere that covers a part of the arm."""

    name: str
    body: str
    position_m: tuple[float, float, float]
    radius_m: float = 0.0


def _on(
    body: str, name: str, spheres: Iterable[tuple[float, float, float, float]]
) -> tuple[BodyPoint, ...]:
    return tuple(
        BodyPoint(f"{name}_{i}", ARM_PREFIX + body, (x, y, z), r)
        for i, (x, y, z, r) in enumerate(spheres)
    )


# Smallest balls around clusters of the convex hulls of every geom, rounded up by 2 to 4 mm.
LINK_SPHERES: tuple[BodyPoint, ...] = (
    *_on(
        "upper_arm_link",
        "upper_arm",
        (
            (0.001, -0.081, -0.011, 0.086),
            (0.0, 0.0, 0.034, 0.103),
            (0.0, -0.004, 0.163, 0.108),
            (0.0, 0.0, 0.299, 0.107),
            (0.0, -0.008, 0.416, 0.100),
        ),
    ),
    *_on(
        "forearm_link",
        "forearm",
        (
            (0.002, 0.112, -0.014, 0.091),
            (0.002, 0.012, 0.030, 0.093),
            (0.002, 0.010, 0.159, 0.087),
            (0.001, 0.012, 0.277, 0.082),
            (0.002, 0.003, 0.382, 0.073),
        ),
    ),
    *_on("wrist_1_link", "wrist_1", ((0.0, 0.008, 0.0, 0.072), (0.0, 0.119, 0.003, 0.072))),
    *_on("wrist_2_link", "wrist_2", ((0.0, -0.01, 0.0, 0.066), (0.0, 0.019, 0.097, 0.085))),
    *_on("wrist_3_link", "wrist_3", ((0.0, 0.078, 0.0, 0.050),)),
    *_on("robotiq/base", "gripper", ((0.0, 0.0, 0.013, 0.048), (0.0, 0.0, 0.050, 0.048))),
)
"""Arm and gripper housing from the shoulder on."""

FINGER_SPHERES: tuple[BodyPoint, ...] = _on(
    "robotiq/base",
    "finger",
    (
        (0.0, 0.040, 0.078, 0.046),
        (0.0, 0.032, 0.133, 0.045),
        (0.0, -0.040, 0.078, 0.046),
        (0.0, -0.032, 0.133, 0.045),
    ),
)
"""Both fingers at every opening, as spheres."""

FINGER_CORNERS: tuple[BodyPoint, ...] = _on(
    "robotiq/base",
    "finger_corner",
    tuple(
        (x, y, z, 0.0)
        for x in (-0.0145, 0.0145)
        for y, z in (
            (-0.0745, 0.045),
            (-0.0745, 0.1445),
            (-0.026, 0.163),
            (0.026, 0.163),
            (0.0745, 0.1445),
            (0.0745, 0.045),
        )
    ),
)
"""Together with the housing, a hull of the fingers at every opening: exact where they meet a table
(the closed tips reach 18 mm beyond the pinch point)."""

TOOL_POINT = BodyPoint("tool", ARM_PREFIX + "robotiq/base", (0.0, 0.0, 0.145))
"""The pinch point."""


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
