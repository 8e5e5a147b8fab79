import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import fdvl
from robo_rl.nn import losses
from robo_rl.nn.apply import apply, apply_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from tests.agents.in_sample import (
    assert_it_acts_well_on_match,
    minimiser,
    trained_on_match,
    value_at_zero,
)

SMALL = NetConfig(hidden=(16, 16))
LOSSES = {
    "total_variation": losses.total_variation_loss,
    "chi_square": losses.chi_square_loss,
}


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("divergence", fdvl.DIVERGENCES)
def test_losses_of_one_update_by_hand(batch, divergence):
    config = fdvl.Config(actor=SMALL, critic=SMALL, divergence=divergence, lam=0.7, huber=0.5)
    state = jax.jit(fdvl.init, static_argnums=0)(config, jax.random.key(0), batch)
    after, metrics = jax.jit(fdvl.update, static_argnums=0)(config, state, batch)
    both = np.concatenate([batch["observations"], batch["actions"]], axis=1)
    q = np.asarray(apply_ensemble(Scalar(SMALL), state.target_critic, both)).min(axis=0)
    u = q - np.asarray(apply(Scalar(SMALL), state.params["value"], batch["observations"]))
    upper = np.maximum(u, 0.0)
    if divergence == "chi_square":
        upper = upper + upper**2 / 4
    expected = np.mean(0.7 * upper - 0.3 * u)
    assert float(metrics["value_loss"]) == pytest.approx(expected, rel=1e-4)

    next_v = apply(Scalar(SMALL), after.params["value"], batch["next_observations"])
    target = batch["rewards"] + 0.99 * batch["masks"] * np.asarray(next_v)
    d = np.abs(np.asarray(apply_ensemble(Scalar(SMALL), state.params["critic"], both)) - target)
    loss = np.where(d < 0.5, d**2 / 2, 0.5 * (d - 0.25)).mean(axis=1).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("divergence", fdvl.DIVERGENCES)
def test_it_learns_its_maximum_and_beats_the_behaviour_in_a_bandit(divergence):
    """V(0) of Q = -a^2, a uniform: with total variation minus the square of the 25 % quantile of
    |a|, -1/16; with chi-square what minimises the loss over those Q."""
    net = NetConfig(hidden=(32, 32))
    config = fdvl.Config(
        net,
        net,
        divergence=divergence,
        lam=0.8,
        temperature=30.0,
        actor_lr=3e-3,
        critic_lr=3e-3,
        polyak=0.05,
    )
    q = -jnp.square(jnp.linspace(-1.0, 1.0, 10_001))
    expected = minimiser(lambda u: LOSSES[divergence](u, 0.8), q)
    if divergence == "total_variation":
        assert expected == pytest.approx(-1 / 16, abs=1e-3)
    state = trained_on_match(fdvl, config)
    assert value_at_zero(config, state) == pytest.approx(expected, abs=0.03)
    assert_it_acts_well_on_match(fdvl, config, state)
