"""The bytes of our DDS types against an independent CDR implementation (rosbags)."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from robo_rl.hardware.bridges import ros_types as rt

STORE = get_typestore(Stores.ROS2_JAZZY)

HEADER = rt.Header(rt.Time(1_700_000_000, 123_456_789), "base")
POINTS = [
    rt.JointTrajectoryPoint([0.1, -0.2], [1.0, 2.0], [], [], rt.Duration(0, 500_000_000)),
    rt.JointTrajectoryPoint([0.3, 0.4], [0.0, 0.0], [5.0, 6.0], [7.0], rt.Duration(1, 0)),
]
GID = rt.Gid(bytes(range(16)))
MESSAGES = [
    rt.JointState(),
    rt.JointState(HEADER, ["a", "böse", ""], [1.0, 2.0, float("nan")], [], [3.0]),
    rt.Float64MultiArray(
        rt.MultiArrayLayout([rt.MultiArrayDimension("joints", 2, 2)], 3), [0.5, float("inf")]
    ),
    rt.JointTrajectory(HEADER, ["a", "b"], POINTS),
    rt.PoseStamped(HEADER, rt.RosPose(rt.Point(1.0, 2.0, 3.0), rt.Quaternion(0.5, 0.5, 0.5, -0.5))),
    rt.String('{"seq": 3}'),
    rt.ParticipantEntitiesInfo(GID, [rt.NodeEntitiesInfo("/", "node", [GID], [GID, GID])]),
]


def ros_name(type_: type) -> str:
    """`sensor_msgs.msg.dds_.JointState_` -> `sensor_msgs/msg/JointState`."""
    package, _, _, name = type_.__idl_typename__.split(".")  # type: ignore[attr-defined]
    return f"{package}/msg/{name.rstrip('_')}"


def to_rosbags(value: Any) -> Any:
    """The same message as an object of rosbags' type store."""
    if not dataclasses.is_dataclass(value):
        if isinstance(value, list) and (not value or isinstance(value[0], float)):
            return np.array(value, dtype=np.float64)
        if isinstance(value, bytes):
            return np.frombuffer(value, dtype=np.uint8)
        return [to_rosbags(item) for item in value] if isinstance(value, list) else value
    fields = {f.name: to_rosbags(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return STORE.types[ros_name(type(value))](**fields)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_bytes_equal_those_of_rosbags(message: Any) -> None:
    theirs = STORE.serialize_cdr(to_rosbags(message), ros_name(type(message)))
    assert bytes(message.serialize()) == bytes(theirs)
    assert repr(type(message).deserialize(bytes(theirs))) == repr(message)


def test_joint_state_by_hand() -> None:
    message = rt.JointState(rt.Header(rt.Time(1, 2), "b"), ["j"], [1.0], [], [])
    expected = (
        "00010000"  # plain CDR, little endian
        "01000000 02000000 02000000 6200 0000"  # stamp, "b" with its terminator, padding
        "01000000 02000000 6a00 0000"  # one name
        "01000000 000000000000f03f"  # one position: 8-aligned after its length
        "00000000 00000000"  # no velocity, no effort
    )
    assert bytes(message.serialize()) == bytes.fromhex(expected.replace(" ", ""))


@pytest.mark.parametrize("type_", rt.TYPE_HASHES, ids=lambda t: t.__name__)
def test_type_hashes_are_those_of_ros(type_: type) -> None:
    assert rt.TYPE_HASHES[type_] == STORE.hash_rihs01(ros_name(type_))


def test_wire_name_is_the_mangled_ros_name() -> None:
    assert rt.JointState.__idl__.idl_transformed_typename == "sensor_msgs::msg::dds_::JointState_"


def test_stamps_survive_a_round_trip() -> None:
    assert rt.seconds(rt.stamp(1234.5)) == pytest.approx(1234.5, abs=1e-6)
    assert rt.seconds(rt.Duration(-1, 500_000_000)) == -0.5


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_types_are_final_for_only_these_travel_in_xcdr1(message: Any) -> None:
    kinds = [type(message)]
    while kinds:
        kind = kinds.pop()
        assert kind.__idl_annotations__["extensibility"] == "final"
        parts = [field.type for field in dataclasses.fields(kind)]
        kinds += [part for part in parts if dataclasses.is_dataclass(part)]
