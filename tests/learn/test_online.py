import dataclasses
import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, calql, iql, qc, rebrac, residual, sac
from robo_rl.data.replay import ReplayBuffer
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline as offline_loop
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.monitor import NonFiniteLoss
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop, experience
from robo_rl.learn.recipes import RECIPES, Recipe
from robo_rl.learn.seeds import training_seed
from robo_rl.learn.supply import supply
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from tests.learn.memory import Memory
from tests.probe_envs import Endless, Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
SAC = sac.Config(actor=SMALL, critic=NORMED, critics=3)
LOOP = OnlineLoop(env_steps=60, capacity=500, log_every=20, checkpoint_every=20)
RECIPE = Recipe(warmup_steps=10, batch_size=8)


@pytest.fixture(scope="module")
def data():
    return collect(Reach(), 30, reach_expert, noise=0.3)


@functools.cache
def _fresh(config=SAC):
    example = batch_of(collect(Reach(), 1))
    return jax.jit(sac.init, static_argnums=0)(config, jax.random.key(0), example)


def _finetune(recipe=RECIPE, loop=LOOP, config=SAC, state=None, env=None, **more):
    config = recipe.configure(config)
    state = _fresh(config) if state is None else state
    return online.finetune(sac, config, env or Reach(), recipe, loop, state, **more)


def _assert_equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_parameters_are_bit_identical_during_the_warm_up():
    state = _fresh()
    before = trees.flatten(state)
    memory = Memory()
    loop = dataclasses.replace(LOOP, env_steps=40)
    after = _finetune(dataclasses.replace(RECIPE, warmup_steps=40), loop, monitor=memory)
    for name, value in before.items():
        np.testing.assert_array_equal(trees.flatten(after)[name], value)
        np.testing.assert_array_equal(trees.flatten(state)[name], value)
    assert memory.rows[-1]["updates"] == 0.0


def test_updates_start_after_the_warm_up_and_come_every_so_many_steps():
    memory = Memory()
    recipe = dataclasses.replace(RECIPE, warmup_steps=30, update_every=3)
    state = _finetune(recipe, monitor=memory)
    assert memory.rows[-1]["updates"] == (60 - 30) / 3
    assert int(state.opt["critic"].count) == 10


def test_wsrl_starts_with_the_moments_it_was_given_and_no_offline_row_in_its_buffer(data):
    config = iql.Config(actor=SMALL, critic=NORMED, critics=3)
    loop = OfflineLoop(steps=10, batch_size=8, log_every=10, checkpoint_every=10)
    pretrained = offline_loop.train(iql, config, data, loop)
    learned = iql.learned(config, pretrained)
    recipe = Recipe(start="learned", warmup_steps=20, batch_size=8, utd=2)
    sac_config = recipe.configure(sac.adopt(sac.Config(), learned))
    example = batch_of({k: v[:1] for k, v in data.items()})
    state = online.start_state(sac, sac_config, recipe, 0, example, learned)
    memory = Memory()
    after = _finetune(recipe, config=sac_config, state=state, offline=data, monitor=memory)
    assert int(state.opt["critic"].count) == 10
    assert int(after.opt["critic"].count) == 10 + 2 * 40
    rows = memory.saved[60]["buffer/data/observations"]
    assert len(rows) == 60
    offline_rows = {row.tobytes() for row in data["observations"].astype(np.float32)}
    assert not any(row.tobytes() in offline_rows for row in rows)


class EverySecond(gymnasium.Wrapper):
    """`Reach` in which every second episode is the expert's, and the others stand still."""

    def __init__(self):
        super().__init__(Reach())
        self.outcomes = []

    def reset(self, **options):
        self.outcomes.append([])
        self._obs, info = super().reset(**options)
        return self._obs, info

    def step(self, action):
        expert = len(self.outcomes) % 2 == 0
        self._obs, *rest = super().step(reach_expert(self._obs) if expert else 0.0 * action)
        self.outcomes[-1].append(rest[-1]["success"])
        return self._obs, *rest


