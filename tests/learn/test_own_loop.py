"""A researcher's own arrays and own loop: plain functions under jit, scan and vmap from outside.

What `docs/own_loop.md` shows, run.
"""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl import agents
from robo_rl.agents import iql, td3bc
from robo_rl.learn.checks import check_batch
from robo_rl.nn.networks import NetConfig

pytestmark = pytest.mark.usefixtures("quick_compile")

CONFIG = iql.Config(actor=NetConfig(hidden=(8,)), critic=NetConfig(hidden=(8,)))
ROWS, BATCH, UPDATES, SEEDS = 64, 16, 5, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    rows = {
        "observations": rng.normal(size=(ROWS, 3)),
        "actions": rng.uniform(-1, 1, (ROWS, 2)),
        "rewards": rng.normal(size=ROWS),
        "next_observations": rng.normal(size=(ROWS, 3)),
        "masks": np.ones(ROWS),
    }
    check_batch(iql, CONFIG, rows)
    return {name: jnp.asarray(value, jnp.float32) for name, value in rows.items()}


def drawn(data, key):
    rows = jax.random.randint(key, (BATCH,), 0, ROWS)
    return {name: value[rows] for name, value in data.items()}


def step(data, state, key):
    return iql.update(CONFIG, state, drawn(data, key))


def keys():
    return jax.random.split(jax.random.key(1), UPDATES)


@pytest.fixture(scope="module")
def one_by_one(data):
    state = iql.init(CONFIG, jax.random.key(0), data)
    update = jax.jit(functools.partial(step, data))
    for key in keys():
        state, metrics = update(state, key)
    return state, metrics


def same(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_updates_under_scan_are_those_under_jit(data, one_by_one):
    state = iql.init(CONFIG, jax.random.key(0), data)
    scanned, metrics = jax.jit(
        lambda state: jax.lax.scan(functools.partial(step, data), state, keys())
    )(state)
    same(scanned, one_by_one[0])
    assert metrics["critic_loss"].shape == (UPDATES,)
    np.testing.assert_allclose(metrics["critic_loss"][-1], one_by_one[1]["critic_loss"], rtol=1e-4)


def test_seeds_under_vmap_are_those_one_after_the_other(data, one_by_one):
    states = jax.vmap(lambda key: iql.init(CONFIG, key, data))(
        jnp.stack([jax.random.key(seed) for seed in range(SEEDS)])
    )

    @jax.jit
    def update(states, key):
        return jax.vmap(lambda state: step(data, state, key))(states)

    for key in keys():
        states, metrics = update(states, key)
    assert metrics["critic_loss"].shape == (SEEDS,)
    same(jax.tree.map(lambda leaf: leaf[0], states), one_by_one[0])


def test_acting_takes_one_observation_or_many(data, one_by_one):
    state = one_by_one[0]
    act = jax.jit(functools.partial(iql.act, CONFIG), static_argnames="explore")
    key = jax.random.key(0)
    many = act(state, data["observations"], key)
    assert many.shape == (ROWS, 2)
    assert np.abs(many).max() <= 1.0
    np.testing.assert_allclose(act(state, data["observations"][0], key), many[0], rtol=1e-5)
    noisy = act(state, data["observations"], key, explore=True)
    assert not np.array_equal(noisy, many)


def test_a_wrong_batch_of_ones_own_is_a_sentence(data):
    with pytest.raises(ValueError, match="these lack masks"):
        check_batch(iql, CONFIG, {k: v for k, v in data.items() if k != "masks"})
    with pytest.raises(ValueError, match=r"actions must be in \[-1, 1\]"):
        check_batch(iql, CONFIG, {**data, "actions": 3.0 * data["actions"]})


def test_the_loop_that_the_docs_show_runs():
    page = pathlib.Path(__file__).parents[2] / "docs" / "own_loop.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    losses = np.asarray(scope["losses"])
    assert losses.shape == (20,)
    assert np.isfinite(losses).all()
    assert np.asarray(scope["seed_losses"]).shape == (4,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"masks": None},
            r"iql: the batch lacks masks \(masks are 1 - terminated\); it has",
        ),
        ({"rewards": jnp.ones((BATCH, 1))}, r"iql: rewards must be one number a row, \(N,\), got"),
        ({"rewards": jnp.ones(BATCH - 1)}, "iql: all arrays .* must have the same length"),
        ({"next_observations": jnp.ones((BATCH, 2))}, r"shape \(3,\), next_observations of shape"),
        ({"actions": None}, "iql: the batch lacks actions"),
    ],
)
def test_update_answers_a_batch_that_does_not_fit_in_a_sentence_also_within_jit(
    data, change, message
):
    state = iql.init(CONFIG, jax.random.key(0), data)
    batch = {**drawn(data, jax.random.key(1)), **change}
    batch = {name: value for name, value in batch.items() if value is not None}
    for update in (iql.update, jax.jit(iql.update, static_argnums=0)):
        with pytest.raises(ValueError, match=message):
            update(CONFIG, state, batch)


def test_init_and_update_refuse_the_config_of_another_agent(data):
    with pytest.raises(ValueError, match=r"td3bc.init takes the Config of td3bc, got iql.Config"):
        td3bc.init(CONFIG, jax.random.key(0), data)
    state = iql.init(CONFIG, jax.random.key(0), data)
    with pytest.raises(ValueError, match=r"iql.update takes the Config of iql, got td3bc.Config"):
        iql.update(td3bc.Config(), state, data)


def test_init_refuses_numbers_that_nothing_can_be_learned_from(data):
    for change, message in (
        ({"actions": 5.0 * data["actions"]}, r"iql: actions must be in \[-1, 1\]"),
        ({"masks": 2.0 * data["masks"]}, "iql: masks must be in"),
        ({"rewards": data["rewards"].at[3].set(jnp.nan)}, "iql: rewards must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            iql.init(CONFIG, jax.random.key(0), {**data, **change})


def test_an_agent_of_ones_own_file_answers_alike(data, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text((pathlib.Path("examples") / "own_method.py").read_text())
    agent = agents.get(str(path))
    with pytest.raises(ValueError, match=r"mine: the batch lacks actions; it has observations"):
        agent.init(agent.Config(), jax.random.key(0), {"observations": data["observations"]})
