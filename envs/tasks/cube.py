"""OGBench's cube manipulation tasks: the same starts, goals, rewards and success rule."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from robo_rl.envs.kinematics import down_quaternion, yaw_quaternion, yaw_rad
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.geometry import (
    ARM_BOUNDS_M,
    CENTER_M,
    CUBE_M,
    CUBE_SCENES,
    OBJECT_BOUNDS_M,
    PER_M,
    STEP_LIMITS,
    SUCCESS_M,
    check_task,
)
from robo_rl.envs.task import Outcome, SceneStart, Task
from robo_rl.hardware.contracts import ArmState, Pose
from robo_rl.hardware.robots.kit import RobotKit
from robo_rl.hardware.twin.mujoco_device import Scene

FORMS = ("goal", "single", "random", "data")
DEFAULT_TASK = 2

_CENTER_X_M, _SCALE = float(CENTER_M[0]), PER_M
_IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])


@dataclasses.dataclass(frozen=True)
class CubeTaskConfig:
    """Which of OGBench's cube tasks.

    Forms: `goal`, one of five tasks, reward 1 at success; `single`, one task, reward minus the
    number of cubes not in place; `random`, the same reward with a random cube and target; `data`,
    random and without an end, for collecting data. All but `data` terminate at success.
    """

    scene: str = "single"
    form: str = "goal"
    task_id: int | None = None
    """1..5. None: drawn at every reset (`goal`) or OGBench's default, 2 (`single`)."""
    goal_in_observation: bool = True
    """Append the target positions to the observation, (x, y, z) of each cube, scaled alike."""
    relative_positions: bool = False
    """Append the way from the tool to each cube and from each cube to its target, (x, y, z) each,
    scaled alike. Their differences are what a grasp depends on, and are small beside the positions
    that a network would have to subtract."""

    def __post_init__(self) -> None:
        if self.scene not in CUBE_SCENES:
            raise ValueError(f"CubeTaskConfig.scene must be one of {list(CUBE_SCENES)}")
        if self.form not in FORMS:
            raise ValueError(f"CubeTaskConfig.form must be one of {FORMS}, got {self.form!r}")
        if self.task_id is not None and self.form not in ("goal", "single"):
            raise ValueError(f"CubeTaskConfig.task_id has no meaning in the form {self.form!r}")
        if self.task_id is not None:
            check_task(self.task_id)
        if self.relative_positions and not self.goal_in_observation:
            raise ValueError(
                "CubeTaskConfig.relative_positions shows the goal: set goal_in_observation as well"
            )


@functools.cache
def task_infos(scene: str) -> tuple[dict[str, Any], ...]:
    """OGBench's five tasks of a scene: `task_name`, `init_xyzs` (n, 3), `goal_xyzs` (n, 3)."""
    env = scenes.load_ogbench("manipspace.envs.cube_env").CubeEnv(env_type=scene)
    return tuple(env.task_infos)


