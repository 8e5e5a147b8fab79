import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from robo_rl.agents import hnpg
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn import distributions
from robo_rl.nn.apply import apply
from robo_rl.nn.networks import NetConfig, Scalar
from tests.probe_envs import Endless, Match, TwoSteps, collect

TINY = NetConfig(hidden=(4,), activation="tanh")
SMALL = NetConfig(hidden=(16, 16), activation="tanh")
CONFIG = hnpg.Config(
    actor=TINY, critic=TINY, iterations=2, critic_steps=3, samples=3, cg_iterations=40, discount=0.9
)
INIT = jax.jit(hnpg.init, static_argnums=0)
UPDATE = jax.jit(hnpg.update, static_argnums=0)


def test_monte_carlo_returns_by_hand():
    """Terminated: 1 + 0.5 * 2 and 2. Cut by time, and by the rollout: 3 + 0.5 * 4, 1 + 0.5 * 8."""
    got = hnpg.returns(
        jnp.array([1.0, 2.0, 3.0, 1.0]),
        jnp.array([9.0, 9.0, 4.0, 8.0]),
        jnp.array([1.0, 0.0, 1.0, 1.0]),
        jnp.array([0.0, 1.0, 1.0, 1.0]),
        0.5,
    )
    np.testing.assert_allclose(got, [2.0, 2.0, 5.0, 5.0])


def test_the_loss_of_q_by_hand():
    """Means of (1, 4) over the rollout and of 9 over the one offline row, at a weight of 2."""
    loss, metrics = hnpg.critic_loss(
        jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3), jnp.array([0.0, 0.0, 1.0]), 2.0
    )
    assert float(loss) == 2.5 + 2.0 * 9.0
    assert (float(metrics["critic_loss"]), float(metrics["offline_critic_loss"])) == (2.5, 9.0)
    alone, _ = hnpg.critic_loss(jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.zeros(2), 2.0)
    assert float(alone) == 2.5


@pytest.mark.parametrize(
    ("offline", "losses"), [([0.0], (9.0, 0.0)), ([1.0], (0.0, 9.0)), ([1.0, 1.0], (0.0, 9.0))]
)
def test_rows_of_one_kind_leave_the_loss_of_the_other_at_nothing(offline, losses):
    offline = jnp.array(offline)
    loss, metrics = hnpg.critic_loss(3.0 + offline, offline, offline, 2.0)
    assert (float(metrics["critic_loss"]), float(metrics["offline_critic_loss"])) == losses
    assert float(loss) == losses[0] + 2.0 * losses[1]


@pytest.fixture
def batch(batch):
    """Rows 0 to 5 are the rollout (3 terminated, 5 cut), 6 and 7 offline."""
    return {
        **batch,
        "ends": np.array([0, 0, 0, 1, 0, 1, 1, 1], np.float32),
        "offline": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.float32),
    }


def _flat(state):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


@pytest.mark.usefixtures("quick_compile")
def test_without_offline_weight_it_is_trpo_with_a_monte_carlo_critic(batch):
    """The offline rows change nothing, whatever they are, and neither does leaving them out."""
    config = dataclasses.replace(CONFIG, offline_weight=0.0)
    state = INIT(config, jax.random.key(0), batch)
    with_rows, _ = UPDATE(config, state, batch)
    others = {
        name: np.concatenate([value[:6], value[:2]])
        for name, value in batch.items()
        if name not in ("ends", "offline")
    }
    with_others, _ = UPDATE(config, state, {**batch, **others})
    np.testing.assert_array_equal(_flat(with_rows), _flat(with_others))
    alone, metrics = UPDATE(config, state, {name: value[:6] for name, value in batch.items()})
    np.testing.assert_allclose(_flat(alone), _flat(with_rows), atol=2e-6)
    assert float(metrics["offline_critic_loss"]) == 0.0
    weighted, _ = UPDATE(CONFIG, state, batch)
    assert np.abs(_flat(weighted) - _flat(with_rows)).max() > 1e-4


