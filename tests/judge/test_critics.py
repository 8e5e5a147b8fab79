import dataclasses

import numpy as np

from robo_rl.agents import cql, iql
from robo_rl.judge import critics
from robo_rl.judge.critics import Curves
from robo_rl.learn import offline
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.networks import NetConfig
from tests.probe_envs import Reach, collect, reach_expert

T = 20
STEPS = 100 * np.arange(1, T + 1)
RISE = np.linspace(0.0, 10.0, 11)


def _curves(data_q, td_share=0.05, gap=0.1, regulariser=None):
    """Targets have a spread of 2, so a variance of 4."""
    n = len(data_q)
    return Curves(
        steps=100 * np.arange(1, n + 1),
        td_error=np.broadcast_to(4.0 * np.asarray(td_share), n),
        data_q=np.asarray(data_q, np.float64),
        policy_gap=np.full(n, gap),
        target_std=np.full(n, 2.0),
        regulariser=regulariser,
    )


RISES_AND_SETTLES = 10.0 * (1.0 - np.exp(-STEPS / 300))
RISES_AND_FALLS = np.concatenate([RISE, np.linspace(9.5, 4.0, T - 11)])


def test_a_low_td_error_and_values_that_rise_and_settle_fit():
    verdict = critics.judge(_curves(RISES_AND_SETTLES))
    assert (verdict.kind, verdict.step) == (critics.FITS, 100 * T)


def test_values_that_rise_and_fall_overfit_and_the_peak_is_picked():
    verdict = critics.judge(_curves(RISES_AND_FALLS))
    assert (verdict.kind, verdict.step) == (critics.OVERFITTING, 1100)
    assert "0.05 of the targets' variance" in verdict.why
    assert "step 1100" in str(verdict)


def test_noise_of_a_tenth_of_the_range_changes_no_verdict():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, T)
    assert critics.judge(_curves(RISES_AND_SETTLES + noise)).kind == critics.FITS
    verdict = critics.judge(_curves(RISES_AND_FALLS + noise))
    assert verdict.kind == critics.OVERFITTING
    assert abs(verdict.step - 1100) <= 200


def test_of_equal_peaks_the_latest_is_picked():
    flat_top = np.concatenate([RISE[:8], np.full(6, 7.0), np.linspace(6.0, 1.0, 6)])
    assert critics.fall_from(flat_top) == 13


def test_values_below_zero_come_down_before_they_rise_and_that_is_no_fall():
    settling = -10.0 * (1.0 - np.exp(-STEPS / 300))
    assert critics.judge(_curves(settling)).kind == critics.FITS
    dip = np.concatenate([np.linspace(-1.0, -10.0, 6), np.linspace(-9.0, -4.0, T - 6)])
    assert critics.judge(_curves(dip)).kind == critics.FITS
    falling_again = np.concatenate([dip[:13], np.linspace(-6.5, -9.5, T - 13)])
    verdict = critics.judge(_curves(falling_again))
    assert (verdict.kind, verdict.step) == (critics.OVERFITTING, 1400)


def test_an_overshoot_that_settles_is_convergence():
    overshoot = np.concatenate([RISE, [9.0, 8.0, 7.5, 7.2, 7.1, 7.0, 7.0, 7.0, 7.0]])
    assert critics.judge(_curves(overshoot)).kind == critics.FITS


def test_a_fall_without_a_rise_is_not_called_overfitting():
    verdict = critics.judge(_curves(np.linspace(0.0, -20.0, T)))
    assert verdict.kind == critics.UNCLEAR
    assert "only fallen" in verdict.why


def test_a_td_error_that_stays_high_is_underfitting_whatever_the_values_do():
    for data_q in (RISES_AND_SETTLES, RISES_AND_FALLS):
        verdict = critics.judge(_curves(data_q, td_share=0.8))
        assert (verdict.kind, verdict.step) == (critics.UNDERFITTING, 100 * T)
        assert "larger networks" in verdict.advice
    fallen = np.linspace(3.0, 0.1, T)
    assert critics.judge(_curves(RISES_AND_SETTLES, td_share=fallen)).kind == critics.FITS


