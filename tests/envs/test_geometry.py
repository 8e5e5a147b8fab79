"""Tables of OGBench's cube scenes, against OGBench itself."""

import gymnasium
import numpy as np
import pytest

from robo_rl.envs.ogbench import geometry
from robo_rl.envs.ogbench.scenes import load_ogbench
from robo_rl.quiet import quiet


@pytest.mark.parametrize("scene", ["single", "double", "triple", "quadruple"])
def test_a_scene_has_the_cubes_and_the_step_limit_of_ogbenchs(scene):
    load_ogbench("manipspace")
    with quiet():
        spec = gymnasium.spec(f"cube-{scene}-v0")
        env = load_ogbench("manipspace.envs.cube_env").CubeEnv(env_type=scene)
    assert geometry.STEP_LIMITS[scene] == spec.max_episode_steps
    assert geometry.CUBE_SCENES[scene] == env._num_cubes
    assert set(geometry.CUBE_SCENES) == set(geometry.STEP_LIMITS)


def test_observations_are_centred_and_scaled_as_ogbenchs():
    """Its observation begins with six positions and six velocities, then comes the tool."""
    np.testing.assert_array_equal(geometry.CENTER_M, [0.425, 0.0, 0.0])
    assert geometry.PER_M == 10.0
    with quiet():
        env = load_ogbench("manipspace.envs.cube_env").CubeEnv(env_type="single")
        observation, _ = env.reset(seed=0, options={"task_id": 1})
    tool_m = env.compute_ob_info()["proprio/effector_pos"]
    np.testing.assert_allclose(observation[12:15], (tool_m - geometry.CENTER_M) * geometry.PER_M)
