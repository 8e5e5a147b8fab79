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


def quaternion_of(axis: int, angle: float) -> kinematics.Quaternion:
    """(cos(angle / 2), sin(angle / 2) along an axis)."""
    w, vector = math.cos(angle / 2), [0.0, 0.0, 0.0]
    vector[axis] = math.sin(angle / 2)
    return (w, *vector)


def test_a_product_of_quaternions_is_that_of_their_rotations() -> None:
    """MuJoCo's own product, and rotations one after the other."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (tuple((q / np.linalg.norm(q)).tolist()) for q in rng.normal(size=(2, 4)))
        expected = np.empty(4)
        mujoco.mju_mulQuat(expected, np.array(a), np.array(b))
        np.testing.assert_allclose(kinematics.multiply(a, b), expected, atol=1e-15)
        vector = tuple(rng.normal(size=3).tolist())
        turned = np.empty(3)
        mujoco.mju_rotVecQuat(turned, np.array(vector), np.array(a))
        np.testing.assert_allclose(kinematics.rotate(a, vector), turned, atol=1e-14)
        np.testing.assert_allclose(
            kinematics.rotate(kinematics.inverse(a), kinematics.rotate(a, vector)), vector
        )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 9e-6, 1.1e-5, 1e-3, 0.5, -2.0, 3.1])
def test_a_turn_about_the_vertical_has_half_the_angle_in_its_quaternion(angle: float) -> None:
    """The series for small angles and the formula for the others are the same function."""
    expected = quaternion_of(2, angle)
    np.testing.assert_allclose(kinematics.yaw_quaternion(angle), expected, rtol=1e-14, atol=1e-300)
    # Half a turn about x, then the yaw.
    down = kinematics.multiply(expected, (0.0, 1.0, 0.0, 0.0))
    np.testing.assert_allclose(kinematics.down_quaternion(angle), down, rtol=1e-14, atol=1e-300)


def test_the_yaw_of_a_turn_about_another_axis_is_that_of_the_x_axis() -> None:
    """Of Rz(1) Ry(0.5) Rx(-0.4): yaw, pitch and roll are told apart."""
    turn = kinematics.multiply(
        kinematics.multiply(quaternion_of(2, 1.0), quaternion_of(1, 0.5)), quaternion_of(0, -0.4)
    )
    assert kinematics.yaw_rad(np.array(turn)) == pytest.approx(1.0)
    assert kinematics._yaw(turn) == pytest.approx(1.0)


def test_an_action_moves_turns_and_closes_by_what_its_range_says(device, solver) -> None:  # type: ignore[no-untyped-def]
    """1 is 5 cm along each axis, 0.3 rad of yaw, the whole way of the gripper."""
    home = solver.solve(
        WORKSPACE_M.mean(axis=0), kinematics.down_quaternion(0.2), np.array(UR5E.home_rad)
    )
    device.reset_scene(home, {}, {})
    before = device.read()
    for action in np.vstack([np.eye(5), -0.5 * np.eye(5), np.zeros((1, 5))]):
        q, closedness = solver.targets(before, action)
        device.reset_scene(q, {}, {})
        tool = device.read().tool
        np.testing.assert_allclose(
            tool.position_m - before.tool.position_m, 0.05 * action[:3], atol=2.5e-4
        )
        turned = kinematics.yaw_rad(tool.quaternion_wxyz)
        turned -= kinematics.yaw_rad(before.tool.quaternion_wxyz)
        assert turned == pytest.approx(0.3 * action[3], abs=4e-4)
        expected = min(max(before.gripper_closedness + action[4], 0.0), 1.0)
        assert closedness == pytest.approx(expected)


def test_a_solution_stops_within_a_tenth_of_a_millimetre_and_no_joint_turns_far_in_a_step(
    solver,  # type: ignore[no-untyped-def]
) -> None:
    start = np.array(UR5E.home_rad)
    position = WORKSPACE_M.mean(axis=0)
    there = solver.solve(position, kinematics.down_quaternion(0.0), start)
    # At a solution nothing is left to do; a millimetre away it is a small step.
    again = solver.solve(position, kinematics.down_quaternion(0.0), there)
    np.testing.assert_array_equal(again, there)
    position[0] += 0.001
    further = solver.solve(position, kinematics.down_quaternion(0.0), there)
    assert 0.0 < np.abs(further - there).max() < 0.02
    solver._qpos[:] = start
    mujoco.mj_kinematics(solver._model, solver._data)
    solver._error[:] = (5.0, -5.0, 5.0, 3.0, 3.0, 3.0)
    step = solver._newton_step()
    assert np.abs(step).max() == pytest.approx(math.radians(45))
    solver._error[:] = 1e-3 * np.array([1.0, -1.0, 1.0, 0.5, 0.5, 0.5])
    small = solver._newton_step()
    jacobian = solver._jacobian[:, solver._dofs]
    np.testing.assert_allclose(jacobian @ small, solver._error, atol=1e-9)
