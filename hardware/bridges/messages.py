"""Poses and a twin's truth as messages of ROS, and back."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.contracts import Pose


@dataclasses.dataclass(frozen=True)
class TwinTruth:
    """What the simulated arm really does: no noise, the real tool."""

    reset: int
    """`seq` of the last reset."""
    t_host_s: float
    q_rad: np.ndarray  # (J,)
    dq_rad_s: np.ndarray  # (J,)
    tool_m: np.ndarray  # (3,)

    def to_message(self) -> rt.Float64MultiArray:
        """As it is published."""
        head = [float(self.reset), self.t_host_s]
        arrays = (self.q_rad, self.dq_rad_s, self.tool_m)
        return rt.Float64MultiArray(data=head + np.concatenate(arrays).tolist())

    @classmethod
    def from_message(cls, message: rt.Float64MultiArray) -> "TwinTruth":
        """From what was published."""
        numbers = np.array(message.data)
        joints = (len(numbers) - 5) // 2
        q, dq, tool = np.split(numbers[2:], [joints, 2 * joints])
        return cls(int(numbers[0]), float(numbers[1]), q, dq, tool)


def to_ros_pose(pose: Pose) -> rt.RosPose:
    """A pose for the wire: xyzw."""
    x, y, z = pose.position_m.tolist()
    qw, qx, qy, qz = pose.quaternion_wxyz.tolist()
    return rt.RosPose(rt.Point(x, y, z), rt.Quaternion(qx, qy, qz, qw))


def from_ros_pose(pose: rt.RosPose) -> Pose | None:
    """A pose from the wire: wxyz. None when it is not finite or its quaternion not of length 1."""
    p, q = pose.position, pose.orientation
    position = np.array([p.x, p.y, p.z])
    quaternion = np.array([q.w, q.x, q.y, q.z])
    length = float(np.sqrt(quaternion @ quaternion))
    if not np.isfinite(position).all() or not abs(length - 1.0) < 0.01:
        return None
    return Pose(position, quaternion / length)


def pose_to_list(pose: Pose) -> list[float]:
    """Position and quaternion wxyz, 7 numbers."""
    return [*pose.position_m.tolist(), *pose.quaternion_wxyz.tolist()]


def pose_from_list(numbers: Sequence[float]) -> Pose:
    """The pose of `pose_to_list`."""
    values = np.array(numbers, dtype=float)
    if values.shape != (7,) or not np.isfinite(values).all():
        raise ValueError(f"a pose must be 7 finite numbers, got {numbers}")
    return Pose(values[:3], values[3:])
