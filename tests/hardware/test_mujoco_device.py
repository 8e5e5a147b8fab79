"""The simulated device, on a hand-made arm of one joint: its motion is known in closed form."""

import dataclasses
import math
import pathlib

import mujoco
import numpy as np
import pytest

from robo_rl.hardware.contracts import ArmSpec, CommandMode, GripperSpec, Pose
from robo_rl.hardware.errors import NotConnected
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import (
    MujocoDevice,
    Scene,
    SceneNames,
    load_scene,
    save_scene,
)

STEP_S = 0.002
XML = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 .1" pos="0 0 -0.5"/>
    <body name="link" pos="0 0 0.5">
      <joint name="hinge" type="hinge" axis="0 0 1" damping="50"/>
      <geom type="capsule" fromto="0 0 0 .5 0 0" size=".02" mass="1"/>
      <body name="hand" pos=".5 0 0">
        <geom type="box" size=".02 .02 .02" mass=".1"/>
        <site name="tool" pos=".1 0 0" quat="0.7071067811865476 0 0 0.7071067811865476"/>
        <body name="pad" pos=".05 0 0">
          <joint name="finger" type="slide" axis="0 1 0" range="0 .8"/>
          <geom type="box" size=".01 .01 .01" mass=".01"/>
        </body>
      </body>
    </body>
    <body name="cube" pos=".3 0 -0.46">
      <freejoint name="cube_free"/>
      <geom type="box" size=".02 .02 .02" mass=".1" friction="0.5 0.005 0.0001"/>
    </body>
    <body name="target" mocap="true"/>
  </worldbody>
  <actuator>
    <position name="servo" joint="hinge" kp="5000"/>
    <position name="fingers" joint="finger" kp="0.01"/>
  </actuator>
