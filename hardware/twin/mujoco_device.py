"""A simulated arm in this process: MuJoCo physics behind the `Device` contract."""

import collections
import copy
import dataclasses
import functools
import json
import math
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rl.hardware.contracts import ArmSpec, ArmState, Device, Pose, SceneReset
from robo_rl.hardware.errors import NotConnected
from robo_rl.hardware.twin.domain_gap import DomainGap

_HIDDEN_M = (0.0, 0.0, -0.3)
"""Where a target marker goes that is not used."""


@dataclasses.dataclass(frozen=True)
class SceneNames:
    """What the parts of a compiled scene are called. The world frame is the base frame."""

    arm_joints: tuple[str, ...]
    """Hinges, in the order of the spec."""
    arm_actuators: tuple[str, ...]
    """Position servos, in the order of the spec."""
    gripper_joint: str
    gripper_actuator: str
    gripper_body: str
    """Root of the gripper, fixed to the last link."""
    payload_body: str
    pad_body: str
    """The pad whose contact force is measured."""
    tool_site: str
    objects: Mapping[str, str]
    """Name of each tracked object -> its free joint."""
    targets: Mapping[str, str]
    """Name of each target, mostly that of the object that belongs there -> the mocap body that
    marks it."""
    gripper_closed_ctrl: float = 255.0
    """Control of the gripper's actuator at closedness 1; 0 opens it."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A compiled model and its names."""

    model: Any
    names: SceneNames


