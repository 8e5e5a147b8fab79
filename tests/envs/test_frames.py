import gymnasium
import numpy as np

from robo_rl.data.transitions import stack_frames
from robo_rl.envs import frames
from tests.probe_envs import Clip, collect


def test_stacks_of_the_environment_are_those_of_the_data():
    env = frames.stack_frames(Clip(), 3)
    assert env.observation_space["image"].shape == (2, 16, 3)
    seen, expected = collect(env, 8), stack_frames(collect(Clip(), 8), 3)
    for name in ("observations", "next_observations"):
        for part in ("image", "state"):
            np.testing.assert_array_equal(seen[name][part], np.asarray(expected[name][part]))
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_an_environment_of_images_alone_is_stacked_too():
    env = gymnasium.wrappers.TransformObservation(
        Clip(), lambda obs: obs["image"], Clip().observation_space["image"]
    )
    stacked = frames.stack_frames(env, 2)
    obs, _ = stacked.reset(seed=0)
    assert stacked.observation_space.contains(obs)
    np.testing.assert_array_equal(obs[..., 0], obs[..., 1])
