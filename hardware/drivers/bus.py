"""What is on a DDS domain already, before anything of one's own goes there."""

import time

from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node, Ros2Link
from robo_rl.hardware.bridges.topics import ArmTopics
from robo_rl.hardware.errors import HardwareError

_LOOK_S = 1.0
"""Peers on one machine answer a newcomer within some 50 ms; a loaded machine takes longer."""


def arm_signs(link: Ros2Link, topics: ArmTopics, look_s: float = _LOOK_S) -> list[str]:
    """What speaks for an arm with these topics: its states, and who takes its commands.

    Returns at the first sign, or with none after `look_s`.
    """
    with Node(f"{link.node_name}_look", link.domain_id, link.address, link.allow_network) as node:
        states = node.subscription(topics.joint_states, rt.JointState)
        commands = node.publisher(topics.positions, rt.Float64MultiArray)
        until_s = time.monotonic() + look_s
        while True:
            signs = []
            if states.matched():
                signs.append(f"{topics.joint_states} is published")
            if commands.matched():
                signs.append(f"{topics.positions} is listened to")
            if signs or time.monotonic() > until_s:
                return signs
            time.sleep(0.01)


def refuse_a_second_arm(link: Ros2Link, topics: ArmTopics, way_out: str) -> None:
    """Raise HardwareError where an arm is on the domain already: two would answer every command."""
    if signs := arm_signs(link, topics):
        raise HardwareError(
            f"ROS_DOMAIN_ID {link.domain_id} has an arm already ({', '.join(signs)}); {way_out}"
        )
