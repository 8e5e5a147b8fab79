"""What the online loop draws: functions of the seed and of a number, the same in every version."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.learn import controllers
from robo_rl.learn.online.behaviour import Behaviour, Noise
from robo_rl.learn.recipes import Recipe

RECIPE = Recipe(noise_std=0.1, noise_smoothing=0.6)
STILL = np.zeros(2, np.float32)


def drawn(*numbers):
    return np.random.default_rng(list(numbers))


def test_the_noise_of_an_episode_by_hand():
    """Of unit spread at every step: 0.6^2 + 0.8^2 = 1."""
    noise = Noise(RECIPE, seed=3, episode=7, size=2)
    value = drawn(3, 5, 7).normal(size=2)
    for step in (20, 21, 22):
        np.testing.assert_allclose(noise.disturb(STILL, step), 0.1 * value, rtol=1e-5)
        value = 0.6 * value + 0.8 * drawn(3, 4, step).normal(size=2)


def test_noise_has_its_spread_and_its_correlation():
    noise = Noise(RECIPE, seed=0, episode=0, size=2)
    values = np.array([noise.disturb(STILL, step) for step in range(3000)])
    np.testing.assert_allclose(values.std(axis=0), 0.1, rtol=0.1)
    for column in values.T:
        assert np.corrcoef(column[1:], column[:-1])[0, 1] == pytest.approx(0.6, abs=0.05)


def test_varied_noise_is_scaled_by_up_to_twice_anew_for_every_episode():
    plain = dataclasses.replace(RECIPE, noise_std=0.01)
    varied = dataclasses.replace(plain, noise_varied=True)
    ratios = [
        Noise(varied, 0, episode, 1).disturb(STILL[:1], 0)
        / Noise(plain, 0, episode, 1).disturb(STILL[:1], 0)
        for episode in range(500)
    ]
    assert np.min(ratios) > 0.0
    assert 1.9 < np.max(ratios) <= 2.0
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_noise_is_on_top_of_the_action_and_ends_at_the_bounds():
    wide = dataclasses.replace(RECIPE, noise_std=100.0)
    action = np.array([0.25, -0.5], np.float32)
    moved = Noise(RECIPE, 0, 0, 2).disturb(action, 0)
    np.testing.assert_allclose(moved - action, Noise(RECIPE, 0, 0, 2).disturb(STILL, 0), atol=1e-6)
    assert moved.dtype == np.float32
    noise = Noise(wide, 0, 0, 2)
    reached = np.array([noise.disturb(action, step) for step in range(50)])
    assert (reached.min(), reached.max()) == (-1.0, 1.0)


def test_uniform_actions_of_the_warm_up_are_of_their_env_step_and_end_with_it():
    recipe = Recipe(warmup_steps=10, warmup_actions="uniform")
    behaviour = Behaviour(None, None, recipe, seed=3, size=2, count=1, teacher=None)
    episode = behaviour.begin(0, STILL, 0, 0)
    for step in (0, 9):
        expected = drawn(3, 2, step).uniform(-1.0, 1.0, 2)
        (action,) = behaviour.actions(None, [episode], step, [{}])
        np.testing.assert_allclose(action, expected, rtol=1e-6)
        assert action.dtype == np.float32
    episode.queue = [STILL]
    (action,) = behaviour.actions(None, [episode], 10, [{}])
    assert action is STILL


class Four:
    """An agent whose action has four numbers: what it sees first, and so on."""

    @staticmethod
    def act(config, state, obs, key, explore):
        return obs[0] + jnp.arange(4.0)


def test_a_chunk_of_the_policy_is_played_action_by_action():
    recipe = Recipe(warmup_steps=0, chunk=2)
    behaviour = Behaviour(Four, None, recipe, 0, 2, count=1, teacher=None)
    episode = behaviour.begin(0, np.zeros(1, np.float32), 0, 0)
    played = []
    for step in range(3):
        played += behaviour.actions(None, [episode], step, [{}])
        episode.obs = episode.obs + 10.0
    np.testing.assert_array_equal(played, [[0.0, 1.0], [2.0, 3.0], [20.0, 21.0]])


@pytest.mark.parametrize(("chunk", "numbers"), [(1, 2), (3, 6)])
def test_a_policy_of_shorter_or_longer_chunks_is_refused(chunk, numbers):
    recipe = Recipe(warmup_steps=0, chunk=chunk)
    behaviour = Behaviour(Four, None, recipe, 0, 2, count=1, teacher=None)
    episode = behaviour.begin(0, np.zeros(1, np.float32), 0, 0)
    with pytest.raises(
        ValueError, match=f"chunk = {chunk} asks for {numbers} numbers an .* has 4;"
    ):
        behaviour.actions(None, [episode], 0, [{}])
    episode.obs[0] = np.nan
    with pytest.raises(FloatingPointError, match=r"env step 7: the policy's action is .*nan"):
        behaviour.actions(None, [episode], 7, [{}])


def test_what_the_teacher_does_ends_the_chunk_under_way():
    recipe = Recipe(teacher_share=1.0, warmup_steps=0)
    behaviour = Behaviour(None, None, recipe, 0, 2, 1, teacher=lambda obs: obs + 0.5)
    episode = behaviour.begin(0, STILL, 0, 0)
    episode.queue = [STILL, STILL]
    taught = behaviour.taught([episode])
    np.testing.assert_array_equal(taught[0]["teacher_actions"], [0.5, 0.5])
    np.testing.assert_array_equal(taught[0]["teacher_log_std"], [0.0, 0.0])
    (action,) = behaviour.actions(None, [episode], 0, taught)
    np.testing.assert_array_equal(action, [0.5, 0.5])
    assert episode.queue == []


def test_turns_are_drawn_by_episode_or_by_env_step():
    recipe = Recipe(teacher_share=0.5)
    for number in range(20):
        episodes = controllers.Turns(recipe, 3)
        episodes.begin(number, 0)
        assert episodes.teacher_acts(99) == (drawn(3, 6, number).uniform() < 0.5)
        steps = controllers.Turns(dataclasses.replace(recipe, teacher_turns="step"), 3)
        steps.begin(0, 0)
        assert steps.teacher_acts(number) == (drawn(3, 7, number).uniform() < 0.5)
