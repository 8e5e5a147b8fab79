"""A recipe with a rollout: every row once, in the order of time, and then never again."""

import dataclasses

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import ppo, rebrac
from robo_rl.data.replay import ReplayBuffer, take_row
from robo_rl.data.streams import Streams
from robo_rl.learn import offline as offline_loop
from robo_rl.learn import online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.checks import check_offline
from robo_rl.learn.contract import Capabilities
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop, rollouts
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.supply import supply
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions, trees
from tests.learn.memory import Memory
from tests.probe_envs import Reach, collect

SMALL = NetConfig(hidden=(8, 8))
CONFIG = ppo.Config(actor=SMALL, value=SMALL, minibatch=8, epochs=2)
RECIPE = Recipe(agent="ppo", warmup_steps=0, rollout=16)
LOOP = OnlineLoop(env_steps=80, log_every=20, checkpoint_every=20)


class Logged(gymnasium.Wrapper):
    """`Reach` in episodes of 7 steps, which remembers what it did."""

    def __init__(self):
        super().__init__(gymnasium.wrappers.TimeLimit(Reach(), 7))
        self.rows = []

    def reset(self, **options):
        self._obs, info = super().reset(**options)
        return self._obs, info

    def step(self, action):
        done = 0.5 * action  # something on the way halves what was asked for
        following, reward, terminated, truncated, info = super().step(done)
        self.rows.append((self._obs, done, following, terminated, truncated))
        self._obs = following
        return following, reward, terminated, truncated, {**info, "executed_action": done}


@pytest.fixture(scope="module")
def data():
    return collect(Reach(), 10)


def _start(agent=ppo, config=CONFIG, recipe=RECIPE):
    return online.start_state(agent, config, recipe, 0, batch_of(collect(Reach(), 1)), None)


@pytest.fixture
def seen(monkeypatch):
    """Batches that reach an update, which does nothing else."""
    batches = []

    def update(agent, config, state, batch):
        batches.append(batch)
        return state, {"loss": jnp.zeros(())}

    monkeypatch.setattr(online.loop, "_update", update)
    return batches


def test_every_row_is_in_one_rollout_and_in_the_order_of_time(seen):
    env = Logged()
    loop = dataclasses.replace(LOOP, env_steps=75)
    online.finetune(ppo, CONFIG, env, RECIPE, loop, _start())
    assert [len(batch["rewards"]) for batch in seen] == [16] * 4  # the last 11 are too few
    rows = [np.array(column) for column in zip(*env.rows[:64], strict=True)]
    for name, column in zip(("observations", "actions", "next_observations"), rows, strict=False):
        got = np.concatenate([batch[name] for batch in seen])
        np.testing.assert_array_equal(got, column.astype(np.float32), err_msg=name)
    terminated, truncated = rows[3:]
    masks, ends = (np.concatenate([batch[name] for batch in seen]) for name in ("masks", "ends"))
    np.testing.assert_array_equal(masks, 1.0 - terminated)
    cut = np.arange(1, 65) % 16 == 0
    np.testing.assert_array_equal(ends, terminated | truncated | cut)
    assert (cut & ~(terminated | truncated)).any()
    assert "offline" not in seen[0]


def test_offline_rows_stand_behind_the_rollout_and_say_so(data, seen, monkeypatch):
    monkeypatch.setattr(ppo, "CAPABILITIES", Capabilities(("ends", "offline")))
    marked = {**data, "rewards": np.full_like(data["rewards"], 7.0)}
    recipe = dataclasses.replace(RECIPE, offline_fraction=0.2)
    online.finetune(ppo, CONFIG, Logged(), recipe, LOOP, _start(), offline=marked)
    for batch in seen:
        np.testing.assert_array_equal(batch["offline"], [0.0] * 16 + [1.0] * 4)
        np.testing.assert_array_equal(batch["rewards"] == 7.0, batch["offline"])
        np.testing.assert_array_equal(batch["ends"][15:], 1.0)
    assert not np.array_equal(seen[0]["observations"][16:], seen[1]["observations"][16:])


