import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import ppo, unio4
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.recipes import RECIPES
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser
from robo_rl.runs import trees
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = NetConfig(hidden=(8,))
CONFIG = unio4.Config(
    actor=SMALL,
    value=SMALL,
    critic=SMALL,
    model=SMALL,
    members=2,
    models=2,
    pretrain_steps=2,
    policy_steps=2,
    evaluate_every=2,
    horizon=2,
)
INIT = jax.jit(unio4.init, static_argnums=0)
UPDATE = jax.jit(unio4.update, static_argnums=0)


def test_clone_loss_by_hand():
    """The first member is the best on row 0 and 2 behind on row 1, the second 1 behind on row 0."""
    log_prob = jnp.array([[-1.0, -3.0], [-2.0, -1.0]])
    got = unio4.clone_loss(log_prob, 0.1)
    np.testing.assert_allclose(got, [[1.0, 3.0 + 0.2], [2.0 + 0.1, 1.0]], rtol=1e-6)


def test_a_clone_that_is_behind_is_drawn_to_the_best_one_which_is_not_moved_by_it():
    """The derivative of member 0's losses: -1 where it is the best, -1.1 where it is behind."""
    log_prob = jnp.array([[-1.0, -3.0], [-2.0, -1.0]])
    got = jax.grad(lambda x: jnp.sum(unio4.clone_loss(x, 0.1)[0]))(log_prob)
    np.testing.assert_allclose(got, [[-1.0, -1.1], [0.0, 0.0]], rtol=1e-6)


def test_advantages_are_standardised_then_weighed_by_their_sign():
    """3, 1, -1, -3 have mean 0 and variance 5; a shift and a scale are taken away."""
    plain = jnp.array([[3.0, 1.0, -1.0, -3.0]])
    got = unio4.weighted_advantage(jnp.concatenate([plain, 10.0 * plain - 7.0]), 0.7)
    expected = np.array([0.7 * 3, 0.7, -0.3, -0.3 * 3]) / np.sqrt(5.0)
    np.testing.assert_allclose(got, [expected, expected], rtol=1e-5)


def test_policy_loss_by_hand():
    """Ratios 1.5, 0.5, 1.5, 0.5 with clip 0.25: surrogates 1.25, 0.5, -1.5, -0.75, mean -0.125."""
    log_prob = jnp.log(jnp.array([[1.5, 0.5, 1.5, 0.5]]))
    advantage = jnp.array([[1.0, 1.0, -1.0, -1.0]])
    got = unio4.policy_loss(log_prob, jnp.zeros((1, 4)), advantage, 0.25)
    assert float(got) == pytest.approx(0.125)


def test_the_loss_is_finite_however_far_a_policy_has_gone():
    loss = lambda x: unio4.policy_loss(x, jnp.zeros((1, 2)), -jnp.ones((1, 2)), 0.25)  # noqa: E731
    value, grads = jax.value_and_grad(loss)(jnp.array([[1e3, -1e3]]))
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


def test_on_the_behaviour_policy_the_gradient_is_that_of_the_plain_policy_gradient():
    """Ratios are 1: d loss / d log pi = -A / B, nothing is clipped."""
    log_prob = jnp.array([[-1.0, 0.5], [2.0, -3.0]])
    advantage = jnp.array([[2.0, -1.0], [4.0, 0.5]])
    got = jax.grad(unio4.policy_loss)(log_prob, log_prob, advantage, 0.25)
    np.testing.assert_allclose(got, -advantage / 2, rtol=1e-6)


def test_only_a_better_score_replaces():
    """Better, equal, worse and not a number."""
    new, old = {"w": jnp.ones((4, 1, 2))}, {"w": jnp.zeros((4, 1, 2))}
    kept, score, count = unio4.replace(
        new, old, jnp.array([2.0, 1.0, 0.0, jnp.nan]), jnp.full(4, 1.0)
    )
    np.testing.assert_array_equal(kept["w"][:, 0, 0], [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(score, [2.0, 1.0, 1.0, 1.0])
    assert float(count) == 1.0


def _rows():
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(8, 3)),
        "actions": rng.uniform(-0.9, 0.9, (8, 2)),
        "rewards": rng.normal(size=8),
        "next_observations": rng.normal(size=(8, 3)),
        "masks": np.arange(8) != 3,
    }
    return {key: np.asarray(value, np.float32) for key, value in arrays.items()}


