"""What a config takes and what it refuses: the bounds themselves, and the next number beyond."""

import math

import pytest

from robo_rl.agents import AGENTS, checks

BEYOND_0, BELOW_1, BEYOND_1 = 5e-324, math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0)


@pytest.mark.parametrize(
    ("check", "taken", "refused", "sentence"),
    [
        (checks.positive, [BEYOND_0, 1, 1e9], [0, -1, math.inf, math.nan], "finite and > 0"),
        (checks.not_negative, [0, 0.0, 1e9], [-BEYOND_0, math.inf, math.nan], "finite and >= 0"),
        (checks.fraction, [BEYOND_0, 1.0], [0.0, BEYOND_1, math.nan], r"in \(0, 1\]"),
        (checks.inside, [BEYOND_0, 0.5, BELOW_1], [0.0, 1.0, math.nan], r"in \(0, 1\)"),
        (checks.unit, [0.0, 1.0], [-BEYOND_0, BEYOND_1, math.nan], r"in \[0, 1\]"),
    ],
)
def test_a_range_has_the_bounds_that_its_sentence_says(check, taken, refused, sentence):
    for value in taken:
        check("a.b", value)
    for value in refused:
        with pytest.raises(ValueError, match=f"^a.b must be {sentence}, got {value}$"):
            check("a.b", value)


def test_other_bounds_of_an_open_range_are_in_its_sentence():
    checks.inside("a.b", 3.0, 2.0, 4.5)
    for value in (2.0, 4.5):
        with pytest.raises(ValueError, match=rf"a.b must be in \(2, 4.5\), got {value}"):
            checks.inside("a.b", value, 2.0, 4.5)


def test_one_or_all_members_can_be_drawn_and_no_more():
    for value in (1, 3):
        checks.subset("a.b", value, 3)
    for value in (0, 4):
        with pytest.raises(ValueError, match=rf"a.b must be in \[1, 3\], got {value}"):
            checks.subset("a.b", value, 3)


def test_what_a_batch_lacks_is_told_with_the_way_out():
    checks.needed("a", ("ends", "more"), ("ends",))
    with pytest.raises(ValueError, match=r"^a.init: the batch lacks x, y; .*says which loop"):
        checks.needed("a", ("ends",), ("x", "ends", "y"))
    with pytest.raises(ValueError, match=r"^a.init: the batch lacks x; ask$"):
        checks.needed("a", (), ("x",), "ask")


AT_THE_BOUND = [
    *[
        (name, {"initial_log_std": value, "log_std_min": -3.0, "log_std_max": -1.0})
        for name in ("awac", "calql", "cql", "hnpg", "ppo", "sac")
        for value in (-3.0, -1.0)
    ],
    *[
        ("distill", {"teacher_std": 1.0, "log_std_min": low, "log_std_max": low + 1.0})
        for low in (-1.0, 0.0)
    ],
    ("famo2o", {"low": 2.0, "high": 2.0}),
    ("famo2o", {"low": 0.0, "code_size": 2}),
    ("rebrac", {"decay_to": 0.0}),
    ("rebrac", {"decay_to": 1.0}),
    ("fdvl", {"huber": 0.0}),
    ("ppo", {"gae_lambda": 0.0, "value_clip": 0.0, "clip_norm": 0.0, "decay_steps": 0}),
    ("ppo", {"gae_lambda": 1.0, "discount": 1.0}),
    ("hnpg", {"gae_lambda": 1.0, "discount": 1.0, "offline_weight": 0.0, "damping": 0.0}),
    ("sac", {"critics": 1, "subset": 1, "polyak": 1.0, "temperature_lr": 0.0, "bc_weight": 0.0}),
    ("sac", {"critics": 3, "subset": 3}),
    ("residual", {"scale": 1.0, "noise_clip": 0.0, "exploration_std": 0.0, "clip_norm": 0.0}),
    ("anchored", {"target_low": 0.0, "target_high": 1.0, "noise_clip": 0.0}),
    ("unio4", {"disagreement": 0.0, "clip_norm": 0.0, "members": 1, "critics": 1, "models": 1}),
]


@pytest.mark.parametrize(("name", "values"), AT_THE_BOUND)
def test_a_value_at_the_bound_is_taken(name, values):
    config = AGENTS[name].Config(**values)
    assert {key: getattr(config, key) for key in values} == values


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *[
            (name, {"initial_log_std": value, "log_std_min": -3.0, "log_std_max": -1.0})
            for name in ("awac", "calql", "cql", "hnpg", "ppo", "sac")
            for value in (-3.1, -0.9)
        ],
        *[
            (name, {"log_std_min": -2.0, "log_std_max": -2.0})
            for name in ("bc", "distill", "iql", "famo2o", "fdvl", "recoil", "xql", "unio4")
        ],
        ("distill", {"teacher_std": 0.99, "log_std_min": 0.0}),
        ("distill", {"teacher_std": 1.01, "log_std_max": 0.0}),
        *[("ifql", {"expectile": value}) for value in (0.0, 1.0)],
        *[("unio4", {share: value}) for share in ("expectile", "omega") for value in (0.0, 1.0)],
        ("rebrac", {"decay_to": -0.1}),
        ("famo2o", {"low": 2.0, "high": 1.9}),
        ("famo2o", {"high": math.inf}),
        *[("famo2o", {"code_size": value}) for value in (0, 3)],
        ("anchored", {"target_low": 1.0, "target_high": 1.0}),
        ("cql", {"clip_low": -1.0, "clip_high": -1.0}),
        ("sac", {"critics": 3, "subset": 4}),
        ("sac", {"critics": 3, "subset": 0}),
    ],
)
def test_a_value_just_outside_is_refused(name, values):
    names = "|".join(values)
    with pytest.raises(ValueError, match=rf"^{name}.Config.({names}) must be"):
        AGENTS[name].Config(**values)
