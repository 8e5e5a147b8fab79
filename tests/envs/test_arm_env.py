"""One environment over any robot: contract, seeds, ends of episodes, failures."""

import dataclasses
import json
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import robo_rl.envs
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.make import make_cube_env
from robo_rl.hardware.contracts import ArmState, Lifecycle, Reason
from robo_rl.hardware.errors import Faulted, NotConnected
from robo_rl.hardware.twin.domain_gap import DomainGap
from robo_rl.hardware.twin.mujoco_device import MujocoDevice

assert robo_rl.envs  # registers the environments
STILL = np.zeros(5, dtype=np.float32)


def roll(env: ArmEnv, seed: int, steps: int = 20) -> np.ndarray:
    """Observations (steps + 1, O) under seeded actions."""
    rows = [env.reset(seed=seed)[0]]
    rng = np.random.default_rng(seed)
    rows += [env.step(rng.uniform(-1, 1, 5).astype(np.float32))[0] for _ in range(steps)]
    return np.array(rows)


@pytest.mark.parametrize("form", ["goal", "single", "random", "data"])
@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_accepts_the_environment(form: str) -> None:
    env = gymnasium.make("robo_rl/CubeSingle-v0", form=form).unwrapped
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("gap", [None, DomainGap(joint_noise_rad=0.01, delay_s=0.02, seed=1)])
def test_the_same_seed_gives_the_same_episode(gap: DomainGap | None) -> None:
    env, other = (make_cube_env(form="random", gap=gap) for _ in range(2))
    first = roll(env, seed=3)
    roll(env, seed=4)
    np.testing.assert_array_equal(roll(env, seed=3), first)
    np.testing.assert_array_equal(roll(other, seed=3), first)
    assert (roll(other, seed=4) != first).any()