def test_rows_say_whether_their_episode_reached_the_goal():
    env, memory = EverySecond(), Memory()
    _finetune(dataclasses.replace(RECIPE, warmup_steps=60), monitor=memory, env=env)
    expected = [any(outcome) for outcome in env.outcomes for _ in outcome]
    assert 0 < sum(expected) < len(expected)
    np.testing.assert_array_equal(memory.saved[60]["buffer/data/succeeded"], expected)


def test_chunks_are_played_open_loop_and_dropped_at_a_reset(data):
    """The policy is asked once in H steps; a new episode starts a new chunk."""
    config = qc.Config(flow=SMALL, critic=SMALL, samples=2, flow_steps=2)
    loop = OfflineLoop(steps=5, batch_size=8, log_every=5, checkpoint_every=5, chunk=3)
    pretrained = offline_loop.train(qc, config, data, loop)
    recipe = Recipe(agent="qc", start="continued", warmup_steps=30, batch_size=8, chunk=3)
    env, memory = gymnasium.wrappers.TimeLimit(Reach(), 7), Memory()
    online.finetune(
        qc, config, env, recipe, dataclasses.replace(LOOP, env_steps=42), pretrained, monitor=memory
    )
    stored = memory.saved[42]
    obs = stored["buffer/data/observations"].reshape(6, 7, 2)
    actions = stored["buffer/data/actions"].reshape(6, 7, 2)
    key = jax.random.fold_in(jax.random.key(0), 1)
    for episode, begin in ((0, 0), (1, 0), (1, 3), (1, 6)):  # of the warm-up: the first policy
        at = jax.random.fold_in(key, 7 * episode + begin)
        chunk = np.asarray(qc.act(config, pretrained, obs[episode, begin], at)).reshape(3, 2)
        played = actions[episode, begin : begin + 3]
        np.testing.assert_allclose(played, chunk[: len(played)], atol=1e-5)
    wrong = dataclasses.replace(recipe, chunk=2)
    with pytest.raises(ValueError, match="train it on chunks of that length"):
        online.finetune(qc, config, env, wrong, LOOP, pretrained)


def _continued(agent, config, recipe, data, env):
    """What `recipe` does from the agent's first state; its last checkpoint and its metrics."""
    config, memory = recipe.configure(config), Memory()
    example = batch_of({k: v[:1] for k, v in supply(agent, config, data).items()})
    state = agent.init(config, jax.random.key(0), example)
    online.finetune(agent, config, env, recipe, LOOP, state, offline=data, monitor=memory)
    return memory.saved[max(memory.saved)], memory.rows


def test_returns_of_finished_episodes_come_into_the_buffer(data):
    """`Endless` pays 1 a step and is cut after 4; a discount of 0.5 makes it 2 for ever."""
    config = calql.Config(actor=SMALL, critic=SMALL, samples=2, discount=0.5)
    recipe = Recipe(agent="calql", start="continued", offline_fraction=0.5, batch_size=8)
    recipe = dataclasses.replace(recipe, warmup_steps=40)
    stored, rows = _continued(calql, config, recipe, collect(Endless(), 10), Endless())
    np.testing.assert_allclose(stored["buffer/data/returns"], 2.0)
    assert "bound_rate" in rows[-1]


def test_updates_wait_for_the_end_of_the_first_episode_where_the_recipe_says_so(monkeypatch):
    """`Endless` is cut after 4 steps: the first update comes after step 5, and what it draws of its
    own experience knows its return but for that one row. A run that was cut goes on the same."""
    config = calql.Config(actor=SMALL, critic=SMALL, samples=2, discount=0.5)
    recipe = dataclasses.replace(RECIPES["calql"], batch_size=8)
    data, first = collect(Endless(), 10), []
    update = online.loop._update

    def seen(agent, config, state, batch):
        first.append(np.asarray(batch["returns"]))
        return update(agent, config, state, batch)

    monkeypatch.setattr(online.loop, "_update", seen)
    loop = dataclasses.replace(LOOP, env_steps=12, checkpoint_every=4)
    example = batch_of({k: v[:1] for k, v in supply(calql, config, data).items()})
    state = calql.init(config, jax.random.key(0), example)
    run = functools.partial(online.finetune, calql, config, Endless(), recipe, loop, state)
    whole = Memory()
    expected = run(offline=data, monitor=whole)
    assert whole.rows[-1]["updates"] == 12 - 4
    assert (first[0] > experience.NO_RETURN).sum() > 4
    snapshot = trees.unflatten(sessions.online_template(state), whole.saved[4])
    assert snapshot["counters"].tolist() == [4, 1, 0]
    _assert_equal(run(offline=data, snapshot=snapshot), expected)


