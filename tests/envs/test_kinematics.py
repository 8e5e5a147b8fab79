"""Inverse kinematics and action decoding, compared with OGBench's own, bit for bit."""

import math

import mujoco
import numpy as np
import pytest

from robo_rl.envs import kinematics
from robo_rl.envs.ogbench import scenes
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.twin.mujoco_device import MujocoDevice
from robo_rl.quiet import quiet

WORKSPACE_M = np.array(UR5E_KIT.workspace_m)

DOWN = 0.0


@pytest.fixture(scope="module")
def device() -> MujocoDevice:
    device = MujocoDevice(scenes.compile_cube_scene("single"), UR5E)
    device.open()
    return device


@pytest.fixture(scope="module")
def solver(device: MujocoDevice) -> kinematics.ToolKinematics:
    return kinematics.tool_kinematics(scenes.compile_cube_scene("single"), UR5E_KIT)


def ogbench_env():  # type: ignore[no-untyped-def]
    env = scenes.load_ogbench("manipspace.envs.cube_env").CubeEnv(env_type="single")
    with quiet():
        env.reset(seed=1, options={"task_id": 1})
    return env


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_equal_those_of_ogbench_to_the_last_bit(device, solver, dtype) -> None:  # type: ignore[no-untyped-def]
    env, rng = ogbench_env(), np.random.default_rng(0)
    for _ in range(100):
        action = rng.uniform(-1, 1, 5).astype(dtype)
        device.data.qpos[:] = env.data.qpos
        device.data.site_xpos[:], device.data.site_xmat[:] = env.data.site_xpos, env.data.site_xmat
        q, closedness = solver.targets(device.read(), action)
        env.set_control(action)
        np.testing.assert_array_equal(q, env.data.ctrl[:6])
        assert 255.0 * closedness == env.data.ctrl[6]
        mujoco.mj_step(env.model, env.data, nstep=25)


def test_a_solution_puts_the_tool_where_it_was_asked_for(device, solver) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    for _ in range(20):
        position, yaw = rng.uniform(*WORKSPACE_M), rng.uniform(-3.0, 3.0)
        q = solver.solve(position, kinematics.down_quaternion(yaw), np.array(UR5E.home_rad))
        device.reset_scene(q, {}, {})
        tool = device.read().tool
        assert np.linalg.norm(tool.position_m - position) <= 1.1e-4
        assert kinematics.yaw_rad(tool.quaternion_wxyz) == pytest.approx(yaw, abs=2e-4)
        # The tool's z axis points down.
        assert device.data.site("ur5e/robotiq/pinch").xmat[8] == pytest.approx(-1.0, abs=1e-6)


def test_targets_stay_in_the_workspace(device, solver) -> None:  # type: ignore[no-untyped-def]
    """From just inside a corner, every outward action ends on the corner."""
    corner = WORKSPACE_M[1] - 0.01
    home = np.array(UR5E.home_rad)
    start = solver.solve(corner, kinematics.down_quaternion(DOWN), home)
    device.reset_scene(start, {}, {})
    q, closedness = solver.targets(device.read(), np.array([1.0, 1.0, 1.0, 0.0, 1.0]))
    device.reset_scene(q, {}, {})
    np.testing.assert_allclose(device.read().tool.position_m, WORKSPACE_M[1], atol=2e-4)
    assert closedness == 1.0


def test_yaw_and_its_quaternion_are_inverse() -> None:
    for yaw in (-3.0, -1e-6, 0.0, 1e-6, 0.5, 3.0):
        assert kinematics.yaw_rad(kinematics.yaw_quaternion(yaw)) == pytest.approx(yaw, abs=1e-12)


def test_quaternions_by_hand() -> None:
    """A quarter turn about z takes x to y; two of them are half a turn."""
    quarter = tuple(kinematics.yaw_quaternion(math.pi / 2).tolist())
    assert kinematics.rotate(quarter, (1.0, 0.0, 0.0)) == pytest.approx((0.0, 1.0, 0.0))
    assert kinematics.multiply(quarter, quarter) == pytest.approx((0.0, 0.0, 0.0, 1.0))
    identity = kinematics.multiply(quarter, kinematics.inverse(quarter))
    assert identity == pytest.approx((1.0, 0.0, 0.0, 0.0))
