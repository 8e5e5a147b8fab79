import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, distill
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.normaliser import Normaliser
from robo_rl.runs import trees

SMALL = NetConfig(hidden=(8, 8))
CONFIG = distill.Config(actor=SMALL)
UPDATE = jax.jit(distill.update, static_argnums=0)
quick = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def batch(batch):
    rng = np.random.default_rng(1)
    taught = {
        "teacher_actions": rng.uniform(-0.9, 0.9, (8, 2)).astype(np.float32),
        "teacher_log_std": rng.uniform(-2.0, 0.0, (8, 2)).astype(np.float32),
    }
    return {**batch, **taught}


def test_divergences_by_hand():
    """Student N(1, 2), teacher N(0, 1) in one dimension, twice the same in two.

    KL(teacher || student) = log 2 + (1 + 1) / 8 - 1/2; reverse: -log 2 + (4 + 1) / 2 - 1/2.
    """
    student, teacher = (jnp.ones((1, 2)), jnp.log(2 * jnp.ones((1, 2)))), (jnp.zeros((1, 2)),) * 2
    forward = distill.divergence("forward", *student, *teacher)
    reverse = distill.divergence("reverse", *student, *teacher)
    np.testing.assert_allclose(forward, [2 * (np.log(2.0) - 0.25)], rtol=1e-6)
    np.testing.assert_allclose(reverse, [2 * (2.0 - np.log(2.0))], rtol=1e-6)


@quick
@pytest.mark.parametrize("kind", distill.DIVERGENCES)
def test_the_loss_is_the_divergence_from_the_tanh_of_the_mean(kind, batch):
    """With the output layer at (0.5, -0.5) everywhere and a spread of 0.1."""
    config = dataclasses.replace(CONFIG, divergence=kind, teacher_std=0.1)
    state = distill.init(config, jax.random.key(0), batch)
    output = {"kernel": jnp.zeros((8, 2)), "bias": jnp.array([0.5, -0.5])}
    state = dataclasses.replace(state, actor={**state.actor, "mean": output})
    _, metrics = UPDATE(config, state, batch)
    mean, std = np.tanh([0.5, -0.5]), 0.1
    teacher, spread = batch["teacher_actions"], np.exp(batch["teacher_log_std"])
    if kind == "forward":
        kl = np.log(std / spread) + (spread**2 + (mean - teacher) ** 2) / (2 * std**2) - 0.5
    else:
        kl = np.log(spread / std) + (std**2 + (mean - teacher) ** 2) / (2 * spread**2) - 0.5
    assert float(metrics["actor_loss"]) == pytest.approx(kl.sum(axis=1).mean(), rel=1e-4)
    assert float(metrics["action_mse"]) == pytest.approx(np.mean((mean - teacher) ** 2), rel=1e-5)
    assert float(metrics["std"]) == pytest.approx(0.1, rel=1e-5)


@quick
@pytest.mark.parametrize("kind", distill.DIVERGENCES)
def test_only_the_teacher_is_learned_from(kind, batch):
    """All of the actor moves; what was done and what it paid does not matter."""
    config = dataclasses.replace(CONFIG, divergence=kind)
    normaliser = Normaliser(jnp.full(3, 0.5, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    state = distill.init(config, jax.random.key(0), batch, normaliser)
    after, _ = UPDATE(config, state, batch)
    before = trees.flatten(state.actor)
    for name, value in trees.flatten(after.actor).items():
        assert not np.array_equal(before[name], value), name
    np.testing.assert_array_equal(after.normaliser.mean, normaliser.mean)
    other = {**batch, "actions": -batch["actions"], "rewards": batch["rewards"] + 1.0}
    same, _ = UPDATE(config, state, other)
    for name, value in trees.flatten(after).items():
        np.testing.assert_array_equal(trees.flatten(same)[name], value)


@pytest.mark.parametrize(
    ("kind", "expected"), [("forward", np.sqrt(0.2**2 + 0.4**2)), ("reverse", 0.2)]
)
def test_forward_covers_what_the_mean_cannot_follow_and_reverse_does_not(kind, expected):
    """One state with labels +-0.4, of spread 0.2: both means are 0, the spreads differ."""
    labels = np.array([[0.4], [-0.4]], np.float32)
    batch = {
        "observations": np.ones((2, 1), np.float32),
        "actions": labels,
        "teacher_actions": labels,
        "teacher_log_std": np.full((2, 1), np.log(0.2), np.float32),
    }
    config = distill.Config(NetConfig(hidden=(8,)), kind, 0.3, learning_rate=1e-2)
    state = distill.init(config, jax.random.key(0), batch)

    def step(carry, _):
        return distill.update(config, carry, batch)

    state, metrics = jax.jit(lambda s: jax.lax.scan(step, s, None, length=600))(state)
    assert float(metrics["std"][-1]) == pytest.approx(expected, rel=0.02)
    obs = jnp.ones((2000, 1))
    assert float(distill.act(config, state, obs, jax.random.key(0))[0, 0]) == pytest.approx(
        0.0, abs=0.02
    )
    drawn = distill.act(config, state, obs, jax.random.key(0), explore=True)
    assert float(drawn.std()) == pytest.approx(expected, rel=0.06)


@quick
def test_it_starts_as_what_was_learned_with_a_spread_of_its_own(batch):
    old_config = bc.Config(actor=NetConfig(hidden=(6,)))
    normaliser = Normaliser(jnp.full(3, 0.5, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    old = bc.init(old_config, jax.random.key(3), batch, normaliser)
    learned = bc.learned(old_config, old)
    config = distill.adopt(dataclasses.replace(CONFIG, teacher_std=0.3), learned)
    bare = {key: batch[key] for key in ("observations", "actions")}
    state = distill.warm_start(config, jax.random.key(0), learned, bare)
    obs, key = batch["observations"], jax.random.key(1)
    np.testing.assert_array_equal(
        distill.act(config, state, obs, key), bc.act(old_config, old, obs, key)
    )
    np.testing.assert_allclose(state.actor["log_std"], np.log(0.3), rtol=1e-6)
    after, _ = UPDATE(config, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    handed = distill.learned(config, after)
    assert handed.policy.net == NetConfig(hidden=(6,))
    np.testing.assert_array_equal(handed.log_std, after.actor["log_std"])
    with pytest.raises(ValueError, match=r"use distill\.adopt"):
        distill.warm_start(CONFIG, key, learned, bare)


@quick
def test_the_learning_rate_decays_to_zero_and_the_spread_is_bounded(batch):
    config = distill.Config(SMALL, decay_steps=3, teacher_std=0.9, log_std_min=np.log(0.9))
    state = distill.init(config, jax.random.key(0), batch)
    for _ in range(3):
        state, metrics = UPDATE(config, state, batch)
        assert float(metrics["std"]) >= 0.9 - 1e-6
    after, _ = UPDATE(config, state, batch)
    np.testing.assert_array_equal(after.actor["mean"]["kernel"], state.actor["mean"]["kernel"])


def test_labels_of_single_actions_do_not_teach_chunks(batch):
    chunked = {**batch, "actions": np.zeros((8, 6), np.float32)}
    with pytest.raises(ValueError, match="actions have 6 entries, the teacher's 2"):
        distill.init(CONFIG, jax.random.key(0), chunked)