def test_critics_that_prefer_the_policy_by_more_than_the_spread_of_values_underfit():
    assert critics.judge(_curves(RISES_AND_SETTLES, gap=1.9)).kind == critics.FITS
    verdict = critics.judge(_curves(RISES_AND_SETTLES, gap=2.1))
    assert verdict.kind == critics.UNDERFITTING
    assert "policy's actions 2.1 above" in verdict.why


def test_a_regulariser_that_does_not_go_down_is_underfitting():
    for kind, values in (
        (critics.UNDERFITTING, np.linspace(3.0, 3.5, T)),
        (critics.FITS, np.linspace(3.0, 1.0, T)),
        (critics.FITS, np.linspace(-3.0, -2.0, T)),  # the data's actions are rated higher by far
    ):
        assert critics.judge(_curves(RISES_AND_SETTLES, regulariser=values)).kind == kind


def test_a_short_run_is_not_judged():
    verdict = critics.judge(_curves(RISES_AND_FALLS[: critics.MIN_POINTS - 1]))
    assert verdict.kind == critics.UNCLEAR
    assert "reports that a verdict takes" in verdict.why
    assert critics.judge(_curves([1.0])).kind == critics.UNCLEAR
    assert critics.judge(_curves(np.ones(critics.MIN_POINTS))).kind == critics.FITS


def test_targets_that_are_all_alike_are_judged_by_the_error_against_their_size():
    same = dataclasses.replace(_curves(np.full(T, 10.0), gap=0.05), target_std=np.zeros(T))
    assert critics.judge(dataclasses.replace(same, td_error=np.full(T, 1e-4))).kind == "fits"
    wrong = critics.judge(dataclasses.replace(same, td_error=np.full(T, 1.0)))
    assert wrong.kind == critics.UNDERFITTING


def test_curves_are_read_by_seed_and_runs_without_them_have_none():
    assert critics.curves([]) == {}
    assert critics.curves([{"step": 1, "actor_loss": 2.0}]) == {}
    one = dict.fromkeys(critics.PROBED, 1.0)
    rows = [{"step": 5, "q": 0.0}, {"step": 10, **one}, {"step": 20, **one, "probe_data_q": 2.0}]
    (curves,) = critics.curves(rows).values()
    np.testing.assert_array_equal(curves.steps, [10, 20])
    np.testing.assert_array_equal(curves.data_q, [1.0, 2.0])
    assert curves.regulariser is None
    many = [{"step": 10, **one, **{f"seed{seed}/{name}": seed for seed in (10, 9) for name in one}}]
    found = critics.curves(many)
    assert list(found) == ["seed9", "seed10"]
    np.testing.assert_array_equal(found["seed9"].policy_gap, [9.0])


class Rows(list):
    """A monitor that keeps the metrics."""

    def metrics(self, step, values):
        self.append({"step": step, **values})

    def checkpoint(self, step, snapshot):
        pass


def _run(agent, config, data, **loop):
    rows = Rows()
    offline.train(agent, config, data, OfflineLoop(batch_size=32, **loop), monitor=rows)
    return rows


def _judge(rows):
    (curves,) = critics.curves(rows).values()
    return critics.judge(curves)


NET = NetConfig(hidden=(32, 32))


def test_cql_on_four_random_episodes_overfits():
    """Rewards of 1 and 2 and a discount of 0.9: no policy is worth less than 1."""
    data = collect(Reach(), 4)
    data["rewards"] += 2.0
    config = cql.Config(
        NET, NET, samples=2, weight=1.0, discount=0.9, critic_lr=3e-3, actor_lr=1e-3
    )
    verdict = _judge(_run(cql, config, data, steps=2400, log_every=120, checkpoint_every=2400))
    assert verdict.kind == critics.OVERFITTING
    assert verdict.step <= 1500


def test_iql_fits_what_it_can_learn_and_underfits_when_it_is_stopped_early():
    data = collect(Reach(), 60, reach_expert, noise=0.4)
    data["rewards"] += 1.0
    config = iql.Config(NET, NET, critic_lr=1e-3)
    rows = _run(iql, config, data, steps=1200, log_every=6, checkpoint_every=1200)
    assert _judge(rows).kind == critics.FITS
    assert _judge(rows[:10]).kind == critics.UNDERFITTING
