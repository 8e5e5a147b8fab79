import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, distill, sac
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import controllers, online
from robo_rl.learn import offline as offline_loop
from robo_rl.learn.batches import batch_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.supply import supply
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from tests.learn.memory import Memory
from tests.probe_envs import Reach, Ridge, collect, reach_expert, ridge_expert

SMALL = NetConfig(hidden=(8, 8))
CONFIG = distill.Config(actor=SMALL)
RECIPE = Recipe(agent="distill", warmup_steps=10, batch_size=8)
LOOP = OnlineLoop(env_steps=60, capacity=500, log_every=20, checkpoint_every=20)


def _gaussian(obs):
    """The expert, the surer of itself the further away it is."""
    distance = np.linalg.norm(obs, axis=-1, keepdims=True)
    return reach_expert(obs), np.broadcast_to(np.exp(-distance), (len(obs), 2))


@functools.cache
def _data():
    return collect(Reach(), 4, reach_expert, noise=0.3)


@functools.cache
def _fresh():
    example = batch_of(supply(distill, CONFIG, _data(), reach_expert))
    return distill.init(CONFIG, jax.random.key(0), {k: v[:1] for k, v in example.items()})


def _finetune(recipe=RECIPE, loop=LOOP, teacher=reach_expert, **more):
    return online.finetune(
        distill, CONFIG, Reach(), recipe, loop, _fresh(), teacher=teacher, **more
    )


def test_answers_are_clipped_and_asked_for_in_parts():
    sizes = []

    def controller(obs):
        sizes.append(len(obs))
        return 3.0 * obs[:, :1]

    obs = np.linspace(-1.0, 1.0, 10_000)[:, None]
    actions, spreads = controllers.label(controller, obs, 1)
    assert spreads is None
    assert len(sizes) == 3
    assert sum(sizes) == 10_000
    np.testing.assert_allclose(actions, np.clip(3.0 * obs, -1.0, 1.0), rtol=1e-6)


@pytest.mark.parametrize(("rows", "asked"), [(4096, [4096]), (4097, [4096, 1]), (1, [1])])
def test_rows_are_asked_for_in_parts_of_4096(rows, asked):
    """In the order of the observations, spreads with them."""
    sizes = []

    def controller(obs):
        sizes.append(len(obs))
        return obs, np.exp(obs)

    obs = np.linspace(-1.0, 1.0, rows)[:, None]
    actions, spreads = controllers.label(controller, obs, 1)
    assert sizes == asked
    np.testing.assert_allclose(actions, obs, rtol=1e-6)
    np.testing.assert_allclose(spreads, np.exp(obs), rtol=1e-6)


def test_a_spread_is_given_everywhere_or_nowhere():
    def controller(obs):
        return (obs, np.ones_like(obs)) if len(obs) > 1 else obs

    with pytest.raises(ValueError, match="it gave a spread at some observations only"):
        controllers.label(controller, np.zeros((4097, 1)), 1)


def test_a_wrong_answer_is_shown_beside_its_observation():
    obs = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    answer = np.where(obs == 3.0, np.inf, obs)
    with pytest.raises(ValueError, match=r"answer \[ *2. inf\] to the observation \[2. 3.\]"):
        controllers.label(lambda _: answer, obs, 2)
    with pytest.raises(ValueError, match=r"spreads must be > 0, got -3.0"):
        controllers.label(lambda _: (obs, np.where(obs == 3.0, -3.0, 1.0)), obs, 2)
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 2\), \(3, 2\)"):
        controllers.label(lambda _: (obs, obs + 1.0, obs), obs, 2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda obs: obs[:, :1], r"actions must be \(4, 2\).*got \(4, 1\)"),
        (lambda obs: (obs, obs[0]), r"got \(4, 2\), \(2,\)"),
        (lambda obs: np.where(obs > 0.0, np.nan, obs), "is not finite"),
        (lambda obs: (obs, 0.0 * obs), "spreads must be > 0"),
    ],
)
def test_a_wrong_answer_is_refused_in_words(answer, message):
    with pytest.raises(ValueError, match=message):
        controllers.label(answer, np.eye(4, 2), 2)


class Exported:
    """As `NumpyPolicy`: chunks of 3 actions, (A,) = (2,), from noise or without."""

    action_size = 2

    def __init__(self, noisy):
        self.noisy = noisy

    def noise_shape(self, rows):
        return (*rows, 6) if self.noisy else None

    def compute(self, observation, noise=None):
        base = np.tile(observation, 3) + np.repeat([0.0, 100.0, 200.0], 2)
        return base if noise is None else base + noise


