"""How far the real arm, gap and all, stayed from the keep-out spheres: measured, not filtered."""

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice, Scene

Sphere = tuple[float, float, float, float]

FAR_M = 0.5
"""Distances beyond this are not told apart."""
_VISIBLE = 2  # MuJoCo's convention for groups
_ARM_BODIES = ("forearm_link", "wrist_1_link", "wrist_2_link", "wrist_3_link")


class Clearance:
    """Exact distances between the geoms of forearm, wrist and gripper and the spheres.

    Fingers are taken as open, their widest, whatever they do.
    """

    def __init__(self, scene: Scene, gap: DomainGap, spheres: Sequence[Sphere]):
        device = MujocoDevice(scene, UR5E, gap)
        self._model = copy.copy(device.model)
        self._data = mujoco.MjData(self._model)
        self._q = [int(self._model.joint(name).qposadr[0]) for name in scene.names.arm_joints]
        self._geoms = self._arm_geoms()
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

    def _arm_geoms(self) -> list[int]:
        """Geoms of the parts beyond the elbow: the convex hulls of the visible meshes."""
        geoms = []
        for geom in range(self._model.ngeom):
            body = self._model.body(self._model.geom_bodyid[geom]).name
            part = body.removeprefix("ur5e/")
            visible = self._model.geom_group[geom] == _VISIBLE
            if visible and (part in _ARM_BODIES or part.startswith("robotiq/")):
                geoms.append(geom)
        return geoms
