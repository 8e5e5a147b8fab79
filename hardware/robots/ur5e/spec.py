"""The Universal Robots UR5e with a Robotiq 2F-85 gripper."""

import math

from robo_rl.hardware.contracts import ArmSpec, CommandMode, GripperSpec

UR5E = ArmSpec(
    name="ur5e",
    joint_names=(
        "shoulder_pan_joint",
        "shoulder_lift_joint",
        "elbow_joint",
        "wrist_1_joint",
        "wrist_2_joint",
        "wrist_3_joint",
    ),
    position_lower_rad=(-2 * math.pi, -2 * math.pi, -math.pi, *[-2 * math.pi] * 3),
    position_upper_rad=(2 * math.pi, 2 * math.pi, math.pi, *[2 * math.pi] * 3),
    soft_margin_rad=0.05,
    velocity_rad_s=(math.pi,) * 6,
    acceleration_rad_s2=(40.0,) * 6,
    effort_nm=(150.0, 150.0, 150.0, 28.0, 28.0, 28.0),
    base_frame="base",
    tool_frame="pinch",
    home_rad=(-math.pi / 2, -math.pi / 2, math.pi / 2, -math.pi / 2, -math.pi / 2, 0.0),
    modes=(CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TRAJECTORY),
    servo_hz=500.0,
    watchdog_s=0.1,
    gripper=GripperSpec(
        joint_name="robotiq_85_left_knuckle_joint", closed_rad=0.8, opening_m=0.085, force_n=235.0
    ),
    source=(
        "Position, velocity and effort limits: ur_description, config/ur5e/joint_limits.yaml "
        "(elbow limited to half a turn, as there). Acceleration: the largest value that the UR "
        "controller takes for a joint move, UR_JOINT_ACCELERATION_MAX of ur_rtde. Servo rate: "
        "e-Series, 500 Hz. Home: the start pose of OGBench's tasks. Gripper: Robotiq 2F-85 manual."
    ),
)
