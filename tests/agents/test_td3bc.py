import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import td3bc
from robo_rl.learn.batches import batch_of
from robo_rl.nn import policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(8, 8))
CONFIG = td3bc.Config(actor=SMALL, critic=SMALL, utd=1)
INIT = jax.jit(td3bc.init, static_argnums=0)
UPDATE = jax.jit(td3bc.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


def test_the_cloning_term_is_a_mean_over_action_dimensions():
    """An error of 1 in both of two dimensions costs 1."""
    _, metrics = td3bc.actor_loss(2.5, jnp.ones(3), jnp.zeros((3, 2)), jnp.ones((3, 2)))
    assert float(metrics["action_mse"]) == 1.0


def test_actor_loss_by_hand():
    """-2.5 * mean(2, -4) / mean(2, 4) + (0.5^2 + 0) / 2 = 2.5 / 3 + 0.125."""
    loss, _ = td3bc.actor_loss(
        2.5, jnp.array([2.0, -4.0]), jnp.array([[0.5], [0.0]]), jnp.zeros((2, 1))
    )
    assert float(loss) == pytest.approx(2.5 / 3 + 0.125, rel=1e-6)


@quick
def test_target_actions_are_noisy_within_the_clip_and_the_box(batch):
    config = dataclasses.replace(CONFIG, target_noise=9.0, noise_clip=0.3)
    state = INIT(config, jax.random.key(0), batch)
    obs = 3.0 * batch["next_observations"]
    plain = policies.mean_action(SMALL, state.target["actor"], obs)
    noisy = td3bc.target_action(config, state.target["actor"], jax.random.key(1), obs)
    low, high = np.maximum(plain - 0.3, -1.0), np.minimum(plain + 0.3, 1.0)
    assert (noisy >= low - 1e-6).all()
    assert (noisy <= high + 1e-6).all()
    assert float(jnp.mean(jnp.abs(noisy - plain))) > 0.2


def _q(params, obs, actions):
    return np.asarray(apply_ensemble(Scalar(SMALL), params, obs, actions))


@functools.cache
def _one_update(**changes):
    """A batch with discounts of its own; the state before and after it, and the metrics."""
    rng = np.random.default_rng(1)
    rows = {
        "observations": rng.normal(size=(8, 3)),
        "actions": rng.uniform(-0.9, 0.9, (8, 2)),
        "rewards": rng.normal(size=8),
        "next_observations": rng.normal(size=(8, 3)),
        "masks": np.arange(8) != 3,
        "discounts": np.linspace(0.5, 0.9, 8),
    }
    batch = {name: np.asarray(value, np.float32) for name, value in rows.items()}
    config = dataclasses.replace(CONFIG, target_noise=0.0, alpha=1.5, polyak=0.25, **changes)
    state = INIT(config, jax.random.key(0), batch)
    return (batch, state, *UPDATE(config, state, batch))


@quick
def test_critic_loss_by_hand():
    """The target is the minimum of the target critics at the target actor's action."""
    batch, state, _, metrics = _one_update()
    next_obs = batch["next_observations"]
    next_actions = policies.mean_action(SMALL, state.target["actor"], next_obs)
    next_q = _q(state.target["critic"], next_obs, next_actions).min(axis=0)
    target = batch["rewards"] + batch["discounts"] * batch["masks"] * next_q
    q = _q(state.params["critic"], batch["observations"], batch["actions"])
    assert float(metrics["critic_loss"]) == pytest.approx(np.mean((q - target) ** 2), rel=1e-4)


@quick
def test_actor_loss_is_on_the_first_critic_after_its_step():
    batch, state, after, metrics = _one_update()
    obs = batch["observations"]
    predicted = np.asarray(policies.mean_action(SMALL, state.params["actor"], obs))
    q = _q(after.params["critic"], obs, predicted)[0]
    expected = -1.5 * q.mean() / np.abs(q).mean() + np.mean((predicted - batch["actions"]) ** 2)
    assert float(metrics["actor_loss"]) == pytest.approx(expected, rel=1e-4)


@quick
def test_all_targets_follow_by_polyak_once_an_update():
    _, state, after, _ = _one_update()
    jax.tree.map(
        lambda old, new, target: np.testing.assert_allclose(
            target, 0.75 * np.asarray(old) + 0.25 * np.asarray(new), atol=1e-6
        ),
        state.params,
        after.params,
        after.target,
    )


@quick
def test_an_update_is_utd_critic_steps_and_one_actor_step():
    _, _, after, _ = _one_update(utd=2)
    assert {name: int(opt.count) for name, opt in after.opt.items()} == {"actor": 1, "critic": 2}


@quick
def test_each_step_moves_its_own_network_only():
    """With Adam, any gradient moves a leaf by about its learning rate: 0 is no gradient at all."""

    def moved(**rates):
        _, state, after, _ = _one_update(**rates)
        distance = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, after.params)
        return {name for name, tree in distance.items() if max(jax.tree.leaves(tree)) > 1e-12}

    assert moved(critic_lr=1e-30) == {"actor"}
    assert moved(actor_lr=1e-30) == {"critic"}


@quick
def test_what_it_has_learned_is_handed_on():
    batch, _, state, _ = _one_update()
    learned = td3bc.learned(CONFIG, state)
    np.testing.assert_array_equal(
        policies.act(learned.policy, batch["observations"]),
        td3bc.act(CONFIG, state, batch["observations"], jax.random.key(0)),
    )
    assert learned.critic is state.params["critic"]
    assert learned.target_critic is state.target["critic"]
    assert (int(learned.critic_opt.count), int(learned.actor_opt.count)) == (1, 1)
    assert learned.critics == 2


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = td3bc.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: td3bc.update(config, c, batch), state, None, length=steps)[0]


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 64, [0.0], 1.0),
        (TwoSteps(), 32, [-1.0], 0.5),
        (Endless(), 16, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
)
def test_values_of_probe_environments(env, episodes, obs, expected):
    config = dataclasses.replace(CONFIG, discount=0.5, polyak=0.1, critic_lr=1e-2)
    state = _run(config, batch_of(collect(env, episodes)), 400)
    q = apply_ensemble(Scalar(SMALL), state.params["critic"], jnp.array([obs]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(q[:, 0], expected, atol=0.08)


def test_it_beats_the_behaviour_in_a_contextual_bandit():
    """Uniform actions have a mean of 0; the best action is s / 2."""
    wide = NetConfig(hidden=(32, 32))
    config = td3bc.Config(wide, wide, utd=1, actor_lr=3e-3, critic_lr=3e-3, polyak=0.05)
    state = _run(config, batch_of(collect(Match(), 1024)), 500)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = td3bc.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.15)
