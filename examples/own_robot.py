"""A robot of your own: one `RobotKit`, and every task, guard and process takes it.

    python examples/own_robot.py

The arm is a small one of six hinges, drawn with capsules in MuJoCo's XML; yours may come from any
MJCF or URDF file. What the kit needs beside the model: its limits, with where they come from; what
its parts are called; balls that cover it, so that the barrier filter knows where it is; the box in
which its hand works; the topics under which ROS 2 has it.

The file itself is the plug-in, found by its path:

    gymnasium.make("robo_rl/Arm-v0", robot="examples/own_robot.py:DESK_ARM", task=...)

An installed package offers a kit under the entry point group `robo_rl.robots`.
"""

import functools
import pathlib

import gymnasium
import mujoco
import numpy as np

import robo_rl.envs  # registers robo_rl/Arm-v0
from robo_rl.hardware.bridges.topics import ArmTopics
from robo_rl.hardware.contracts import ArmSpec, CommandMode, GripperSpec
from robo_rl.hardware.guard.points import ArmBody, BodyPoint, balls_along
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.twin.mujoco_device import SceneNames

# Bodies nest from base to hand. With all joints at 0 the upper arm stands, the forearm points to
# +x and the hand down, its tool frame turned by half a turn about x: "down" for every task.
ARM = """
<mujoco model="desk_arm">
  <compiler angle="radian"/>
  <option timestep="0.002" integrator="implicitfast"/>
  <default>
    <joint damping="1" armature="0.05"/>
    <geom type="capsule" group="2" contype="2" conaffinity="1" rgba="0.9 0.9 0.9 1" density="600"/>
    <position kp="800" kv="60" forcerange="-80 80" ctrlrange="-3 3"/>
  </default>
  <worldbody>
    <body name="pillar">
      <geom size="0.05" fromto="0 0 0.05 0 0 0.15"/>
      <body name="shoulder" pos="0 0 0.2" gravcomp="1">
        <joint name="turn" axis="0 0 1" range="-3 3"/>
        <geom size="0.045" fromto="0 -0.03 0 0 0.03 0"/>
        <body name="upper_arm" gravcomp="1">
          <joint name="shoulder" axis="0 1 0" range="-2 2"/>
          <geom size="0.035" fromto="0 0 0 0 0 0.3"/>
          <body name="forearm" pos="0 0 0.3" gravcomp="1">
            <joint name="elbow" axis="0 1 0" range="-2.5 2.5"/>
            <geom size="0.03" fromto="0 0 0 0.3 0 0"/>
            <body name="wrist" pos="0.3 0 0" gravcomp="1">
              <joint name="bend" axis="0 1 0" range="-2.5 2.5"/>
              <geom size="0.028" fromto="0 0 0 0 0 -0.05"/>
              <body name="palm" pos="0 0 -0.05" gravcomp="1">
                <joint name="tilt" axis="1 0 0" range="-2.5 2.5"/>
                <geom size="0.025" fromto="0 0 0 0 0 -0.04"/>
                <body name="hand" pos="0 0 -0.04" gravcomp="1">
                  <joint name="roll" axis="0 0 1" range="-3 3"/>
                  <geom size="0.02" fromto="0 -0.03 -0.02 0 0.03 -0.02"/>
                  <site name="tool" pos="0 0 -0.1" quat="0 1 0 0"/>
                  <body name="left_finger" pos="0 0.03 -0.02" gravcomp="1">
                    <joint name="left_finger" axis="-1 0 0" range="0 0.4"/>
                    <geom size="0.01" fromto="0 0 -0.02 0 0 -0.07"/>
                  </body>
                  <body name="right_finger" pos="0 -0.03 -0.02" gravcomp="1">
                    <joint name="right_finger" axis="1 0 0" range="0 0.4"/>
                    <geom size="0.01" fromto="0 0 -0.02 0 0 -0.07"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality><joint joint1="right_finger" joint2="left_finger"/></equality>
  <actuator>
    <position name="turn" joint="turn"/>
    <position name="shoulder" joint="shoulder"/>
    <position name="elbow" joint="elbow"/>
    <position name="bend" joint="bend"/>
    <position name="tilt" joint="tilt" kp="200" kv="15"/>
    <position name="roll" joint="roll" kp="200" kv="15"/>
    <position name="grip" joint="left_finger" kp="20" kv="1" ctrlrange="0 0.4"/>
  </actuator>
</mujoco>
"""

JOINTS = ("turn", "shoulder", "elbow", "bend", "tilt", "roll")

SPEC = ArmSpec(
    name="desk_arm",
    joint_names=JOINTS,
    position_lower_rad=(-3.0, -2.0, -2.5, -2.5, -2.5, -3.0),
    position_upper_rad=(3.0, 2.0, 2.5, 2.5, 2.5, 3.0),
    soft_margin_rad=0.05,
    velocity_rad_s=(2.0,) * 6,
    acceleration_rad_s2=(20.0,) * 6,
    effort_nm=(80.0,) * 6,
    base_frame="base_link",
    tool_frame="tool",
    home_rad=(0.0,) * 6,
    modes=(CommandMode.JOINT_POSITION,),
    servo_hz=500.0,
    watchdog_s=0.1,
    gripper=GripperSpec(joint_name="left_finger", closed_rad=0.4, opening_m=0.06, force_n=20.0),
    source="Invented for this example; a real arm's numbers name a data sheet or a driver's file.",
)