def test_next_actions_come_with_every_batch(data):
    config = rebrac.Config(actor=SMALL, critic=NORMED, critics=2)
    recipe = Recipe(agent="rebrac", start="continued", offline_fraction=0.5, batch_size=8)
    recipe = dataclasses.replace(recipe, warmup_steps=40, utd=2)
    _, rows = _continued(rebrac, config, recipe, data, Reach())
    assert rows[-1]["next_distance"] > 0.0


def test_a_seeded_buffer_holds_the_offline_rows_first(data):
    recipe = dataclasses.replace(RECIPE, seed_buffer_with_offline=True)
    memory = Memory()
    _finetune(recipe, offline=data, monitor=memory)
    stored = memory.saved[60]["buffer/data/observations"]
    rows = len(data["rewards"])
    assert len(stored) == rows + 60
    np.testing.assert_array_equal(stored[:rows], data["observations"].astype(np.float32))


def test_every_slice_of_a_symmetric_batch_is_half_offline(data):
    offline_rows = {k: v for k, v in data.items() if k != "masks"}
    marked = {**offline_rows, "rewards": np.full_like(data["rewards"], 7.0)}
    kept = ReplayBuffer.from_transitions(marked)
    fresh = ReplayBuffer.from_transitions(offline_rows)
    recipe = Recipe(offline_fraction=0.5, batch_size=6, utd=4)
    batch = experience.mixed_batch(np.random.default_rng(0), recipe, 0.99, kept, fresh)
    slices = (batch["rewards"] == 7.0).reshape(4, 6)
    np.testing.assert_array_equal(slices.sum(axis=1), 3)
    assert set(batch) == {
        "observations",
        "actions",
        "rewards",
        "next_observations",
        "masks",
        "discounts",
    }


def test_n_step_rows_carry_their_sum_and_their_discount():
    """`Endless` pays 1 a step and is truncated after 4: three steps pay 1 + g + g^2."""
    recipe = dataclasses.replace(RECIPE, n_step=3, batch_size=40)
    buffer = ReplayBuffer.from_transitions(collect(Endless(), 5))
    batch = experience.mixed_batch(np.random.default_rng(0), recipe, 0.5, None, buffer)
    expected = {0.125: 1.75, 0.25: 1.5, 0.5: 1.0}
    assert set(batch["discounts"].tolist()) == set(expected)
    np.testing.assert_allclose(batch["rewards"], [expected[d] for d in batch["discounts"].tolist()])
    np.testing.assert_array_equal(batch["masks"], 1.0)


def test_critic_only_updates_come_in_one_go_right_after_the_warm_up():
    memory = Memory()
    recipe = dataclasses.replace(RECIPE, critic_only_updates=7, warmup_steps=59)
    state = _finetune(recipe, monitor=memory)
    assert (int(state.opt["critic"].count), int(state.opt["actor"].count)) == (8, 1)


def test_warm_up_actions_can_be_uniform():
    """A policy of spread e^-5 around a mean near 0 never leaves the middle; uniform actions do."""
    config = dataclasses.replace(SAC, initial_log_std=-5.0)
    loop = dataclasses.replace(LOOP, env_steps=10)
    spans = {}
    for kind in ("policy", "uniform"):
        memory = Memory()
        recipe = dataclasses.replace(RECIPE, warmup_actions=kind)
        _finetune(recipe, loop, config, monitor=memory)
        spans[kind] = np.ptp(memory.saved[10]["buffer/data/actions"][:, 0])
    assert spans["policy"] < 1.0
    assert spans["uniform"] > 1.2


def test_what_was_executed_is_what_is_stored():
    class Guarded(Reach):
        def step(self, action):
            out = super().step(action * 0.0)
            out[-1]["executed_action"] = np.zeros(2)
            return out

    memory = Memory()
    _finetune(loop=dataclasses.replace(LOOP, env_steps=10), env=Guarded(), monitor=memory)
    np.testing.assert_array_equal(memory.saved[10]["buffer/data/actions"], np.zeros((10, 2)))


