"""Reset seeds: those of training are never those of evaluation, and the same in every version."""

import numpy as np
import pytest

from robo_rl.learn.seeds import evaluation_seed, training_seed

HALF = 2**31


@pytest.mark.parametrize(("seed", "episode"), [(0, 0), (0, 1), (5, 7), (2**40, 10**6)])
def test_a_reset_seed_is_numpys_of_seed_stream_and_episode(seed, episode):
    training, evaluation = (
        int(np.random.SeedSequence([seed, stream, episode]).generate_state(4)[0]) % HALF
        for stream in (0, 1)
    )
    assert training_seed(seed, episode) == training
    assert evaluation_seed(seed, episode) == HALF + evaluation


def test_the_first_seeds_are_those_that_they_always_were():
    """Taken once: `SeedSequence([0, 0, 0])` begins with 2968811710."""
    assert training_seed(0, 0) == 2968811710 - HALF


def test_training_and_evaluation_share_no_seed_and_hardly_any_episode_repeats():
    for seeds, low in ((training_seed, 0), (evaluation_seed, HALF)):
        drawn = [seeds(seed, episode) for seed in range(3) for episode in range(300)]
        assert min(drawn) >= low
        assert max(drawn) < low + HALF
        assert len(set(drawn)) == 900
        assert max(drawn) - min(drawn) > 0.99 * HALF
