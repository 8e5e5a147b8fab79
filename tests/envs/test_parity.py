"""In report-only mode our environment is OGBench's: same state, same actions, same numbers."""

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

import robo_rl.envs
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.ogbench.scenes import load_ogbench
from robo_rl.envs.task import Outcome
from robo_rl.hardware.contracts import CommandMode
from robo_rl.quiet import quiet

assert robo_rl.envs  # registers the environments
INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION
NOT_COMPARED = {
    "goal": "OGBench takes it after two actions from a generator that nobody seeds",
    "time": "counted from the reset here, from before those two actions there",
    "goal_rendered": "not offered",
    "control": "not offered: the servo targets are the robot's affair (see the receipt)",
    "prev_qpos": "not offered: it is the qpos of the step before",
    "prev_qvel": "not offered: it is the qvel of the step before",
    "proprio/gripper_vel": "not offered: ArmState has no velocity of the gripper",
}


def ogbench_env(name: str) -> Any:
    load_ogbench("manipspace")  # registers its environments
    with quiet():
        return gymnasium.make(name).unwrapped


def copy_state(source: Any, target: ArmEnv) -> None:
    """Put our environment into the state and under the goal of OGBench's, to the bit."""
    device = target._physics
    assert device is not None
    target.robot.disarm()
    device.reset_scene(source.data.qpos[:6].copy(), {}, {})
    state = np.empty(mujoco.mj_stateSize(source.model, INTEGRATION))
    mujoco.mj_getState(source.model, source.data, state, INTEGRATION)
    mujoco.mj_setState(device.model, device.data, state, INTEGRATION)
    mujoco.mj_forward(device.model, device.data)
    device._time = device.data.time
    target.robot.arm(CommandMode.JOINT_POSITION)
    target.task._set_goal(source.data.mocap_pos[source._cube_target_mocap_ids])
    target._state = target.robot.read(0.1)
    target._outcome = Outcome(target.task.outcome(target._state).reward, False, False)


def compare_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["success"] == theirs["success"]
    for key in theirs.keys() - NOT_COMPARED.keys() - {"success"}:
        assert np.abs(ours[key] - theirs[key]).max() <= 1e-5, key


@pytest.mark.parametrize(
    ("theirs_id", "ours_id", "form", "steps"),
    [
        ("cube-single-v0", "robo_rl/CubeSingle-v0", "goal", 1000),
        ("cube-single-singletask-v0", "robo_rl/CubeSingle-v0", "single", 1000),
        ("cube-double-v0", "robo_rl/CubeDouble-v0", "goal", 300),
        ("cube-double-singletask-v0", "robo_rl/CubeDouble-v0", "single", 300),
    ],
)
def test_random_actions_lead_to_the_same_observations_rewards_and_terminations(
    theirs_id: str, ours_id: str, form: str, steps: int
) -> None:
    theirs = ogbench_env(theirs_id)
    ours = gymnasium.make(
        ours_id, form=form, goal_in_observation=False, guards={"enforce": False}
    ).unwrapped
    rng, ends, episode = np.random.default_rng(0), 0, 0
    ours.reset(seed=0)
    taken = 0
    while taken < steps:
        with quiet():
            theirs.reset(seed=episode)
        if episode % 2:
            # Random actions do not lift cubes: start on the goal, so that episodes end as well.
            for i, mocap in enumerate(theirs._cube_target_mocap_ids):
                cube = theirs.data.joint(f"object_joint_{i}").qpos[:3]
                theirs.data.mocap_pos[mocap] = cube + np.array([0.03, 0.0, 0.0])
        copy_state(theirs, ours)
        episode += 1
        for _ in range(100):
            action = rng.uniform(-1, 1, 5).astype(np.float32)
            mine, yours = ours.step(action), theirs.step(action)
            np.testing.assert_allclose(mine[0], yours[0], rtol=0.0, atol=1e-5)
            assert mine[1] == yours[1]
            assert mine[2] == yours[2]
            assert not mine[3]
            compare_infos(mine[4], yours[4])
            taken += 1
            if mine[2]:
                ends += 1
                break
    assert ends >= 1
    assert episode > ends


def test_resets_draw_from_the_distributions_of_ogbench() -> None:
    """Means of the start over 60 resets of each agree within four standard errors."""
    theirs = ogbench_env("cube-single-singletask-v0")
    ours = gymnasium.make("robo_rl/CubeSingle-v0", form="single", goal_in_observation=False)
    starts = []
    with quiet():
        for env in (ours, theirs):
            starts.append(np.array([env.reset(seed=seed)[0] for seed in range(60)]))
    error = np.sqrt((starts[0].var(axis=0) + starts[1].var(axis=0)) / 60)
    difference = np.abs(starts[0].mean(axis=0) - starts[1].mean(axis=0))
    assert (difference <= 4 * error + 1e-6).all()