def test_episodes_are_reset_with_training_seeds():
    class Logged(Reach):
        seeds = []

        def reset(self, *, seed=None, options=None):
            self.seeds.append(seed)
            return super().reset(seed=seed)

    _finetune(loop=dataclasses.replace(LOOP, seed=4), env=Logged())
    assert Logged.seeds == [training_seed(4, episode) for episode in range(len(Logged.seeds))]


def test_noise_of_full_smoothing_is_one_push_an_episode_on_top_of_the_policy():
    """A policy that does nothing, so that the stored action is the noise itself."""
    config = RECIPE.configure(SAC)
    still = jax.tree.map(jnp.zeros_like, _fresh(config).params["actor"])
    state = dataclasses.replace(_fresh(config), params={**_fresh(config).params, "actor": still})
    loop = dataclasses.replace(LOOP, env_steps=60)
    stored = {}
    for smoothing, varied in ((1.0, False), (1.0, True), (0.0, False)):
        memory = Memory()
        recipe = dataclasses.replace(
            RECIPE, warmup_steps=60, noise_std=0.05, noise_smoothing=smoothing, noise_varied=varied
        )
        _finetune(recipe, loop, state=state, monitor=memory)
        stored[smoothing, varied] = memory.saved[60]["buffer/data/actions"].reshape(3, 20, 2)
    constant, varied, white = stored[1.0, False], stored[1.0, True], stored[0.0, False]
    np.testing.assert_array_equal(constant, np.tile(constant[:, :1], (1, 20, 1)))
    assert len(np.unique(constant[:, 0, 0])) == 3
    ratio = varied[:, 0] / constant[:, 0]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], rtol=1e-5)
    assert np.ptp(ratio[:, 0]) > 0.1
    assert (ratio > 0.0).all()
    assert (ratio < 2.0).all()
    assert white.std() == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize(("fraction", "noise"), [(0.0, 0.1), (0.5, 0.0)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, fraction, noise):
    recipe = dataclasses.replace(
        RECIPE, offline_fraction=fraction, n_step=2, noise_std=noise, noise_smoothing=0.5
    )
    loop = dataclasses.replace(LOOP, env_steps=120, capacity=70)  # the ring wraps round
    whole = Memory()
    evaluations = lambda state: {"probe": float(state.step)}  # noqa: E731
    expected = _finetune(recipe, loop, offline=data, monitor=whole, evaluate=evaluations)
    for kill_after in (20, 60, 100):
        cut = Memory(kill_after)
        with pytest.raises(KeyboardInterrupt):
            _finetune(recipe, loop, offline=data, monitor=cut, evaluate=evaluations)
        step = max(cut.saved)
        template = sessions.online_template(_fresh(recipe.configure(SAC)))
        snapshot = trees.unflatten(template, cut.saved[step])
        rest = Memory()
        got = _finetune(
            recipe, loop, offline=data, monitor=rest, evaluate=evaluations, snapshot=snapshot
        )
        _assert_equal(expected, got)
        assert cut.rows + rest.rows == whole.rows
        _assert_equal(whole.saved[120], rest.saved[120])


def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not():
    first, second, other = (
        trees.flatten(_finetune(loop=dataclasses.replace(LOOP, seed=seed))) for seed in (1, 1, 2)
    )
    name = "params/actor/mean/kernel"
    np.testing.assert_array_equal(first[name], second[name])
    assert not np.array_equal(first[name], other[name])


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named():
    class Broken(Reach):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, np.nan, *rest

    memory = Memory()
    with pytest.raises(NonFiniteLoss, match=r"critic_loss.*rewards are not finite"):
        _finetune(env=Broken(), monitor=memory)
    assert not memory.saved


def test_a_policy_that_is_not_finite_never_reaches_the_environment():
    state = _fresh()
    actor = jax.tree.map(lambda x: x * jnp.nan, state.params["actor"])
    with pytest.raises(FloatingPointError, match="env step 0"):
        _finetune(state=dataclasses.replace(state, params={**state.params, "actor": actor}))


def test_spaces_that_the_loop_cannot_use_are_refused():
    env = Reach()
    env.action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,))
    with pytest.raises(ValueError, match="bounded by -1 and 1"):
        _finetune(env=env)
    env.action_space = gymnasium.spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"Box \(A,\)"):
        _finetune(env=env)
    env.observation_space = gymnasium.spaces.Box(0, 1, (3, 3))
    with pytest.raises(ValueError, match=r"Box \(O,\)"):
        _finetune(env=env)


