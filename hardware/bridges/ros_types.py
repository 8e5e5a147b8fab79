"""ROS 2 messages as DDS types: the names and the bytes that ROS 2 puts on the wire.

ROS 2 calls `sensor_msgs/msg/JointState` `sensor_msgs::msg::dds_::JointState_` on the wire and sends
it in XCDR1, which final types give. Field order and widths are those of the .msg files of Jazzy.
"""

import dataclasses
from typing import Annotated

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import array, float64, int32, sequence, uint8, uint32

Floats = Annotated[list[float], sequence[float64]]
Strings = Annotated[list[str], sequence[str]]


@dataclasses.dataclass
@final
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    """Seconds and nanoseconds since the epoch."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclasses.dataclass
@final
class Duration(IdlStruct, typename="builtin_interfaces.msg.dds_.Duration_"):
    """A span of time; `nanosec` counts forwards even when `sec` is negative."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclasses.dataclass
@final
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    """When, and in which frame."""

    stamp: Time = dataclasses.field(default_factory=Time)
    frame_id: str = ""


@dataclasses.dataclass
@final
class String(IdlStruct, typename="std_msgs.msg.dds_.String_"):
    """Text."""

    data: str = ""


@dataclasses.dataclass
@final
class MultiArrayDimension(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayDimension_"):
    """One axis of a multi-array."""

    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


@dataclasses.dataclass
@final
class MultiArrayLayout(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayLayout_"):
    """Axes of a multi-array; controllers leave it empty."""

    dim: Annotated[list[MultiArrayDimension], sequence[MultiArrayDimension]] = dataclasses.field(
        default_factory=list
    )
    data_offset: uint32 = 0


@dataclasses.dataclass
@final
class Float64MultiArray(IdlStruct, typename="std_msgs.msg.dds_.Float64MultiArray_"):
    """Numbers in an order that sender and receiver agreed on: the streaming command of ROS."""

    layout: MultiArrayLayout = dataclasses.field(default_factory=MultiArrayLayout)
    data: Floats = dataclasses.field(default_factory=list)


@dataclasses.dataclass
@final
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    """Joints in any order; velocity and effort may be left empty."""

    header: Header = dataclasses.field(default_factory=Header)
    name: Strings = dataclasses.field(default_factory=list)
    position: Floats = dataclasses.field(default_factory=list)
    velocity: Floats = dataclasses.field(default_factory=list)
    effort: Floats = dataclasses.field(default_factory=list)


@dataclasses.dataclass
@final
class JointTrajectoryPoint(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectoryPoint_"):
    """One waypoint, at a time from the start of its trajectory."""

    positions: Floats = dataclasses.field(default_factory=list)
    velocities: Floats = dataclasses.field(default_factory=list)
    accelerations: Floats = dataclasses.field(default_factory=list)
    effort: Floats = dataclasses.field(default_factory=list)
    time_from_start: Duration = dataclasses.field(default_factory=Duration)


@dataclasses.dataclass
@final
class JointTrajectory(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectory_"):
    """Waypoints of the named joints."""

    header: Header = dataclasses.field(default_factory=Header)
    joint_names: Strings = dataclasses.field(default_factory=list)
    points: Annotated[list[JointTrajectoryPoint], sequence[JointTrajectoryPoint]] = (
        dataclasses.field(default_factory=list)
    )


@dataclasses.dataclass
@final
class Point(IdlStruct, typename="geometry_msgs.msg.dds_.Point_"):
    """A position in m."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclasses.dataclass
@final
class Quaternion(IdlStruct, typename="geometry_msgs.msg.dds_.Quaternion_"):
    """A rotation, xyzw: ROS's order, not ours."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


@dataclasses.dataclass
@final
class RosPose(IdlStruct, typename="geometry_msgs.msg.dds_.Pose_"):
    """A position and a rotation."""

    position: Point = dataclasses.field(default_factory=Point)
    orientation: Quaternion = dataclasses.field(default_factory=Quaternion)


@dataclasses.dataclass
@final
class PoseStamped(IdlStruct, typename="geometry_msgs.msg.dds_.PoseStamped_"):
    """A pose with its time and frame."""

    header: Header = dataclasses.field(default_factory=Header)
    pose: RosPose = dataclasses.field(default_factory=RosPose)


@dataclasses.dataclass
@final
class Gid(IdlStruct, typename="rmw_dds_common.msg.dds_.Gid_"):
    """The identifier of a DDS entity."""

    data: Annotated[bytes, array[uint8, 16]] = bytes(16)


@dataclasses.dataclass
@final
class NodeEntitiesInfo(IdlStruct, typename="rmw_dds_common.msg.dds_.NodeEntitiesInfo_"):
    """The readers and writers of one node."""

    node_namespace: str = "/"
    node_name: str = ""
    reader_gid_seq: Annotated[list[Gid], sequence[Gid]] = dataclasses.field(default_factory=list)
    writer_gid_seq: Annotated[list[Gid], sequence[Gid]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
@final
class ParticipantEntitiesInfo(
    IdlStruct, typename="rmw_dds_common.msg.dds_.ParticipantEntitiesInfo_"
):
    """The nodes of one process, which `ros2 node list` reads."""

    gid: Gid = dataclasses.field(default_factory=Gid)
    node_entities_info_seq: Annotated[list[NodeEntitiesInfo], sequence[NodeEntitiesInfo]] = (
        dataclasses.field(default_factory=list)
    )


# REP-2016 hashes of Jazzy. A ROS 2 node warns about endpoints that do not announce theirs.
TYPE_HASHES: dict[type[IdlStruct], str] = {
    String: "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    Float64MultiArray: "RIHS01_1025ddc6b9552d191f89ef1a8d2f60f3d373e28b283d8891ddcc974e8c55397f",
    JointState: "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
    JointTrajectory: "RIHS01_179b33eba59d676f6d967ac71fe35e7ca2f64b2f3928f4a018cec115e213796e",
    PoseStamped: "RIHS01_10f3786d7d40fd2b54367835614bff85d4ad3b5dab62bf8bca0cc232d73b4cd8",
    ParticipantEntitiesInfo: (
        "RIHS01_e725f4a506958c79f95dd693b965722c57b19cd18e7eff984f49561b93dc985d"
    ),
}


def stamp(t_s: float) -> Time:
    """A ROS time from seconds; the nanoseconds are rounded down to a microsecond."""
    microseconds = int(t_s * 1e6)
    return Time(microseconds // 1_000_000, microseconds % 1_000_000 * 1000)


def seconds(t: Time | Duration) -> float:
    """Seconds of a ROS time or duration."""
    return float(t.sec) + float(t.nanosec) * 1e-9
