"""Deployment: where episodes begin. The deployment itself is in test_quickstart.py."""

import dataclasses
import pathlib

import pytest

from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.make import make_cube_env
from robo_rl.envs.ogbench.cube import CubeTask, CubeTaskConfig
from robo_rl.hardware.guard.barrier import BarrierFilter
from robo_rl.hardware.guard.chain import GuardConfig, make_shaper
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.learn.seeds import evaluation_seed
from robo_rl.workflow import deploy


def a_plan(keep_out, episodes=20):
    return deploy.Plan(pathlib.Path("policy"), pathlib.Path("out"), episodes, 1, keep_out=keep_out)


@pytest.fixture(scope="module")
def task():
    return CubeTask(UR5E_KIT, CubeTaskConfig(form="goal", task_id=2))


def test_every_episode_begins_where_the_filter_calls_the_arm_safe(task):
    plan = a_plan(((0.43, 0.14, 0.20, 0.05),))
    seeds = deploy.clear_seeds(plan, task)
    assert len(seeds) == plan.episodes
    assert seeds != [evaluation_seed(plan.seed, k) for k in range(plan.episodes)]
    shaper = make_shaper(UR5E, GuardConfig())
    barrier = BarrierFilter(UR5E_KIT, shaper, plan.barrier(UR5E_KIT))
    env = make_cube_env(form="goal", task_id=2)
    assert isinstance(env.unwrapped, ArmEnv)
    for seed in seeds:
        env.reset(seed=seed)
        assert barrier.min_height(env.unwrapped.state.q_rad) >= 0.0
    env.close()


def test_a_region_that_leaves_no_start_is_an_error(task):
    with pytest.raises(ValueError, match=r"starts are clear of table.*move or shrink the region"):
        deploy.clear_seeds(a_plan(((0.43, 0.0, 0.25, 0.4),), episodes=2), task)


class Exported:
    """The part of an exported policy that names its robot."""

    def __init__(self, **meta):
        self.description = {"meta": meta}


def test_a_policy_names_the_robot_that_it_is_deployed_on():
    digest = UR5E.digest()
    assert deploy.robot_of(Exported(arm="ur5e", arm_digest=digest)) == "ur5e"
    with pytest.raises(ValueError, match=f"arm digest is 0123, ours {digest}; train and export"):
        deploy.robot_of(Exported(arm="ur5e", arm_digest="0123"))
    with pytest.raises(ValueError, match="not trained for an arm"):
        deploy.robot_of(Exported(env={"id": "HalfCheetah-v5"}))


def test_a_policy_of_an_own_robot_is_deployed_on_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from robo_rl.hardware import robots\n"
        "_kit = robots.get()\n"
        "SLOW = dataclasses.replace(_kit, spec=dataclasses.replace(_kit.spec, name='slow'))\n"
    )
    digest = dataclasses.replace(UR5E, name="slow").digest()
    meta = {"arm": "slow", "robot": f"{path}:SLOW", "arm_digest": digest}
    assert deploy.robot_of(Exported(**meta)) == f"{path}:SLOW"
