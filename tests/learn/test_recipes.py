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
