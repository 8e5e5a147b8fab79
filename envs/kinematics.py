"""From a relative tool action to joint targets, as OGBench's manipulation tasks define it.

Contacts amplify a rounding error of 1e-15 to 1e-2 within a second of simulation. So everything that
leads to a joint target here rounds as OGBench's own code does: the order of the products, NumPy's
trigonometry, and the float32 of an action are kept.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from robo_rl.hardware.contracts import ArmState
from robo_rl.hardware.robots.kit import Chain, Corner, RobotKit
from robo_rl.hardware.twin.mujoco_device import Scene, run_of

ACTION_RANGE = np.array([0.05, 0.05, 0.05, 0.3, 1.0])
"""An action of 1: metres in x, y, z of the base frame, rad of yaw, closedness of the gripper."""
_ACTION_SPAN = 2 * ACTION_RANGE

_DAMPING = 1e-12
_MAX_ANGLE_RAD = math.radians(45)
_TOLERANCE = 1e-4  # m and rad
_MAX_ITERATIONS = 20


Quaternion = tuple[float, float, float, float]
"""wxyz."""

_DOWN_INVERSE: Quaternion = (0.0, -1.0, -0.0, -0.0)


def yaw_rad(quaternion_wxyz: np.ndarray) -> float:
    """Rotation about the vertical axis, in the convention of OGBench's observations."""
    w, x, y, z = quaternion_wxyz.tolist()
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def yaw_quaternion(yaw: float) -> np.ndarray:
    """Rotation by `yaw` rad about the vertical axis, wxyz."""
    return np.array(_about_z(yaw))


def down_quaternion(yaw: float) -> Quaternion:
    """A tool that points straight down (half a turn about x), turned by `yaw` rad."""
    return multiply(_about_z(yaw), (0.0, 1.0, 0.0, 0.0))


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """The rotation b, then the rotation a."""
    w0, x0, y0, z0 = a
    w1, x1, y1, z1 = b
    return (
        -x0 * x1 - y0 * y1 - z0 * z1 + w0 * w1,
        x0 * w1 + y0 * z1 - z0 * y1 + w0 * x1,
        -x0 * z1 + y0 * w1 + z0 * x1 + w0 * y1,
        x0 * y1 - y0 * x1 + z0 * w1 + w0 * z1,
    )


def inverse(a: Quaternion) -> Quaternion:
    """The rotation that undoes a."""
    return (a[0], -a[1], -a[2], -a[3])


def rotate(a: Quaternion, vector: tuple[float, float, float]) -> tuple[float, float, float]:
    """A vector, rotated."""
    return multiply(multiply(a, (0.0, *vector)), inverse(a))[1:]


def _about_z(angle: float) -> Quaternion:
    square = angle * angle
    if square < 1e-10:
        fourth = square * square
        real, imaginary = 1.0 - square / 8.0 + fourth / 384.0, 0.5 - square / 48.0 + fourth / 3840.0
    else:
        whole = math.sqrt(square)
        half = 0.5 * whole
        real, imaginary = float(np.cos(half)), float(np.sin(half)) / whole
    return (real, 0.0, 0.0, imaginary * angle)


def _yaw(quaternion: Sequence[float]) -> float:
    w, x, y, z = quaternion
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2)))