def test_a_time_limit_truncates_and_never_terminates() -> None:
    env = gymnasium.make("robo_rl/CubeSingle-v0", form="random", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(STILL)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize(("name", "steps"), [("Single", 200), ("Double", 500), ("Triple", 1000)])
def test_time_limits_are_those_of_ogbench(name: str, steps: int) -> None:
    assert gymnasium.spec(f"robo_rl/Cube{name}-v0").max_episode_steps == steps


@pytest.mark.parametrize(("form", "reward"), [("goal", 1.0), ("random", 0.0)])
def test_success_terminates_and_does_not_truncate(form: str, reward: float) -> None:
    env = make_cube_env(form=form)
    env.reset(seed=0)
    env.task._set_goal(env.state.objects["cube_0"].position_m[None])  # type: ignore[attr-defined]
    _, got, terminated, truncated, info = env.step(STILL)
    assert (got, terminated, truncated, info["success"]) == (reward, True, False, True)


def test_the_single_form_judges_the_state_before_the_step() -> None:
    """As OGBench registers its single-task environments: success shows one step later."""
    env = make_cube_env(form="single")
    env.reset(seed=0)
    env.task._set_goal(env.state.objects["cube_0"].position_m[None])  # type: ignore[attr-defined]
    assert env.step(STILL)[1:3] == (-1.0, False)
    assert env.step(STILL)[1:3] == (0.0, True)


class Unreliable(MujocoDevice):
    """A device whose link fails as a test orders."""

    fault = ""

    def read(self) -> ArmState:
        state = super().read()
        if self.fault == "stale":
            return dataclasses.replace(state, t_host_s=state.t_host_s - 1.0)
        if self.fault == "invalid":
            return dataclasses.replace(state, valid=False, q_rad=np.full(6, np.nan))
        if self.fault == "no object":
            return dataclasses.replace(state, objects={})
        if self.fault == "old object":
            return dataclasses.replace(state, objects_t_host_s=state.t_host_s - 1.0)
        if self.fault == "unplugged":
            raise NotConnected("the cable is out")
        return state

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        if self.fault == "read only":
            raise NotConnected("no longer in control")
        super().write(q_rad, dq_rad_s, gripper_closedness)


def unreliable_env(monkeypatch: pytest.MonkeyPatch) -> tuple[ArmEnv, Unreliable]:
    monkeypatch.setattr("robo_rl.envs.make.MujocoDevice", Unreliable)
    env = make_cube_env(form="random")
    device = env._physics
    assert isinstance(device, Unreliable)
    return env, device


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("stale", "StaleState"),
        ("invalid", "StaleState"),
        ("no object", r"no pose of \['cube_0'\]"),
        ("old object", "object poses are"),
        ("unplugged", "the cable is out|link_lost"),
        ("read only", "no longer in control"),
    ],
)
def test_a_failing_robot_truncates_and_says_why(
    monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    env, device = unreliable_env(monkeypatch)
    env.reset(seed=0)
    before = env.step(STILL)
    device.fault = fault
    observation, reward, terminated, truncated, info = env.step(STILL)
    assert (terminated, truncated) == (False, True)
    assert reward == before[1]
    np.testing.assert_array_equal(observation, before[0])
    assert info["fault"]
    assert re.search(told, info["fault"]), info["fault"]


def test_a_fault_must_be_cleared_by_a_person_before_the_next_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env, device = unreliable_env(monkeypatch)
    env.reset(seed=0)
    device.fault = "read only"
    env.step(STILL)
    device.fault = ""
    assert env.robot.lifecycle is Lifecycle.FAULT
    with pytest.raises(Faulted, match="clear_fault"):
        env.reset()
    env.robot.clear_fault("Ada", "cable plugged in again")
    env.reset()
    assert not env.step(STILL)[3]


def test_an_action_that_is_not_finite_is_refused_and_reported() -> None:
    env = make_cube_env(form="random")
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(np.full(5, np.nan, np.float32))
    assert not info["accepted"]
    assert info["guard_reasons"] == (Reason.NON_FINITE.value,)
    assert not terminated
    assert not truncated
    assert env.step(STILL)[4]["accepted"]


def test_an_action_of_the_wrong_size_is_a_mistake_of_the_caller() -> None:
    env = make_cube_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(5,\), got \(4,\)"):
        env.step(np.zeros(4))


def test_the_receipt_says_what_was_sent() -> None:
    env = make_cube_env(form="random")
    env.reset(seed=0)
    info = env.step(np.ones(5, np.float32))[4]
    assert env.receipt is not None
    assert env._physics is not None
    for sent in (info["sent_rad"], env.receipt.sent_rad):
        np.testing.assert_array_equal(sent, env._physics.data.ctrl[:6])


def test_without_a_scene_the_arm_starts_where_it_is() -> None:
    simulated = make_cube_env(form="random")
    simulated.reset(seed=0)
    env = ArmEnv(simulated.robot, simulated.task, simulated._kinematics, scene=None)
    where = simulated.state.q_rad
    _, info = env.reset(seed=1)
    np.testing.assert_allclose(info["proprio/joint_pos"], where, atol=0.05)
    assert "qpos" not in info
    assert not env.step(STILL)[3]


def test_the_goal_form_carries_an_observation_of_the_goal() -> None:
    env = make_cube_env()
    _, info = env.reset(seed=0, options={"task_id": 1})
    assert info["goal"].shape == (28,)
    cube = info["goal"][19:22] / 10 + [0.425, 0.0, 0.0]
    np.testing.assert_allclose(cube, info["goal_m"][0], atol=1e-3)


@pytest.mark.parametrize(
    ("gap", "changed"),
    [
        (DomainGap(), False),
        (DomainGap(tool_offset_m=(0.01, 0.0, 0.0)), True),
        (DomainGap(payload_kg=1.0), True),
        (DomainGap(delay_s=0.03), True),
        (DomainGap(joint_noise_rad=0.01), True),
        (DomainGap(object_noise_m=0.01), True),
    ],
)
def test_a_gap_reaches_the_episode(gap: DomainGap, changed: bool) -> None:
    nominal, other = roll(make_cube_env(form="random"), 0, 5), make_cube_env(form="random", gap=gap)
    assert (np.abs(roll(other, 0, 5) - nominal).max() > 1e-4) == changed


def test_the_spec_of_an_environment_is_json_and_makes_the_same_again() -> None:
    kwargs: dict[str, Any] = {
        "form": "random",
        "gap": {"tool_offset_m": [0.01, 0.0, 0.0], "delay_s": 0.01},
        "guards": {"velocity_scale": 0.5},
        "barrier": {"keep_out": [[0.4, 0.3, 0.2, 0.05]]},
    }
    spec = gymnasium.make("robo_rl/CubeSingle-v0", **kwargs).spec
    assert spec is not None
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()))
    assert json.loads(spec.to_json())["kwargs"]["gap"] == kwargs["gap"]
    arm = again.unwrapped
    assert arm._physics.gap == DomainGap(tool_offset_m=(0.01, 0.0, 0.0), delay_s=0.01)
    assert arm.robot.config.velocity_scale == 0.5
    assert arm.robot.barrier.config.keep_out == ((0.4, 0.3, 0.2, 0.05),)


def test_a_recorded_state_is_judged_under_its_own_goal_and_a_reset_goes_on_from_there():
    env = make_cube_env(form="random")
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(5, np.float32))
    qpos, qvel, goal = info["qpos"], info["qvel"], info["goal_m"].ravel()
    env.reset(seed=1)
    env.set_state(qpos, qvel, goal, 0)
    assert env.reward_of_state() == reward == -1.0
    np.testing.assert_array_equal(env._physics.data.qpos, qpos)
    placed = env.state.objects["cube_0"].position_m
    env.set_state(qpos, qvel, placed, 0)
    assert env.reward_of_state() == 0.0
    env.reset(seed=0)
    again = env.step(np.zeros(5, np.float32))
    np.testing.assert_array_equal(again[4]["qpos"], qpos)
    with pytest.raises(ValueError, match="finite numbers"):
        env.set_state(qpos[:-1], qvel, goal, 0)
