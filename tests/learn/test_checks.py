"""What the loops say of arrays and configs that do not fit, before anything is compiled."""

import dataclasses
import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, iql, rebrac, sac, td3bc
from robo_rl.data.frames import FrameStack
from robo_rl.learn import checks, offline, online
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.networks import NetConfig
from tests.probe_envs import Reach

SMALL = NetConfig(hidden=(8,))
IQL = iql.Config(actor=SMALL, critic=SMALL)
SAC = sac.Config(actor=SMALL, critic=SMALL, critics=2)
LOOP = OfflineLoop(steps=1, batch_size=4, log_every=1, checkpoint_every=1)
ROWS = 10
TABLE = {
    "observations": np.zeros((ROWS, 2), np.float32),
    "actions": np.zeros((ROWS, 2), np.float32),
    "rewards": np.zeros(ROWS, np.float32),
    "next_observations": np.ones((ROWS, 2), np.float32),
    "masks": np.ones(ROWS, np.float32),
    "episode_id": np.zeros(ROWS, np.int64),
    "terminated": np.zeros(ROWS, bool),
    "truncated": np.arange(ROWS) == ROWS - 1,
}


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch):
    def compiled(*_, **__):
        raise AssertionError("refused too late")

    for name in ("_initial", "_dispatch"):
        monkeypatch.setattr(offline, name, compiled)
    monkeypatch.setattr("robo_rl.learn.online.loop._update", compiled)


def without(*names):
    return {name: value for name, value in TABLE.items() if name not in names}


def changed(name, rows, value):
    array = np.array(TABLE[name], np.float64)
    array[rows] = value
    return {**TABLE, name: array}


OFFLINE = [
    (changed("masks", 3, 2.0), r"iql: masks must be in \[0, 1\] \(masks are 1 - .*row 3: 2.0"),
    (changed("masks", slice(2, 5), -1.0), r"masks must be in \[0, 1\].*3 of 10 rows.*row 2"),
    (
        without("masks"),
        r"iql learns from transitions with .* lack masks \(masks are 1 - term",
    ),
    (without("actions", "rewards"), r"these lack actions, rewards; they have observations, next_"),
    ({}, "they have none"),
    ({**TABLE, "rewards": np.zeros(9)}, r"same length > 0, got .*'rewards': 9"),
    ({**TABLE, "actions": np.zeros(ROWS)}, r"actions must be vectors, \(N, A\), got shape \(10,\)"),
    (
        {**TABLE, "rewards": np.zeros((ROWS, 1))},
        r"rewards must be one number a row, \(N,\), got",
    ),
    ({**TABLE, "observations": np.zeros((ROWS, 3, 3))}, r"observations must be vectors, \(N, O\)"),
    (
        {**TABLE, "next_observations": np.zeros((ROWS, 3))},
        r"observations are of shape \(2,\), next_observations of shape \(3,\)",
    ),
    (
        changed("actions", [3, 5], 57.0),
        r"actions must be in \[-1, 1\]: 2 of 10 rows are not, the first is row 3, the largest "
        "number 57; scale them",
    ),
    (changed("observations", [4, 6], np.nan), "observations must be finite .*: 2 of .* is row 4"),
    (changed("rewards", 9, 1e300), "rewards must be finite as float32: 1 of 10 .* is row 9"),
    ({**TABLE, "rewards": np.array(["1"] * ROWS)}, "rewards must be numbers, got <U1"),
]


@pytest.mark.parametrize(("transitions", "sentence"), OFFLINE, ids=[case[1] for case in OFFLINE])
def test_the_offline_loop_refuses_wrong_arrays_in_one_sentence(transitions, sentence):
    for refuse in (offline.train, offline.check, offline.initial_state):
        with pytest.raises(ValueError, match=sentence) as caught:
            refuse(iql, IQL, transitions, LOOP)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("span", [{"n_step": 3}, {"chunk": 2}])