@functools.cache
def _history(config):
    """The states before and after each of five updates: two of the first stage, three of PPO."""
    states = [INIT(config, jax.random.key(0), _rows())]
    for _ in range(5):
        states.append(UPDATE(config, states[-1], _rows())[0])
    return states


def _same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


def test_the_member_with_the_best_score_acts_and_is_handed_on(batch):
    state, obs = _history(CONFIG)[0], jnp.asarray(batch["observations"])
    for index in (0, 1):
        scored = dataclasses.replace(state, score=jnp.zeros(2).at[index].set(1.0))
        member = jax.tree.map(lambda leaf, i=index: leaf[i], state.behaviour)
        expected, _ = unio4.distribution(CONFIG, member, obs)
        got = unio4.act(CONFIG, scored, obs, jax.random.key(0))
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        handed_on = unio4.learned(CONFIG, scored)
        assert _same(handed_on.policy.params, member)
        np.testing.assert_array_equal(handed_on.log_std, member["log_std"])


def test_each_stage_moves_its_own_networks_only():
    states = _history(CONFIG)
    for before, after in itertools.pairwise(states[:3]):
        for name in ("actor", "critic", "value", "model"):
            assert not _same(before.params[name], after.params[name]), name
        assert _same(after.behaviour, after.params["actor"])
    for before, after in itertools.pairwise(states[2:5]):
        assert not _same(before.params["actor"], after.params["actor"])
        for name in ("critic", "value", "model"):
            assert _same(before.params[name], after.params[name]), name
            assert _same(before.opt[name], after.opt[name]), name
        assert _same(before.target_critic, after.target_critic)


def test_behaviour_policies_change_at_evaluations_only_and_to_the_policies_of_then():
    _, _, second, third, fourth, _ = _history(CONFIG)
    assert _same(third.behaviour, second.behaviour)
    assert _same(third.score, second.score)
    assert not _same(fourth.score, third.score)
    for index in (0, 1):
        kept, old, new = (
            jax.tree.map(lambda leaf, i=index: leaf[i], tree)
            for tree in (fourth.behaviour, third.behaviour, fourth.params["actor"])
        )
        assert _same(kept, old) or _same(kept, new)


def test_clones_are_scored_when_they_are_done():
    states = _history(CONFIG)
    np.testing.assert_array_equal(states[1].score, 0.0)
    assert np.all(np.asarray(states[2].score) != 0.0)


def test_ppo_starts_with_fresh_moments():
    states = _history(CONFIG)
    assert np.all(np.asarray(states[1].opt["actor"].count) == 1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(states[2].opt["actor"]))
    assert np.all(np.asarray(states[3].opt["actor"].count) == 1)


def test_the_learning_rate_falls_to_zero():
    """Adam's first step is as long as its rate, the second one of two has half of it."""
    _, _, second, third, _, last = _history(CONFIG)
    moved = np.abs(third.params["actor"]["mean"]["bias"] - second.params["actor"]["mean"]["bias"])
    np.testing.assert_allclose(moved, CONFIG.policy_lr, rtol=0.02)
    assert _same(last.params["actor"], _history(CONFIG)[4].params["actor"])


