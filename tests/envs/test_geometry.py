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
    """`compute_observation` of its cube environment: (position - (0.425, 0, 0)) * 10."""
    np.testing.assert_array_equal(geometry.CENTER_M, [0.425, 0.0, 0.0])
    assert geometry.PER_M == 10.0