def test_what_spans_several_steps_needs_to_know_the_episodes(span):
    with pytest.raises(ValueError, match="these lack episode_id, terminated"):
        offline.train(
            iql,
            IQL,
            without("episode_id", "terminated"),
            dataclasses.replace(LOOP, **span),
        )


def test_single_steps_need_not_know_their_episodes():
    single = without("episode_id", "terminated", "truncated")
    offline.check(iql, IQL, single, LOOP)
    for span in ({"n_step": 2}, {"chunk": 2}, {"frames": 2}):
        with pytest.raises(ValueError, match="these lack episode_id, terminated, truncated"):
            offline.check(iql, IQL, single, dataclasses.replace(LOOP, **span))


def test_the_config_of_another_agent_is_named():
    with pytest.raises(ValueError, match=r"^iql takes a iql\.Config, got a td3bc\.Config$"):
        offline.train(iql, td3bc.Config(), TABLE, LOOP)
    with pytest.raises(ValueError, match=r"bc takes a bc\.Config, got None"):
        offline.check(bc, None, TABLE, LOOP)
    with pytest.raises(ValueError, match=r"sac takes a sac\.Config, got a iql\.Config"):
        finetuned(config=IQL)
    with pytest.raises(ValueError, match=r"sac takes a sac\.Config, got a iql\.Config"):
        online.start_state(sac, IQL, Recipe(), 0, TABLE, None)


def test_actions_on_the_bound_and_a_rounding_beyond_are_fine():
    for value in (1.0, -1.0, 1.0 + 1e-6):
        checks.check_transitions(iql, IQL, changed("actions", 2, value))


def test_bytes_dicts_and_stacked_frames_pass():
    frames = np.zeros((ROWS, 4, 4, 1), np.uint8)
    stack = FrameStack(frames, np.zeros((ROWS, 2), np.int64))
    observations = {"image": frames, "stack": stack, "state": np.zeros((ROWS, 3))}
    table = {**TABLE, "observations": observations, "next_observations": observations}
    checks.check_transitions(iql, IQL, table)
    with pytest.raises(ValueError, match=r"next_observations image of shape \(4, 4, 1\)$"):
        checks.check_transitions(iql, IQL, {**table, "next_observations": {"image": frames}})


def test_a_batch_for_a_loop_of_ones_own_is_checked_for_what_the_agent_needs():
    checks.check_batch(iql, IQL, TABLE)
    with pytest.raises(ValueError, match=r"rebrac learns from .*: these lack next_actions"):
        checks.check_batch(rebrac, rebrac.Config(), TABLE)
    with pytest.raises(ValueError, match="next_actions must be in"):
        checks.check_batch(
            rebrac, rebrac.Config(), {**TABLE, "next_actions": np.full((ROWS, 2), 2.0)}
        )


@checks.validated
def update(config: iql.Config, state: object, batch: dict) -> object:
    """Of an agent that reads `next_actions`."""
    return batch["next_actions"]


def test_only_init_and_only_outside_of_jit_looks_at_the_numbers():
    far = {**TABLE, "actions": np.full((ROWS, 2), 7.0, np.float32)}
    init = functools.partial(iql.init, IQL, jax.random.key(0))
    with pytest.raises(ValueError, match=r"^iql: actions must be in \[-1, 1\]: 10 of 10 rows"):
        init(far)
    jax.eval_shape(init, far)
    assert update(IQL, None, {**far, "next_actions": far["actions"]}) is far["actions"]


def test_a_batch_without_what_is_read_is_told_what_it_has():
    with pytest.raises(ValueError, match="lacks next_actions; it has observations, actions, rewa"):
        update(IQL, None, TABLE)
    with pytest.raises(ValueError, match=r"lacks observations, actions; it has nothing$"):
        update(IQL, None, {})
    with pytest.raises(ValueError, match=r"learns from a dict of arrays .*, got <class 'list'>"):
        update(IQL, None, [])