class ToolKinematics:
    """Differential inverse kinematics of one arm, after OGBench's `DiffIKController`.

    Newton steps with the same tolerance and limits, so that both stop at the same joint angles.
    """

    def __init__(
        self,
        chain: Chain,
        tool_flange: tuple[tuple[float, float, float], Quaternion],
        workspace_m: tuple[Corner, Corner],
    ):
        """`tool_flange` is the pose of the chain's site in the tool frame, (m, wxyz)."""
        self._model = arm_model = chain.model()
        self._data = mujoco.MjData(arm_model)
        self._site = arm_model.site(chain.site).id
        self._xpos, self._xmat = self._data.site_xpos[self._site], self._data.site_xmat[self._site]
        joints = [arm_model.joint(name) for name in chain.joints]
        self._qpos = self._data.qpos[run_of([int(joint.qposadr[0]) for joint in joints])]
        self._dofs = run_of([int(joint.dofadr[0]) for joint in joints])
        self._lowest, self._highest = np.array(workspace_m)
        self._offset, self._turn = tool_flange
        self._jacobian = np.empty((6, arm_model.nv))
        self._translation, self._rotation = self._jacobian[:3], self._jacobian[3:]
        self._error = np.empty(6)
        self._position_error, self._rotation_error = self._error[:3], self._error[3:]
        self._damping = _DAMPING * np.eye(6)
        self._quaternion = np.empty(4)

    def targets(self, state: ArmState, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Joint targets (J,) and gripper target of an action (5,) in [-1, 1] taken in `state`."""
        move = 0.5 * (action + 1) * _ACTION_SPAN
        move -= ACTION_RANGE
        position = state.tool.position_m + move[:3]
        np.maximum(position, self._lowest, out=position)
        np.minimum(position, self._highest, out=position)
        now = _about_z(_yaw(state.tool.quaternion_wxyz.tolist()))
        turned = multiply(multiply(_about_z(float(move[3])), now), _DOWN_INVERSE)
        closedness = min(max(state.gripper_closedness + float(move[4]), 0.0), 1.0)
        return self.solve(position, down_quaternion(_yaw(turned)), state.q_rad), closedness

    def solve(
        self, position: np.ndarray, quaternion: Quaternion, start_q: np.ndarray
    ) -> np.ndarray:
        """Joint angles (J,) near `start_q` that bring the tool to a pose: (3,) m, wxyz."""
        flange = np.array(rotate(quaternion, self._offset)) + position
        turn, now = np.array(multiply(quaternion, self._turn)), self._quaternion
        self._qpos[:] = start_q
        model, data = self._model, self._data
        position_error, rotation_error = self._position_error, self._rotation_error
        for _ in range(_MAX_ITERATIONS):
            mujoco.mj_kinematics(model, data)
            np.subtract(flange, self._xpos, out=position_error)
            mujoco.mju_mat2Quat(now, self._xmat)
            mujoco.mju_negQuat(now, now)
            mujoco.mju_mulQuat(now, turn, now)
            mujoco.mju_quat2Vel(rotation_error, now, 1.0)
            if (
                position_error.dot(position_error) <= _TOLERANCE**2
                and rotation_error.dot(rotation_error) <= _TOLERANCE**2
            ):
                break
            self._qpos += self._newton_step()
        return np.array(self._qpos)

    def _newton_step(self) -> np.ndarray:
        """Damped least squares, scaled so that no joint turns too far at once."""
        mujoco.mj_comPos(self._model, self._data)  # what mj_jacSite needs beside the kinematics
        mujoco.mj_jacSite(self._model, self._data, self._translation, self._rotation, self._site)
        jacobian = self._jacobian[:, self._dofs]
        gram = jacobian @ jacobian.T
        gram += self._damping
        step = jacobian.T @ np.linalg.solve(gram, self._error)
        largest = float(np.abs(step).max())
        if largest > _MAX_ANGLE_RAD:
            step *= _MAX_ANGLE_RAD / largest
        return np.asarray(step)


def tool_kinematics(scene: Scene, kit: RobotKit) -> ToolKinematics:
    """Kinematics for the robot of a scene."""
    names = kit.names
    chain = kit.chain or Chain(kit.model, names.arm_joints, names.tool_site, names.tool_site)
    data = mujoco.MjData(scene.model)
    mujoco.mj_kinematics(scene.model, data)
    tool, flange = data.site(names.tool_site), data.site(chain.scene_site)
    back = inverse(_quaternion(tool.xmat))
    away, there = rotate(back, tuple(tool.xpos.tolist())), rotate(back, tuple(flange.xpos.tolist()))
    offset = (there[0] - away[0], there[1] - away[1], there[2] - away[2])
    turn = multiply(back, _quaternion(flange.xmat))
    return ToolKinematics(chain, (offset, turn), kit.workspace_m)


def _quaternion(matrix: np.ndarray) -> Quaternion:
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, matrix)
    w, x, y, z = quaternion.tolist()
    return (w, x, y, z)