</mujoco>
"""
NAMES = SceneNames(
    arm_joints=("hinge",),
    arm_actuators=("servo",),
    gripper_joint="finger",
    gripper_actuator="fingers",
    gripper_body="hand",
    payload_body="hand",
    pad_body="pad",
    tool_site="tool",
    objects={"cube": "cube_free"},
    targets={"cube": "target"},
)
SPEC = ArmSpec(
    name="one",
    joint_names=("hinge",),
    position_lower_rad=(-3.0,),
    position_upper_rad=(3.0,),
    soft_margin_rad=0.1,
    velocity_rad_s=(2.0,),
    acceleration_rad_s2=(10.0,),
    effort_nm=(100.0,),
    base_frame="world",
    tool_frame="tool",
    home_rad=(0.25,),
    modes=(CommandMode.JOINT_POSITION,),
    servo_hz=500.0,
    watchdog_s=0.1,
    gripper=GripperSpec("finger", closed_rad=0.8, opening_m=0.08, force_n=100.0),
    source="hand-made",
)
STILL = Pose(np.array([0.3, 0.1, -0.48]), np.array([1.0, 0.0, 0.0, 0.0]))
NAN = np.array([math.nan])


@pytest.fixture
def scene() -> Scene:
    return Scene(mujoco.MjModel.from_xml_string(XML), NAMES)


def opened(scene: Scene, gap: DomainGap | None = None) -> MujocoDevice:
    device = MujocoDevice(scene, SPEC, gap)
    device.open()
    return device


def setpoints(device: MujocoDevice, count: int) -> list[float]:
    """Servo target during each of the next `count` physics steps."""
    seen = []
    for _ in range(count):
        device.pass_time(device.now_s() + STEP_S)
        seen.append(float(device.data.ctrl[0]))
    return seen


def test_it_opens_at_home_and_refuses_use_before_that(scene: Scene) -> None:
    device = MujocoDevice(scene, SPEC)
    with pytest.raises(NotConnected):
        device.read()
    with pytest.raises(NotConnected):
        device.write(np.zeros(1), np.zeros(1), 0.0)
    device.open()
    assert device.read().q_rad == pytest.approx([0.25])
    device.close()
    device.close()
    with pytest.raises(NotConnected):
        device.pass_time(1.0)


def test_only_pass_time_moves_the_clock_in_whole_steps(scene: Scene) -> None:
    device = opened(scene)
    device.read()
    assert device.now_s() == 0.0
    device.pass_time(0.01)
    assert device.now_s() == pytest.approx(0.01)
    device.pass_time(0.005)
    assert device.now_s() == pytest.approx(0.01)
    device.pass_time(0.0101)
    assert device.now_s() == pytest.approx(0.012)


def test_a_reset_does_not_turn_the_clock_back_and_forgets_the_command(scene: Scene) -> None:
    device = opened(scene)
    device.write(np.array([1.0]), NAN, 1.0)
    device.pass_time(0.1)
    device.reset_scene(np.array([-0.5]), {"cube": STILL}, {"cube": STILL})
    assert device.now_s() == pytest.approx(0.1)
    device.pass_time(0.2)
    state = device.read()
    assert state.q_rad == pytest.approx([-0.5], abs=1e-3)
    assert state.gripper_closedness == pytest.approx(0.0, abs=1e-3)
    assert state.objects["cube"].position_m == pytest.approx(STILL.position_m, abs=1e-3)
    assert device.data.mocap_pos[0] == pytest.approx(STILL.position_m)


def test_a_write_with_velocities_moves_the_setpoint_with_constant_acceleration(
    scene: Scene,
) -> None:
    """From rest at 0.25 with 10 rad/s^2 for 10 ms: 0.25 + 5 t^2, at the end of each 2 ms step."""
    device = opened(scene)
    device.write(np.array([0.25 + 5 * 0.01**2]), np.array([0.1]), 0.0)
    device.pass_time(0.01)
    rows = device._queue[-1][1][:, 0]
    times = STEP_S * np.arange(1, 6)
    np.testing.assert_allclose(rows, 0.25 + 5 * times**2, atol=1e-12)
    # The next tick starts at that velocity: 0.1 t - 5 t^2 brings it to rest again.
    device.write(np.array([0.25 + 0.001]), np.array([0.0]), 0.0)
    device.pass_time(0.02)
    rows = device._queue[-1][1][:, 0]
    np.testing.assert_allclose(rows, 0.2505 + 0.1 * times - 5 * times**2, atol=1e-12)


def test_a_write_with_nan_velocities_is_a_step(scene: Scene) -> None:
    device = opened(scene)
    device.write(np.array([0.6]), NAN, 0.5)
    assert setpoints(device, 2) == [0.6, 0.6]
    assert device.data.ctrl[1] == pytest.approx(127.5)


def test_a_setpoint_is_held_when_nothing_new_is_written(scene: Scene) -> None:
    device = opened(scene)
    device.write(np.array([0.3]), np.array([0.0]), 0.0)
    assert setpoints(device, 3) == pytest.approx([0.3, 0.3, 0.3])


def test_delay_makes_the_servo_follow_later(scene: Scene) -> None:
    device = opened(scene, DomainGap(delay_s=0.006))
    device.write(np.array([0.5]), NAN, 1.0)
    assert setpoints(device, 5) == [0.25, 0.25, 0.25, 0.5, 0.5]


def test_delay_keeps_the_order_of_many_writes(scene: Scene) -> None:
    device = opened(scene, DomainGap(delay_s=0.004))
    seen = []
    for value in (0.3, 0.4, 0.5, 0.6):
        device.write(np.array([value]), NAN, 0.0)
        seen += setpoints(device, 1)
    assert seen == [0.25, 0.25, 0.3, 0.4]


def test_tool_offset_moves_the_gripper_but_not_the_reported_tool(scene: Scene) -> None:
    """At q = 0 the tool frame is turned by 90 degrees about z: its x axis is the world's y axis."""
    offset = 0.03
    nominal, shifted = opened(scene), opened(scene, DomainGap(tool_offset_m=(offset, 0.0, 0.0)))
    for device in (nominal, shifted):
        device.reset_scene(np.zeros(1), {}, {})
    reported = nominal.read().tool.position_m
    assert reported == pytest.approx([0.6, 0.0, 0.5])
    assert shifted.read().tool.position_m == pytest.approx(reported)
    assert shifted.true_tool_position() == pytest.approx([0.6, offset, 0.5])
    assert nominal.true_tool_position() == pytest.approx(reported)
    hands = [device.data.body("hand").xpos for device in (nominal, shifted)]
    assert hands[1] - hands[0] == pytest.approx([0.0, offset, 0.0])