def test_the_first_ppo_step_is_the_plain_policy_gradients():
    """On actions of the behaviour policy, with Q - V, no ratio: Adam's first step of -A log pi."""
    before, after, rows = *_history(CONFIG)[2:4], _rows()
    obs = rows["observations"]
    noise = jax.random.normal(jax.random.split(before.key, 3)[1], (2, 8, 2))

    @jax.jit
    @jax.grad
    def plain(actors, weighted, actions):
        return -jnp.sum(jnp.mean(weighted * unio4.log_probs(CONFIG, actors, obs, actions), axis=1))

    mean, log_std = jax.vmap(lambda p: unio4.distribution(CONFIG, p, obs))(before.behaviour)
    actions = mean + jnp.exp(log_std) * noise
    v = apply(Scalar(SMALL), before.params["value"], obs)
    q = [
        apply_ensemble(Scalar(SMALL), before.target_critic, obs, jnp.clip(own, -1, 1)).min(axis=0)
        for own in actions
    ]
    weighted = unio4.weighted_advantage(jnp.stack(q) - v[None], CONFIG.omega)
    grads = plain(before.params["actor"], weighted, actions)
    for index in (0, 1):
        own = [np.asarray(leaf[index]) for leaf in jax.tree.leaves(grads)]
        norm = np.sqrt(sum(np.sum(g**2) for g in own))
        moved = jax.tree.map(
            lambda a, b, i=index: np.asarray(b[i] - a[i]),
            before.params["actor"],
            after.params["actor"],
        )
        for g, step in zip(own, jax.tree.leaves(moved), strict=True):
            g = g * min(1.0, CONFIG.clip_norm / norm)
            np.testing.assert_allclose(step, -CONFIG.policy_lr * g / (np.abs(g) + 1e-8), atol=2e-6)


def test_the_range_of_the_first_stage_is_kept_in_standardised_units():
    rows = _rows()
    half = Normaliser(jnp.full(3, 1.0, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    state = dataclasses.replace(_history(CONFIG)[0], normaliser=half)
    far = {**rows, "next_observations": rows["next_observations"] + 9.0}
    seen = np.concatenate([rows["observations"], rows["next_observations"]])
    state, _ = UPDATE(CONFIG, state, rows)
    np.testing.assert_allclose(state.low, (seen.min(axis=0) - 1.0) / 2.0, rtol=1e-5)
    state, _ = UPDATE(CONFIG, state, far)
    highest = far["next_observations"].max(axis=0)
    np.testing.assert_allclose(state.high, (highest - 1.0) / 2.0, rtol=1e-5)
    later, _ = UPDATE(CONFIG, state, {**rows, "observations": rows["observations"] - 99.0})
    assert _same((later.low, later.high), (state.low, state.high))


@pytest.mark.parametrize("drift", [1e30, float("nan")])
def test_models_that_blow_up_leave_everything_finite(drift):
    third = _history(CONFIG)[3]
    bias = jnp.full_like(third.params["model"]["mean"]["bias"], drift)
    model = {**third.params["model"], "mean": {**third.params["model"]["mean"], "bias": bias}}
    broken = dataclasses.replace(third, params={**third.params, "model": model})
    after, metrics = UPDATE(CONFIG, broken, _rows())
    assert np.isfinite(after.score).all()
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.behaviour))


def test_a_state_saved_between_the_stages_goes_on_as_if_nothing_had_happened():
    states = _history(CONFIG)
    state = trees.unflatten(states[0], trees.flatten(states[2]))
    for _ in range(3):
        state, _ = UPDATE(CONFIG, state, _rows())
    for name, value in trees.flatten(states[5]).items():
        np.testing.assert_array_equal(trees.flatten(state)[name], value)


NET = NetConfig(hidden=(32,))
FAST = unio4.Config(
    actor=NET,
    value=NET,
    critic=NET,
    model=SMALL,
    members=2,
    models=2,
    pretrain_steps=400,
    policy_steps=400,
    evaluate_every=50,
    horizon=10,
    discount=0.5,
    polyak=0.1,
    critic_lr=1e-2,
    clone_lr=3e-3,
    policy_lr=3e-3,
)


@functools.partial(jax.jit, static_argnums=0)
def _stage(config, state, batch):
    """The state 400 updates on: both stages are as long as that."""
    step = lambda state, _: (unio4.update(config, state, batch)[0], None)  # noqa: E731
    return jax.lax.scan(step, state, None, length=400)[0]


