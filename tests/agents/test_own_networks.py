"""Networks of one's own in an agent: trained, stored as JSON and arrays, and gone on with."""

import json

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import rebrac, sac, td3bc
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import configs, trees

SMALL = NetConfig(hidden=(8,))


class Bilinear(linen.Module):
    """A critic of one's own: features of the state times features of the action."""

    width: int = 6

    @linen.compact
    def __call__(self, *inputs):
        obs, action = inputs
        return linen.Dense(self.width)(obs) * jnp.tanh(linen.Dense(self.width)(action))


class Stripes(linen.Module):
    """An encoder of one's own: columns of an image, weighted."""

    @linen.compact
    def __call__(self, images):
        columns = images.astype(jnp.float32).mean(axis=(1, 3)) / 255.0
        return jax.nn.relu(linen.Dense(5)(columns))


def _with_images(batch):
    rng = np.random.default_rng(1)

    def seen(vector):
        return {"camera": rng.integers(0, 256, (8, 8, 8, 1), np.uint8), "state": vector}

    names = ("observations", "next_observations")
    return {**batch, **{name: seen(batch[name]) for name in names}}


CASES = {
    "critic": (td3bc, td3bc.Config(actor=SMALL, critic=NetConfig(arch=Bilinear(width=4)))),
    "shipped": (
        sac,
        sac.Config(
            actor=NetConfig(hidden=(8,), arch="bro"),
            critic=NetConfig(hidden=(8, 8), arch="simba"),
            critics=3,
            utd=2,
        ),
    ),
    "encoder": (
        rebrac,
        rebrac.Config(
            actor=NetConfig(hidden=(8,), encoder=EncoderConfig(arch=Stripes)),
            critic=NetConfig(hidden=(8,), encoder=EncoderConfig(arch=Stripes)),
        ),
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_network_of_ones_own_learns_and_goes_on_where_it_was_stored(case, batch):
    agent, config = CASES[case]
    part = "encoder" if case == "encoder" else "trunk"
    rows = _with_images(batch) if case == "encoder" else batch
    rows = jax.tree.map(jnp.asarray, {**rows, "next_actions": batch["actions"]})
    update = jax.jit(agent.update, static_argnums=0)

    def learn(config, state, updates):
        for _ in range(updates):
            state, metrics = update(config, state, rows)
        return state, metrics

    first = jax.jit(agent.init, static_argnums=0)(config, jax.random.key(1), rows)
    whole, metrics = learn(config, first, 5)
    assert all(np.isfinite(value) for value in metrics.values())
    names = [n for n in trees.flatten(first) if n.startswith(f"params/critic/{part}/")]
    assert names
    for name in names:  # every layer of it learns
        if "bias" not in name:
            assert not np.array_equal(trees.flatten(whole)[name], trees.flatten(first)[name]), name

    halfway, _ = learn(config, first, 3)
    stored = json.dumps(configs.to_json(config)), trees.flatten(halfway)
    restored = configs.from_json(agent.Config, json.loads(stored[0]))
    again = agent.init(restored, jax.random.key(9), rows)
    resumed, _ = learn(restored, trees.unflatten(again, stored[1]), 2)
    jax.tree.map(np.testing.assert_array_equal, trees.flatten(resumed), trees.flatten(whole))
