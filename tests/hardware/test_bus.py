"""Whether an arm is on a DDS domain already."""

import pytest

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node, Ros2Link
from robo_rl.hardware.drivers import bus
from robo_rl.hardware.errors import HardwareError
from robo_rl.hardware.robots.ur5e.kit import UR_TOPICS


def test_a_free_domain_shows_no_arm(domain_id: int) -> None:
    assert bus.arm_signs(Ros2Link(domain_id), UR_TOPICS, look_s=0.2) == []
    bus.refuse_a_second_arm(Ros2Link(domain_id), UR_TOPICS, "go away")


def test_an_arm_shows_by_its_states_and_by_who_takes_its_commands(domain_id: int) -> None:
    with Node("driver", domain_id) as driver:
        states = driver.publisher(UR_TOPICS.joint_states, rt.JointState)
        assert bus.arm_signs(Ros2Link(domain_id), UR_TOPICS) == ["/joint_states is published"]
        del states
    with Node("controller", domain_id) as controller:
        controller.subscription(UR_TOPICS.positions, rt.Float64MultiArray, reliable=True)
        with pytest.raises(
            HardwareError,
            match=rf"{domain_id} has an arm already \(/forward.* is listened to\); go",
        ):
            bus.refuse_a_second_arm(Ros2Link(domain_id), UR_TOPICS, "go away")


def test_who_only_looks_at_an_arm_is_none(domain_id: int) -> None:
    with Node("viewer", domain_id) as viewer:
        viewer.subscription(UR_TOPICS.joint_states, rt.JointState)
        assert bus.arm_signs(Ros2Link(domain_id), UR_TOPICS, look_s=0.3) == []