def _run(config, batch):
    """The states after the first stage and after the second one."""
    clones = _stage(config, INIT(config, jax.random.key(0), batch), batch)
    return clones, _stage(config, clones, batch)


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 256, [0.0], 1.0),
        (TwoSteps(), 128, [-1.0], 0.5),
        (Endless(), 64, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
)
def test_values_of_probe_environments(env, episodes, obs, expected):
    """They stand after the first stage, and the second one leaves them alone."""
    _, state = _run(FAST, batch_of(collect(env, episodes)))
    v = apply(Scalar(NET), state.params["value"], jnp.array([obs]))
    q = apply_ensemble(Scalar(NET), state.params["critic"], jnp.array([obs]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(v, expected, atol=0.05)
    np.testing.assert_allclose(q[:, 0], expected, atol=0.05)


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    clones, state = _run(FAST, batch_of(collect(Match(), 256)))
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    cloned, got = (unio4.act(FAST, s, obs, jax.random.key(0)) for s in (clones, state))
    assert float(jnp.max(jnp.abs(cloned))) < 0.2
    np.testing.assert_allclose(got, obs / 2, atol=0.15)


def test_ppo_goes_on_online_from_its_policy_and_its_value():
    """The recipe's first state acts alike and has V times the reward scale, its steps are small."""
    data = batch_of(collect(Match(), 256))
    _, state = _run(FAST, data)
    recipe = dataclasses.replace(RECIPES["unio4_online"], rollout=128)
    learned = unio4.learned(FAST, state)
    config = recipe.configure(ppo.adopt(ppo.Config(), learned))
    assert (config.actor, config.value, config.clip) == (NET, NET, 0.05)
    example = {name: column[:1] for name, column in data.items()}
    first = online.start_state(ppo, config, recipe, 0, example, learned)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    before = unio4.act(FAST, state, obs, jax.random.key(0))
    np.testing.assert_array_equal(ppo.act(config, first, obs, jax.random.key(0)), before)
    v = apply(Scalar(NET), state.params["value"], obs)
    np.testing.assert_allclose(apply(Scalar(NET), first.params["value"], obs), 0.1 * v, rtol=1e-4)

    loop = online.OnlineLoop(env_steps=256, log_every=128, checkpoint_every=256)
    after = online.finetune(ppo, config, Match(), recipe, loop, first)
    assert int(after.step) == 2
    assert not _same(after.params["actor"], first.params["actor"])
    np.testing.assert_allclose(ppo.act(config, after, obs, jax.random.key(0)), before, atol=0.05)


def _line():
    """Move a point on a line to 0 by 0.2 a; -1 a step. Seven of ten actions are uniform."""
    rng = np.random.default_rng(0)
    x, a = rng.uniform(-1.0, 1.0, (2, 256, 1))
    a = np.where(rng.uniform(size=(256, 1)) < 0.7, a, np.clip(-5.0 * x, -1.0, 1.0))
    following = np.clip(x + 0.2 * a, -1.0, 1.0)
    away = np.abs(following[:, 0]) >= 0.15
    columns = {"observations": x, "actions": a, "next_observations": following}
    columns |= {"rewards": -1.0 * away, "masks": 1.0 * away}
    return {name: np.asarray(column, np.float32) for name, column in columns.items()}


def _steps_to_goal(state):
    """Mean number of steps that the policy takes on the line, of at most 20."""
    x = np.array([[-0.9], [-0.8], [0.8], [0.9]], np.float32)
    steps, away = np.zeros(4), np.ones(4, bool)
    for _ in range(20):
        steps += away
        x = x + 0.2 * np.asarray(unio4.act(FAST, state, x, jax.random.key(0)))
        away &= np.abs(x[:, 0]) >= 0.15
    return float(steps.mean())


def test_it_reaches_much_faster_than_its_clone_of_mixed_data():
    """The mean of the data's actions is slow; the straight way takes 4 steps."""
    clones, state = _run(FAST, _line())
    assert _steps_to_goal(clones) > 7.0
    assert _steps_to_goal(state) < 5.0
    assert float(jnp.max(state.score)) > float(jnp.max(clones.score))
