"""Robots by name and path, the UR5e's kit against OGBench's scene, worlds with things in them."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import mujoco
import numpy as np
import pytest

from robo_rl.envs.ogbench import scenes
from robo_rl.hardware import robots
from robo_rl.hardware.drivers.ros2_device import Ros2Device
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.robots.scenes import build_scene
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.server.robot_process import (
    RobotProcessConfig,
    arm_device,
    kit_of,
    parse_config,
)
from robo_rl.hardware.twin.mujoco_device import MujocoDevice
from robo_rl.plugins import PluginError
from tests.fakes import FakeDevice

MINE = """
    import dataclasses
    from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT as _base

    SLOW = dataclasses.replace(
        _base, spec=dataclasses.replace(_base.spec, name="slow", velocity_rad_s=(0.5,) * 6)
    )
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(MINE))
    return path


def test_robots_are_found_by_name_and_by_path(mine):
    assert robots.get("ur5e") is UR5E_KIT
    assert robots.get() is UR5E_KIT
    for reference in (str(mine), f"{mine}:SLOW"):
        kit = robots.get(reference)
        assert (kit.name, kit.spec.velocity_rad_s[0]) == ("slow", 0.5)
    with pytest.raises(PluginError, match="no robot is called 'ur5'; is 'ur5e' meant"):
        robots.get("ur5")


def test_the_digest_of_the_ur5e_stays_what_datasets_and_policies_carry():
    assert UR5E.digest() == "228754cebdbaab79"


def test_asking_for_a_robot_loads_no_other_room():
    code = (
        "import sys; from robo_rl.hardware import robots; robots.get('ur5e');"
        "print([name for name in ('jax', 'gymnasium', 'minari') if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_a_process_config_names_the_robot(mine, arm_path):
    config = RobotProcessConfig(socket="x", domain_id=3, robot=str(mine), model=arm_path)
    kit = kit_of(config)
    assert kit.name == "slow"
    assert kit.model().njnt == UR5E_KIT.model().njnt
    assert kit.model() is kit.model()  # read once
    device = arm_device(kit, config)
    assert isinstance(device, Ros2Device)
    assert device.spec.name == "slow"


def test_a_process_keeps_the_tool_in_the_box_of_its_own_robot(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from robo_rl.hardware import robots\n"
        "_box = ((0.2, -0.1, 0.1), (0.3, 0.1, 0.4))\n"
        "MINE = dataclasses.replace(robots.get(), tool_box_m=_box)\n"
    )
    fields = {"socket": "x", "domain_id": 1, "robot": str(path)}
    barrier = parse_config(json.dumps(fields)).barrier
    assert barrier.workspace_lower_m == (0.2, -0.1, 0.1)
    own = {**fields, "barrier": {"workspace_upper_m": [0.9, 0.9, 0.9]}}
    assert parse_config(json.dumps(own)).barrier.workspace_upper_m == (0.9, 0.9, 0.9)
    assert parse_config(json.dumps({**fields, "barrier": None})).barrier is None


def test_a_kit_may_open_its_arm_itself():
    asked = []

    def device(link, objects, timeout_s):
        asked.append((link.domain_id, objects, timeout_s))
        return FakeDevice()

    config = RobotProcessConfig(socket="x", domain_id=3, objects=("cube",), open_timeout_s=1.5)
    made = arm_device(dataclasses.replace(UR5E_KIT, device=device), config)
    assert isinstance(made, FakeDevice)
    assert asked == [(3, ("cube",), 1.5)]


def test_a_barrier_without_a_kit_is_refused():
    with pytest.raises(ValueError, match="needs the robot's kit"):
        ArmController(FakeDevice(), GuardConfig(), barrier=BarrierConfig())


def test_the_barriers_defaults_are_those_of_the_ur5e():
    assert BarrierConfig.of(UR5E_KIT) == BarrierConfig()
    assert BarrierConfig.of(UR5E_KIT, workspace_lower_m=(0.2, -0.1, 0.1)).workspace_lower_m == (
        0.2,
        -0.1,
        0.1,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workspace_m": ((0.0, 0.0, 0.5), (1.0, 1.0, 0.2))}, "workspace_m must be a lower and"),
        ({"tool_box_m": ((1.0, 0.0, 0.0), (0.0, 1.0, 1.0))}, "tool_box_m must be a lower and"),
        ({"names": dataclasses.replace(UR5E_KIT.names, arm_joints=("a",))}, "the 6 joints of the"),
        ({"names": scenes.cube_names(1)}, "names of objects belong to a scene"),
    ],
)
def test_a_kit_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(UR5E_KIT, **changes)


