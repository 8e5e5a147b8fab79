"""Tasks by name and path on any robot, and their step limits."""

import json
import textwrap

import gymnasium
import numpy as np
import pytest

import robo_rl.envs  # noqa: F401  registers the environments
from robo_rl.envs import make, tasks
from robo_rl.envs.arm_env import ArmEnv
from robo_rl.envs.ogbench import geometry
from robo_rl.envs.ogbench.scenes import load_ogbench
from robo_rl.envs.tasks import cube
from robo_rl.hardware import robots
from robo_rl.hardware.twin.mujoco_device import save_scene
from robo_rl.plugins import PluginError
from robo_rl.quiet import quiet

REACH = '''
    """Bring the tool to a point."""

    import numpy as np

    from robo_rl.envs.kinematics import down_quaternion
    from robo_rl.envs.task import Outcome, SceneStart, Task


    class Reach(Task):
        max_steps = 7
        observation_size = 9

        def __init__(self, kit, radius_m=0.03):
            super().__init__(kit)
            self.radius_m = radius_m
            self.goal = np.zeros(3)

        def start(self, rng, options):
            self.goal = rng.uniform((0.3, -0.2, 0.1), (0.5, 0.2, 0.3))
            home = np.array(self.kit.spec.home_rad)
            return SceneStart(home, {}, {})

        def observe(self, state):
            return np.concatenate((state.q_rad, self.goal))

        def outcome(self, state):
            near = np.linalg.norm(state.tool.position_m - self.goal) < self.radius_m
            return Outcome(float(near), bool(near), bool(near))
'''


@pytest.fixture
def reach(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(REACH))
    return f"{path}:Reach"


@pytest.mark.parametrize("scene", geometry.CUBE_SCENES)
def test_every_cube_scene_ends_when_ogbenchs_does(scene):
    """Against OGBench's own registration, goal-conditioned and single-task."""
    load_ogbench("manipspace")
    with quiet():
        theirs = {
            gymnasium.spec(f"cube-{scene}{form}-v0").max_episode_steps
            for form in ("", "-singletask")
        }
    ours = gymnasium.spec(f"robo_rl/Cube{scene.capitalize()}-v0").max_episode_steps
    task = cube.CubeTask.make(robots.get(), scene=scene)
    assert {ours, task.max_steps, geometry.STEP_LIMITS[scene]} == theirs


def test_the_cube_is_found_by_name_with_its_options():
    assert tasks.get("cube") is cube.CubeTask
    task = tasks.make("cube", robots.get(), scene="double", form="single", task_id=3)
    assert isinstance(task, cube.CubeTask)
    assert (task.config.task_id, task.objects) == (3, ("cube_0", "cube_1"))
    with pytest.raises(ValueError, match="cube has no option colour; it has scene, form"):
        tasks.make("cube", robots.get(), colour="red")
    with pytest.raises(PluginError, match="no task is called 'cubes'; is 'cube' meant"):
        tasks.get("cubes")


def test_any_task_by_the_arms_id_is_the_registered_cube():
    same = gymnasium.make("robo_rl/Arm-v0", task="cube", form="single", task_id=2)
    cube_env = gymnasium.make("robo_rl/CubeSingle-v0", form="single", task_id=2)
    action = np.array([0.5, -0.3, 0.2, 0.1, 1.0], np.float32)
    for env in (same, cube_env):
        env.reset(seed=4)
    for _ in range(5):
        steps = [env.step(action) for env in (same, cube_env)]
        np.testing.assert_array_equal(steps[0][0], steps[1][0])
    assert same.spec.max_episode_steps == cube_env.spec.max_episode_steps == 200
    same.close()
    cube_env.close()


def test_a_task_without_objects_runs_on_the_shipped_arm_from_a_file(reach):
    env = gymnasium.make("robo_rl/Arm-v0", task=reach, radius_m=0.5)
    assert isinstance(env.unwrapped, ArmEnv)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (9,)
    _, reward, terminated, _, info = env.step(np.zeros(5, np.float32))
    assert (reward, terminated, info["success"]) == (1.0, True, True)
    env.close()


def test_the_tasks_own_step_limit_truncates(reach):
    for limit, given in ((7, {}), (3, {"max_steps": 3})):
        env = gymnasium.make("robo_rl/Arm-v0", task=reach, radius_m=0.0, **given)
        env.reset(seed=0)
        ends = [env.step(np.zeros(5, np.float32))[2:4] for _ in range(limit)]
        assert ends == [(False, False)] * (limit - 1) + [(False, True)]
        env.close()


def test_an_own_task_survives_gymnasiums_json(reach):
    """As a dataset stores its environment and a reader makes it again."""
    env = gymnasium.make("robo_rl/Arm-v0", task=reach, gap={"tool_offset_m": [0.01, 0.0, 0.0]})
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    first, second = env.reset(seed=3)[0], again.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)
    assert json.loads(env.spec.to_json())["kwargs"]["task"].partition("#")[0] == reach
    env.close()
    again.close()


def test_an_unknown_option_of_an_own_task_names_the_known(reach):
    with pytest.raises(ValueError, match="task reach has no option size; it has radius_m"):
        make.make_arm_env(task=reach, size=3)


def test_a_path_as_typed_is_stored_so_that_any_folder_finds_it(reach, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    env = gymnasium.make("robo_rl/Arm-v0", task="mine.py:Reach", radius_m=0.3)
    monkeypatch.chdir("/")
    assert env.spec.kwargs == {"task": tasks.TASKS.find(reach).reference, "radius_m": 0.3}
    again = gymnasium.make(env.spec)
    assert again.unwrapped.task.radius_m == 0.3
    (tmp_path / "mine.py").write_text("raise RuntimeError('another task')")
    with pytest.raises(PluginError, match=r"mine.py has changed since this was recorded"):
        gymnasium.make(env.spec)
    env.close()
    again.close()


def test_a_compiled_scene_serves_another_process(reach, tmp_path):
    task = tasks.make(reach, robots.get())
    path = save_scene(task.scene, tmp_path / "scene.mjb")
    env = make.make_arm_env(task=reach, scene_path=str(path))
    built = make.make_arm_env(task=reach)
    np.testing.assert_array_equal(env.reset(seed=1)[0], built.reset(seed=1)[0])
    assert env.unwrapped.task.scene is not built.unwrapped.task.scene
    env.close()
    built.close()


def test_a_stored_environment_names_its_task(reach):
    by_cube = make.task_of({"scene": "double", "form": "goal", "gap": None}, 4)
    assert (by_cube.config.scene, by_cube.config.task_id) == ("double", 4)
    assert make.task_of({"task": reach, "radius_m": 0.2, "barrier": {}}).radius_m == 0.2


def test_ogbenchs_scenes_refuse_another_robot(tmp_path):
    path = tmp_path / "other.py"
    path.write_text(
        "import dataclasses\n"
        "from robo_rl.hardware import robots\n"
        "_kit = robots.get()\n"
        "OTHER = dataclasses.replace(_kit, spec=dataclasses.replace(_kit.spec, name='other'))\n"
    )
    with pytest.raises(ValueError, match="scenes hold a ur5e, not a other"):
        make.make_arm_env(task="cube", robot=str(path))
