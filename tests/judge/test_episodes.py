import numpy as np
import pytest

from robo_rl.judge import episodes as evaluation
from robo_rl.learn import seeds
from tests.probe_envs import Endless, Reach, reach_expert


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(successes, trials, low, high):
    np.testing.assert_allclose(
        evaluation.wilson_interval(successes, trials), (low, high), atol=5e-5
    )


def test_wilson_is_symmetric_and_closed_at_one():
    low, high = evaluation.wilson_interval(20, 20)
    assert (low, high) == (pytest.approx(1.0 - 0.1611, abs=5e-5), 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="wilson_interval"):
        evaluation.wilson_interval(successes, trials)


def test_evaluation_seeds_are_never_training_seeds():
    training = {seeds.training_seed(run, episode) for run in range(5) for episode in range(400)}
    held_out = {s for run in range(5) for s in evaluation.evaluation_seeds(run, 400)}
    assert len(training) == len(held_out) == 2000
    assert max(training) < 2**31 <= min(held_out)
    assert max(held_out) < 2**32


def test_an_expert_succeeds_and_a_sluggard_is_truncated():
    """From 0.6 to 1.0 away, 0.2 a step and 0.15 of tolerance: 3 to 5 steps of -1, the last 0."""
    good = evaluation.evaluate(Reach(), reach_expert, evaluation.evaluation_seeds(0, 10))
    assert good.success_rate == 1.0
    assert not any(good.truncated)
    assert all(3 <= length <= 5 for length in good.lengths)
    assert good.returns == tuple(1.0 - length for length in good.lengths)
    lazy = evaluation.evaluate(Reach(), lambda _: np.zeros(2), evaluation.evaluation_seeds(0, 3))
    assert (lazy.success_rate, lazy.lengths, lazy.truncated) == (0.0, (20,) * 3, (True,) * 3)
    assert lazy.summary()["truncations"] == 3.0


def test_parts_of_several_workers_merge_to_the_whole():
    all_seeds = evaluation.evaluation_seeds(3, 7)
    whole = evaluation.evaluate(Reach(), reach_expert, sorted(all_seeds))
    parts = [evaluation.evaluate(Reach(), reach_expert, all_seeds[i::3]) for i in range(3)]
    assert evaluation.merge(parts) == whole


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="at least one seed"):
        evaluation.evaluate(Endless(), lambda _: np.zeros(1), [])
    with pytest.raises(ValueError, match="no episodes"):
        evaluation.merge([])
