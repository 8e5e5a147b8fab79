"""Deployment: where episodes begin. The deployment itself is in test_quickstart.py."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.make import make_cube_env
from robo_rl.envs.ogbench.collect import CollectConfig
from robo_rl.envs.registry import EnvSetting
from robo_rl.envs.tasks.cube import CubeTask, CubeTaskConfig
from robo_rl.hardware import robots
from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.bridges.dds import Node
from robo_rl.hardware.errors import HardwareError
from robo_rl.hardware.guard.barrier import BarrierFilter
from robo_rl.hardware.guard.chain import GuardConfig, make_shaper
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT, UR_TOPICS
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.learn.seeds import evaluation_seed
from robo_rl.workflow import collect, deploy, environment

CUBES = {"scene": "single", "form": "goal"}


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


@pytest.fixture
def a_driver():
    """An arm on a domain of its own."""
    domain_id = 60 + os.getpid() % 40
    with Node("driver", domain_id) as node:
        node.publisher(UR_TOPICS.joint_states, rt.JointState)
        yield domain_id


def test_no_second_twin_beside_an_arm(a_driver, tmp_path, monkeypatch):
    meta = {
        "arm": "ur5e",
        "arm_digest": UR5E.digest(),
        "env": EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal"}).to_json(),
    }
    monkeypatch.setattr(deploy.NumpyPolicy, "load", lambda _: Exported(**meta))
    out = tmp_path / "out"
    with pytest.raises(HardwareError, match=rf"{a_driver} has an arm already.*with attach "):
        deploy.deploy("policy", domain=a_driver, out=out)
    with pytest.raises(HardwareError, match=rf"{a_driver} has an arm already.*another domain "):
        deploy.serve_twin(CUBES, 2, a_driver, 0.0, say=print)
    assert not out.exists()


@pytest.mark.parametrize("task", [0, 9])
def test_a_task_that_no_scene_has_is_refused_with_the_numbers_there_are(task, monkeypatch):
    setting = EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal"})
    meta = {"arm": "ur5e", "arm_digest": UR5E.digest(), "env": setting.to_json()}
    monkeypatch.setattr(deploy.NumpyPolicy, "load", lambda _: Exported(**meta))
    sentence = f"the tasks of OGBench's cube scenes are 1 to 5, got {task}"
    with pytest.raises(ValueError, match=sentence):
        deploy.deploy("policy", task=task)
    with pytest.raises(ValueError, match=sentence):
        deploy.serve_twin(CUBES, task, 1, 0.0, say=print)
    with pytest.raises(ValueError, match=sentence):
        collect.collect("cube/x-v0", CollectConfig(episodes=1), task=task)


def test_an_impossible_domain_is_refused_before_a_process_starts():
    with pytest.raises(ValueError, match=r"ROS_DOMAIN_ID must be in \[0, 232\], got 500"):
        deploy.serve_twin(CUBES, 2, 500, 0.0, say=print)
    with pytest.raises(ValueError, match=r"ROS_DOMAIN_ID must be in \[0, 232\], got 500"):
        deploy.deploy("policy", domain=500)


def test_a_policy_of_a_task_without_numbers_needs_none():
    own_task = pathlib.Path(__file__).parents[2] / "examples" / "own_task.py"
    own = EnvSetting("robo_rl/Arm-v0", {"task": str(own_task)})
    assert deploy._task(own, None).name == "hover"
    cubes = EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal"})
    assert deploy._task(cubes, None).config.task_id == 2


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


def test_a_policy_of_an_own_robot_is_deployed_on_it(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from robo_rl.hardware import robots\n"
        "_kit = robots.get()\n"
        "SLOW = dataclasses.replace(_kit, spec=dataclasses.replace(_kit.spec, name='slow'))\n"
    )
    digest = dataclasses.replace(UR5E, name="slow").digest()
    setting = environment.of_task("cube", f"{path}:SLOW")
    about = environment.arm_of(setting)
    assert (about["arm"], about["arm_digest"]) == ("slow", digest)
    monkeypatch.chdir("/")
    assert robots.get(deploy.robot_of(Exported(**about))).name == "slow"


def test_where_the_policy_cannot_act_the_guards_are_asked_to_hold(caplog):
    class Blind:
        action_size = 5

        def act(self, observation):
            raise deploy.NotFinite("observation must be finite")

    asked = deploy._asked(Blind(), np.full(3, np.nan))
    assert asked.shape == (5,)
    assert np.isnan(asked).all()  # which tests/envs/test_arm_env.py shows to be a hold
    assert "holding: observation must be finite" in caplog.text
