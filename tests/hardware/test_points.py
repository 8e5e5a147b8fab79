"""Balls that cover a capsule."""

import mujoco
import numpy as np
import pytest

from robo_rl.hardware.guard.points import BodyPoint, PointKinematics, balls_along
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT


def test_balls_along_a_capsule_by_hand():
    """Two balls 0.8 apart around a radius of 0.3: midway the rim is 0.5 from both centres."""
    first, last = balls_along("arm", "link", (0.0, 0.0, 0.1), (0.0, 0.0, 0.9), 0.3, 2)
    assert (first.name, first.body, last.name) == ("arm_0", "link", "arm_1")
    assert first.position_m == pytest.approx((0.0, 0.0, 0.1))
    assert last.position_m == pytest.approx((0.0, 0.0, 0.9))
    assert first.radius_m == last.radius_m == pytest.approx(0.5)


def test_every_point_of_the_capsule_is_in_a_ball():
    rng = np.random.default_rng(0)
    start, end, radius = np.array([0.1, -0.2, 0.0]), np.array([0.4, 0.3, 0.2]), 0.05
    balls = balls_along("arm", "link", tuple(start), tuple(end), radius, 5)
    centres = np.array([ball.position_m for ball in balls])
    along = start + rng.uniform(0, 1, (500, 1)) * (end - start)
    away = rng.normal(size=(500, 3))
    points = along + radius * away / np.linalg.norm(away, axis=1, keepdims=True)
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
    assert (nearest <= balls[0].radius_m + 1e-12).all()
    with pytest.raises(ValueError, match="needs 2 balls"):
        balls_along("arm", "link", (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), 0.1, 1)


def test_the_first_axis_is_the_bases_whatever_the_posture():
    """The UR5e's first joint turns about the vertical."""
    point = BodyPoint("tip", "ur5e/wrist_3_link", (0.0, 0.0, 0.1))
    points = PointKinematics(UR5E_KIT.model(), UR5E_KIT.names.arm_joints, [point])
    for posture in (np.zeros(6), np.array([1.0, -1.0, 0.5, 0.3, -0.7, 2.0])):
        points.update(posture)
        np.testing.assert_allclose(points.first_axis(), [0.0, 0.0, 1.0], atol=1e-12)


PLANAR = """
<mujoco>
  <worldbody>
    <body name="shoulder" pos="0 0 0.5">
      <joint name="j1" axis="0 0 1" pos="0.1 0 0"/>
      <geom size="0.01" mass="1"/>
      <body name="elbow" pos="1 0 0">
        <joint name="j2" axis="0 0 1"/>
        <geom size="0.01" mass="1"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def test_a_planar_arm_whose_first_link_turns_on_the_floor_by_hand():
    """Links of 1 m, the first joint 0.1 m along its link; a quarter turn of the elbow."""
    model = mujoco.MjModel.from_xml_string(PLANAR)
    tip = BodyPoint("tip", "elbow", (0.5, 0.0, 0.0))
    middle = BodyPoint("middle", "shoulder", (0.3, 0.0, 0.0))
    points = PointKinematics(model, ("j1", "j2"), [middle, tip])
    np.testing.assert_allclose(
        points.update(np.array([0.0, np.pi / 2])), [[0.3, 0.0, 0.5], [1.0, 0.5, 0.5]], atol=1e-12
    )
    np.testing.assert_array_equal(points.moves, [[1.0, 0.0], [1.0, 1.0]])
    # From a joint's anchor to its body's origin, along the offsets of the bodies, to the point.
    np.testing.assert_allclose(points.reach_m, [[0.1 + 0.3, 0.0], [0.1 + 1.0 + 0.5, 0.5]])
    # Axes are vertical through (0.1, 0, 0.5) and (1, 0, 0.5): o x z = (y, -x, 0) and a x o = -it.
    np.testing.assert_allclose(
        points.screws(), [[0, 0, 1, 0, -0.1, 0], [0, 0, 1, 0, -1.0, 0]], atol=1e-12
    )


def test_joints_that_do_not_follow_one_another_are_refused():
    model = mujoco.MjModel.from_xml_string(PLANAR)
    tip = BodyPoint("tip", "elbow", (0.5, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"must be consecutive, got \[1, 0\]"):
        PointKinematics(model, ("j2", "j1"), [tip])
