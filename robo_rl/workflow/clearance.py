"""How far the real arm, gap and all, stayed from the keep-out spheres: measured, not filtered."""

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, Scene

Sphere = tuple[float, float, float, float]

FAR_M = 0.5
"""Distances beyond this are not told apart."""


class Clearance:
    """Exact distances between the geoms of forearm (the kit's distal body), hand and the spheres.

    Fingers are taken as open, their widest, whatever they do.
    """

    def __init__(self, scene: Scene, kit: RobotKit, gap: DomainGap, spheres: Sequence[Sphere]):
        if not scene.names.targets:
            raise ValueError("Clearance: the scene has no target marker, which serves as the probe")
        device = MujocoDevice(scene, kit.spec, gap)
        self._model = copy.copy(device.model)
        self._data = mujoco.MjData(self._model)
        self._q = [int(self._model.joint(name).qposadr[0]) for name in scene.names.arm_joints]
        self._geoms = _surface(self._model, kit)
        self._spheres = np.array(spheres, dtype=float).reshape(-1, 4)
        # A target marker serves as the probe: MuJoCo measures between geoms only.
        marker = self._model.body(next(iter(scene.names.targets.values())))
        self._probe = int(marker.geomadr[0])
        self._mocap = int(marker.mocapid[0])
        self._model.geom_type[self._probe] = mujoco.mjtGeom.mjGEOM_SPHERE
        self._model.geom_pos[self._probe] = 0.0

    def distances(self, q_rad: np.ndarray) -> np.ndarray:
        """Signed distance (T,) in m of the nearest part to the nearest sphere, for q (T, J)."""
        return np.array([self._nearest(row) for row in np.atleast_2d(q_rad)])

    def _nearest(self, q: np.ndarray) -> float:
        model, data, probe = self._model, self._data, self._probe
        data.qpos[self._q] = q
        nearest = FAR_M
        for x, y, z, radius in self._spheres:
            model.geom_size[probe] = radius
            model.geom_rbound[probe] = radius
            data.mocap_pos[self._mocap] = (x, y, z)
            mujoco.mj_kinematics(model, data)
            for geom in self._geoms:
                nearest = min(
                    nearest, mujoco.mj_geomDistance(model, data, geom, probe, nearest, None)
                )
        return float(nearest)


def _surface(model: mujoco.MjModel, kit: RobotKit) -> list[int]:
    """Geoms of the distal body and all that it carries: convex hulls of the visible surface."""
    root, carried = model.body(kit.distal_body).id, set()
    for body in range(model.nbody):  # a parent comes before its children
        if body == root or int(model.body_parentid[body]) in carried:
            carried.add(body)
    return [
        geom
        for geom in range(model.ngeom)
        if int(model.geom_bodyid[geom]) in carried and model.geom_group[geom] == kit.surface_group
    ]
