"""Any environment by its name: made again with its own limit, refused in words, seen as one."""

import contextlib

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from robo_rl.data.spaces import Spaces
from robo_rl.envs import registry
from robo_rl.envs.registry import EnvError, EnvSetting, LearnerView
from robo_rl.hardware import robots
from tests.probe_envs import Reach


@pytest.mark.parametrize(
    ("env_id", "size", "limit"),
    [
        ("Pendulum-v1", 3, 200),
        ("Hopper-v5", 11, 1000),
        ("robo_rl/CubeSingle-v0", 31, 200),
        ("robo_rl/CubeDouble-v0", None, 500),
        ("pointmaze-medium-v0", 4, 1000),
        ("pointmaze-medium-singletask-v0", 2, 1000),
        ("cube-single-singletask-task2-v0", 28, 200),
        ("scene-v0", 80, 750),
        ("puzzle-3x3-singletask-v0", 55, 500),
    ],
)
def test_every_suite_is_made_by_its_id_with_its_own_step_limit(env_id, size, limit):
    setting = EnvSetting(env_id)
    with contextlib.closing(registry.make(setting)) as env:
        spaces = Spaces.of(env.observation_space, env.action_space)
        assert env.spec.max_episode_steps == limit
        observation, _ = env.reset(seed=0)
        assert spaces.read(observation).shape == spaces.observation_shape
        assert size is None or spaces.observation_shape == (size,)


def test_a_goal_that_only_info_tells_is_shown_beside_each_observation():
    with contextlib.closing(registry.make(EnvSetting("pointmaze-medium-v0"))) as env:
        observation, info = env.reset(seed=3)
        np.testing.assert_array_equal(observation["goal"], info["goal"])
        following, *_ = env.step(env.action_space.sample())
        np.testing.assert_array_equal(following["goal"], info["goal"])
        assert env.observation_space.contains(following)


def test_an_unknown_id_lists_what_is_like_it_and_how_to_bring_ones_own():
    with pytest.raises(EnvError, match=r"its environment is 'antmaze-medium-singletask-task2-v0'"):
        registry.find("antmaze-medium-navigate-singletask-task2-v0")
    with pytest.raises(EnvError, match=r"similar: .*Hopper-v5.*your own: module:ID"):
        registry.find("Hoper-v5")
    with pytest.raises(EnvError, match="cannot import no_such_module"):
        registry.find("no_such_module:Some-v0")


def test_an_environment_without_an_end_asks_for_a_limit():
    gymnasium.register("probe/Forever-v0", entry_point="tests.probe_envs:Endless")
    try:
        with pytest.raises(EnvError, match=r"no step limit; give .*--max-episode-steps"):
            registry.make(EnvSetting("probe/Forever-v0"))
        with contextlib.closing(registry.make(EnvSetting("probe/Forever-v0", {}, 5))) as env:
            assert env.spec.max_episode_steps == 5
    finally:
        del gymnasium.registry["probe/Forever-v0"]


def test_a_setting_is_json_and_one_of_version_0_1_is_still_read():
    setting = EnvSetting("Hopper-v5", {"frame_skip": 2}, 100)
    assert EnvSetting.from_json(setting.to_json()) == setting
    old = EnvSetting.from_json({"scene": "double", "form": "goal", "gap": None})
    assert (old.id, old.kwargs) == ("robo_rl/CubeDouble-v0", {"form": "goal", "gap": None})
    with pytest.raises(EnvError, match="not JSON values"):
        registry.setting_of(EnvSpec("Some-v0", kwargs={"f": object()}))