def test_an_exported_policy_gives_the_first_action_of_its_chunk_and_the_same_when_asked_again():
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    np.testing.assert_array_equal(controllers.from_policy(Exported(noisy=False))(obs), obs)
    control = controllers.from_policy(Exported(noisy=True))
    noise = control(obs) - obs
    np.testing.assert_array_equal(control(obs[7:9]), control(obs)[7:9])
    assert len(np.unique(noise)) == 100
    assert noise.std() == pytest.approx(1.0, abs=0.2)


def test_a_dataset_is_labelled_once_with_the_spread_of_the_config_or_the_teachers():
    given = supply(distill, dataclasses.replace(CONFIG, teacher_std=0.2), _data(), reach_expert)
    np.testing.assert_array_equal(given["teacher_actions"], reach_expert(_data()["observations"]))
    np.testing.assert_allclose(given["teacher_log_std"], np.log(0.2), rtol=1e-6)
    spread = supply(distill, CONFIG, _data(), _gaussian)["teacher_log_std"]
    expected = -np.linalg.norm(_data()["observations"], axis=-1)
    np.testing.assert_allclose(spread[:, 0], expected, rtol=1e-5)
    labelled = {**_data(), "teacher_actions": given["teacher_actions"]}
    again = supply(distill, dataclasses.replace(CONFIG, teacher_std=0.2), labelled)
    np.testing.assert_array_equal(again["teacher_log_std"], given["teacher_log_std"])


def test_the_offline_loop_learns_from_the_labels_not_from_what_was_done():
    asked = []

    def controller(obs):
        asked.append(len(obs))
        return np.full((len(obs), 2), 0.5, np.float32)

    loop = OfflineLoop(steps=200, batch_size=16, log_every=100, checkpoint_every=200)
    config = dataclasses.replace(CONFIG, learning_rate=1e-2)
    state = offline_loop.train(distill, config, _data(), loop, teacher=controller)
    assert asked == [len(_data()["rewards"])]
    obs = _data()["observations"]
    got = distill.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(got, 0.5, atol=0.05)
    template = offline_loop.initial_state(distill, config, _data(), loop)  # without a teacher
    assert jax.tree.structure(template) == jax.tree.structure(state)
    with pytest.raises(ValueError, match="distill learns from a teacher, and none was given"):
        offline_loop.train(distill, config, _data(), loop)


def test_every_state_that_the_student_visits_is_labelled_and_the_offline_rows_too():
    memory = Memory()
    recipe = dataclasses.replace(RECIPE, seed_buffer_with_offline=True)
    _finetune(recipe, teacher=_gaussian, offline=_data(), monitor=memory)
    stored = {k.removeprefix("buffer/data/"): v for k, v in memory.saved[60].items()}
    obs = stored["observations"]
    assert len(obs) == len(_data()["rewards"]) + 60
    means, spreads = _gaussian(obs)
    np.testing.assert_array_equal(stored["teacher_actions"], means)
    np.testing.assert_allclose(stored["teacher_log_std"], np.log(spreads), rtol=1e-5)
    assert not np.allclose(stored["actions"][-60:], means[-60:], atol=0.1)
    assert np.isfinite(memory.rows[-1]["actor_loss"])


def test_the_teacher_acts_in_its_share_of_the_episodes_or_steps_and_less_and_less():
    recipe = Recipe(teacher_share=0.8, teacher_share_steps=1000)
    turns = controllers.Turns(recipe, 0)
    assert [turns.share(step) for step in (0, 500, 1000, 5000)] == [0.8, 0.4, 0.0, 0.0]
    assert (
        controllers.Turns(dataclasses.replace(recipe, teacher_share_steps=0), 0).share(9999) == 0.8
    )

    def played(kind, start):
        turns = controllers.Turns(dataclasses.replace(recipe, teacher_turns=kind), 0)
        rows = []
        for episode in range(200):
            turns.begin(episode, start)
            rows.append([turns.teacher_acts(start + 7 * step % 9) for step in range(3)])
        return np.array(rows)

    assert played("episode", 0).mean() == pytest.approx(0.8, abs=0.1)
    assert played("episode", 500).mean() == pytest.approx(0.4, abs=0.1)
    assert not played("episode", 1000).any()
    episodes = played("episode", 0)
    np.testing.assert_array_equal(episodes, np.repeat(episodes[:, :1], 3, axis=1))
    steps = controllers.Turns(Recipe(teacher_share=0.5, teacher_turns="step"), 0)
    acted = [steps.teacher_acts(step) for step in range(400)]
    assert np.mean(acted) == pytest.approx(0.5, abs=0.1)
    assert [steps.teacher_acts(step) for step in range(400)] == acted