def test_the_ur5es_own_world_moves_as_ogbenchs_scene_does():
    """The same masses, servos, solver and friction for all that is the arm, so the same motion."""
    ours, theirs = build_scene(UR5E_KIT), scenes.compile_cube_scene("single")
    a, b = ours.model, theirs.model
    arm = [b.body(i).name for i in range(b.nbody) if b.body(i).name.startswith("ur5e/robotiq/")]
    for name in arm:
        np.testing.assert_allclose(a.body(name).mass, b.body(name).mass)
        np.testing.assert_allclose(a.body(name).pos, b.body(name).pos, atol=1e-12)
    for field in ("timestep", "integrator", "cone", "impratio", "iterations", "tolerance"):
        assert getattr(a.opt, field) == getattr(b.opt, field), field
    np.testing.assert_allclose(a.actuator_gainprm[:, 0], b.actuator_gainprm[:, 0])
    np.testing.assert_allclose(a.actuator_biasprm, b.actuator_biasprm)
    np.testing.assert_allclose(a.actuator_forcerange, b.actuator_forcerange)
    devices = [MujocoDevice(scene, UR5E) for scene in (ours, theirs)]
    for device in devices:
        device.open()
        target = np.add(UR5E.home_rad, (0.3, 0.2, -0.2, 0.1, 0.4, -0.3))
        device.write(target, np.full(6, np.nan), 0.7)
        device.pass_time(device.now_s() + 0.5)
    x, y = (device.read() for device in devices)
    np.testing.assert_allclose(x.q_rad, y.q_rad, atol=1e-6)
    np.testing.assert_allclose(x.tool.position_m, y.tool.position_m, atol=1e-6)
    assert x.gripper_closedness == pytest.approx(y.gripper_closedness, abs=1e-4)


def test_a_furnished_world_tracks_its_objects_and_markers():
    def furnish(world):
        body = world.worldbody.add_body(name="puck", pos=(0.4, 0.1, 0.02))
        body.add_freejoint()
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.02, 0.02), mass=0.1)

    scene = build_scene(UR5E_KIT, furnish, objects=("puck",), markers=("goal",))
    device = MujocoDevice(scene, UR5E)
    device.open()
    device.pass_time(0.2)
    np.testing.assert_allclose(device.read().objects["puck"].position_m[:2], [0.4, 0.1], atol=1e-3)
    assert list(scene.names.targets) == ["goal"]
    assert build_scene(UR5E_KIT).names.targets == {}


def test_an_object_that_is_not_free_is_refused():
    def furnish(world):
        world.worldbody.add_body(name="wall")

    with pytest.raises(ValueError, match="'wall' must be a body with a free joint"):
        build_scene(UR5E_KIT, furnish, objects=("wall",))
    with pytest.raises(ValueError, match=r"'puck' must be .* no such body"):
        build_scene(UR5E_KIT, objects=("puck",))


def test_the_ur5es_own_world_is_seen_as_ogbenchs_scene_is():
    """The same camera, depth range and lights, so that pictures of the two are alike."""
    ours, theirs = build_scene(UR5E_KIT).model, scenes.compile_cube_scene("single").model
    a, b = ours.camera("front"), theirs.camera("front")
    np.testing.assert_allclose(a.pos, b.pos, atol=1e-6)
    np.testing.assert_allclose(a.quat, b.quat, atol=1e-6)
    assert a.fovy == b.fovy
    np.testing.assert_allclose(ours.stat.center, theirs.stat.center)
    assert ours.stat.extent == pytest.approx(theirs.stat.extent)
    assert ours.vis.map.znear == pytest.approx(theirs.vis.map.znear)
    assert ours.vis.map.zfar == pytest.approx(theirs.vis.map.zfar)
    assert ours.nlight == theirs.nlight


def test_the_arm_and_its_gripper_bring_no_key_frames():
    assert UR5E_KIT.model().nkey == build_scene(UR5E_KIT).model.nkey == 0
