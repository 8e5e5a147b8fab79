"""Deployment: where episodes begin. The deployment itself is in test_quickstart.py."""

import pathlib

import numpy as np
import pytest

from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.kinematics import tool_kinematics
from robo_rl.envs.make import make_cube_env
from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.cube import CubeTask, CubeTaskConfig
from robo_rl.hardware.guard.barrier import BarrierFilter
from robo_rl.hardware.guard.chain import GuardConfig, make_shaper
from robo_rl.hardware.robots.ur5e.model import ur5e_model
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.learn.seeds import evaluation_seed
from robo_rl.workflow import deploy


def a_plan(keep_out, episodes=20):
    return deploy.Plan(pathlib.Path("policy"), pathlib.Path("out"), episodes, 1, keep_out=keep_out)


@pytest.fixture(scope="module")
def task():
    scene = scenes.compile_cube_scene("single")
    config = CubeTaskConfig(form="goal", task_id=2)
    return CubeTask(config, tool_kinematics(scene), np.array(UR5E.home_rad))


def test_every_episode_begins_where_the_filter_calls_the_arm_safe(task):
    plan = a_plan(((0.43, 0.14, 0.20, 0.05),))
    seeds = deploy.clear_seeds(plan, task)
    assert len(seeds) == plan.episodes
    assert seeds != [evaluation_seed(plan.seed, k) for k in range(plan.episodes)]
    shaper = make_shaper(UR5E, GuardConfig())
    barrier = BarrierFilter(ur5e_model(), UR5E, shaper, plan.barrier)
    env = make_cube_env(form="goal", task_id=2)
    assert isinstance(env.unwrapped, ArmEnv)
    for seed in seeds:
        env.reset(seed=seed)
        assert barrier.min_height(env.unwrapped.state.q_rad) >= 0.0
    env.close()


def test_a_region_that_leaves_no_start_is_an_error(task):
    with pytest.raises(ValueError, match=r"starts are clear of table.*move or shrink the region"):
        deploy.clear_seeds(a_plan(((0.43, 0.0, 0.25, 0.4),), episodes=2), task)
