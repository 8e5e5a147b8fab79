import dataclasses

import pytest

from robo_rl import agents
from robo_rl.learn import recipes
from robo_rl.learn.contract import has_setting
from robo_rl.learn.recipes import RECIPES, Recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_names_an_agent_and_fits_its_config(name):
    recipe = recipes.get(name)
    config = recipe.configure(agents.get(recipe.agent or "iql").Config())
    for field, value in recipe.options:
        assert getattr(config, field) == value
    if has_setting(config, "utd"):
        assert config.utd == recipe.utd


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"known: .*rlpd.*wsrl"):
        recipes.get("dqn")


def test_the_papers_are_what_they_are():
    rlpd, wsrl, residual = RECIPES["rlpd"], RECIPES["wsrl"], RECIPES["residual"]
    assert (rlpd.offline_fraction, rlpd.utd, rlpd.start) == (0.5, 20, "fresh")
    assert dict(rlpd.options) == {"backup_entropy": True, "log_std_min": -20.0}
    assert all(RECIPES[name].wait_for_episode for name in ("cql", "calql"))
    assert (wsrl.offline_fraction, wsrl.utd, wsrl.warmup_steps) == (0.0, 4, 5000)
    assert not wsrl.needs_offline_data
    assert wsrl.start == "learned"
    assert not wsrl.reset
    assert residual.n_step == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": "cold"}, "Recipe.start"),
        ({"warmup_actions": "zero"}, "Recipe.warmup_actions"),
        ({"offline_fraction": 1.5}, "Recipe.offline_fraction"),
        ({"offline_fraction": 0.3, "batch_size": 5}, "whole number of rows"),
        ({"batch_size": 0}, "Recipe.batch_size"),
        ({"utd": 0}, "Recipe.utd"),
        ({"update_every": 0}, "Recipe.update_every"),
        ({"noise_std": -1.0}, "Recipe.noise_std"),
        ({"noise_smoothing": 1.5}, "Recipe.noise_smoothing"),
        ({"n_step": 0}, "Recipe.n_step"),
        ({"warmup_steps": -1}, "Recipe.warmup_steps"),
        ({"teacher_share": 1.5}, "Recipe.teacher_share"),
        ({"teacher_share_steps": -1}, "Recipe.teacher_share_steps"),
        ({"teacher_turns": "x"}, "Recipe.teacher_turns"),
        ({"critic_only_updates": -1}, "Recipe.critic_only_updates"),
        ({"reset": ("critic",)}, "Recipe.reset"),
        ({"wait_for_episode": True, "critic_only_updates": 1}, "Recipe.wait_for_episode"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


@pytest.mark.parametrize(
    "values",
    [
        {"offline_fraction": 0.0},
        {"offline_fraction": 1.0},
        {"offline_fraction": 0.3, "batch_size": 10},
        {"teacher_share": 1.0, "teacher_share_steps": 0},
        {"noise_std": 0.0, "noise_smoothing": 0.0},
        {"noise_std": 0.1, "noise_smoothing": 1.0},
        {"batch_size": 1, "utd": 1, "update_every": 1, "n_step": 1, "chunk": 1},
        {"chunk": 2},
        {"n_step": 2},
        {"warmup_steps": 0, "critic_only_updates": 0, "rollout": 0},
        {"warmup_steps": 0, "rollout": 1},
        {"agent": "", "start": "continued"},
        {"reset": ("critic",), "start": "learned"},
        {"wait_for_episode": True},
    ],
)
def test_a_value_at_the_bound_is_taken(values):
    recipe = Recipe(**values)
    assert {name: getattr(recipe, name) for name in values} == values


@pytest.mark.parametrize(
    "wrong",
    [
        {"offline_fraction": -0.5},
        {"offline_fraction": 1.01},
        {"teacher_share": -0.1},
        {"noise_smoothing": -0.1},
        {"noise_smoothing": 1.1},
        {"noise_std": -0.01},
        {"noise_std": float("nan")},
        {"chunk": 0},
        {"chunk": 2, "n_step": 2},
        {"agent": ""},
        {"agent": "", "start": "learned"},
        {"reset": ("critic",), "start": "continued"},
    ],
)
def test_a_value_just_outside_is_refused(wrong):
    with pytest.raises(ValueError, match=f"^Recipe.{next(iter(wrong))}"):
        Recipe(**wrong)


@pytest.mark.parametrize(
    ("rollout", "fraction", "rows"),
    [(16, 0.2, 4), (16, 0.5, 16), (16, 0.75, 48), (2048, 0.0, 0), (0, 0.5, 0)],
)
def test_offline_rows_behind_a_rollout_are_their_fraction_of_all(rollout, fraction, rows):
    recipe = Recipe(warmup_steps=0, rollout=rollout, offline_fraction=fraction)
    assert recipe.offline_rows == rows
    assert recipe.needs_offline_data == (fraction > 0.0)


@pytest.mark.parametrize(("rollout", "fraction"), [(16, 0.3), (2, 0.2)])
def test_offline_rows_behind_a_rollout_are_whole(rollout, fraction):
    with pytest.raises(ValueError, match=r"is .* rows, not a whole number"):
        Recipe(warmup_steps=0, rollout=rollout, offline_fraction=fraction)


def test_offline_data_are_read_by_a_seeded_buffer_too():
    assert Recipe(seed_buffer_with_offline=True).needs_offline_data
    assert not Recipe().needs_offline_data


def test_a_recipe_sets_the_critic_steps_of_an_agent_that_has_them():
    sac = agents.get("sac").Config()
    assert Recipe(utd=3).configure(sac).utd == 3
    assert Recipe().configure(dataclasses.replace(sac, utd=5)).utd == 1
    iql = agents.get("iql").Config()
    assert Recipe(agent="iql").configure(iql) == iql
    ppo = agents.get("ppo").Config(minibatch=8)
    assert Recipe(agent="ppo", warmup_steps=0, rollout=24).configure(ppo) == ppo


def test_what_an_agent_cannot_do_is_refused():
    iql = agents.get("iql").Config()
    with pytest.raises(ValueError, match=r"Recipe\.utd"):
        Recipe(agent="iql", utd=2).configure(iql)
    with pytest.raises(ValueError, match=r"Recipe\.critic_only_updates"):
        Recipe(agent="iql", critic_only_updates=2).configure(iql)
    with pytest.raises(TypeError, match="nonsense"):
        dataclasses.replace(RECIPES["rlpd"], options=(("nonsense", 1),)).configure(
            agents.get("sac").Config()
        )
