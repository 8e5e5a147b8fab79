import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, recoil, sac
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline
from robo_rl.learn.offline import OfflineLoop
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.agents.in_sample import run
from tests.probe_envs import Reach, collect, reach_expert

SMALL = NetConfig(hidden=(16, 16))
CONFIG = recoil.Config(actor=SMALL, critic=SMALL)
INIT = jax.jit(recoil.init, static_argnums=0)
UPDATE = jax.jit(recoil.update, static_argnums=0)


@pytest.fixture
def batch(batch):
    """The first four rows are an expert's."""
    return {**batch, "expert": np.repeat(np.float32([1.0, 0.0]), 4)}


def test_q_loss_by_hand():
    """u = 3: 9/4 - 3 for an expert's row, 9/4 + 3 for another; the minima are at 2 and -2."""
    got = recoil.q_loss(jnp.array([[3.0, 3.0]]), jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(got, [[-0.75, 5.25]])
    slope = jax.grad(lambda u: jnp.sum(recoil.q_loss(u, jnp.array([1.0, -1.0]))))
    np.testing.assert_allclose(slope(jnp.array([[2.0, -2.0]])), 0.0, atol=1e-6)


def test_it_is_the_published_objective_in_q():
    """E_M[f*(y)] - (1 - beta) E_S[y] with f*(y) = y + y^2 / 4, and (1 - beta) E_S[Q] for V.

    Up to what does not depend on Q: compared by the slope in Q, beta = 3/8."""
    rng = np.random.default_rng(0)
    expert = jnp.asarray([1, 1, 1, 0, 0, 0, 0, 0], jnp.float32)
    next_v, q = (jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(2))

    def published(q):
        y = 0.9 * next_v - q
        beta = jnp.mean(expert)
        other = jnp.sum((1.0 - expert) * y) / jnp.sum(1.0 - expert)
        lowered = jnp.sum((1.0 - expert) * q) / jnp.sum(1.0 - expert)
        objective = jnp.mean(y + 0.25 * y**2) - (1.0 - beta) * other
        return objective + (1.0 - beta) * lowered

    def ours(q):
        return jnp.mean(recoil.q_loss((q - 0.9 * next_v)[None], recoil.sign(expert)))

    np.testing.assert_allclose(jax.grad(ours)(q), jax.grad(published)(q), rtol=1e-5)


def test_a_terminated_row_goes_on_for_ever():
    """At a discount of 0.9: 0.9 * 2 / 0.1 = 18 for the expert, -18 for others, 0 in between."""
    got = recoil.absorbed(jnp.array([0.0, 0.0, 1.0]), jnp.array([1.0, -1.0, 1.0]), 0.9)
    np.testing.assert_allclose(got, [18.0, -18.0, 0.0], rtol=1e-5)


@pytest.mark.usefixtures("quick_compile")
def test_losses_of_one_update_by_hand(batch):
    config = dataclasses.replace(CONFIG, discount=0.9)
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    obs = batch["observations"]
    target = apply_ensemble(Scalar(SMALL), state.target_critic, obs, batch["actions"])
    u = np.asarray(target).min(axis=0) - np.asarray(
        apply(Scalar(SMALL), state.params["value"], obs)
    )
    value_loss = np.mean(np.where(u < 0, 0.2, 0.8) * u**2)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-4)

    next_v = np.array(apply(Scalar(SMALL), after.params["value"], batch["next_observations"]))
    signs = np.array([1, 1, 1, 1, -1, -1, -1, -1])
    next_v[3] = 2.0 / 0.1  # an expert's row that terminated
    q = np.asarray(apply_ensemble(Scalar(SMALL), state.params["critic"], obs, batch["actions"]))
    d = q - 0.9 * next_v
    critic_loss = (d**2 / 4 - signs * d).mean(axis=1).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss, rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_rewards_are_not_read(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    one, two = (
        UPDATE(CONFIG, state, {**batch, "rewards": r})[0] for r in (np.zeros(8), np.ones(8))
    )
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_data_without_the_label_are_refused(batch):
    del batch["expert"]
    with pytest.raises(ValueError, match=r"lacks expert.*--expert"):
        recoil.init(CONFIG, jax.random.key(0), batch)


def test_n_step_rows_are_refused(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    with pytest.raises(ValueError, match="n-step"):
        recoil.update(CONFIG, state, {**batch, "discounts": np.ones(8, np.float32)})


@pytest.mark.usefixtures("quick_compile")
def test_it_hands_on_its_policy_and_not_its_critics(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    learned = recoil.learned(CONFIG, state)
    assert learned.critics == 0
    started = sac.warm_start(
        sac.adopt(sac.Config(critics=2), learned), jax.random.key(1), learned, batch
    )
    kernel = started.params["actor"]["mean"]["kernel"]
    np.testing.assert_array_equal(kernel, state.params["actor"]["mean"]["kernel"])


def test_q_is_the_share_of_the_expert_in_closed_form():
    """One state, two actions that end. (s, +a) is the expert's in 3 of 4 rows, (s, -a) never:
    Q = (2 P(expert) - 1) * 2 / (1 - discount), 4 / 2 and -4 at a discount of 0.5."""
    rows = 8
    batch = {
        "observations": np.zeros((rows, 1)),
        "actions": np.where(np.arange(rows) < 4, 0.5, -0.5)[:, None],
        "rewards": np.zeros(rows),
        "next_observations": np.zeros((rows, 1)),
        "masks": np.zeros(rows),
        "expert": np.arange(rows) < 3,
    }
    batch = {name: np.asarray(value, np.float32) for name, value in batch.items()}
    config = dataclasses.replace(CONFIG, discount=0.5, critic_lr=1e-2)
    state = run(recoil, config, batch, 300)
    q = apply_ensemble(
        Scalar(SMALL), state.params["critic"], jnp.zeros((2, 1)), jnp.array([[0.5], [-0.5]])
    )
    np.testing.assert_allclose(q, [[2.0, -4.0]] * 2, atol=0.05)


def _success(agent, config, data, steps):
    loop = OfflineLoop(steps=steps, batch_size=128, log_every=steps, checkpoint_every=steps)
    state = offline.train(agent, config, data, loop)
    act = jax.jit(lambda obs: agent.act(config, state, obs, jax.random.key(0)))
    result = evaluate(Reach(), lambda obs: np.asarray(act(obs)), evaluation_seeds(0, 30))
    return result.success_rate


def test_three_demonstrations_among_random_data_are_enough():
    """Cloning everything stays where it is: uniform actions are 0 on average."""
    expert, other = collect(Reach(), 3, reach_expert), collect(Reach(), 60, seed=1)
    rows = len(other["rewards"])
    assert len(expert["rewards"]) < 0.02 * rows
    times = rows // len(expert["rewards"])
    data = {key: np.concatenate([*[expert[key]] * times, other[key]]) for key in other}
    data["expert"] = np.concatenate([np.ones(len(data["masks"]) - rows), np.zeros(rows)])
    net = NetConfig(hidden=(32, 32))
    config = recoil.Config(net, net, discount=0.9, actor_lr=3e-3, critic_lr=3e-3, polyak=0.02)
    print(
        _success(recoil, config, data, 1500),
        _success(bc, bc.Config(net, learning_rate=3e-3), other, 500),
        _success(bc, bc.Config(net, learning_rate=3e-3), data, 500),
        _success(bc, bc.Config(net, learning_rate=3e-3), expert, 500),
    )
    assert _success(recoil, config, data, 1500) >= 0.8
    assert _success(bc, bc.Config(net, learning_rate=3e-3), other, 500) <= 0.3
