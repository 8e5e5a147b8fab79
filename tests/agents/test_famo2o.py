import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robo_rl.agents import famo2o, iql
from robo_rl.nn import policies
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.agents.in_sample import assert_it_acts_well_on_match, trained_on_match

SMALL = NetConfig(hidden=(16, 16))
CONFIG = famo2o.Config(actor=SMALL, critic=SMALL, balance=SMALL, low=2.0, high=4.0)
INIT = jax.jit(famo2o.init, static_argnums=0)
UPDATE = jax.jit(famo2o.update, static_argnums=0)


def test_the_code_of_a_coefficient_by_hand():
    """sin and cos of 9, 9 / 10000^(1 / 3) and 9 / 10000^(2 / 3)."""
    got = policies.sinusoidal_code(jnp.array([[9.0]]), 6)
    angles = 9.0 / np.array([1.0, 21.544347, 464.158883])
    expected = np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()
    np.testing.assert_allclose(got, expected[None], rtol=1e-5)


def test_a_coefficient_is_a_straight_line_over_the_balance_action():
    got = policies.coefficient(jnp.array([-1.0, 0.0, 1.0]), 8.0, 14.0)
    np.testing.assert_allclose(got, [8.0, 11.0, 14.0])


def _family_mean(params, obs, coefficient):
    code = policies.sinusoidal_code(jnp.full((len(obs), 1), coefficient), 6)
    return np.asarray(policies.mean_action(SMALL, params, obs, code))


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("coefficients", famo2o.COEFFICIENTS)
def test_losses_of_one_update_by_hand(batch, coefficients):
    """With a single coefficient of 3 nothing is drawn in the loss of the actor."""
    config = dataclasses.replace(CONFIG, low=3.0, high=3.0, coefficients=coefficients)
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)
    obs = batch["observations"]
    target = apply_ensemble(Scalar(SMALL), state.target_critic, obs, batch["actions"])
    q = np.asarray(target).min(axis=0)
    u = q - np.asarray(apply(Scalar(SMALL), state.params["value"], obs))
    value_loss = np.mean(np.where(u < 0, 0.3, 0.7) * u**2)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-4)

    new_v = np.asarray(apply(Scalar(SMALL), after.params["value"], obs))
    weight = np.minimum(np.exp(3.0 * (q - new_v)), 100.0)
    mean = _family_mean(state.params["actor"], obs, 3.0)
    log_prob = scipy.stats.norm.logpdf(batch["actions"], mean, 1.0).sum(axis=1)
    assert float(metrics["actor_loss"]) == pytest.approx(-np.mean(weight * log_prob), rel=1e-4)
    assert float(metrics["coefficient"]) == pytest.approx(3.0)

    next_v = np.asarray(apply(Scalar(SMALL), after.params["value"], batch["next_observations"]))
    target = batch["rewards"] + 0.99 * batch["masks"] * next_v
    fitted = apply_ensemble(Scalar(SMALL), state.params["critic"], obs, batch["actions"])
    critic_loss = np.mean((np.asarray(fitted) - target) ** 2, axis=1).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss, rel=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_the_balance_loss_by_hand(batch):
    """temperature * log pi - Q: at another temperature it differs by the entropy alone."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    _, metrics = UPDATE(CONFIG, state, batch)
    hot = dataclasses.replace(
        state, params={**state.params, "temperature": jnp.log(jnp.float32(3.0))}
    )
    _, hotter = UPDATE(CONFIG, hot, batch)
    difference = float(hotter["balance_loss"] - metrics["balance_loss"])
    assert difference == pytest.approx(-2.0 * float(metrics["balance_entropy"]), rel=1e-3)


def _moved(before, after):
    distance = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before.params, after.params)
    return {name for name, tree in distance.items() if max(jax.tree.leaves(tree)) > 1e-12}


@pytest.mark.usefixtures("quick_compile")
def test_each_step_moves_its_own_network_only(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    still = {"actor_lr": 1e-30, "critic_lr": 1e-30, "temperature_lr": 0.0}
    expected = {
        "actor_lr": {"actor", "balance"},
        "critic_lr": {"critic", "value"},
        "temperature_lr": {"temperature"},
    }
    for name, names in expected.items():
        config = dataclasses.replace(CONFIG, **{**still, name: 1e-3})
        assert _moved(state, UPDATE(config, state, batch)[0]) == names


@pytest.mark.usefixtures("quick_compile")
def test_offline_the_balance_model_has_no_say_in_what_the_family_learns(batch):
    """Online it has: its coefficients weigh the actor's loss."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    other = {**state.params, "balance": INIT(CONFIG, jax.random.key(7), batch).params["balance"]}
    changed = dataclasses.replace(state, params=other)
    losses = [float(UPDATE(CONFIG, s, batch)[1]["actor_loss"]) for s in (state, changed)]
    assert losses[0] == losses[1]
    online = dataclasses.replace(CONFIG, coefficients="balance")
    losses = [float(UPDATE(online, s, batch)[1]["actor_loss"]) for s in (state, changed)]
    assert losses[0] != losses[1]


@pytest.mark.usefixtures("quick_compile")
def test_the_temperature_falls_while_the_balance_model_is_more_random_than_asked(batch):
    for target, direction in ((-5.0, -1.0), (5.0, 1.0)):
        config = dataclasses.replace(CONFIG, target_entropy=target)
        state = INIT(config, jax.random.key(0), batch)
        after, _ = UPDATE(config, state, batch)
        assert float(after.params["temperature"]) * direction > 0.0


def test_it_cannot_hand_on_a_policy_that_reads_observations_alone():
    assert famo2o.CAPABILITIES.learned is None
    assert iql.CAPABILITIES.learned is iql.learned


def test_the_balance_chooses_improvement_where_imitation_is_worse():
    """At coefficient 0 the family clones uniform actions, 0 on average; the best action is s / 2.
    So in states far from 0 a large coefficient is better."""
    net = NetConfig(hidden=(32, 32))
    config = famo2o.Config(
        net,
        net,
        balance=net,
        low=0.0,
        high=20.0,
        expectile=0.9,
        actor_lr=3e-3,
        critic_lr=3e-3,
        polyak=0.05,
        initial_temperature=0.01,
    )
    state = trained_on_match(famo2o, config, steps=800)
    assert_it_acts_well_on_match(famo2o, config, state)
    obs = jnp.linspace(-0.8, 0.8, 17)[:, None]
    slope = {}
    for coefficient in (0.0, 20.0):
        code = policies.sinusoidal_code(jnp.full_like(obs, coefficient), 6)
        actions = policies.mean_action(net, state.params["actor"], obs, code)
        slope[coefficient] = float(jnp.sum(obs * actions) / jnp.sum(jnp.square(obs)))
    assert abs(slope[0.0]) < 0.25
    assert slope[20.0] > 0.4
    assert slope[20.0] - slope[0.0] > 0.2
    far = jnp.array([[-0.8], [0.8]])
    balance = policies.mean_action(net, state.params["balance"], far)
    assert float(balance.min()) > 0.0
