"""Distances of the true arm from keep-out spheres, for the robot that the kit describes."""

import dataclasses

import mujoco
import numpy as np
import pytest

from robo_rl.envs.ogbench.scenes import compile_cube_scene
from robo_rl.hardware.robots.scenes import build_scene
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.workflow.clearance import FAR_M, Clearance

HOME = np.array(UR5E_KIT.spec.home_rad)


def test_a_sphere_below_the_tool_is_as_far_as_the_lowest_visible_part():
    """At home the gripper points down: the distance is measured along the vertical."""
    scene = compile_cube_scene("single")
    data = mujoco.MjData(scene.model)
    names = scene.names
    for joint, angle in zip(names.arm_joints, HOME, strict=True):
        data.joint(joint).qpos[0] = angle
    mujoco.mj_kinematics(scene.model, data)
    x, y, z = data.site(names.tool_site).xpos
    spheres = [(x, y, z - 0.3, 0.05), (5.0, 5.0, 5.0, 0.1)]
    near = Clearance(scene, UR5E_KIT, DomainGap(), spheres).distances(HOME)[0]
    lower = Clearance(scene, UR5E_KIT, DomainGap(), [(x, y, z - 0.35, 0.05)]).distances(HOME)[0]
    assert 0.2 < near < 0.25  # the open fingers end at the pinch point or a little above it
    assert lower - near == pytest.approx(0.05, abs=1e-3)  # nearly straight below


def test_only_the_distal_body_and_what_it_carries_counts():
    scene = compile_cube_scene("single")
    hand = dataclasses.replace(UR5E_KIT, distal_body="ur5e/wrist_3_link")
    elbow = [(*_place(scene, "ur5e/forearm_link"), 0.05)]
    assert Clearance(scene, UR5E_KIT, DomainGap(), elbow).distances(HOME)[0] < 0.0
    assert Clearance(scene, hand, DomainGap(), elbow).distances(HOME)[0] > 0.1


def test_what_is_far_away_is_not_told_apart_and_a_scene_without_markers_is_refused():
    far = [(5.0, 5.0, 5.0, 0.1)]
    scene = compile_cube_scene("single")
    assert Clearance(scene, UR5E_KIT, DomainGap(), far).distances(HOME)[0] == FAR_M
    with pytest.raises(ValueError, match="no target marker"):
        Clearance(build_scene(UR5E_KIT), UR5E_KIT, DomainGap(), far)


def _place(scene, body):
    data = mujoco.MjData(scene.model)
    for joint, angle in zip(scene.names.arm_joints, HOME, strict=True):
        data.joint(joint).qpos[0] = angle
    mujoco.mj_kinematics(scene.model, data)
    return data.body(body).xpos