@pytest.mark.usefixtures("quick_compile")
def test_the_policy_takes_one_natural_step(batch):
    """Fisher's matrix written out and solved: the same direction, within the bound."""
    state = INIT(CONFIG, jax.random.key(0), batch)
    after, metrics = UPDATE(CONFIG, state, batch)
    fitted = dataclasses.replace(state, params={**state.params, "critic": after.params["critic"]})
    policy_key = jax.random.split(state.key, 3)[2]
    judge = jax.jit(hnpg._advantages, static_argnums=0)
    actions, advantage, weight = judge(CONFIG, fitted, batch, policy_key)
    np.testing.assert_allclose(weight, 1 / 8)
    start, rebuild = ravel_pytree(state.params["actor"])

    def log_prob(flat, actions):
        new = hnpg.distribution(CONFIG, rebuild(flat), batch["observations"])
        return distributions.clipped_normal_log_prob(actions, *new)

    def outputs(flat):
        mean, log_std = hnpg.distribution(CONFIG, rebuild(flat), batch["observations"])
        return jnp.concatenate([mean, log_std], axis=-1)

    scores = np.asarray(jax.jit(jax.jacobian(log_prob))(start, actions), np.float64)
    slope = (weight * advantage) @ scores
    # Of a normal: 1 / std^2 for its mean, 2 for its log std.
    information = np.array([np.exp(1.0)] * 2 + [2.0] * 2)
    jacobian = np.asarray(jax.jit(jax.jacobian(outputs))(start), np.float64)
    fisher = np.einsum("b,bip,i,biq->pq", weight, jacobian, information, jacobian)
    damped = fisher + 0.1 * np.eye(len(start))
    direction = np.linalg.solve(damped, slope)
    full = np.sqrt(2 * 0.01 / (direction @ damped @ direction)) * direction
    moved = np.asarray(ravel_pytree(after.params["actor"])[0] - start)
    expected = 0.5 ** float(metrics["halvings"]) * full
    assert float(metrics["accepted"]) == 1.0
    np.testing.assert_allclose(moved, expected, atol=0.01 * np.abs(expected).max())
    new, old = (
        hnpg.distribution(CONFIG, s.params["actor"], batch["observations"]) for s in (after, state)
    )
    kl = distributions.normal_kl(*old, *new) @ weight
    assert float(kl) == pytest.approx(float(metrics["kl"]), rel=1e-3)
    assert 0.0 < float(kl) <= 0.01


@pytest.mark.usefixtures("quick_compile")
def test_q_is_fitted_to_returns_and_to_td_before_the_policy_moves(batch):
    """Rebuilt with one sample a state, one regression of one step, and hardly any spread."""
    config = dataclasses.replace(
        CONFIG, iterations=1, critic_steps=1, samples=1, initial_log_std=-5.0, offline_weight=0.5
    )
    state = INIT(config, jax.random.key(0), batch)
    after, metrics = UPDATE(config, state, batch)

    def q(observations, actions):
        inputs = (jnp.asarray(batch[observations]), jnp.asarray(actions))
        return np.asarray(apply(Scalar(TINY), state.params["critic"], *inputs))

    mean, _ = hnpg.distribution(config, state.params["actor"], batch["next_observations"])
    next_v = q("next_observations", mean)
    target = batch["rewards"] + 0.9 * batch["masks"] * next_v
    for t in (4, 2, 1, 0):
        target[t] = batch["rewards"][t] + 0.9 * target[t + 1]
    error = (q("observations", batch["actions"]) - target) ** 2
    assert float(metrics["critic_loss"]) == pytest.approx(error[:6].mean(), rel=0.03)
    assert float(metrics["offline_critic_loss"]) == pytest.approx(error[6:].mean(), rel=0.03)
    assert int(after.critic_opt.count) == 1


@pytest.mark.usefixtures("quick_compile")
def test_the_losses_of_q_are_those_of_its_last_step(batch):
    """Each step of a regression lowers what the next one sees."""
    seen = []
    for steps in (2, 3):
        config = dataclasses.replace(CONFIG, iterations=1, critic_steps=steps, critic_lr=1e-3)
        state = INIT(config, jax.random.key(0), batch)
        _, metrics = jax.jit(hnpg._fit, static_argnums=0)(config, state, batch, jax.random.key(1))
        seen.append(float(metrics["critic_loss"] + metrics["offline_critic_loss"]))
    assert seen[1] < seen[0]


