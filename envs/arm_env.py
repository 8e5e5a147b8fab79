"""One Gymnasium environment for every arm: simulated, in another process, or real."""

import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from robo_rl.envs.kinematics import ToolKinematics
from robo_rl.envs.task import Outcome, SceneStart, Task
from robo_rl.hardware.contracts import (
    ArmCommand,
    ArmState,
    CommandMode,
    CommandSource,
    Lifecycle,
    Reason,
    Receipt,
    Robot,
    SceneReset,
)
from robo_rl.hardware.errors import Faulted, HardwareError, StaleState
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.twin.mujoco_device import MujocoDevice

_USABLE = (Lifecycle.ARMED, Lifecycle.STREAMING, Lifecycle.HOLDING)
"""HOLDING too: an arm that paused, for want of a command in time, moves on with the next."""
_ENDING = frozenset(
    {
        Reason.NOT_ARMED,
        Reason.WRONG_MODE,
        Reason.FAULTED,
        Reason.STOPPED,
        Reason.STALE_STATE,
        Reason.INVALID_STATE,
        Reason.LINK_LOST,
    }
)
"""Refusals that the next action cannot mend."""


class ArmEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Relative tool actions (5,) in [-1, 1] on a guarded arm, at a fixed control period.

    Where the robot fails (stale or invalid state, lost link, no longer armed), the step is
    truncated, never terminated: the observation is the last good one and `info["fault"]` says why.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        robot: Robot,
        task: Task,
        kinematics: ToolKinematics,
        scene: SceneReset | None = None,
        *,
        period_s: float = 0.05,
        expiry_periods: float = 2.5,
        max_object_age_s: float = 0.5,
        settle_s: float = 0.5,
        render_mode: str | None = None,
    ):
        """`scene` puts objects and arm in place at a reset; without it people do, and the arm
        starts where it is after `settle_s`. A command expires after `expiry_periods` periods.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"ArmEnv: render_mode must be None or 'rgb_array', got {render_mode}")
        self.robot, self.task = robot, task
        self.references: dict[str, str] = {}
        """Arguments of `gymnasium.make` that may be paths -> as any folder finds them."""
        self._spec: EnvSpec | None = None
        self.period_s = period_s
        self.render_mode = render_mode
        self._kinematics, self._scene = kinematics, scene
        self._physics = scene if isinstance(scene, MujocoDevice) else None
        self._expiry_s = expiry_periods * period_s
        self._max_object_age_s = max_object_age_s
        self._settle_s = settle_s
        size = (task.observation_size,)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, size, np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)
        # Of the action's own precision: a float32 action is not widened.
        self._low, self._high = self.action_space.low, self.action_space.high
        self._needed = frozenset(task.objects)
        self._seq = 0
        self._began_s = 0.0
        self._state: ArmState | None = None
        self.receipt: Receipt | None = None
        """What became of the last action; `info` has its timeless part."""
        self._observation = np.zeros(size)
        self._outcome = Outcome(0.0, terminated=False, success=False)
        self._renderer: Any = None

    @property
    def spec(self) -> EnvSpec | None:
        """How to make this environment again, from any folder."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            known = {name: self.references.get(name, given) for name, given in spec.kwargs.items()}
            spec = dataclasses.replace(spec, kwargs=known)
        self._spec = spec

    @property
    def state(self) -> ArmState:
        """The last good state."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("ArmEnv: call reset() first")
        return self._state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode. `options` go to the task (`task_id`). A faulted robot raises."""
        super().reset(seed=seed)
        if self.robot.lifecycle is Lifecycle.DISCONNECTED:
            self.robot.connect()
        if self.robot.lifecycle is Lifecycle.FAULT:
            raise Faulted(
                f"{self.robot.spec.name}: {self.robot.health().fault or 'in FAULT'}; an operator "
                "must call clear_fault(operator, reason) before the next episode"
            )
        start = self.task.start(self.np_random, options or {})
        goal = self._observe_goal()
        state = self._begin(start)
        self._began_s = self.robot.now_s()
        self._observation = self.task.observe(state)
        outcome = self.task.outcome(state)
        self._outcome = Outcome(outcome.reward, terminated=False, success=False)
        info = self._info(state)
        if goal is not None:
            info["goal"] = goal
        return self._observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for one control period."""
        before = self._outcome
        try:
            state, receipt = self._act(np.asarray(action))
            self.receipt = receipt
        except HardwareError as error:
            info = self._info(self.state)
            info["success"] = before.success
            info["fault"] = f"{type(error).__name__}: {error}"
            return self._observation, before.reward, False, True, info
        self._observation = self.task.observe(state)
        self._outcome = self.task.outcome(state)
        outcome = before if self.task.outcome_before_step else self._outcome
        info = self._info(state)
        info["success"] = outcome.success
        info["sent_rad"], info["sent_gripper"] = receipt.sent_rad, receipt.sent_gripper
        info["accepted"] = receipt.accepted
        info["guard_reasons"] = tuple(reason.value for reason in receipt.reasons)
        return self._observation, outcome.reward, outcome.terminated, False, info

    def set_new_target(self, p_stack: float = 0.5) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw another target within the episode; the observation and info that belong to it."""
        self.task.new_target(self.np_random, self.state, p_stack)
        if self._physics is not None:
            self._physics.move_targets(self.task.targets)
        self._observation = self.task.observe(self.state)
        self._outcome = self.task.outcome(self.state)
        return self._observation, self._info(self.state)

    def set_state(
        self, qpos: np.ndarray, qvel: np.ndarray, goal: np.ndarray, target_cube: int
    ) -> None:
        """Put a simulated scene under a recorded goal and into a recorded state, as the infos of a
        step name them, to judge it by `reward_of_state`. Call `reset` before the next step.
        """
        if self._physics is None:
            raise ValueError("ArmEnv.set_state: only a simulated scene can be put into a state")
        self.robot.disarm()
        self.task.restore_goal(goal, target_cube)
        self._physics.restore(qpos, qvel)
        self._state = self._physics.read()

    def reward_of_state(self) -> float:
        """What the task pays for the present state."""
        return self.task.outcome(self.state).reward

    def terminated_of_state(self) -> bool:
        """Whether the present state ends the task."""
        return self.task.outcome(self.state).terminated

    def observation_of_state(self) -> np.ndarray:
        """What the task shows of the present state."""
        return self.task.observe(self.state)

    def render(self) -> np.ndarray | None:
        """An RGB image (H, W, 3) of the simulated scene."""
        if self.render_mode is None or self._physics is None:
            return None
        if self._renderer is None:
            from robo_rl.envs.render import SceneRenderer  # opens an OpenGL context

            self._renderer = SceneRenderer(self._physics.model)
        return np.asarray(self._renderer.frame(self._physics.data))

    def close(self) -> None:
        """Let go of the robot and of the renderer."""
        self.robot.disconnect()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _begin(self, start: SceneStart) -> ArmState:
        """Put the scene in place, arm the robot and read the first state."""
        self.robot.disarm()
        if self._scene is not None:
            self._scene.reset_scene(start.q_rad, start.objects, start.targets)
        else:
            self.robot.advance(self._settle_s)
        self.robot.arm(CommandMode.JOINT_POSITION)
        return self._checked(self.robot.read(self.robot.spec.watchdog_s))

    def _observe_goal(self) -> np.ndarray | None:
        """Observation of the goal scene after two random actions, as OGBench takes it."""
        goal = self.task.goal_scene()
        if goal is None or self._scene is None:
            return None
        state = self._begin(goal)
        for _ in range(2):
            state, _ = self._act(self.np_random.uniform(-1.0, 1.0, 5))
        return self.task.goal_observation(state)

    def _act(self, action: np.ndarray) -> tuple[ArmState, Receipt]:
        """Turn an action into a command and let one period pass. Raises where the robot fails."""
        if action.shape != (5,):
            raise ValueError(f"ArmEnv.step: action must be (5,), got {action.shape}")
        state = self._checked(self.robot.read(self.robot.spec.watchdog_s))
        if math.isfinite(float(action.sum())):  # a sum is finite only if every term is
            action = np.minimum(np.maximum(action, self._low), self._high)
            q, closedness = self._kinematics.targets(state, action)
        else:  # for the guards to refuse, and to say so
            q, closedness = np.full(state.q_rad.shape, np.nan), float("nan")
        self._seq += 1
        receipt = self.robot.submit(
            ArmCommand(
                mode=CommandMode.JOINT_POSITION,
                values=q,
                gripper_closedness=closedness,
                seq=self._seq,
                t_observation_s=state.t_host_s,
                expires_at_s=self.robot.now_s() + self._expiry_s,
                source=CommandSource.POLICY,
            )
        )
        if not receipt.accepted and not _ENDING.isdisjoint(receipt.reasons):
            reasons = ", ".join(receipt.reasons)
            raise HardwareError(f"{self.robot.spec.name}: refused a command: {reasons}")
        after = self._checked(self.robot.advance(self.period_s))
        return after, self._outcome_of(receipt)

    def _outcome_of(self, receipt: Receipt) -> Receipt:
        """The receipt as it stands at the end of the period, where the robot tells."""
        if receipt.accepted and isinstance(self.robot, ArmController):
            return self.robot.last_receipt or receipt
        return receipt

    def _checked(self, state: ArmState) -> ArmState:
        """Keep a state that can be acted on; raise StaleState or Faulted for any other."""
        now, name = self.robot.now_s(), self.robot.spec.name
        if not state.valid:
            raise StaleState(f"{name}: a joint was not measured or is not finite")
        if not state.age_s(now) <= self.robot.spec.watchdog_s:
            raise StaleState(f"{name}: state is {state.age_s(now):.3f} s old")
        if not self._needed <= state.objects.keys():
            missing = sorted(self._needed - state.objects.keys())
            raise StaleState(f"{name}: no pose of {missing}")
        if not now - state.objects_t_host_s <= self._max_object_age_s:
            raise StaleState(f"{name}: object poses are {now - state.objects_t_host_s:.3f} s old")
        lifecycle = self.robot.lifecycle
        if lifecycle not in _USABLE:
            raise Faulted(f"{name}: {lifecycle.value}: {self.robot.health().fault or 'not armed'}")
        self._state = state
        return state

    def _info(self, state: ArmState) -> dict[str, Any]:
        info = self.task.info(state)
        info["time"] = np.array([round(state.t_host_s - self._began_s, 9)])
        info["success"] = self._outcome.success
        if self._physics is not None:
            info["qpos"] = self._physics.data.qpos.copy()
            info["qvel"] = self._physics.data.qvel.copy()
        return info
