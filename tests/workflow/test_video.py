"""Films: what is stored for the child that renders them, and how a gripper is posed."""

import mujoco
import numpy as np

from robo_rl.envs.ogbench.scenes import compile_cube_scene
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.workflow import video


def episode():
    return video.Footage(
        q_rad=np.tile(UR5E_KIT.spec.home_rad, (2, 1)),
        gripper=np.array([0.0, 0.5]),
        objects={"cube_0": np.array([[0.4, 0.0, 0.02, 1.0, 0.0, 0.0, 0.0]] * 2)},
        targets={"cube_0": np.array([0.5, 0.1, 0.02, 1.0, 0.0, 0.0, 0.0])},
        spheres=np.array([[0.4, 0.0, 0.2, 0.05]]),
        rate_hz=20.0,
        fingers=UR5E_KIT.fingers,
    )


def test_a_stored_episode_comes_back_whole(tmp_path):
    video.save_episode(tmp_path / "film.npz", episode())
    back = video.load_episode(tmp_path / "film.npz")
    assert back.fingers == dict(UR5E_KIT.fingers)
    assert list(back.objects) == list(back.targets) == ["cube_0"]
    np.testing.assert_array_equal(back.q_rad, episode().q_rad)
    np.testing.assert_array_equal(back.objects["cube_0"], episode().objects["cube_0"])
    assert back.rate_hz == 20.0


def test_every_finger_joint_of_the_robot_follows_the_gripper():
    """Half closed, a 2F-85's drivers stand at 0.4 rad and its followers at -0.4."""
    scene = compile_cube_scene("single")
    data = mujoco.MjData(scene.model)
    video._pose(scene, data, episode(), 1)
    for side in ("left", "right"):
        assert data.joint(f"ur5e/robotiq/{side}_driver_joint").qpos[0] == 0.4
        assert data.joint(f"ur5e/robotiq/{side}_follower_joint").qpos[0] == -0.4
    np.testing.assert_allclose(data.joint("object_joint_0").qpos[:3], [0.4, 0.0, 0.02])
