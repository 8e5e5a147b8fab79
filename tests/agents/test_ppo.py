import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robo_rl.agents import iql, ppo
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.apply import apply
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, TwoSteps, collect

SMALL = NetConfig(hidden=(16, 16), activation="tanh")
CONFIG = ppo.Config(actor=SMALL, value=SMALL, minibatch=8, epochs=2)
INIT = jax.jit(ppo.init, static_argnums=0)
UPDATE = jax.jit(ppo.update, static_argnums=0)


def test_explained_variance_by_hand():
    observed = jnp.array([0.0, 2.0])
    assert float(ppo.explained_variance(observed, observed)) == 1.0
    assert float(ppo.explained_variance(jnp.array([0.0, 1.0]), observed)) == pytest.approx(0.75)
    assert float(ppo.explained_variance(observed, jnp.ones(2))) == 0.0


@pytest.fixture
def batch(batch):
    """The rollout of `conftest`: row 3 terminated, row 5 cut by time, row 7 the last."""
    return {**batch, "ends": np.array([0, 0, 0, 1, 0, 1, 0, 1], np.float32)}


def _advantage(config, state, batch):
    """Lambda returns less values, row by row, from networks outside of the agent."""
    v, next_v = (
        np.asarray(apply(Scalar(SMALL), state.params["value"], batch[name]), np.float64)
        for name in ("observations", "next_observations")
    )
    out, following = np.zeros(8), 0.0
    for t in range(7, -1, -1):
        delta = config.reward_scale * batch["rewards"][t] - v[t]
        delta += config.discount * batch["masks"][t] * next_v[t]
        following = delta + config.discount * config.gae_lambda * (1 - batch["ends"][t]) * following
        out[t] = following
    return out


