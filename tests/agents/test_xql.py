import jax
import numpy as np
import pytest
import scipy.integrate

from robo_rl.agents import iql, xql
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.agents.in_sample import (
    assert_it_acts_well_on_match,
    trained_on_match,
    value_at_zero,
)

SMALL = NetConfig(hidden=(16, 16))
INIT = jax.jit(xql.init, static_argnums=0)
UPDATE = jax.jit(xql.update, static_argnums=0)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("huber", [0.5, 0.0])
def test_losses_of_one_update_by_hand(batch, huber):
    config = xql.Config(actor=SMALL, critic=SMALL, beta=0.5, z_clip=1.0, huber=huber)
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    obs, both = batch["observations"], np.concatenate([batch["observations"], batch["actions"]], 1)
    q = np.asarray(apply_ensemble(Scalar(SMALL), state.target_critic, both)).min(axis=0)
    v = np.asarray(apply(Scalar(SMALL), state.params["value"], obs))
    z = np.minimum((q - v) / 0.5, 1.0)
    expected = np.mean((np.exp(z) - z - 1.0) / np.exp(max(z.max(), -1.0)))
    assert float(metrics["value_loss"]) == pytest.approx(expected, rel=1e-4)

    next_v = apply(Scalar(SMALL), after.params["value"], batch["next_observations"])
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_v)
    u = np.asarray(apply_ensemble(Scalar(SMALL), state.params["critic"], both)) - target
    loss = np.where(np.abs(u) < 0.5, u**2 / 2, 0.5 * (np.abs(u) - 0.25)) if huber else u**2
    assert (np.abs(u) > 0.5).any()
    assert float(metrics["critic_loss"]) == pytest.approx(loss.mean(axis=1).sum(), rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_only_the_losses_of_v_and_q_differ_from_iql(batch):
    """The first actor loss differs by the new V alone: at temperature 0 not at all."""
    ours, theirs = (
        xql.Config(SMALL, SMALL, temperature=0.0),
        iql.Config(SMALL, SMALL, temperature=0.0),
    )
    state = INIT(ours, jax.random.key(0), batch)
    got, metrics = UPDATE(ours, state, batch)
    expected, known = jax.jit(iql.update, static_argnums=0)(theirs, state, batch)
    assert set(metrics) == set(known)
    assert float(metrics["actor_loss"]) == float(known["actor_loss"])
    jax.tree.map(np.testing.assert_array_equal, got.params["actor"], expected.params["actor"])
    assert float(metrics["value_loss"]) != float(known["value_loss"])


def test_it_learns_the_soft_maximum_and_beats_the_behaviour_in_a_bandit():
    """V(0) = beta log of the mean of exp(-a^2 / beta); the plain mean would be -1/3."""
    net = NetConfig(hidden=(32, 32))
    config = xql.Config(
        net, net, beta=0.3, temperature=30.0, actor_lr=3e-3, critic_lr=3e-3, polyak=0.05
    )
    state = trained_on_match(xql, config)
    expected = 0.3 * np.log(scipy.integrate.quad(lambda a: np.exp(-(a**2) / 0.3), 0.0, 1.0)[0])
    assert expected == pytest.approx(-0.219, abs=1e-3)
    assert value_at_zero(config, state) == pytest.approx(expected, abs=0.03)
    assert_it_acts_well_on_match(xql, config, state)
