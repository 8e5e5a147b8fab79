import itertools

import numpy as np
import pytest

from robo_rl.learn.online.behaviour import Noise
from robo_rl.learn.recipes import Recipe

ZERO = np.zeros(20_000)


def _steps(recipe, count, episode=0):
    noise = Noise(recipe, 0, episode, len(ZERO))
    return np.stack([noise.disturb(ZERO, step) for step in range(count)])


@pytest.mark.parametrize("smoothing", [0.0, 0.6, 0.9, 1.0])
def test_correlated_noise_keeps_its_spread_and_its_correlation_from_step_to_step(smoothing):
    """x' = c x + sqrt(1 - c^2) n has the spread of n for ever, and correlation c."""
    seen = _steps(Recipe(noise_std=0.2, noise_smoothing=smoothing), 12)
    np.testing.assert_allclose(seen.std(axis=1), 0.2, rtol=0.03)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(seen)]
    np.testing.assert_allclose(correlations, smoothing, atol=0.03)


def test_varied_noise_has_one_scale_an_episode_between_nothing_and_twice_its_spread():
    recipe = Recipe(noise_std=0.1, noise_varied=True)
    scales = np.array([_steps(recipe, 2, episode).std(axis=1) for episode in range(60)])
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], rtol=0.05)
    assert scales.max() < 0.21
    assert scales.mean() == pytest.approx(0.1, abs=0.025)
    assert scales.std() > 0.03