@pytest.mark.usefixtures("quick_compile")
def test_losses_of_one_step_by_hand(batch):
    """At the first step the ratio is 1, and V differs from its target by the advantage.

    The bonus is large enough to widen the spread, whatever the advantages are.
    """
    config = dataclasses.replace(
        CONFIG, epochs=1, normalise_advantage=False, reward_scale=0.5, entropy_weight=10.0
    )
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    advantage = _advantage(config, state, batch)
    entropy = 2 * scipy.stats.norm.entropy(scale=np.exp(-0.5))
    assert float(metrics["entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert float(metrics["actor_loss"]) == pytest.approx(-advantage.mean() - 10 * entropy, 1e-5)
    assert float(metrics["value_loss"]) == pytest.approx(np.mean(advantage**2) / 2, rel=1e-4)
    assert float(metrics["clip_fraction"]) == 0.0
    assert 0.0 < float(metrics["approx_kl"]) < 0.01
    assert (np.asarray(after.params["actor"]["log_std"]) > -0.5).all()


@pytest.mark.usefixtures("quick_compile")
def test_ratios_are_to_the_policy_that_collected_the_rollout(batch):
    """However often the rollout is passed over: with a small clip, most rows end up beyond it."""
    config = dataclasses.replace(CONFIG, epochs=10, clip=1e-4, actor_lr=1e-2)
    state = INIT(config, jax.random.key(0), batch)
    held, metrics = UPDATE(config, state, batch)
    assert float(metrics["clip_fraction"]) > 0.5
    free, _ = UPDATE(dataclasses.replace(config, clip=10.0), state, batch)
    first, *after = (np.asarray(s.params["actor"]["mean"]["bias"]) for s in (state, held, free))
    distance = [np.abs(bias - first).max() for bias in after]
    assert distance[0] < 0.9 * distance[1]


@pytest.mark.usefixtures("quick_compile")
def test_each_step_moves_its_own_network_only(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    at_the_end = dataclasses.replace(state, step=jnp.asarray(4, jnp.int32))
    for still, moving in (("value_lr", "actor"), ("actor_lr", "value")):
        config = dataclasses.replace(CONFIG, decay_steps=4, **{still: 1e-30})
        assert _moved(state, UPDATE(config, state, batch)[0]) == {moving}
        assert _moved(state, UPDATE(config, at_the_end, batch)[0]) == set()  # rates are 0


def _moved(before, after):
    distance = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before.params, after.params)
    return {name for name, tree in distance.items() if max(jax.tree.leaves(tree)) > 1e-12}


@pytest.mark.usefixtures("quick_compile")
def test_a_rollout_that_does_not_divide_is_refused(batch):
    config = dataclasses.replace(CONFIG, minibatch=3)
    with pytest.raises(ValueError, match=r"8 rows .* ppo.Config.minibatch = 3"):
        UPDATE(config, INIT(config, jax.random.key(0), batch), batch)


@pytest.mark.usefixtures("quick_compile")
def test_a_warm_start_takes_actor_spread_and_value_of_an_offline_agent(batch):
    offline = iql.Config(actor=SMALL, critic=SMALL)
    trained = jax.jit(iql.init, static_argnums=0)(offline, jax.random.key(3), batch)
    actor = {**trained.params["actor"], "log_std": jnp.array([-1.0, -9.0])}
    trained = dataclasses.replace(trained, params={**trained.params, "actor": actor})
    learned = iql.learned(offline, trained)
    config = dataclasses.replace(ppo.adopt(ppo.Config(), learned), reward_scale=0.1)

    def warm(*reset):
        return jax.jit(lambda key: ppo.warm_start(config, key, learned, batch, reset))(key)

    key = jax.random.key(1)
    state = warm()
    obs = batch["observations"]
    np.testing.assert_allclose(
        ppo.act(config, state, obs, key), iql.act(offline, trained, obs, key), atol=1e-6
    )
    np.testing.assert_allclose(state.params["actor"]["log_std"], [-1.0, -5.0])
    v, mine = (apply(Scalar(SMALL), s.params["value"], obs) for s in (trained, state))
    np.testing.assert_allclose(mine, 0.1 * v, rtol=1e-5)
    np.testing.assert_allclose(
        apply(Scalar(SMALL), ppo.learned(config, state).value, obs), v, rtol=1e-5
    )
    assert _moved(INIT(config, key, batch), warm("actor", "critic")) == set()
    with pytest.raises(ValueError, match="reset must be one of actor, critic"):
        warm("optimiser")
    with pytest.raises(ValueError, match=r"learned value .* use ppo.adopt"):
        ppo.warm_start(dataclasses.replace(config, value=NetConfig()), key, learned, batch)


PROBE = ppo.Config(actor=SMALL, value=SMALL, discount=0.5, minibatch=32, value_lr=2e-2, epochs=5)


def _learn(env, config, rollout, updates):
    """The real loop, from scratch."""
    recipe = Recipe(agent="ppo", warmup_steps=0, rollout=rollout)
    loop = OnlineLoop(env_steps=rollout * updates, log_every=10**9, checkpoint_every=10**9)
    state = online.start_state(ppo, config, recipe, 0, batch_of(collect(env, 1)), None)
    return online.finetune(ppo, recipe.configure(config), env, recipe, loop, state)


@pytest.mark.usefixtures("quick_compile")
def test_values_of_probe_environments():
    """V(-1) = 0.5 and V(1) = 1 of two steps; 1 / (1 - 0.5) where only time cuts the episode."""
    value = _learn(TwoSteps(), PROBE, 64, 10).params["value"]
    v = apply(Scalar(SMALL), value, jnp.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(v, [0.5, 1.0], atol=0.05)
    value = _learn(Endless(), PROBE, 64, 10).params["value"]
    np.testing.assert_allclose(apply(Scalar(SMALL), value, jnp.zeros((1, 1))), 2.0, atol=0.1)


@pytest.mark.usefixtures("quick_compile")
def test_it_solves_a_contextual_bandit():
    """The best action is s / 2; the first policy does 0."""
    config = dataclasses.replace(PROBE, actor_lr=1e-2, minibatch=64, epochs=10)
    state = _learn(Match(), config, 256, 12)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = ppo.act(config, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.12)