@pytest.mark.usefixtures("quick_compile")
def test_actions_of_a_row_do_not_depend_on_the_rows_behind_it(batch):
    state = INIT(CONFIG, jax.random.key(0), batch)
    obs = jnp.asarray(batch["observations"])
    draws = [
        hnpg._draw(CONFIG, state.params["actor"], rows, jax.random.key(1), 5)
        for rows in (obs, obs[:6])
    ]
    np.testing.assert_allclose(draws[0][:, :6], draws[1], atol=1e-6)
    assert np.std(draws[0], axis=0).min() > 0.05
    assert scipy.stats.pearsonr(draws[0][:, 0, 0], draws[0][:, 1, 0]).statistic < 0.999


@pytest.mark.usefixtures("quick_compile")
def test_advantages_by_hand(batch):
    """A critic that says 3 everywhere leaves no advantage to the rollout's rows but rewards, and
    none to the offline rows; standardised by the rows' weights."""
    config = dataclasses.replace(CONFIG, offline_weight=0.5, gae_lambda=0.0)
    state = INIT(config, jax.random.key(0), batch)
    zero = jax.tree.map(jnp.zeros_like, state.params["critic"])
    shift = {**zero, "out": {**zero["out"], "bias": jnp.full(1, 3.0)}}
    state = dataclasses.replace(state, params={**state.params, "critic": shift})
    actions, advantage, weight = hnpg._advantages(config, state, batch, jax.random.key(4))
    expected_weight = np.array([1.0] * 6 + [0.5] * 2) / 7.0
    raw = batch["rewards"] + 0.9 * batch["masks"] * 3.0 - 3.0
    raw[6:] = 0.0
    centred = raw - expected_weight @ raw
    np.testing.assert_allclose(weight, expected_weight, rtol=1e-6)
    spread = np.sqrt(expected_weight @ centred**2)
    np.testing.assert_allclose(advantage, centred / spread, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(actions[:6], batch["actions"][:6])
    assert not np.isclose(actions[6:], batch["actions"][6:]).any()


PROBE = hnpg.Config(
    actor=SMALL,
    critic=SMALL,
    iterations=5,
    critic_steps=20,
    critic_lr=1e-2,
    discount=0.5,
    max_kl=0.1,
    damping=1e-3,
)


def _learn(env, updates):
    """The real loop, from scratch, with as many offline rows as rows of the rollout."""
    recipe = Recipe(agent="hnpg", warmup_steps=0, rollout=64, offline_fraction=0.5)
    loop = OnlineLoop(env_steps=64 * updates, log_every=10**9, checkpoint_every=10**9)
    state = online.start_state(hnpg, PROBE, recipe, 0, batch_of(collect(env, 1)), None)
    return online.finetune(hnpg, PROBE, env, recipe, loop, state, offline=collect(env, 256))


@pytest.mark.usefixtures("quick_compile")
def test_values_of_probe_environments():
    """From the returns of the rollouts and from offline rows of uniform actions at once."""
    for env, obs, expected in (
        (TwoSteps(), [[-1.0], [1.0]], [0.5, 1.0]),
        (Endless(), [[0.0]], [2.0]),
    ):
        state = _learn(env, 5)
        obs = jnp.array(obs)
        q = apply(Scalar(SMALL), state.params["critic"], obs, jnp.zeros_like(obs))
        np.testing.assert_allclose(q, expected, atol=0.1)


@pytest.mark.usefixtures("quick_compile")
def test_it_solves_a_contextual_bandit():
    """The best action is s / 2; the first policy does 0."""
    state = _learn(Match(), 20)
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    action = hnpg.act(PROBE, state, obs, jax.random.key(0))
    np.testing.assert_allclose(action, obs / 2, atol=0.12)