def save_scene(scene: Scene, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write the model to `path` (.mjb) and the names beside it (.json), each atomically."""
    path = pathlib.Path(path)
    if path.suffix != ".mjb":
        raise ValueError(f"save_scene: path must end in .mjb, got {path}")
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_text(json.dumps(dataclasses.asdict(scene.names), indent=1), encoding="utf-8")
        aside.replace(path.with_suffix(".json"))
        mujoco.mj_saveModel(scene.model, str(aside), None)
        # mj_saveModel reports no failed write, so a full disk shows only in the size.
        expected = mujoco.mj_sizeModel(scene.model)
        if aside.stat().st_size != expected:
            raise OSError(f"{aside}: wrote {aside.stat().st_size} of {expected} bytes; disk full?")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def load_scene(path: str | os.PathLike[str]) -> Scene:
    """Read what `save_scene` wrote; needs MuJoCo alone, of the version that wrote it."""
    path = pathlib.Path(path)
    fields = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for name in ("arm_joints", "arm_actuators"):
        fields[name] = tuple(fields[name])
    return Scene(mujoco.MjModel.from_binary_path(str(path)), SceneNames(**fields))


def _apply_gap(scene: Scene, gap: DomainGap) -> Any:
    """Copy the model and move, load and polish the copy as the gap says."""
    model = copy.copy(scene.model)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    body, site = model.body(scene.names.gripper_body).id, model.site(scene.names.tool_site).id
    offset = np.asarray(gap.tool_offset_m)
    offset_world = data.site_xmat[site].reshape(3, 3) @ offset
    parent = data.xmat[model.body_parentid[body]].reshape(3, 3)
    holder = data.xmat[model.site_bodyid[site]].reshape(3, 3)
    model.body_pos[body] += parent.T @ offset_world
    model.site_pos[site] -= holder.T @ offset_world
    model.body_mass[model.body(scene.names.payload_body).id] += gap.payload_kg
    model.geom_friction[:, 0] *= gap.friction_scale
    mujoco.mj_setConst(model, data)
    return model


class MujocoDevice(Device, SceneReset):
    """Physics of one scene; time passes only in `pass_time`, as fast as it can be computed.

    Between two writes the servo setpoint moves along the cubic that starts at the last written
    position and velocity and ends at the new ones: constant acceleration when positions and
    velocities agree. A write with NaN velocities is a step, followed at once.
    """

    simulated = True

    def __init__(self, scene: Scene, spec: ArmSpec, gap: DomainGap | None = None):
        self.spec = spec
        self.gap = gap or DomainGap()
        self.names = names = scene.names
        self.model = model = _apply_gap(scene, self.gap) if self.gap.changes_model else scene.model
        self.data = data = mujoco.MjData(model)
        if len(names.arm_joints) != spec.joints or len(names.arm_actuators) != spec.joints:
            raise ValueError(f"MujocoDevice: {spec.joints} joints in the spec, names {names}")
        self._q = run_of([model.joint(name).qposadr[0] for name in names.arm_joints])
        self._dq = run_of([model.joint(name).dofadr[0] for name in names.arm_joints])
        self._servos = run_of([model.actuator(name).id for name in names.arm_actuators])
        self._gripper_q = int(model.joint(names.gripper_joint).qposadr[0])
        self._gripper_servo = model.actuator(names.gripper_actuator).id
        self._gripper_full = names.gripper_closed_ctrl
        self._closed_rad = spec.gripper.closed_rad if spec.gripper else 1.0
        self._site = model.site(names.tool_site).id
        # Views into MjData: reading them costs no look-up.
        self._ctrl = data.ctrl[self._servos]
        self._arm_q, self._arm_dq = data.qpos[self._q], data.qvel[self._dq]
        self._effort = data.qfrc_actuator[self._dq]
        self._tool_xpos, self._tool_xmat = data.site_xpos[self._site], data.site_xmat[self._site]
        self._pad_force = data.cfrc_ext[model.body(names.pad_body).id]
        self._objects = {
            name: data.qpos[(start := model.joint(joint).qposadr[0]) : start + 7]
            for name, joint in names.objects.items()
        }
        self._targets = {
            name: int(model.body(body).mocapid[0]) for name, body in names.targets.items()
        }
        self._step_s = float(model.opt.timestep)
        self._delay_steps = round(self.gap.delay_s / self._step_s)
        self._steps = 0
        self._seq = 0
        self._ends = np.empty((4, spec.joints))
        self._open = False
        self._rng = np.random.default_rng(self.gap.seed)
        self._written: tuple[np.ndarray, np.ndarray, float] | None = None
        # Setpoints on their way to the servos: (first physics step, rows, gripper).
        self._queue: collections.deque[tuple[int, np.ndarray, float]] = collections.deque()
        self._force: float | None = None  # on the pad, once computed for the present state
        self._diverged, self._time = False, 0.0
        self._forget(np.asarray(spec.home_rad))

    def open(self) -> None:
        """Compute the first state; nothing moves."""
        if not self._open and self._steps == 0 and self._seq == 0:
            self.reset_scene(np.asarray(self.spec.home_rad), {}, {})
        self._open = True

    def close(self) -> None:
        """Refuse reads and writes from here on."""
        self._open = False

    def now_s(self) -> float:
        """Simulated time since construction; a reset of the scene does not turn it back."""
        return self._steps * self._step_s

    def read(self) -> ArmState:
        """The present state. Tool pose and contact force are those that the last physics step
        started from: one step (2 ms) older than the joints, as in OGBench.
        """
        if not self._open:
            raise NotConnected(f"{self.spec.name}: read before open()")
        now = self._steps * self._step_s
        self._seq += 1
        q = self._arm_q.copy()
        if self.gap.joint_noise_rad > 0.0:
            q += self._rng.normal(0.0, self.gap.joint_noise_rad, q.shape)
        closed = float(self.data.qpos[self._gripper_q]) / self._closed_rad
        if self._force is None:
            mujoco.mj_rnePostConstraint(self.model, self.data)
            self._force = math.sqrt(self._pad_force.dot(self._pad_force))
        return ArmState(
            t_host_s=now,
            t_source_s=now,
            seq=self._seq,
            q_rad=q,
            dq_rad_s=self._arm_dq.copy(),
            effort_nm=self._effort.copy(),
            tool=self._tool_pose(),
            gripper_closedness=min(max(closed, 0.0), 1.0),
            gripper_force_n=self._force,
            objects={name: self._object_pose(q7) for name, q7 in self._objects.items()},
            objects_t_host_s=now,
            valid=not self._diverged,
        )

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        """Set the servo targets for the time that passes next; NaN velocities make it a step."""
        if not self._open:
            raise NotConnected(f"{self.spec.name}: write before open()")
        gripper = self._gripper_full * float(gripper_closedness)
        self._written = (np.array(q_rad), np.array(dq_rad_s), gripper)

    def pass_time(self, until_s: float) -> None:
        """Step the physics to `until_s`, rounded up to whole steps."""
        if not self._open:
            raise NotConnected(f"{self.spec.name}: pass_time before open()")
        count = math.ceil(until_s / self._step_s - self._steps - 1e-6)
        if count <= 0:
            return
        if self._written is not None:
            rows = self._setpoints(count)
            self._queue.append((self._steps + self._delay_steps, rows, self._written[2]))
            self._written = None
        self._step_through(count)
        self._steps += count
        self._force = None
        # MuJoCo puts a scene whose physics diverged back to its start, without an error.
        self._time += count * self._step_s
        self._diverged = self._diverged or self.data.time < self._time - 0.5 * self._step_s

    def reset_scene(
        self, q_rad: np.ndarray, objects: Mapping[str, Pose], targets: Mapping[str, Pose]
    ) -> None:
        """Put arm, objects and target markers in place; objects that are not named stay at the
        model's own place. The clock runs on.
        """
        q = np.asarray(q_rad, dtype=float)
        if q.shape != (self.spec.joints,) or not np.isfinite(q).all():
            raise ValueError(f"reset_scene: q must be {self.spec.joints} finite numbers, got {q}")
        mujoco.mj_resetData(self.model, self.data)
        self._arm_q[:] = q
        for name, pose in objects.items():
            place = self._look_up(self._objects, name)
            place[:3], place[3:] = pose.position_m, pose.quaternion_wxyz
        self._forget(q)
        # Noise that depends on the start makes an episode repeatable wherever it is simulated.
        self._rng = np.random.default_rng([self.gap.seed, zlib.crc32(self.data.qpos.tobytes())])
        self.move_targets(targets)
        mujoco.mj_forward(self.model, self.data)

    def restore(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put the whole scene into a recorded state, (nq,) and (nv,), the arm holding its joints.
        The clock runs on.
        """
        for name, value, size in (("qpos", qpos, self.model.nq), ("qvel", qvel, self.model.nv)):
            if np.shape(value) != (size,) or not np.isfinite(value).all():
                raise ValueError(
                    f"restore: {name} must be {size} finite numbers, got {np.shape(value)}"
                )
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self._forget(self._arm_q.copy())
        mujoco.mj_forward(self.model, self.data)

    def move_targets(self, targets: Mapping[str, Pose]) -> None:
        """Move the target markers; those not named are hidden under the table."""
        for mocap in self._targets.values():
            self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = _HIDDEN_M, (1, 0, 0, 0)
        for name, pose in targets.items():
            mocap = self._look_up(self._targets, name)
            self.data.mocap_pos[mocap] = pose.position_m
            self.data.mocap_quat[mocap] = pose.quaternion_wxyz

    def true_tool_position(self) -> np.ndarray:
        """Where the gripper really is, (3,): the reported position plus the gap's tool offset."""
        offset = self._tool_xmat.reshape(3, 3) @ np.asarray(self.gap.tool_offset_m)
        return np.asarray(self._tool_xpos + offset)

    def _forget(self, q: np.ndarray) -> None:
        """Drop every write; hold q with the gripper open."""
        self._written = None
        self._queue.clear()
        self._last_q, self._last_dq = q.copy(), np.zeros_like(q)
        self._force = None
        self._diverged, self._time = False, 0.0
        self._ctrl[:] = q
        self.data.ctrl[self._gripper_servo] = 0.0

    def _setpoints(self, count: int) -> np.ndarray:
        """Servo targets (count, J) of the pending write, or (1, J) where it is a step."""
        assert self._written is not None
        q1, dq1, _ = self._written
        q0, dq0 = self._last_q, self._last_dq
        self._last_q = q1
        if math.isnan(dq1[0]):
            self._last_dq = np.zeros_like(q1)
            return q1[None]
        self._last_dq = dq1
        ends = self._ends
        ends[0], ends[1], ends[2], ends[3] = q0, dq0, q1, dq1
        return _hermite(count, self._step_s) @ ends

    def _step_through(self, count: int) -> None:
        """Step `count` times, the servo targets along."""
        model, data, ctrl, step = self.model, self.data, self._ctrl, mujoco.mj_step
        self._follow(self._steps)
        if self._delay_steps > 0:
            for at in range(self._steps, self._steps + count):
                self._follow(at)
                step(model, data)
        elif self._queue and self._queue[0][0] == self._steps and len(self._queue[0][1]) > 1:
            for row in self._queue[0][1]:
                ctrl[:] = row
                step(model, data)
        else:
            step(model, data, nstep=count)

    def _follow(self, step: int) -> None:
        """Set the servo targets that hold during physics step `step`."""
        queue = self._queue
        while len(queue) > 1 and queue[1][0] <= step:
            queue.popleft()
        if queue and (row := step - queue[0][0]) >= 0:
            rows = queue[0][1]
            self._ctrl[:] = rows[min(row, len(rows) - 1)]
            self.data.ctrl[self._gripper_servo] = queue[0][2]

    def _tool_pose(self) -> Pose:
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self._tool_xmat)
        return Pose(self._tool_xpos.copy(), quaternion)

    def _object_pose(self, q7: np.ndarray) -> Pose:
        position = q7[:3].copy()
        if self.gap.object_noise_m > 0.0:
            position += self._rng.normal(0.0, self.gap.object_noise_m, 3)
        return Pose(position, q7[3:].copy())

    @staticmethod
    def _look_up(table: Mapping[str, Any], name: str) -> Any:
        if name not in table:
            raise ValueError(f"reset_scene: no object {name!r}; this scene has {sorted(table)}")
        return table[name]


def run_of(indices: list[int]) -> slice:
    """Consecutive indices as a slice, so that indexing by it gives a view."""
    run = slice(int(indices[0]), int(indices[-1]) + 1)
    if list(range(run.start, run.stop)) != [int(index) for index in indices]:
        raise ValueError(f"the arm's joints and actuators must be consecutive, got {indices}")
    return run


@functools.lru_cache(maxsize=64)
def _hermite(count: int, step_s: float) -> np.ndarray:
    """Weights (count, 4) of (q0, dq0, q1, dq1) at the end of each of `count` steps."""
    duration_s = count * step_s
    s = np.arange(1, count + 1) / count
    return np.stack(
        (
            (1 + 2 * s) * (1 - s) ** 2,
            s * (1 - s) ** 2 * duration_s,
            s**2 * (3 - 2 * s),
            s**2 * (s - 1) * duration_s,
        ),
        axis=1,
    )
