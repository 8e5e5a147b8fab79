import itertools

import mujoco
import numpy as np
import pytest

from robo_rl.envs.ogbench import scenes
from robo_rl.hardware.guard.points import PointKinematics
from robo_rl.hardware.robots.ur5e import model as arm_model
from robo_rl.hardware.robots.ur5e.balls import (
    FINGER_CORNERS,
    FINGER_SPHERES,
    LINK_SPHERES,
    TOOL_POINT,
)
from robo_rl.hardware.robots.ur5e.model import TOOL_SITE, ur5e_model
from robo_rl.hardware.robots.ur5e.spec import UR5E

JOINTS = [arm_model.ARM_PREFIX + name for name in UR5E.joint_names]
PARTS = (*LINK_SPHERES, *FINGER_SPHERES, *FINGER_CORNERS, TOOL_POINT)
COVERED = ("upper_arm_link", "forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link")


@pytest.fixture(scope="module")
def nominal():
    return ur5e_model()


@pytest.fixture(scope="module")
def scene():
    return scenes.compile_cube_scene("single").model


def put(model, data, q):
    for name, value in zip(JOINTS, q, strict=True):
        data.qpos[model.joint(name).qposadr[0]] = value


def test_the_tool_is_where_ogbench_has_it(nominal, scene):
    ours, theirs = mujoco.MjData(nominal), mujoco.MjData(scene)
    for q in np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 6)):
        for model, data in ((nominal, ours), (scene, theirs)):
            put(model, data, q)
            mujoco.mj_kinematics(model, data)
        a, b = ours.site(TOOL_SITE), theirs.site(TOOL_SITE)
        np.testing.assert_allclose(a.xpos, b.xpos, atol=1e-9)
        np.testing.assert_allclose(a.xmat, b.xmat, atol=1e-9)


def test_the_tool_point_is_the_pinch_site(nominal):
    kinematics = PointKinematics(nominal, JOINTS, [TOOL_POINT])
    point = kinematics.update(np.asarray(UR5E.home_rad))[0]
    data = mujoco.MjData(nominal)
    put(nominal, data, UR5E.home_rad)
    mujoco.mj_kinematics(nominal, data)
    np.testing.assert_allclose(point, data.site(TOOL_SITE).xpos, atol=1e-12)


def test_points_and_their_derivatives_are_mujocos(nominal):
    rng = np.random.default_rng(0)
    kinematics = PointKinematics(nominal, JOINTS, PARTS)
    data = mujoco.MjData(nominal)
    jacobian = np.zeros((3, nominal.nv))
    for q in rng.uniform(-np.pi, np.pi, (10, 6)):
        points, screws = kinematics.update(q), kinematics.screws()
        normals = rng.normal(size=points.shape)
        wrenches = np.hstack([np.cross(points, normals), normals])
        rates = wrenches @ screws.T * kinematics.moves
        put(nominal, data, q)
        mujoco.mj_kinematics(nominal, data)
        mujoco.mj_comPos(nominal, data)
        for k, part in enumerate(PARTS):
            body = nominal.body(part.body).id
            local = data.xmat[body].reshape(3, 3) @ part.position_m + data.xpos[body]
            np.testing.assert_allclose(points[k], local, atol=1e-12)
            mujoco.mj_jac(nominal, data, jacobian, None, local, body)
            np.testing.assert_allclose(rates[k], normals[k] @ jacobian[:, :6], atol=1e-12)


def test_no_posture_reaches_further_than_the_bound(nominal):
    kinematics = PointKinematics(nominal, JOINTS, PARTS)
    data = mujoco.MjData(nominal)
    for q in np.random.default_rng(0).uniform(-np.pi, np.pi, (200, 6)):
        points = kinematics.update(q)
        put(nominal, data, q)
        mujoco.mj_kinematics(nominal, data)
        away = np.linalg.norm(points[:, None] - data.xanchor[None, :6], axis=2)
        assert (away * kinematics.moves <= kinematics.reach_m + 1e-12).all()


def settled(scene, opening):
    """OGBench's gripper in its own physics at one opening, floating at home without gravity."""
    data = mujoco.MjData(scene)
    put(scene, data, UR5E.home_rad)
    data.ctrl[:6], data.ctrl[6] = UR5E.home_rad, 255.0 * opening
    gravity, scene.opt.gravity[:] = scene.opt.gravity.copy(), 0.0
    mujoco.mj_step(scene, data, nstep=1000)
    scene.opt.gravity[:] = gravity
    return data


def surface(model, data, geom):
    """Corners of a geom's hull in the world (N, 3), mesh or box."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        corners = model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(float)
    else:
        corners = np.array(list(itertools.product((-1, 1), repeat=3))) * model.geom_size[geom]
    return corners @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


def geoms_of(model, bodies):
    wanted = {model.body(arm_model.ARM_PREFIX + body).id for body in bodies}
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] in wanted]


def gripper_bodies(model):
    prefix = arm_model.ARM_PREFIX + arm_model.GRIPPER_PREFIX
    names = [model.body(b).name for b in range(model.nbody)]
    return [n.removeprefix(arm_model.ARM_PREFIX) for n in names if n.startswith(prefix)]


@pytest.mark.parametrize("opening", [0.0, 0.5, 1.0])
def test_spheres_cover_arm_and_gripper(scene, nominal, opening):
    """No point in space is nearer to a part than to the spheres: measured by MuJoCo's distances."""
    data = settled(scene, opening)
    q = [data.qpos[scene.joint(name).qposadr[0]] for name in JOINTS]
    spheres = (*LINK_SPHERES, *FINGER_SPHERES)
    centres = PointKinematics(nominal, JOINTS, spheres).update(np.array(q))
    radii = np.array([sphere.radius_m for sphere in spheres])
    geoms = geoms_of(scene, [*COVERED, *gripper_bodies(scene)])
    probe = scene.geom("target_object_0").id
    keep = scene.geom_type[probe], scene.geom_size[probe].copy()
    scene.geom_type[probe], scene.geom_size[probe] = mujoco.mjtGeom.mjGEOM_SPHERE, 0.001
    rng = np.random.default_rng(0)
    try:
        for _ in range(60):
            centre = centres[rng.integers(len(centres))]
            data.geom_xpos[probe] = centre + rng.normal(size=3) * 0.1
            true = min(mujoco.mj_geomDistance(scene, data, probe, g, 1.0, None) for g in geoms)
            ours = (np.linalg.norm(data.geom_xpos[probe] - centres, axis=1) - radii).min()
            assert ours <= true + 0.001 + 1e-6
    finally:
        scene.geom_type[probe], scene.geom_size[probe] = keep


@pytest.mark.parametrize("opening", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_no_part_of_the_gripper_is_lower_than_the_corners_say(scene, nominal, opening):
    """In every direction the hull of housing spheres and finger corners reaches at least as far."""
    data = settled(scene, opening)
    q = [data.qpos[scene.joint(name).qposadr[0]] for name in JOINTS]
    parts = (*(s for s in LINK_SPHERES if s.name.startswith("gripper")), *FINGER_CORNERS)
    centres = PointKinematics(nominal, JOINTS, parts).update(np.array(q))
    radii = np.array([part.radius_m for part in parts])
    corners = [surface(scene, data, g) for g in geoms_of(scene, gripper_bodies(scene))]
    points = np.concatenate(corners)
    directions = np.random.default_rng(0).normal(size=(1000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hull = (directions @ centres.T + radii).max(axis=1)
    assert (hull >= (directions @ points.T).max(axis=1) - 1e-6).all()


def test_without_ogbench_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(arm_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install ogbench"):
        arm_model.descriptions_folder()