def test_payload_and_friction_change_a_copy_of_the_model(scene: Scene) -> None:
    device = opened(scene, DomainGap(payload_kg=0.4, friction_scale=0.5))
    assert device.model.body("hand").mass[0] == pytest.approx(0.5)
    assert scene.model.body("hand").mass[0] == pytest.approx(0.1)
    cube = device.model.body("cube").geomadr[0]
    assert device.model.geom_friction[cube] == pytest.approx([0.25, 0.005, 0.0001])
    assert scene.model.geom_friction[cube, 0] == pytest.approx(0.5)
    # Derived quantities follow: the arm with its hand and pad weighs 1.51 kg.
    assert device.model.body("link").subtreemass[0] == pytest.approx(1.51)


def test_no_gap_shares_the_model(scene: Scene) -> None:
    assert MujocoDevice(scene, SPEC).model is scene.model
    assert MujocoDevice(scene, SPEC, DomainGap(delay_s=0.1)).model is scene.model


def test_noise_has_the_stated_deviation_and_leaves_the_physics_alone(scene: Scene) -> None:
    device = opened(scene, DomainGap(joint_noise_rad=0.01, object_noise_m=0.002, seed=3))
    device.reset_scene(np.zeros(1), {"cube": STILL}, {})
    states = [device.read() for _ in range(2000)]
    joints = np.array([state.q_rad[0] for state in states])
    cubes = np.array([state.objects["cube"].position_m for state in states])
    assert joints.std() == pytest.approx(0.01, rel=0.1)
    assert abs(joints.mean()) < 0.001
    np.testing.assert_allclose(cubes.std(axis=0), 0.002, rtol=0.1)
    assert device.data.qpos[0] == 0.0


def test_noise_repeats_with_the_seed_and_the_start_only(scene: Scene) -> None:
    def noise(seed: int, q: float) -> float:
        device = opened(scene, DomainGap(joint_noise_rad=0.01, seed=seed))
        device.reset_scene(np.array([q]), {}, {})
        return float(device.read().q_rad[0] - q)

    assert noise(1, 0.5) == noise(1, 0.5)
    assert noise(1, 0.5) != noise(2, 0.5)
    assert noise(1, 0.5) != noise(1, 0.6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_s": -1.0},
        {"payload_kg": -0.1},
        {"friction_scale": 0.0},
        {"joint_noise_rad": math.nan},
        {"tool_offset_m": (0.0, 0.0)},
    ],
)
def test_a_gap_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="DomainGap"):
        DomainGap(**wrong)  # type: ignore[arg-type]


def test_an_unknown_object_is_refused_by_name(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"'ball'.*'cube'"):
        opened(scene).reset_scene(np.zeros(1), {"ball": STILL}, {})


def test_a_diverged_simulation_is_invalid_until_the_next_reset(
    scene: Scene, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    device = opened(scene)
    device.pass_time(0.01)
    device.data.qvel[0] = math.nan
    device.pass_time(0.02)
    assert not device.read().valid
    device.reset_scene(np.zeros(1), {}, {})
    assert device.read().valid


def test_a_saved_scene_loads_with_its_names_and_the_same_physics(
    scene: Scene, tmp_path: pathlib.Path
) -> None:
    path = save_scene(scene, tmp_path / "scene.mjb")
    again = load_scene(path)
    assert again.names == scene.names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.json", "scene.mjb"]
    ends = []
    for one in (scene, again):
        device = opened(one)
        device.write(np.array([0.7]), NAN, 0.0)
        device.pass_time(0.3)
        ends.append(device.data.qpos.copy())
    np.testing.assert_array_equal(*ends)


def test_names_that_do_not_fit_the_spec_are_refused(scene: Scene) -> None:
    names = dataclasses.replace(NAMES, arm_actuators=("servo", "fingers"))
    with pytest.raises(ValueError, match="1 joints"):
        MujocoDevice(Scene(scene.model, names), SPEC)


HALF_RAD = float(np.subtract(SPEC.position_upper_rad, SPEC.position_lower_rad).min() / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"servo_hz": 0.0}, "servo_hz must be > 0"),
        ({"watchdog_s": 0.0}, "watchdog_s must be > 0"),
        ({"velocity_rad_s": (0.0,) * SPEC.joints}, "velocity_rad_s must be > 0"),
        ({"soft_margin_rad": HALF_RAD}, "soft_margin_rad must be in"),
        ({"soft_margin_rad": -0.01}, "soft_margin_rad must be in"),
    ],
)
def test_a_spec_that_leaves_no_room_is_refused(change, message):
    with pytest.raises(ValueError, match=rf"ArmSpec.{message}"):
        dataclasses.replace(SPEC, **change)
    dataclasses.replace(SPEC, soft_margin_rad=0.99 * HALF_RAD)
