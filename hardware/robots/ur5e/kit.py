"""The UR5e with a Robotiq 2F-85, as the toolkit takes a robot."""

from robo_rl.hardware.bridges.topics import ArmTopics
from robo_rl.hardware.robots.kit import Chain, RobotKit
from robo_rl.hardware.robots.ur5e import model
from robo_rl.hardware.robots.ur5e.balls import BODY
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.twin.mujoco_device import SceneNames

_GRIPPER = model.ARM_PREFIX + model.GRIPPER_PREFIX

NAMES = SceneNames(
    arm_joints=tuple(model.ARM_PREFIX + joint for joint in UR5E.joint_names),
    arm_actuators=tuple(
        model.ARM_PREFIX + joint.removesuffix("_joint") for joint in UR5E.joint_names
    ),
    gripper_joint=_GRIPPER + "right_driver_joint",
    gripper_actuator=_GRIPPER + "fingers_actuator",
    gripper_body=_GRIPPER,
    payload_body=_GRIPPER + "base",
    pad_body=_GRIPPER + "right_pad",
    tool_site=model.TOOL_SITE,
    objects={},
    targets={},
)
"""As OGBench's scenes have them too."""

UR_TOPICS = ArmTopics(
    joint_states="/joint_states",
    positions="/forward_position_controller/commands",
    trajectory="/scaled_joint_trajectory_controller/joint_trajectory",
    gripper="/gripper_position_controller/commands",
)
"""Those of ur_robot_driver."""

_CLOSED_RAD = 0.8
_FINGERS = {
    f"{_GRIPPER}{side}_{link}_joint": sign * _CLOSED_RAD
    for side in ("left", "right")
    for link, sign in (("driver", 1.0), ("spring_link", 1.0), ("follower", -1.0))
}

UR5E_KIT = RobotKit(
    spec=UR5E,
    model=model.ur5e_model,
    world=model.ur5e_world,
    names=NAMES,
    body=BODY,
    workspace_m=((0.25, -0.35, 0.02), (0.6, 0.35, 0.35)),  # OGBench's
    tool_box_m=((0.15, -0.45, 0.0), (0.70, 0.45, 0.60)),  # its targets, and home
    distal_body=model.ARM_PREFIX + "forearm_link",
    topics=UR_TOPICS,
    fingers=_FINGERS,
    chain=Chain(
        model.arm_chain, UR5E.joint_names, model.FLANGE_SITE, model.ARM_PREFIX + model.FLANGE_SITE
    ),
)
