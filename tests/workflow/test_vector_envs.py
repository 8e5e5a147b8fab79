"""Environments in processes of their own are those that would run here, and go when they should."""

import contextlib
import multiprocessing

import numpy as np

from robo_rl.envs import registry
from robo_rl.envs.registry import EnvSetting
from robo_rl.workflow import environment, vector_envs


def test_processes_run_the_very_environment_and_end_with_it():
    setting = EnvSetting("robo_rl/CubeSingle-v0", {"form": "goal"})
    spaces = registry.spaces_of(setting)
    alone = environment.learner_env(setting, spaces)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (3, 2, 5)).astype(np.float32)
    with (
        contextlib.suppress(KeyboardInterrupt),
        vector_envs.environments(setting, spaces, 2) as envs,
    ):
        first, _ = envs.reset(seed=[4, 5], options={"reset_mask": np.array([True, True])})
        steps = [envs.step(action) for action in actions]
        again, _ = envs.reset(seed=[None, 5], options={"reset_mask": np.array([False, True])})
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt
    assert envs.closed
    assert not multiprocessing.active_children()
    for index, seed in enumerate((4, 5)):
        obs, _ = alone.reset(seed=seed)
        np.testing.assert_array_equal(first[index], obs)
        for action, (seen, rewards, *_, info) in zip(actions, steps, strict=True):
            obs, reward, *_, told = alone.step(action[index])
            np.testing.assert_array_equal(seen[index], obs)
            assert rewards[index] == reward
            assert info["success"][index] == told["success"]
    np.testing.assert_array_equal(again[0], steps[-1][0][0])
    np.testing.assert_array_equal(again[1], first[1])
    alone.close()
