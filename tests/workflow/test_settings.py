import dataclasses
import pathlib

import pytest

from robo_rl import agents
from robo_rl.launch import cli
from robo_rl.learn import recipes
from robo_rl.nn.networks import NetConfig
from robo_rl.workflow import methods, settings, train


def test_an_option_has_the_type_of_what_it_replaces():
    config = settings.with_options(
        agents.cql.Config(), ["samples=4", "weight=1", "lagrange=true", "actor_q=mean"]
    )
    assert (config.samples, config.weight, config.lagrange, config.actor_q) == (
        4,
        1.0,
        True,
        "mean",
    )
    assert isinstance(config.weight, float)


def test_dotted_names_reach_into_a_network():
    config = settings.with_options(
        agents.fql.Config(), ["critic.hidden=64,32", "critic.layer_norm=before", "actor.hidden=8"]
    )
    expected = dataclasses.replace(agents.fql.Config().critic, hidden=(64, 32), layer_norm="before")
    assert config.critic == expected
    assert config.actor.hidden == (8,)
    assert config.flow == agents.fql.Config().flow


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("samples", "expected NAME=VALUE, such as"),
        ("sample=3", "no such setting; is samples .*meant.*`robo-rl methods NAME` lists"),
        ("critic=3", "no such setting; is critics "),
        ("hidden=3", "no such setting; is actor.hidden or critic.hidden meant"),
        ("xyz=3", "no such setting; `robo-rl methods"),
        (
            "critic.hidden=64,wide",
            r"\(--option\) critic.hidden=64,wide: expected a whole number",
        ),
        ("critic.layer_norm=both", "NetConfig.layer_norm must be one of none, before, after"),
        ("lagrange=yes", "expected true or false"),
        ("samples=0", "samples must be"),
    ],
)
def test_a_bad_option_is_named(option, message):
    with pytest.raises(ValueError, match=message):
        settings.with_options(agents.cql.Config(), [option])


@pytest.mark.parametrize(
    "option",
    ["discount=0.9", {"discount": 0.9}, ["discount=0.9"], ("discount=0.9",)],
)
def test_options_are_a_text_a_dict_or_several_texts(option):
    assert settings.with_options(agents.cql.Config(), option).discount == 0.9


def test_options_as_a_dict_take_values_of_any_kind():
    option = {"critic.hidden": (64, 32), "lagrange": True, "critic.layer_norm": "after"}
    config = settings.with_options(agents.cql.Config(), option)
    assert (config.critic.hidden, config.lagrange) == ((64, 32), True)
    assert config.critic.layer_norm == "after"


@pytest.mark.parametrize("option", [3, [("discount", 0.9)], None])
def test_options_of_another_kind_are_told_how_they_are_given(option):
    with pytest.raises(ValueError, match="give settings as a dict, such as"):
        settings.with_options(agents.cql.Config(), option)


@pytest.mark.parametrize("name", sorted(agents.AGENTS))
def test_every_setting_of_every_agent_can_be_given_as_it_is_shown(name):
    config = agents.get(name).Config()
    shown = [f"{s.name}={settings.shown(s.default)}" for s in settings.settings(config)]
    assert settings.with_options(config, shown) == config


def test_a_setting_is_told_with_what_stands_below_it_in_the_source():
    """Those of a config that extends another, and of a network within it, too."""
    texts = {s.name: s.text for s in settings.settings(agents.cql.Config())}
    assert texts["samples"] == "Actions of each of the three kinds."
    assert texts["utd"].startswith("Critic steps an update")
    assert texts["critic.layer_norm"].startswith("Where LayerNorm stands")


def test_all_methods_and_recipes_are_listed_with_what_they_are():
    lines = methods.report()
    for name in (*agents.AGENTS, *recipes.RECIPES):
        assert f"\n  {name} " in lines
    assert all(recipe.about for recipe in recipes.RECIPES.values())


def test_an_agent_and_the_recipe_of_its_name_are_told_together():
    lines = methods.report("iql")
    assert "expectile=0.7" in lines
    assert "warmup_steps=0" in lines
    assert "encoder" not in lines  # it reads no images
    assert "actor.encoder.features=512" in methods.report("fql")


def test_an_agent_of_ones_own_file_is_told_like_a_built_in_one():
    lines = methods.report(str(pathlib.Path(__file__).parents[2] / "examples" / "own_method.py"))
    assert "--option NAME=VALUE" in lines
    assert "hidden" in lines


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"called 'sacc'; is 'sac' meant.* Recipes: .*\bwsrl\b"):
        methods.report("sacc")


def test_options_go_before_what_a_recipe_fixes():
    recipe, config = methods.tuned(
        recipes.get("wsrl"), agents.sac.Config(), ("utd=8", "actor_lr=0.001", "critics=3")
    )
    configured = recipe.configure(config)
    assert (configured.utd, configured.actor_lr, configured.critics) == (8, 0.001, 3)
    assert configured.actor_q == "min"  # of the recipe, as before


def test_only_a_fresh_start_takes_other_networks():
    small = ("critic.hidden=8",)
    recipe, config = methods.tuned(recipes.get("rlpd"), agents.sac.Config(), small)
    assert recipe.configure(config).critic == NetConfig(hidden=(8,), layer_norm="before")
    with pytest.raises(ValueError, match="networks are those of the run"):
        methods.tuned(recipes.get("wsrl"), agents.sac.Config(), small)
    with pytest.raises(ValueError, match="start=fresh: there is no such setting"):
        methods.tuned(recipes.get("wsrl"), agents.sac.Config(), ("start=fresh",))


def test_train_hands_its_options_to_the_loop_and_the_agent(monkeypatch, datasets):
    asked = {}

    class Asked(Exception):
        pass

    def start(out, name, config, view, loop, home, **others):
        asked.update(config=config, loop=loop)
        raise Asked

    monkeypatch.setattr(train, "start_offline", start)
    arguments = f"train {datasets('Arm')} --agent fql --batch-size 64 --chunk 5 --option"
    with pytest.raises(Asked):
        cli.parse([*arguments.split(), "alpha=3", "flow.hidden=8"]).run()
    loop, config = asked["loop"], asked["config"]
    assert (loop.batch_size, loop.chunk) == (64, 5)
    assert (config.alpha, config.flow.hidden) == (3.0, (8,))


@pytest.mark.parametrize(
    ("steps", "evaluate_every", "log_every"),
    [
        (2_000, 0, 500),
        (100, 0, 100),
        (50_000, 5_000, 500),
        (20_000, 200, 200),
        (1_500, 750, 375),
        (100, 500, 100),
        (8, 4, 4),
        (20_000, 10_007, 10_007),
    ],
)
def test_a_run_reports_as_often_as_its_evaluations_allow(steps, evaluate_every, log_every):
    assert train._log_every(steps, evaluate_every) == log_every