@pytest.mark.parametrize("kind", ["episode", "step"])
def test_a_teacher_with_all_the_turns_does_all_that_is_done(kind):
    memory = Memory()
    _finetune(dataclasses.replace(RECIPE, teacher_share=1.0, teacher_turns=kind), monitor=memory)
    stored = {k.removeprefix("buffer/data/"): v for k, v in memory.saved[max(memory.saved)].items()}
    np.testing.assert_array_equal(stored["actions"], stored["teacher_actions"])


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit():
    recipe = dataclasses.replace(
        RECIPE, teacher_share=0.7, teacher_share_steps=90, teacher_turns="step"
    )
    loop = dataclasses.replace(LOOP, env_steps=120, capacity=70)
    whole, cut, rest = Memory(), Memory(kill_after=40), Memory()
    expected = _finetune(recipe, loop, monitor=whole)
    with pytest.raises(KeyboardInterrupt):
        _finetune(recipe, loop, monitor=cut)
    template = sessions.online_template(_fresh())
    snapshot = trees.unflatten(template, cut.saved[max(cut.saved)])
    got = _finetune(recipe, loop, monitor=rest, snapshot=snapshot)
    for name, value in trees.flatten(expected).items():
        np.testing.assert_array_equal(trees.flatten(got)[name], value)
    assert cut.rows + rest.rows == whole.rows


def test_a_teacher_is_there_where_it_is_needed_and_only_there():
    with pytest.raises(ValueError, match="for distill needs a teacher"):
        _finetune(teacher=None)
    config = sac.Config(actor=SMALL, critic=SMALL, critics=2, utd=1)
    run = functools.partial(online.finetune, sac, config, Reach())
    with pytest.raises(ValueError, match="for sac has no use for a teacher"):
        run(Recipe(), LOOP, {}, teacher=reach_expert)
    with pytest.raises(ValueError, match="for sac needs a teacher"):
        run(Recipe(teacher_share=0.5), LOOP, {})


def test_dagger_stays_on_a_ridge_from_which_cloning_of_the_same_teacher_falls():
    """On the ridge the teacher never shows what to do beside it, where the clone's small errors
    lead; DAgger begins as that clone, with its data, and asks what to do there."""
    config = bc.Config(actor=NetConfig(hidden=(32, 32)), learning_rate=3e-3)
    loop = OfflineLoop(steps=1000, batch_size=64, log_every=500, checkpoint_every=1000)
    demonstrations = collect(Ridge(), 20, ridge_expert)
    assert np.abs(demonstrations["observations"][:, 0]).max() < 1e-6
    cloned = offline_loop.train(bc, config, demonstrations, loop)
    learned = bc.learned(config, cloned)
    recipe = Recipe(
        agent="distill",
        start="learned",
        seed_buffer_with_offline=True,
        warmup_steps=0,
        batch_size=64,
    )
    student = distill.adopt(distill.Config(learning_rate=3e-3), learned)
    example = batch_of({k: v[:1] for k, v in demonstrations.items()})
    state = online.start_state(distill, student, recipe, 0, example, learned)
    budget = OnlineLoop(env_steps=1000, capacity=2000, log_every=500, checkpoint_every=1000)
    after = online.finetune(
        distill,
        student,
        Ridge(),
        recipe,
        budget,
        state,
        offline=demonstrations,
        teacher=ridge_expert,
    )

    def success(state):
        act = jax.jit(lambda obs: distill.act(student, state, obs, jax.random.key(0)))
        seeds = evaluation_seeds(0, 20)
        return evaluate(Ridge(), lambda obs: np.asarray(act(jnp.asarray(obs))), seeds).success_rate

    assert evaluate(Ridge(), ridge_expert, evaluation_seeds(0, 20)).success_rate == 1.0
    assert success(state) <= 0.2  # the clone
    assert success(after) >= 0.9


def test_the_noise_of_an_observation_is_the_same_in_every_version():
    """Labels that were stored are computed again from it; the digits were taken once."""
    control = controllers.from_policy(Exported(noisy=True))
    noise = control(np.zeros((1, 2), np.float32))
    np.testing.assert_allclose(noise, [[0.32916394, -0.89225781]], rtol=1e-6)