def test_a_function_of_an_agent_says_whose_config_it_takes_and_whose_it_got():
    takes = "^test_checks.update takes the Config of test_checks, got"
    for given, name in ((td3bc.Config(), "td3bc.Config"), (None, "None"), (1, "builtins.int")):
        with pytest.raises(ValueError, match=f"{takes} {name}$"):
            update(given, None, TABLE)


def test_a_key_that_is_no_batchs_stays_a_key_error():
    @checks.validated
    def update(config: iql.Config, state: dict, batch: dict) -> object:
        return state["moments"] if "rewards" in batch else batch["actions"][state["actions"]]

    with pytest.raises(KeyError, match="moments"):
        update(IQL, {}, TABLE)
    with pytest.raises(KeyError, match="actions"):
        update(IQL, {}, without("rewards"))


def test_a_share_of_every_action_of_a_chunk_is_looked_at():
    valid = np.ones((ROWS, 3))
    checks.check_transitions(iql, IQL, {**TABLE, "valid": valid})
    valid[[4, 8], [2, 0]] = 1.5, -0.5
    with pytest.raises(ValueError, match=r"valid must be in .*: 2 of 10 .* row 4: \[1.0, 1.0"):
        checks.check_transitions(iql, IQL, {**TABLE, "valid": valid})


def test_large_data_are_looked_at_in_blocks():
    rows = 400_000
    table = {
        "observations": np.zeros((rows, 8), np.float32),
        "actions": np.zeros((rows, 2), np.float32),
        "rewards": np.zeros(rows, np.float32),
        "masks": np.ones(rows, np.float32),
    }
    table["next_observations"] = table["observations"]
    tracemalloc.start()
    checks.check_transitions(iql, IQL, table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < table["observations"].nbytes
    table["observations"][300_001] = np.inf
    with pytest.raises(ValueError, match="1 of 400000 rows are not, the first is row 300001"):
        checks.check_transitions(iql, IQL, table)


def a_state(width):
    example = {
        "observations": jnp.zeros((1, width)),
        "actions": jnp.zeros((1, 2)),
        "rewards": jnp.zeros(1),
        "next_observations": jnp.zeros((1, width)),
        "masks": jnp.ones(1),
    }
    shapes = jax.eval_shape(lambda: sac.init(SAC, jax.random.key(0), example))
    return jax.tree.map(
        lambda leaf: (
            jax.random.key(0)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else np.zeros(leaf.shape, leaf.dtype)
        ),
        shapes,
    )


def finetuned(width=2, table=None, config=SAC):
    share = 0.0 if table is None else 0.5
    recipe = Recipe(agent="sac", offline_fraction=share, batch_size=4, warmup_steps=0)
    loop = OnlineLoop(env_steps=4, capacity=100, log_every=4, checkpoint_every=4)
    return online.finetune(sac, config, Reach(), recipe, loop, a_state(width), offline=table)


def test_the_online_loop_refuses_a_state_of_other_observations():
    with pytest.raises(
        ValueError, match=r"sac: this state does not read observations of shape \(2,\), as the env"
    ):
        finetuned(width=5)


ONLINE = [
    (without("episode_id"), "these lack episode_id"),
    (changed("actions", 1, -7.0), r"actions must be in \[-1, 1\]: 1 of 10"),
    (changed("rewards", 1, np.nan), "rewards must be finite"),
    (
        {**TABLE, "actions": np.zeros((ROWS, 3), np.float32)},
        "the offline actions have 3 numbers, the environment takes 2",
    ),
    (
        {**TABLE, "actions": np.zeros((ROWS, 1), np.float32)},
        "the offline actions have 1 numbers, the environment takes 2",
    ),
    (
        {**TABLE, **{k: np.zeros((ROWS, 5)) for k in ("observations", "next_observations")}},
        r"the offline observations are of shape \(5,\), those of the environment of shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("transitions", "sentence"), ONLINE, ids=[case[1] for case in ONLINE])
def test_the_online_loop_refuses_offline_rows_that_do_not_fit(transitions, sentence):
    with pytest.raises(ValueError, match=sentence):
        finetuned(table=transitions)