NAMES = SceneNames(
    arm_joints=JOINTS,
    arm_actuators=JOINTS,
    gripper_joint="left_finger",
    gripper_actuator="grip",
    gripper_body="hand",
    payload_body="hand",
    pad_body="left_finger",
    tool_site="tool",
    objects={},
    targets={},
    gripper_closed_ctrl=0.4,
)

# Balls over every capsule from the upper arm on. Those fingers swing inwards, so that where they
# are when open is where they reach farthest.
FOREARM = balls_along("forearm", "forearm", (0.0, 0.0, 0.0), (0.3, 0.0, 0.0), 0.03, 6)
WRIST = balls_along("wrist", "wrist", (0.0, 0.0, 0.0), (0.0, 0.0, -0.09), 0.028, 3)
HAND = balls_along("hand", "hand", (0.0, -0.03, -0.02), (0.0, 0.03, -0.02), 0.02, 3)
LINKS = (
    *balls_along("upper_arm", "upper_arm", (0.0, 0.0, 0.0), (0.0, 0.0, 0.3), 0.035, 6),
    *FOREARM,
    *WRIST,
    *HAND,
)
TIPS = tuple(
    BodyPoint(f"tip_{i}", "hand", (x, y, -0.1))
    for i, (x, y) in enumerate(((-0.01, -0.04), (-0.01, 0.04), (0.01, -0.04), (0.01, 0.04)))
)
BODY = ArmBody(
    links=LINKS,
    fingers=(
        *balls_along("left", "hand", (0.0, 0.03, -0.04), (0.0, 0.03, -0.09), 0.01, 3),
        *balls_along("right", "hand", (0.0, -0.03, -0.04), (0.0, -0.03, -0.09), 0.01, 3),
        *balls_along("between", "hand", (0.0, -0.02, -0.08), (0.0, 0.02, -0.08), 0.015, 3),
    ),
    corners=TIPS,
    tool=BodyPoint("tool", "hand", (0.0, 0.0, -0.1)),
    above_table=(*FOREARM, *WRIST, *HAND, *TIPS),
)


@functools.cache
def model() -> mujoco.MjModel:
    """The nominal arm alone."""
    return mujoco.MjModel.from_xml_string(ARM)


def world() -> mujoco.MjSpec:
    """The arm on a floor, with light and a camera: what a task furnishes."""
    scene = mujoco.MjSpec.from_string(ARM)
    floor = scene.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE)
    floor.size, floor.rgba, floor.contype = (1.0, 1.0, 0.01), (0.3, 0.35, 0.4, 1.0), 1
    scene.worldbody.add_light(pos=(0.3, 0.0, 1.5), dir=(0.0, 0.0, -1.0))
    scene.worldbody.add_camera(name="front", pos=(1.2, 0.0, 0.6), quat=(0.56, 0.43, 0.43, 0.56))
    return scene


DESK_ARM = RobotKit(
    spec=SPEC,
    model=model,
    world=world,
    names=NAMES,
    body=BODY,
    workspace_m=((0.2, -0.2, 0.08), (0.4, 0.2, 0.3)),
    tool_box_m=((0.1, -0.3, 0.0), (0.5, 0.3, 0.5)),
    distal_body="forearm",
    topics=ArmTopics(
        joint_states="/desk/joint_states",
        positions="/desk/positions/commands",
        trajectory="/desk/trajectory/joint_trajectory",
        gripper="/desk/gripper/commands",
    ),
    fingers={"left_finger": 0.4, "right_finger": 0.4},
)


def main(episodes: int = 10) -> float:
    """Play the task of own_task.py on this arm, barrier filter on. Returns the success rate."""
    here = pathlib.Path(__file__).resolve()
    env = gymnasium.make(
        robo_rl.envs.ARM_ENV_ID,
        robot=f"{here}:DESK_ARM",
        task=f"{here.with_name('own_task.py')}:Hover",
        barrier={"held_object_m": 0.0},
    )
    reached, touched = 0, 0
    for seed in range(episodes):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            way = observation[3:] - observation[:3] + np.array((0.0, 0.0, 0.08))
            action = np.append(np.clip(way / 0.05, -1.0, 1.0), (0.0, 0.0)).astype(np.float32)
            observation, _, terminated, truncated, info = env.step(action)
            touched += any(reason.startswith("barrier") for reason in info["guard_reasons"])
            over = terminated or truncated
        reached += info["success"]
    env.close()
    print(f"{DESK_ARM.name}: {reached} of {episodes} episodes succeed; limits {SPEC.digest()}")
    print(f"the barrier filter changed {touched} steps")
    return reached / episodes


if __name__ == "__main__":
    main()
