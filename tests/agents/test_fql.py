import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import fql
from robo_rl.learn.batches import batch_of
from robo_rl.nn import critics, flow
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, OneStep, TwoSteps, collect

SMALL = NetConfig(hidden=(16, 16))
NORMED = NetConfig(hidden=(16, 16), layer_norm="after")
_ACTORS = ("flow", "actor")
CONFIG = fql.Config(flow=SMALL, actor=SMALL, critic=NORMED, flow_steps=4)
OTHER = dataclasses.replace(CONFIG, alpha=0.0, discount=0.5, polyak=0.25)
INIT = jax.jit(fql.init, static_argnums=0)
UPDATE = jax.jit(fql.update, static_argnums=0)


def test_the_distillation_is_a_mean_over_dimensions():
    """Unit error in each of two dimensions counts 1, not 2."""
    assert float(fql.distillation_loss(jnp.ones((3, 2)), jnp.zeros((3, 2)))) == 1.0


def _each(params, *inputs):
    return np.asarray(apply_ensemble(Scalar(NORMED), params, *inputs))


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(
    "config",
    [CONFIG, dataclasses.replace(CONFIG, aggregate="min", normalise_q=True, alpha=2.0)],
    ids=["mean", "min"],
)
def test_losses_of_one_update_by_hand(batch, config):
    """Each loss rebuilt from the networks before the update, with the noise of its keys."""
    state = INIT(config, jax.random.key(0), batch)
    apart = jax.tree.map(lambda x: 1.3 * x, state.target_critic)
    state = dataclasses.replace(state, target_critic=apart)
    _, metrics = UPDATE(config, state, batch)
    _, flow_key, noise_key, next_key = jax.random.split(state.key, 4)
    obs, next_obs, actions = (
        batch[name] for name in ("observations", "next_observations", "actions")
    )
    noise, next_noise = (jax.random.normal(key, (8, 2)) for key in (noise_key, next_key))
    net = {name: functools.partial(flow.head, SMALL, state.params[name]) for name in _ACTORS}

    path_key, time_key = jax.random.split(flow_key)
    start, times = (
        np.asarray(jax.random.normal(path_key, (8, 2))),
        np.asarray(jax.random.uniform(time_key, (8, 1))),
    )
    velocity = np.asarray(net["flow"](obs, (1 - times) * start + times * actions, times))
    flow_loss = np.mean((velocity - (actions - start)) ** 2)
    assert float(metrics["flow_loss"]) == pytest.approx(flow_loss, rel=1e-4)

    mu, ode = np.asarray(net["actor"](obs, noise)), np.asarray(noise)
    for index in range(4):
        ode = ode + np.asarray(net["flow"](obs, ode, np.full((8, 1), index / 4))) / 4
    distance = np.mean((mu - np.clip(ode, -1, 1)) ** 2)
    assert float(metrics["distillation_loss"]) == pytest.approx(distance, rel=1e-4)
    q = _each(state.params["critic"], obs, np.clip(mu, -1.0, 1.0)).mean(axis=0)
    climbed = q.mean() / (np.abs(q).mean() if config.normalise_q else 1.0)
    assert float(metrics["actor_loss"]) == pytest.approx(
        config.alpha * distance - climbed, rel=1e-4
    )

    next_mu = np.clip(net["actor"](next_obs, next_noise), -1.0, 1.0)
    next_q = _each(apart, next_obs, next_mu)
    next_q = next_q.mean(axis=0) if config.aggregate == "mean" else next_q.min(axis=0)
    target = batch["rewards"] + 0.99 * batch["masks"] * next_q
    error = _each(state.params["critic"], obs, actions) - target
    assert float(metrics["critic_loss"]) == pytest.approx(np.mean(error**2), rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_a_one_step_policy_that_equals_the_flow_has_no_distillation_loss(batch):
    """One Euler step of v = 0.5 - z ends at 0.5, and so does the one-step policy, for all noise."""
    net = NetConfig(hidden=(2,))
    config = fql.Config(flow=net, actor=net, critic=net, flow_steps=1)
    rows = {**batch, "actions": batch["actions"][:, :1]}
    state = INIT(config, jax.random.key(0), rows)
    trees = jax.tree.map(jnp.zeros_like, state.params)
    inwards, constant = trees["flow"], trees["actor"]
    # Inputs are three observations, the point and the time.
    inwards["trunk"]["Dense_0"]["kernel"] = jnp.zeros((5, 2)).at[3].set(jnp.array([1.0, -1.0]))
    inwards["mean"] = {"kernel": jnp.array([[-1.0], [1.0]]), "bias": jnp.array([0.5])}
    constant["mean"]["bias"] = jnp.array([0.5])
    params = {**state.params, "flow": inwards, "actor": constant}
    _, metrics = UPDATE(config, dataclasses.replace(state, params=params), rows)
    assert float(metrics["distillation_loss"]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.usefixtures("quick_compile")
def test_neither_distillation_nor_q_reaches_flow_or_critics(batch):
    """Without distillation the actor's step is another one, that of flow and critics is not."""
    rows = {**batch, "discounts": np.full(8, 0.9, np.float32)}
    state = INIT(CONFIG, jax.random.key(0), rows)
    with_it, _ = UPDATE(CONFIG, state, rows)
    without, _ = UPDATE(OTHER, state, rows)
    for name in ("flow", "critic"):
        jax.tree.map(np.testing.assert_array_equal, with_it.params[name], without.params[name])
    kernels = (new.params["actor"]["mean"]["kernel"] for new in (with_it, without))
    assert not np.array_equal(*kernels)


@pytest.mark.usefixtures("quick_compile")
def test_rewards_move_the_critics_and_nothing_else_at_once(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    one, _ = UPDATE(CONFIG, state, batch)
    other, _ = UPDATE(CONFIG, state, {**batch, "rewards": batch["rewards"] + 10.0})
    for name in ("flow", "actor"):
        jax.tree.map(np.testing.assert_array_equal, one.params[name], other.params[name])
    kernels = (new.params["critic"]["out"]["kernel"] for new in (one, other))
    assert not np.array_equal(*kernels)


@pytest.mark.usefixtures("quick_compile")
def test_discounts_of_the_batch_replace_the_config_and_targets_follow_by_polyak(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    after, plain = UPDATE(OTHER, state, batch)
    _, given = UPDATE(CONFIG, state, {**batch, "discounts": np.full(8, 0.5, np.float32)})
    assert float(plain["critic_loss"]) == pytest.approx(float(given["critic_loss"]), rel=1e-6)
    old, new, target = (
        np.asarray(tree["out"]["kernel"])
        for tree in (state.target_critic, after.params["critic"], after.target_critic)
    )
    np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(config, batch, steps):
    state = fql.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: fql.update(config, c, batch), state, None, length=steps)[0]


def test_with_a_huge_alpha_the_one_step_policy_is_the_flow_for_the_same_noise():
    net = NetConfig(hidden=(32, 32), activation="gelu")
    config = fql.Config(
        flow=net, actor=net, critic=SMALL, alpha=1e6, flow_steps=5, learning_rate=2e-3
    )
    data = batch_of(collect(Match(), 128, lambda s: s / 2, noise=0.3))
    state = _run(config, data, 800)
    obs = jnp.linspace(-0.9, 0.9, 200)[:, None]
    noise = jax.random.normal(jax.random.key(7), obs.shape)
    target = flow.integrate(net, state.params["flow"], obs, noise, 5)
    got = fql.act(config, state, obs, jax.random.key(7))
    assert float(jnp.mean(jnp.abs(got - target))) < 0.05
    assert float(jnp.mean(jnp.abs(noise - target))) > 0.3


@pytest.mark.parametrize(
    ("env", "episodes", "obs", "expected"),
    [
        (OneStep(), 64, [0.0], 1.0),
        (TwoSteps(), 32, [-1.0], 0.5),
        (Endless(), 16, [0.0], 2.0),  # 1 / (1 - 0.5): the time limit keeps its bootstrap
    ],
    ids=["one_step", "two_steps", "endless"],
)
def test_values_of_probes(env, episodes, obs, expected):
    config = dataclasses.replace(CONFIG, discount=0.5, polyak=0.1, learning_rate=3e-3, flow_steps=2)
    data = batch_of(collect(env, episodes))
    state = _run(config, data, 300)
    rows = jnp.asarray([obs] * 5, jnp.float32)
    actions = jnp.linspace(-0.8, 0.8, 5)[:, None]
    q = critics.q(NORMED, state.params["critic"], "mean", rows, actions)
    np.testing.assert_allclose(q, expected, atol=0.15)


def test_it_finds_the_best_action_among_random_ones():
    """Uniform actions, reward -(a - s / 2)^2: all samples of the policy come near s / 2."""
    net = NetConfig(hidden=(32, 32), activation="gelu")
    config = fql.Config(
        flow=net,
        actor=net,
        critic=net,
        alpha=0.03,
        normalise_q=True,
        flow_steps=2,
        learning_rate=2e-3,
    )
    state = _run(config, batch_of(collect(Match(), 512)), 600)
    obs = jnp.tile(jnp.linspace(-0.8, 0.8, 9)[:, None], (20, 1))
    got = fql.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(got, obs / 2, atol=0.2)