def test_the_scene_of_an_arm_is_compiled_once_for_all_processes():
    with registry.prepared(EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal"})) as ready:
        path = ready.kwargs["scene_path"]
        with contextlib.closing(registry.make(ready)) as env:
            env.reset(seed=0)
    assert not registry.pathlib.Path(path).exists()
    with registry.prepared(EnvSetting("Pendulum-v1")) as same:
        assert same == EnvSetting("Pendulum-v1")


class Pays(gymnasium.Env):
    """Pays its action back, and says what it executed."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(0.0, 10.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

    def step(self, action):
        done = np.minimum(action, 5.0)
        info = {"executed_action": done, "is_success": bool(action[0] > 9.0)}
        return np.zeros(1), float(action[0]), False, False, info


def test_learners_see_unit_actions_scaled_rewards_and_one_name_for_success():
    spaces = Spaces.of(Pays.observation_space, Pays.action_space)
    env = LearnerView(Pays(), spaces, reward_scale=2.0, reward_shift=-1.0)
    observation, _ = env.reset()
    assert observation.dtype == np.float32
    _, reward, *_, info = env.step(np.array([1.0]))
    assert reward == 2.0 * 10.0 - 1.0
    assert info["success"] is True
    np.testing.assert_allclose(info["executed_action"], [0.0])
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_a_policy_is_told_what_it_does_not_fit():
    spaces = registry.spaces_of(EnvSetting("Hopper-v5"))
    registry.check_fits(EnvSetting("Hopper-v5"), spaces, "run x")
    with pytest.raises(EnvError, match=r"run x does not fit environment Pendulum-v1: observations"):
        registry.check_fits(EnvSetting("Pendulum-v1"), spaces, "run x")


def test_arguments_of_an_id_are_those_that_it_brings_and_those_that_are_given():
    found = registry.arguments(EnvSetting("robo_rl/CubeDouble-v0", {"form": "goal"}))
    assert found == {"scene": "double", "form": "goal"}
    assert robots.get().name == "ur5e"


def test_what_packages_register_does_not_travel_to_other_processes():
    with registry.prepared(EnvSetting("Pendulum-v1")) as setting:
        assert setting.registered is None
    assert not registry.only_here(EnvSetting("Pendulum-v1"))


@pytest.mark.parametrize("entry", ["tests.probe_envs:Reach", Reach])
def test_what_a_module_of_ones_own_defines_travels(entry, monkeypatch):
    spec = EnvSpec("Mine-v0", entry_point=entry, max_episode_steps=5)
    monkeypatch.setitem(gymnasium.registry, "Mine-v0", spec)
    with registry.prepared(EnvSetting("Mine-v0")) as setting:
        assert setting.registered is spec
    assert not registry.only_here(EnvSetting("Mine-v0"))


@pytest.mark.parametrize("entry", ["__main__:Mine", lambda: Reach()])
def test_what_the_running_script_or_a_function_defines_is_only_here(entry, monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Mine-v0", EnvSpec("Mine-v0", entry_point=entry))
    assert registry.only_here(EnvSetting("Mine-v0"))


def test_an_entry_point_names_its_module_as_text_or_by_what_it_is():
    named = {"tests.probe_envs:Reach": "tests.probe_envs", Reach: "tests.probe_envs"}
    for entry, module in named.items():
        assert registry._module_of(EnvSpec("Mine-v0", entry_point=entry)) == module


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, None),
        ({"success": 1.0}, True),
        ({"is_success": 0.0}, False),
        ({"goal_achieved": True}, True),
        ({"success": False, "is_success": True, "goal_achieved": True}, False),
        ({"is_success": False, "goal_achieved": True}, False),
    ],
)
def test_success_is_read_under_the_names_that_suites_use(info, expected):
    assert registry.succeeded(info) is expected


def test_a_limit_of_ones_own_stands_and_else_that_of_the_id_does():
    assert registry.limited(EnvSetting("Hopper-v5")).max_episode_steps == 1000
    assert registry.limited(EnvSetting("Hopper-v5", {}, 7)).max_episode_steps == 7


def test_an_environment_that_tells_no_goal_is_said_so():
    class Silent(Pays):
        pass

    with pytest.raises(EnvError, match="reset tells no goal"):
        registry.GoalShown(Silent()).reset()


def test_what_the_code_of_an_environment_raises_is_told_with_its_id():
    with pytest.raises(EnvError, match=r"environment Pendulum-v1 cannot be made: .*nonsense"):
        registry.make(EnvSetting("Pendulum-v1", {"nonsense": 1}))
    with pytest.raises(EnvError, match=r"cannot import tests\.no_module"):
        registry.find("tests.no_module:Mine-v0")
