import dataclasses
import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import residual
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import online
from robo_rl.learn.bases import WithBase, with_base
from robo_rl.learn.batches import batch_of
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import RECIPES
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from tests.learn.memory import Memory
from tests.probe_envs import Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
# The paper's loop, shorter.
RECIPE = dataclasses.replace(
    RECIPES["residual_base"], warmup_steps=20, critic_only_updates=3, utd=1, batch_size=8
)
CONFIG = RECIPE.configure(residual.Config(actor=SMALL, critic=NORMED, critics=2))
LOOP = OnlineLoop(env_steps=40, capacity=200, log_every=20, checkpoint_every=20)


def off_target(obs):
    """A proportional controller that aims 0.18 beside the goal, of which 0.15 would do."""
    return np.clip(5.0 * (np.array([0.18, 0.0]) - obs), -1.0, 1.0)


@functools.cache
def _data():
    return with_base(collect(Reach(), 10, reach_expert, noise=0.3), off_target)


@functools.cache
def _init(config):
    example = batch_of({k: v[:1] for k, v in _data().items()})
    return online.start_state(residual, config, RECIPE, 0, example, None)


def test_relabelled_rows_hold_what_the_base_would_do_and_keep_what_was_done():
    plain = collect(Reach(), 10, reach_expert, noise=0.3)
    for name in ("observations", "next_observations"):
        rows = _data()[name]
        np.testing.assert_array_equal(rows[:, :2], plain[name])
        np.testing.assert_array_equal(rows[:, 2:], off_target(rows[:, :2]).astype(np.float32))
    np.testing.assert_array_equal(_data()["actions"], plain["actions"])


def test_the_environment_shows_the_base_as_the_relabelled_rows_do():
    env = WithBase(Reach(), off_target)
    assert env.observation_space.shape == (4,)
    np.testing.assert_array_equal(env.observation_space.high[2:], 1.0)
    recorded = collect(env, 3, lambda obs: reach_expert(obs[:2]))
    expected = with_base(collect(Reach(), 3, reach_expert), off_target)
    for name in ("observations", "next_observations", "actions"):
        np.testing.assert_array_equal(recorded[name], expected[name].astype(np.float32))


def test_the_first_policy_is_the_base_exactly():
    """Executed is clip(base): of a base that asks for more than the box, too."""
    env = WithBase(Reach(), lambda obs: 3.0 * off_target(obs))
    state = _init(CONFIG)
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        action = np.asarray(residual.act(CONFIG, state, jnp.asarray(obs), jax.random.key(0)))
        asked = 3.0 * off_target(obs[None, :2])[0]
        np.testing.assert_array_equal(action, np.clip(asked, -1.0, 1.0).astype(np.float32))
        obs, *_ = env.step(action)


class Drawing:
    """A base with a generator of its own, seeded at each reset."""

    def begin(self, seed):
        self._rng = np.random.default_rng(seed)

    def __call__(self, obs):
        return off_target(obs) * 0.5 + self._rng.normal(size=obs.shape) * 0.2


def test_a_base_that_draws_is_asked_once_a_state_and_begins_with_each_episode():
    base = Drawing()
    env = WithBase(Reach(), base, base.begin)
    first, second = (collect(env, 2, reach_expert_of) for _ in range(2))
    for name in ("observations", "next_observations"):
        np.testing.assert_array_equal(first[name], second[name])
    inside = first["episode_id"][1:] == first["episode_id"][:-1]
    np.testing.assert_array_equal(
        first["next_observations"][:-1][inside], first["observations"][1:][inside]
    )


def reach_expert_of(obs):
    return reach_expert(obs[:2])


@pytest.mark.parametrize("drawing", [False, True])
def test_the_loop_stores_the_combined_action_and_resumes_exactly(drawing):
    """In the warm-up the correction is 0, and what is done is the base and a little noise."""

    def run(recorder, **more):
        base = Drawing()
        env = WithBase(Reach(), base, base.begin) if drawing else WithBase(Reach(), off_target)
        return online.finetune(
            residual, CONFIG, env, RECIPE, LOOP, _init(CONFIG),
            offline=_data(), monitor=recorder, **more,
        )  # fmt: skip

    whole, cut, rest = Memory(), Memory(kill_after=20), Memory()
    expected = run(whole)
    stored = {k.removeprefix("buffer/data/"): v for k, v in whole.saved[20].items()}
    base = stored["observations"][:, 2:]
    gap = np.abs(stored["actions"] - base)
    assert 0.0 < gap.max() <= CONFIG.noise_clip + 1e-6
    if not drawing:
        shown = stored["observations"][:, :2]
        np.testing.assert_array_equal(base, off_target(shown).astype(np.float32))
    updates = 3 + 20
    assert int(expected.opt["critic"].count) == updates
    assert int(expected.opt["actor"].count) == updates - 3
    assert expected.base == {}
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    snapshot = trees.unflatten(sessions.online_template(_init(CONFIG)), cut.saved[20])
    got = run(rest, snapshot=snapshot)
    for name, value in trees.flatten(expected).items():
        np.testing.assert_array_equal(trees.flatten(got)[name], value)
    assert cut.rows + rest.rows == whole.rows


def test_a_learned_start_is_refused_since_the_base_is_the_environments():
    with pytest.raises(ValueError, match="the base is the environment's"):
        residual.warm_start(CONFIG, jax.random.key(0), None, _data())


def test_a_controller_that_aims_beside_the_goal_is_corrected_online():
    """Alone it hits the goal only in passing. The correction may reach half of the action."""
    wide = NetConfig(hidden=(32, 32), layer_norm="before")
    recipe = dataclasses.replace(
        RECIPE, warmup_steps=200, critic_only_updates=200, batch_size=64, update_every=2, utd=2
    )
    config = residual.Config(
        actor=NetConfig(hidden=(32, 32)),
        critic=wide,
        critics=2,
        scale=0.5,
        exploration_std=0.1,
        discount=0.9,
        polyak=0.02,
        actor_lr=3e-3,
        critic_lr=3e-3,
    )
    config = recipe.configure(config)
    env = WithBase(Reach(), off_target)

    def success(env: gymnasium.Env, state):
        act = jax.jit(lambda obs: residual.act(config, state, obs, jax.random.key(0)))
        seeds = evaluation_seeds(0, 30)
        return evaluate(env, lambda obs: np.asarray(act(jnp.asarray(obs))), seeds).success_rate

    first = _init(config)
    budget = OnlineLoop(env_steps=1200, capacity=2000, log_every=600, checkpoint_every=1200)
    last = online.finetune(residual, config, env, recipe, budget, first, offline=_data())
    assert success(env, first) <= 0.3
    assert success(env, last) >= 0.9