@pytest.mark.usefixtures("quick_compile")
def test_a_run_that_was_cut_within_a_rollout_goes_on_bit_for_bit():
    whole = Memory()
    expected = online.finetune(ppo, CONFIG, Logged(), RECIPE, LOOP, _start(), monitor=whole)
    assert whole.rows[-1]["updates"] == 5.0
    for kill_after in (21, 49):
        cut = Memory(kill_after)
        with pytest.raises(KeyboardInterrupt):
            online.finetune(ppo, CONFIG, Logged(), RECIPE, LOOP, _start(), monitor=cut)
        step = max(cut.saved)
        assert step % 16
        assert len(cut.saved[step]["buffer/data/rewards"]) == 16
        snapshot = trees.unflatten(sessions.online_template(_start()), cut.saved[step])
        rest = Memory()
        got = online.finetune(
            ppo, CONFIG, Logged(), RECIPE, LOOP, _start(), monitor=rest, snapshot=snapshot
        )
        for name, value in trees.flatten(expected).items():
            np.testing.assert_array_equal(trees.flatten(got)[name], value, err_msg=name)
        assert cut.rows + rest.rows == whole.rows


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rollout": -1}, "Recipe.rollout"),
        ({"warmup_steps": 5}, "Recipe.warmup_steps must be 0 with a rollout"),
        ({"noise_std": 0.1}, "Recipe.noise_std must be 0.0 with a rollout"),
        ({"utd": 2}, "Recipe.utd"),
        ({"update_every": 2}, "Recipe.update_every"),
        ({"batch_size": 8}, "Recipe.batch_size"),
        ({"n_step": 3}, "Recipe.n_step"),
        ({"chunk": 5}, "Recipe.chunk"),
        ({"critic_only_updates": 5}, "Recipe.critic_only_updates"),
        ({"seed_buffer_with_offline": True}, "Recipe.seed_buffer_with_offline"),
        ({"warmup_actions": "uniform"}, "Recipe.warmup_actions"),
        ({"offline_fraction": 1.0}, "Recipe.offline_fraction must be below 1"),
        ({"offline_fraction": 0.3}, "not a whole number"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **wrong)


def test_a_rollout_must_divide_into_minibatches():
    with pytest.raises(ValueError, match=r"multiple of ppo's minibatch = 5, got 16"):
        RECIPE.configure(dataclasses.replace(CONFIG, minibatch=5))


@pytest.mark.parametrize(
    ("agent", "recipe", "steps", "message"),
    [
        (ppo, Recipe(agent="ppo"), 100, "ppo learns from rollouts; set Recipe.rollout"),
        (ppo, dataclasses.replace(RECIPE, offline_fraction=0.5), 100, "offline_fraction to 0"),
        (ppo, RECIPE, 15, r"env_steps = 15 ends before .* Recipe.rollout = 16"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_first_step(agent, recipe, steps, message):
    with pytest.raises(ValueError, match=message):
        rollouts.check_rollout(agent, recipe, steps)
    loop = dataclasses.replace(LOOP, env_steps=steps)
    with pytest.raises(ValueError, match=message):
        online.finetune(ppo, CONFIG, Logged(), recipe, loop, {})


def test_one_environment_has_rollouts_of_any_length_and_several_have_equal_shares():
    odd = Recipe(agent="ppo", warmup_steps=0, rollout=15)
    rollouts.check_rollout(ppo, odd, 15)
    rollouts.check_rollout(ppo, odd, 15, 3)
    with pytest.raises(ValueError, match=r"multiple of the 2 environments.*got 15"):
        rollouts.check_rollout(ppo, odd, 15, 2)


def test_what_experience_does_not_have_is_named_with_the_agent(monkeypatch):
    monkeypatch.setattr(rebrac, "CAPABILITIES", Capabilities(("next_actions", "smell", "expert")))
    with pytest.raises(ValueError, match="rebrac needs expert, smell, which experience does not"):
        rollouts.check_rollout(rebrac, Recipe(agent="rebrac"), 16)


def test_agents_of_single_transitions_learn_from_rollouts_too(data):
    """The loop knows no method: next actions come with the rows, whoever asks for them."""
    recipe = dataclasses.replace(RECIPE, agent="rebrac")
    rollouts.check_rollout(rebrac, recipe, 16)
    rows = {name: value for name, value in data.items() if name not in ("masks", "episode_id")}
    replay = Streams([ReplayBuffer(100, take_row(rows, 0))])
    for row in range(len(data["rewards"])):
        replay.add(0, take_row(rows, row))
    rng = np.random.default_rng(0)
    got = rollouts.batch(rng, recipe, 0.9, None, replay, ("next_actions",))
    newest = {name: value[-16:] for name, value in data.items()}
    expected = supply(rebrac, rebrac.Config(), newest)["next_actions"]
    np.testing.assert_allclose(got["next_actions"], expected, rtol=1e-6)


def test_the_offline_loop_refuses_an_agent_of_rollouts(data):
    with pytest.raises(ValueError, match=r"ppo learns from rollouts.*finetune"):
        offline_loop.train(ppo, CONFIG, data, OfflineLoop(steps=1))
    check_offline(rebrac)