class CubeTask(Task):
    """Pick up cubes and put them on their targets."""

    name = "cube"

    def __init__(self, kit: RobotKit, config: CubeTaskConfig):
        super().__init__(kit)
        if kit.name != scenes.ROBOT:
            raise ValueError(
                f"CubeTask: OGBench's scenes hold a {scenes.ROBOT}, not a {kit.name}; for another "
                "robot write a Task that furnishes the robot's own world"
            )
        self.config = config
        self._home = np.asarray(kit.spec.home_rad, dtype=float)
        self.max_steps = STEP_LIMITS[config.scene]
        count = CUBE_SCENES[config.scene]
        self.objects = self.markers = tuple(f"cube_{i}" for i in range(count))
        shown = 3 * config.goal_in_observation + 6 * config.relative_positions
        self.observation_size = 19 + (9 + shown) * count
        # As the installed OGBench registers its single-task environments.
        self.outcome_before_step = config.form == "single"
        self._preset = config.form in ("goal", "single")
        self._terminates = config.form != "data"
        self._counts_cubes = config.form in ("single", "random")
        self._set_goal(np.zeros((count, 3)))
        self._target_cube = 0
        self._target_yaw = 0.0
        self._goal_scene: SceneStart | None = None
        self.task_id: int | None = None

    @classmethod
    def make(cls, kit: RobotKit, **options: Any) -> Self:
        """The task of these fields of a `CubeTaskConfig`."""
        known = [field.name for field in dataclasses.fields(CubeTaskConfig)]
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise ValueError(
                f"task cube has no option {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return cls(kit, CubeTaskConfig(**options))

    def build_scene(self) -> Scene:
        """OGBench's own, compiled once a process."""
        return scenes.compile_cube_scene(self.config.scene)

    @property
    def targets(self) -> Mapping[str, Pose]:
        """Markers of all cubes in a preset task, of the target cube otherwise."""
        if self._preset:
            return _poses(self.objects, self._goal_xyz, np.zeros(len(self.objects)))
        cube = self._target_cube
        pose = Pose(self._goal_xyz[cube].copy(), yaw_quaternion(self._target_yaw))
        return {self.objects[cube]: pose}

    @property
    def goal_m(self) -> np.ndarray:
        """Target position of every cube, (n, 3); a cube without a target is to stay."""
        return self._goal_xyz

    def start(self, rng: np.random.Generator, options: Mapping[str, Any]) -> SceneStart:
        """Draw an episode. `options["task_id"]` chooses the task where it is not fixed."""
        count = len(self.objects)
        if not self._preset:
            q = self._sample_arm(rng)
            low, high = OBJECT_BOUNDS_M
            xyz = np.column_stack((rng.uniform(low, high, (count, 2)), np.full(count, 0.02)))
            objects = _poses(self.objects, xyz, rng.uniform(0.0, 2 * np.pi, count))
            self._draw_target(rng, xyz, p_stack=0.5)
            return SceneStart(q, objects, self.targets)
        info = self._choose(rng, options)
        order = rng.permutation(count) if self.config.form == "goal" else np.arange(count)
        xyz, goals = info["init_xyzs"][order].copy(), info["goal_xyzs"][order]
        self._set_goal(goals)
        if self.config.form == "goal":
            still = _poses(self.objects, goals, np.zeros(count))
            self._goal_scene = SceneStart(self._sample_arm(rng), still, self.targets)
        q = self._sample_arm(rng)
        xyz[:, :2] += rng.uniform(-0.01, 0.01, (count, 2))
        objects = _poses(self.objects, xyz, rng.uniform(0.0, 2 * np.pi, count))
        return SceneStart(q, objects, self.targets)

    def goal_scene(self) -> SceneStart | None:
        """The cubes on their targets, the arm somewhere else."""
        return self._goal_scene

    def goal_observation(self, state: ArmState) -> np.ndarray:
        """OGBench's observation (19 + 9 n,), without the appended goal."""
        return self.observe(state)[: 19 + 9 * len(self.objects)]

    def new_target(self, rng: np.random.Generator, state: ArmState, p_stack: float) -> None:
        """Draw another cube and target; `p_stack` is the chance of a target on another cube."""
        if self._preset:
            super().new_target(rng, state, p_stack)
        xyz = np.stack([state.objects[name].position_m for name in self.objects])
        self._draw_target(rng, xyz, p_stack)

    def restore_goal(self, goal: np.ndarray, target_cube: int) -> None:
        """Targets (3 n,) of all cubes in m, and which cube is to be moved."""
        self._set_goal(np.asarray(goal, dtype=float).reshape(len(self.objects), 3))
        self._target_cube = int(target_cube)

    def observe(self, state: ArmState) -> np.ndarray:
        """Joints, joint velocities, tool, gripper, cubes; then, where they are asked for, the goal
        and the ways to it."""
        x, y, z = state.tool.position_m.tolist()
        yaw = yaw_rad(state.tool.quaternion_wxyz)
        row = [*state.q_rad.tolist(), *state.dq_rad_s.tolist(), *_scaled(x, y, z)]
        row += (math.cos(yaw), math.sin(yaw), 3.0 * state.gripper_closedness, _contact(state))
        for name in self.objects:
            pose = state.objects[name]
            x, y, z = pose.position_m.tolist()
            yaw = yaw_rad(pose.quaternion_wxyz)
            row += _scaled(x, y, z)
            row += pose.quaternion_wxyz.tolist()
            row += (math.cos(yaw), math.sin(yaw))
        if self.config.goal_in_observation:
            row += self._goal_row
        if self.config.relative_positions:
            row += self._relative(state)
        return np.array(row)

    def outcome(self, state: ArmState) -> Outcome:
        """OGBench's reward; success when every cube that has a target is on it."""
        if self._preset:
            placed = [self._placed(state, cube) for cube in range(len(self.objects))]
        else:
            placed = [self._placed(state, self._target_cube)]
        success, missing = all(placed), placed.count(False)
        reward = float(-missing) if self._counts_cubes else float(success)
        return Outcome(reward, success and self._terminates, success)

    def info(self, state: ArmState) -> dict[str, Any]:
        """Tool, gripper, cubes and target under the names that OGBench's oracles read."""
        info: dict[str, Any] = {
            "proprio/joint_pos": state.q_rad,
            "proprio/joint_vel": state.dq_rad_s,
            "proprio/effector_pos": state.tool.position_m,
            "proprio/effector_yaw": np.array([yaw_rad(state.tool.quaternion_wxyz)]),
            "proprio/gripper_opening": np.array([state.gripper_closedness]),
            "proprio/gripper_contact": np.array([_contact(state)]),
            "goal_m": self._goal_xyz.copy(),
        }
        for i, name in enumerate(self.objects):
            pose = state.objects[name]
            info[f"privileged/block_{i}_pos"] = pose.position_m
            info[f"privileged/block_{i}_quat"] = pose.quaternion_wxyz
            info[f"privileged/block_{i}_yaw"] = np.array([yaw_rad(pose.quaternion_wxyz)])
        if not self._preset:
            info["privileged/target_task"] = "cube"
            info["privileged/target_block"] = self._target_cube
            info["privileged/target_block_pos"] = self._goal_xyz[self._target_cube].copy()
            info["privileged/target_block_yaw"] = np.array([self._target_yaw])
        return info

    def _choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> dict[str, Any]:
        tasks = task_infos(self.config.scene)
        task_id = self.config.task_id
        if self.config.form == "single":
            task_id = DEFAULT_TASK if task_id is None else task_id
        elif "task_id" in options:
            task_id = int(options["task_id"])
        elif task_id is None:
            task_id = int(rng.integers(1, len(tasks) + 1))
        check_task(task_id)
        self.task_id = task_id
        return tasks[task_id - 1]

    def _sample_arm(self, rng: np.random.Generator) -> np.ndarray:
        """Joint angles with the tool pointing down, somewhere above the table."""
        position, yaw = rng.uniform(*ARM_BOUNDS_M), rng.uniform(-np.pi, np.pi)
        return self.kinematics.solve(position, down_quaternion(yaw), self._home)

    def _draw_target(self, rng: np.random.Generator, xyz: np.ndarray, p_stack: float) -> None:
        """A cube with nothing on it goes to a free place or onto another such cube."""
        free = [i for i in range(len(xyz)) if not _covered(i, xyz)]
        cube = int(rng.choice(free))
        goals = xyz.copy()
        if len(free) >= 2 and rng.uniform() < p_stack:
            below = int(rng.choice([i for i in free if i != cube]))
            goals[cube] = xyz[below] + (0.0, 0.0, CUBE_M)
        else:
            goals[cube] = (*rng.uniform(*OBJECT_BOUNDS_M), 0.02)
        self._target_cube, self._target_yaw = cube, float(rng.uniform(0.0, 2 * np.pi))
        # As OGBench reports it: from a quaternion, so in (-pi, pi].
        self._target_yaw = yaw_rad(yaw_quaternion(self._target_yaw))
        self._set_goal(goals)

    def _set_goal(self, xyz: np.ndarray) -> None:
        self._goal_xyz = xyz.copy()
        self._goals = xyz.tolist()
        self._goal_row = [number for place in self._goals for number in _scaled(*place)]

    def _relative(self, state: ArmState) -> list[float]:
        """For each cube: tool to cube, cube to target."""
        tool = state.tool.position_m.tolist()
        row: list[float] = []
        for name, goal in zip(self.objects, self._goals, strict=True):
            cube = state.objects[name].position_m.tolist()
            row += [_SCALE * (end - start) for start, end in zip(tool, cube, strict=True)]
            row += [_SCALE * (end - start) for start, end in zip(cube, goal, strict=True)]
        return row

    def _placed(self, state: ArmState, cube: int) -> bool:
        x, y, z = state.objects[self.objects[cube]].position_m.tolist()
        goal_x, goal_y, goal_z = self._goals[cube]
        return math.hypot(x - goal_x, y - goal_y, z - goal_z) <= SUCCESS_M


def _scaled(x: float, y: float, z: float) -> tuple[float, float, float]:
    """A position in m, in the units of the observation: around the middle of the table."""
    return (x - _CENTER_X_M) * _SCALE, y * _SCALE, z * _SCALE


def _contact(state: ArmState) -> float:
    return min(max(state.gripper_force_n / 50.0, 0.0), 1.0)


def _covered(cube: int, xyz: np.ndarray) -> bool:
    """Whether another cube lies on this one."""
    above = xyz[:, 2] > xyz[cube, 2]
    return bool((above & (np.linalg.norm(xyz[:, :2] - xyz[cube, :2], axis=1) < 0.02)).any())


def _poses(names: tuple[str, ...], xyz: np.ndarray, yaws: np.ndarray) -> dict[str, Pose]:
    return {
        name: Pose(np.array(place), yaw_quaternion(float(yaw)))
        for name, place, yaw in zip(names, xyz, yaws, strict=True)
    }
