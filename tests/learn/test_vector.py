"""The online loop with several environments side by side."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from robo_rl.agents import calql, ppo, qc, sac
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.online import OnlineLoop, behaviour, experience
from robo_rl.learn.online import vector as environments
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.seeds import training_seed
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from tests.learn.memory import Memory
from tests.probe_envs import Clip, Endless, Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))
SAC = sac.Config(actor=SMALL, critic=NetConfig(hidden=(8, 8), layer_norm="before"), critics=2)
PPO = ppo.Config(actor=SMALL, value=SMALL, minibatch=6, epochs=2)
LOOP = OnlineLoop(env_steps=90, capacity=300, log_every=20, checkpoint_every=30)
RARELY = dataclasses.replace(LOOP, checkpoint_every=10_000)
RECIPE = Recipe(warmup_steps=10, batch_size=8)
ROLLOUT = Recipe(agent="ppo", warmup_steps=0, rollout=24)


class Uneven(Reach):
    """`Reach` in episodes of 3 to 9 steps, which remembers its resets and its rows."""

    def __init__(self):
        super().__init__()
        self.seeds, self.rows = [], []

    def reset(self, *, seed=None, options=None):
        self._obs, info = super().reset(seed=seed)
        self.seeds.append(seed)
        self._limit = int(self.np_random.integers(3, 10))
        return self._obs, info

    def step(self, action):
        following, reward, terminated, _, info = super().step(action)
        truncated = self._t >= self._limit
        self.rows.append((self._obs, action, following, terminated, truncated))
        self._obs = following
        return following, reward, terminated, truncated, info


def _vector(*makers):
    return SyncVectorEnv(list(makers), autoreset_mode="Disabled")


def _state(agent=sac, config=SAC):
    example = batch_of(collect(Reach(), 1))
    rows = len(example["actions"])
    example |= {"ends": np.zeros(rows), "returns": np.zeros(rows)}
    return jax.jit(agent.init, static_argnums=0)(config, jax.random.key(0), example)


def _finetune(env, recipe=RECIPE, loop=LOOP, agent=sac, config=SAC, **more):
    config = recipe.configure(config)
    return online.finetune(agent, config, env, recipe, loop, _state(agent, config), **more)


def _assert_equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.fixture
def seen(monkeypatch):
    """Batches that reach an update, which does nothing else."""
    batches = []

    def update(agent, config, state, batch):
        batches.append(batch)
        return state, {"loss": jnp.zeros(())}

    monkeypatch.setattr(online.loop, "_update", update)
    return batches


@pytest.mark.parametrize(
    ("agent", "config", "recipe"),
    [
        (sac, SAC, dataclasses.replace(RECIPE, n_step=2, noise_std=0.1, noise_smoothing=0.5)),
        (ppo, PPO, ROLLOUT),
    ],
)
def test_a_vector_of_one_equals_the_environment_alone(agent, config, recipe):
    alone, vector = Memory(), Memory()
    first = _finetune(Uneven(), recipe, agent=agent, config=config, monitor=alone)
    second = _finetune(_vector(Uneven), recipe, agent=agent, config=config, monitor=vector)
    _assert_equal(first, second)
    assert alone.rows == vector.rows
    _assert_equal(alone.saved, vector.saved)


def test_every_environment_has_a_stream_of_its_own():
    env, memory = _vector(Uneven, Uneven, Uneven), Memory()
    _finetune(env, loop=dataclasses.replace(RARELY, env_steps=91), monitor=memory)
    seeds = [seed for one in env.envs for seed in one.seeds]
    assert sorted(seeds) == sorted(training_seed(0, episode) for episode in range(len(seeds)))
    assert [one.seeds[0] for one in env.envs] == [training_seed(0, n) for n in range(3)]
    saved = memory.saved[91]
    for index, (one, rows) in enumerate(zip(env.envs, (31, 30, 30), strict=True)):
        stored = {
            key.rpartition("/")[2]: value
            for key, value in saved.items()
            if key.startswith(f"buffer/{index}/")
        }
        assert len(stored["rewards"]) == rows  # the last step is the first environment's alone
        obs, action, following, *ends = map(np.array, zip(*one.rows[:rows], strict=True))
        np.testing.assert_array_equal(stored["observations"], obs)
        np.testing.assert_array_equal(stored["actions"], action)
        np.testing.assert_array_equal(stored["next_observations"], following)
        np.testing.assert_array_equal(np.diff(stored["stream"]) > 0, (ends[0] | ends[1])[:-1])
    assert memory.rows[-1]["episodes"] == len(seeds)


def test_updates_follow_single_env_steps():
    memory = Memory()
    recipe = dataclasses.replace(RECIPE, update_every=4, critic_only_updates=5)
    state = _finetune(_vector(Uneven, Uneven, Uneven), recipe, RARELY, monitor=memory)
    assert memory.rows[-1]["updates"] == 5 + (90 - 10) // 4
    assert int(state.opt["actor"].count) == 20
    assert memory.rows[-1]["buffer_rows"] == 90


@pytest.mark.parametrize("steps", [1, 40])
def test_the_policy_is_asked_once_for_all_environments(steps, monkeypatch):
    asked, ask = [], behaviour._act
    monkeypatch.setattr(behaviour, "_act", lambda *args: asked.append(args[4]) or ask(*args))
    loop = dataclasses.replace(RARELY, env_steps=steps)
    _finetune(_vector(Uneven, Uneven, Uneven, Uneven), loop=loop)
    assert [obs.shape for obs in asked] == [(4, 2)] * -(-steps // 4)


def test_exploration_is_of_the_env_step_and_the_state_of_its_environment(seen):
    env, state = _vector(Uneven, Uneven), _state()
    _finetune(env, loop=dataclasses.replace(RARELY, env_steps=6))
    key = jax.random.fold_in(jax.random.key(0), 1)
    for index, one in enumerate(env.envs):
        for t, (obs, action, *_) in enumerate(one.rows[:3]):
            expected = sac.act(SAC, state, obs, jax.random.fold_in(key, 2 * t + index), True)
            np.testing.assert_allclose(action, expected, rtol=1e-5)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(
    ("agent", "config", "recipe"),
    [
        (sac, SAC, dataclasses.replace(RECIPE, n_step=2, noise_std=0.1, noise_smoothing=0.5)),
        (sac, SAC, dataclasses.replace(RECIPE, teacher_share=0.4, warmup_actions="uniform")),
        (ppo, PPO, ROLLOUT),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(agent, config, recipe):
    def run(memory, snapshot=None):
        teacher = reach_expert if recipe.teacher_share else None
        more = {"monitor": memory, "snapshot": snapshot, "teacher": teacher}
        return _finetune(_vector(Uneven, Uneven, Uneven), recipe, LOOP, agent, config, **more)

    whole = Memory()
    expected = run(whole)
    assert len(whole.saved) >= 3
    for kill_after in list(whole.saved)[:-1]:
        cut, rest = Memory(kill_after), Memory()
        with pytest.raises(KeyboardInterrupt):
            run(cut)
        template = sessions.online_template(_state(agent, recipe.configure(config)))
        got = run(rest, trees.unflatten(template, cut.saved[kill_after]))
        _assert_equal(expected, got)
        assert cut.rows + rest.rows == whole.rows
        _assert_equal(whole.saved[90], rest.saved[90])


def test_those_that_end_wait_for_a_checkpoint_and_their_rest_is_not_kept(seen):
    """Of 4 and 6 steps an episode, due at 8: the first then waits until the other is done."""

    def of(steps):
        return lambda: gymnasium.wrappers.TimeLimit(Reach(), steps)

    memory = Memory()
    loop = dataclasses.replace(LOOP, env_steps=30, checkpoint_every=8)
    _finetune(_vector(of(4), of(6)), loop=loop, monitor=memory)
    assert list(memory.saved) == [10, 20, 30]
    for step, saved in memory.saved.items():
        sizes = [len(saved[f"buffer/{index}/data/rewards"]) for index in range(2)]
        assert sizes == [4 * step // 10, 6 * step // 10]
        assert saved["counters"][1] == 2 * step // 10


def test_a_rollout_has_equal_shares_in_the_order_of_time(seen):
    env = _vector(Uneven, Uneven, Uneven)
    _finetune(env, ROLLOUT, RARELY, ppo, PPO)
    assert len(seen) == 90 // 24
    for number, batch in enumerate(seen):
        rows = [row for one in env.envs for row in one.rows[8 * number : 8 * (number + 1)]]
        obs, action, _, terminated, truncated = map(np.array, zip(*rows, strict=True))
        np.testing.assert_array_equal(batch["observations"], obs)
        np.testing.assert_array_equal(batch["actions"], action)
        seam = np.arange(1, 25) % 8 == 0
        np.testing.assert_array_equal(batch["ends"], terminated | truncated | seam)
        np.testing.assert_array_equal(batch["masks"], 1.0 - terminated)


def test_no_row_is_in_two_rollouts_when_environments_have_waited(seen):
    _finetune(_vector(Uneven, Uneven, Uneven), ROLLOUT, LOOP, ppo, PPO)
    rows = [row.tobytes() for batch in seen for row in batch["observations"]]
    assert len(seen) == 3
    assert len(set(rows)) == len(rows) == 72


def test_chunks_are_played_in_every_environment(seen):
    config = qc.Config(flow=SMALL, critic=SMALL, samples=2, flow_steps=2)
    example = batch_of(collect(Reach(), 1))
    wide = {**example, "actions": np.repeat(example["actions"], 3, axis=1)}
    state = jax.jit(qc.init, static_argnums=0)(config, jax.random.key(0), wide)
    recipe = Recipe(agent="qc", warmup_steps=20, batch_size=8, chunk=3)
    env = _vector(Uneven, Uneven)
    online.finetune(qc, config, env, recipe, dataclasses.replace(RARELY, env_steps=40), state)
    assert seen[-1]["actions"].shape == (8, 6)
    key = jax.random.fold_in(jax.random.key(0), 1)
    for index, one in enumerate(env.envs):
        at = jax.random.fold_in(key, index)
        chunk = np.asarray(qc.act(config, state, one.rows[0][0], at)).reshape(3, 2)
        np.testing.assert_allclose([row[1] for row in one.rows[:3]], chunk, atol=1e-5)


def test_what_is_told_of_one_environment_is_its_own(seen):
    """The second says what it did and that it got there, the first says neither."""

    class Telling(Endless):
        def step(self, action):
            *out, _ = super().step(action)
            return *out, {"success": True, "executed_action": np.array([0.25])}

    memory = Memory()
    loop = dataclasses.replace(RARELY, env_steps=24)
    config = RECIPE.configure(calql.Config(actor=SMALL, critic=SMALL, samples=2, discount=0.5))
    recipe = dataclasses.replace(RECIPE, agent="calql")
    example = batch_of(collect(Endless(), 1)) | {"returns": np.zeros(4)}
    state = jax.jit(calql.init, static_argnums=0)(config, jax.random.key(0), example)
    online.finetune(calql, config, _vector(Endless, Telling), recipe, loop, state, monitor=memory)
    first, second = (
        {key: memory.saved[24][f"buffer/{index}/data/{key}"] for key in ("actions", "succeeded")}
        for index in range(2)
    )
    assert not (first["actions"] == 0.25).any()
    assert (second["actions"] == 0.25).all()
    np.testing.assert_array_equal(first["succeeded"], 0.0)
    np.testing.assert_array_equal(second["succeeded"], 1.0)
    np.testing.assert_allclose(memory.saved[24]["buffer/1/data/returns"], 2.0)
    assert memory.rows[-1]["episode_success"] == 1.0  # of those that tell


def test_images_come_from_every_environment(seen):
    net = NetConfig(hidden=(8,))
    config = sac.Config(actor=net, critic=net, critics=2)
    recipe = dataclasses.replace(RECIPE, seed_buffer_with_offline=True)
    data, memory = collect(Clip(), 4), Memory()
    state = jax.jit(sac.init, static_argnums=0)(config, jax.random.key(0), batch_of(data))
    loop = dataclasses.replace(RARELY, env_steps=18, capacity=60)
    online.finetune(
        sac, config, _vector(Clip, Clip), recipe, loop, state, offline=data, monitor=memory
    )
    for index in range(2):
        images = memory.saved[18][f"buffer/{index}/data/observations/image"]
        assert images.shape == (6 + 9, 2, 16, 1)
        assert len(np.unique(images[6:], axis=0)) == 9
    assert seen[-1]["observations"]["image"].shape == (8, 2, 16, 1)


def test_an_environment_that_resets_itself_is_refused():
    for mode in ("NextStep", "SameStep"):
        with pytest.raises(ValueError, match=f'autoreset_mode="Disabled", its mode is {mode}'):
            _finetune(SyncVectorEnv([Reach], autoreset_mode=mode))


BOX = gymnasium.spaces.Box


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 0.5), (-0.5, 1.0), (-2.0, 1.0), (-1.0, [1.0, 0.5]), ([-1.0, 0.0], 1.0)]
)
def test_actions_are_bounded_by_exactly_one(low, high):
    env = environments.environments(Reach())
    env.action_space = BOX(np.full(2, low, np.float32), np.full(2, high, np.float32))
    with pytest.raises(ValueError, match="actions must be bounded by -1 and 1"):
        environments.spaces(env)
    env.action_space = BOX(-1.0, 1.0, (1, 2))
    with pytest.raises(ValueError, match=r"actions must be a Box \(A,\)"):
        environments.spaces(env)


def test_observations_are_vectors_and_images_of_bytes():
    env = environments.environments(Reach())
    image = BOX(0, 255, (2, 3, 1), np.uint8)
    env.observation_space = gymnasium.spaces.Dict({"a": BOX(-5.0, 5.0, (3,)), "image": image})
    zeros, _ = environments.spaces(env)
    kinds = {name: (part.shape, part.dtype) for name, part in zeros.items()}
    assert kinds == {"a": ((3,), np.float32), "image": ((2, 3, 1), np.uint8)}
    assert not any(part.any() for part in zeros.values())
    for wrong in (BOX(0, 255, (2, 3), np.uint8), BOX(0.0, 1.0, (2, 3, 1)), BOX(0.0, 1.0, ())):
        env.observation_space = wrong
        with pytest.raises(ValueError, match="observations must be a Box"):
            environments.spaces(env)


def test_batches_are_drawn_from_the_seed_and_the_number_of_the_update(seen, monkeypatch):
    """The same in every version, so that a run that was begun with an older one goes on."""
    states, mixed = [], experience.mixed_batch

    def drawn(rng, *args):
        states.append(rng.bit_generator.state)
        return mixed(rng, *args)

    monkeypatch.setattr(experience, "mixed_batch", drawn)
    recipe = dataclasses.replace(RECIPE, warmup_steps=3)
    _finetune(Reach(), recipe, dataclasses.replace(RARELY, env_steps=6, seed=2))
    assert states == [
        np.random.default_rng([2, 3, update]).bit_generator.state for update in range(3)
    ]


def test_without_a_warm_up_the_critics_own_updates_come_after_the_first_step(seen):
    recipe = dataclasses.replace(RECIPE, warmup_steps=0, critic_only_updates=3)
    memory = Memory()
    loop = dataclasses.replace(RARELY, env_steps=2, log_every=1)
    _finetune(Reach(), recipe, loop, monitor=memory)
    assert memory.rows[-1]["updates"] == 3 + 2
    assert memory.rows[-1]["buffer_rows"] == 2


@pytest.mark.parametrize(
    ("before", "after", "every", "expected"),
    [
        *[(0, 9, 10, False), (0, 10, 10, True), (9, 10, 10, True), (10, 19, 10, False)],
        *[(19, 31, 10, True), (3, 4, 1, True), (4, 4, 1, False), (0, 99, 0, False)],
    ],
)
def test_a_cadence_is_due_where_a_multiple_of_it_is_reached(before, after, every, expected):
    assert online.loop._crossed(before, after, every) == expected


def test_reports_are_means_over_the_episodes_since_the_last_one(seen):
    """`Endless` pays 1 a step in episodes of 4; the budget cuts the last one."""
    memory = Memory()
    example = batch_of(collect(Endless(), 1))
    state = jax.jit(sac.init, static_argnums=0)(SAC, jax.random.key(0), example)
    loop = dataclasses.replace(RARELY, env_steps=10, log_every=8)
    online.finetune(sac, SAC, Endless(), RECIPE, loop, state, monitor=memory)
    assert [row["step"] for row in memory.rows] == [8, 10]
    assert [row["episodes"] for row in memory.rows] == [2.0, 3.0]
    assert [row["episode_return"] for row in memory.rows] == [4.0, 2.0]
    assert [row["episode_length"] for row in memory.rows] == [4.0, 2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        *[{name: 0} for name in ("env_steps", "capacity", "log_every", "checkpoint_every")],
        *[{name: -1} for name in ("seed", "evaluate_every")],
    ],
)
def test_a_wrong_loop_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"OnlineLoop.{name}"):
        dataclasses.replace(LOOP, **wrong)
    assert getattr(dataclasses.replace(LOOP, **{name: wrong[name] + 1}), name) == wrong[name] + 1


def test_a_rollout_that_has_no_equal_shares_is_refused():
    with pytest.raises(ValueError, match=r"multiple of the 5 environments.*got 24"):
        _finetune(_vector(*[Uneven] * 5), ROLLOUT, LOOP, ppo, PPO)


def test_a_checkpoint_of_another_number_of_environments_is_refused():
    memory = Memory()
    _finetune(Uneven(), monitor=memory)
    template = sessions.online_template(_state())
    snapshot = trees.unflatten(template, next(iter(memory.saved.values())))
    with pytest.raises(ValueError, match="saved with 1 environments, this run has 2"):
        _finetune(_vector(Uneven, Uneven), snapshot=snapshot)


@pytest.mark.parametrize(
    ("count", "recipe", "capacity", "each"),
    [
        *[(1, RECIPE, 12, 12), (3, RECIPE, 12, 4), (3, RECIPE, 20, 6)],
        *[(3, dataclasses.replace(ROLLOUT, rollout=6), 12, 6)],
        *[(3, ROLLOUT, 20, 24), (3, ROLLOUT, 300, 24)],
    ],
)
def test_every_environment_keeps_its_share_of_the_replay_or_a_whole_rollout(
    count, recipe, capacity, each
):
    """Of the newest rows."""
    spaces = environments.spaces(environments.environments(Endless()))
    mixed, replay = experience.buffers(spaces, count, recipe, capacity, None, ())
    assert mixed is None
    row = {
        "observations": np.zeros(1, np.float32),
        "actions": np.zeros(1, np.float32),
        "next_observations": np.zeros(1, np.float32),
        "terminated": False,
        "truncated": False,
        "succeeded": np.float32(0.0),
    }
    for index in range(count):
        for number in range(50):
            replay.add(index, {**row, "rewards": np.float32(number)})
        assert len(replay[index]) == replay[index].capacity == each
    assert len(replay) == count * each


@pytest.mark.parametrize("capacity", [20, 21])
def test_offline_rows_that_fit_into_the_replay_fit_into_its_shares(capacity):
    recipe = dataclasses.replace(RECIPE, seed_buffer_with_offline=True)
    data = collect(Endless(), 5)  # of four steps each
    spaces = environments.spaces(environments.environments(Endless()))
    _, replay = experience.buffers(spaces, 3, recipe, capacity, data, ())
    assert len(replay) == 20
    with pytest.raises(ValueError, match="capacity 6 is less than the 7 rows"):
        experience.buffers(spaces, 3, recipe, 19, data, ())