def test_missing_offline_data_or_agents_are_named():
    with pytest.raises(ValueError, match="needs offline transitions"):
        _finetune(dataclasses.replace(RECIPE, offline_fraction=0.5))
    for start in ("learned", "continued"):
        with pytest.raises(ValueError, match="needs an offline agent"):
            online.start_state(sac, SAC, Recipe(start=start), 0, {}, None)


def test_evaluation_happens_at_the_end_and_on_its_own_cadence():
    memory = Memory()
    loop = dataclasses.replace(LOOP, evaluate_every=40)
    _finetune(loop=loop, monitor=memory, evaluate=lambda _: {"success": 1.0})
    assert [row["step"] for row in memory.rows] == [20, 40, 60]
    assert [row["step"] for row in memory.rows if "success" in row] == [40, 60]


def test_finetuning_repairs_a_cloned_policy_that_meets_a_changed_robot():
    """Actions turned by 60 degrees: the clone circles, WSRL from it learns to reach again."""

    class Turned(Reach):
        def step(self, action):
            c, s = np.cos(np.pi / 3), np.sin(np.pi / 3)
            return super().step(np.array([[c, -s], [s, c]]) @ action)

    wide = NetConfig(hidden=(32, 32))
    bc_config = bc.Config(actor=wide, learning_rate=3e-3)
    loop = OfflineLoop(steps=500, batch_size=64, log_every=500, checkpoint_every=500)
    demonstrations = collect(Reach(), 50, reach_expert)
    cloned = offline_loop.train(bc, bc_config, demonstrations, loop)
    learned = bc.learned(bc_config, cloned)
    recipe = Recipe(
        start="learned",
        warmup_steps=200,
        critic_only_updates=100,
        batch_size=64,
        utd=2,
        update_every=2,
        options=(("initial_log_std", -1.0), ("critics", 2), ("initial_temperature", 0.05)),
    )
    config = sac.Config(
        critic=NetConfig((32, 32), layer_norm="before"),
        actor_lr=1e-3,
        critic_lr=1e-3,
        discount=0.9,
        polyak=0.02,
    )
    config = recipe.configure(sac.adopt(config, learned))
    example = batch_of({k: v[:1] for k, v in demonstrations.items()})
    state = online.start_state(sac, config, recipe, 0, example, learned)

    def success(state):
        act = jax.jit(lambda obs: sac.act(config, state, obs, jax.random.key(0)))
        seeds = evaluation_seeds(0, 30)
        return evaluate(Turned(), lambda obs: np.asarray(act(obs)), seeds).success_rate

    before = success(state)
    budget = OnlineLoop(env_steps=2000, capacity=2000, log_every=500, checkpoint_every=2000)
    after = online.finetune(sac, config, Turned(), recipe, budget, state)
    assert success(after) >= max(0.9, before + 0.2)


def test_the_residual_recipe_runs_from_a_cloned_policy(data):
    config = bc.Config(actor=SMALL)
    learned = bc.learned(config, bc.init(config, jax.random.key(0), batch_of(data)))
    recipe = Recipe(
        agent="residual",
        start="learned",
        offline_fraction=0.5,
        warmup_steps=10,
        utd=2,
        critic_only_updates=3,
        n_step=3,
        batch_size=8,
    )
    new = recipe.configure(residual.adopt(residual.Config(actor=SMALL, critic=NORMED), learned))
    example = batch_of({k: v[:1] for k, v in data.items()})
    state = online.start_state(residual, new, recipe, 0, example, learned)
    loop = dataclasses.replace(LOOP, env_steps=15)
    after = online.finetune(residual, new, Reach(), recipe, loop, state, offline=data)
    assert (int(after.opt["critic"].count), int(after.opt["actor"].count)) == (2 * (3 + 5), 5)
    _assert_equal(state.base, after.base)
