"""Orderings that the literature agrees on: run by `make test-learning`.

Each test says what it shows, over how many seeds. The first is of OGBench's cube, the others of a
maze of our own, far smaller than the papers' tasks; what is compared is the ordering, not a
published figure (see benchmarks/ogbench_tasks.py).
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl import agents
from robo_rl.judge.episodes import evaluate
from robo_rl.learn import offline, online, recipes
from robo_rl.learn.batches import batch_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from tests.learning.history import History
from tests.learning.point_maze import Fork, PointMaze, forked, recorded

pytestmark = pytest.mark.learning

NET = NetConfig(hidden=(64, 64))
NORMED = NetConfig(hidden=(64, 64), layer_norm="before")
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def data():
    """300 episodes, half of them meant for the goal."""
    return recorded(300, straight=0.5)


def success(agent, config, state, env, episodes=50, chunk=1):
    """Share of episodes that reach the goal; chunks are played open loop."""
    act = jax.jit(lambda obs, key: agent.act(config, state, obs, key, False))
    queue, asked = [], [0]

    def policy(obs):
        if not queue:
            asked[0] += 1
            actions = act(obs, jax.random.fold_in(jax.random.key(0), asked[0]))
            queue.extend(np.asarray(actions).reshape(chunk, -1))
        return queue.pop(0)

    return evaluate(env, policy, range(episodes), begin=lambda _: queue.clear()).success_rate


def trained(name, config, data, steps, seed=0, chunk=1):
    loop = OfflineLoop(steps, 256, 500, 500 * (steps // 500), seed=seed, chunk=chunk)
    return offline.train(agents.get(name), config, data, loop)


def finetuned(recipe, config, state, env, steps, data, seed=0, every=250, judged=PointMaze):
    agent, history = agents.get(recipe.agent), History()
    loop = OnlineLoop(
        steps, log_every=every, evaluate_every=every, checkpoint_every=10**9, seed=seed
    )

    def judge(state):
        return {"success": success(agent, config, state, judged(), episodes=20)}

    offline_rows = data if recipe.needs_offline_data else None
    state = online.finetune(
        agent,
        config,
        env,
        recipe,
        loop,
        state,
        offline=offline_rows,
        monitor=history,
        evaluate=judge,
    )
    return state, history


def first_reached(history, level=0.9):
    """Step from which on success stays at `level`, or the budget."""
    below = np.flatnonzero(history["success"] < level)
    if not len(below):
        return history.steps[0]
    last = below[-1] + 1
    return history.steps[last] if last < len(history.steps) else history.steps[-1]


def example(data):
    return {key: jnp.asarray(value[:1]) for key, value in batch_of(data).items()}


def test_cloning_is_far_below_iql_on_cube_single(tmp_path, monkeypatch):
    """Park et al. 2025: 3 and 85 % on cube-single's task 2 after a million updates of 4x512. Here
    40,000 of 2x256 on 200 play episodes; two seeds, 150 episodes each. FQL, at 97 % the best there,
    needs more updates than that to pass IQL."""
    from benchmarks import ogbench_tasks as ogbench

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    budget = ogbench.Budget(
        steps=40_000, rows=200_000, width=256, depth=2, seeds=2, episodes=50, online_steps=0
    )
    rates = {}
    for name in ("bc", "iql"):
        case = ogbench.Case("cube-single-2", name, budget, tmp_path, os.cpu_count() or 1)
        case.run()
        scores = [score for seed in case.shares("offline").values() for score in seed]
        rates[name] = sum(won for won, _ in scores) / sum(episodes for _, episodes in scores)
        print("cube-single-2", name, rates[name])
    assert rates["bc"] + 0.2 < rates["iql"]


def test_chunks_reach_a_long_sparse_goal_before_single_steps_do(data):
    """Q-chunking (Li et al. 2025): values travel five steps an update, so after 2,000 updates the
    goal, 35 steps away, is known to chunks and not to single steps. Two seeds."""
    config = agents.qc.Config(flow=NET, critic=NORMED, samples=16, flow_steps=5)
    for seed in SEEDS[:2]:
        rates = {}
        for chunk in (1, 5):
            state = trained("qc", config, data, 2_000, seed, chunk)
            rates[chunk] = success(agents.qc, config, state, PointMaze(), chunk=chunk)
        print("qc", seed, rates)
        assert rates[1] < rates[5] - 0.5


def test_a_flow_policy_takes_one_of_two_ways_where_a_gaussian_takes_neither():
    """FQL (Park et al. 2025): half of the data pass a block on the left, half on the right; the
    mean of both runs into it. Two seeds."""
    rows = forked(400)
    net = NetConfig(hidden=(128, 128), activation="gelu")
    normed = dataclasses.replace(net, layer_norm="after")
    configs = {
        "fql": agents.fql.Config(flow=net, actor=net, critic=normed, alpha=30.0),
        "ifql": agents.ifql.Config(flow=net, critic=normed),
        "iql": agents.iql.Config(actor=net, critic=normed, std="unit", temperature=1.0),
    }
    for seed in SEEDS[:2]:
        rates = {
            name: success(
                agents.get(name), config, trained(name, config, rows, 6_000, seed), Fork()
            )
            for name, config in configs.items()
        }
        print("fork", seed, rates)
        assert rates["iql"] < 0.2
        assert rates["fql"] > rates["iql"] + 0.3
        assert rates["ifql"] > rates["iql"] + 0.3


def highest_values(data, layer_norm, critics):
    """Of RLPD at ten critic steps an environment step: (seeds,) peaks of mean Q once it learns."""
    recipe = dataclasses.replace(
        recipes.get("rlpd"),
        warmup_steps=500,
        utd=10,
        batch_size=64,
        options=(),  # without the entropy bonus, as the authors on sparse rewards
    )
    net = NetConfig(hidden=(64, 64), layer_norm=layer_norm)
    config = agents.sac.Config(actor=NET, critic=net, critics=critics, discount=0.98)
    config = recipe.configure(config)
    peaks = []
    for seed in SEEDS:
        state = online.start_state(agents.sac, config, recipe, seed, example(data), None)
        env = PointMaze(spread=0.3)
        _, history = finetuned(recipe, config, state, env, 3_000, data, seed)
        late = np.array(history.steps) >= 2_000
        peaks.append(history["q"][late].max())
    print("rlpd", layer_norm, critics, peaks)
    return np.array(peaks)


def test_layer_norm_keeps_values_from_running_up_at_a_high_update_ratio(data):
    """RLPD (Ball et al. 2023): Q without LayerNorm rises far above what the rewards allow before it
    is corrected. Mean over three seeds."""
    normed, plain = (highest_values(data, norm, 10).mean() for norm in ("before", "none"))
    assert normed < -20.0
    assert plain > normed + 5.0


def test_an_ensemble_keeps_values_from_running_up_at_a_high_update_ratio(data):
    """RLPD and REDQ (Chen et al. 2021): without LayerNorm, the minimum over two of ten critics
    rises less, and alike in all seeds, than that over the same two. Three seeds."""
    ten, two = (highest_values(data, "none", critics) for critics in (10, 2))
    assert two.mean() > ten.mean() + 2.0
    assert two.std() > 3.0 * ten.std()


def conservative(name, weight):
    """The config offline of CQL or Cal-QL, the recipe online, and the config online."""
    config = agents.get(name).Config(
        actor=NET, critic=NET, samples=4, discount=0.98, weight=weight, actor_lr=3e-4
    )
    recipe = dataclasses.replace(recipes.get(name), batch_size=128)
    return config, recipe, recipe.configure(config)


def test_calibrated_values_finetune_sooner_than_conservative_ones(data):
    """Cal-QL (Nakamoto et al. 2023): the same update but for the bound by the data's returns.
    CQL has to unlearn values below them first. Steps to a lasting 0.9, sum over two seeds."""
    steps = {}
    for name in ("cql", "calql"):
        config, recipe, configured = conservative(name, weight=1.0)
        steps[name] = 0
        for seed in SEEDS[:2]:
            state = trained(name, config, data, 8_000, seed)
            env = PointMaze(spread=0.3)
            _, history = finetuned(recipe, configured, state, env, 5_000, data, seed)
            steps[name] += first_reached(history)
    print("calql", steps)
    assert steps["calql"] < 0.9 * steps["cql"]


def test_calibrated_values_fall_less_after_the_switch(data):
    """Cal-QL (Nakamoto et al. 2023): under a strong regulariser Q falls once it meets experience,
    and less where the data's returns bound it. Mean over three seeds."""
    falls = {}
    for name in ("cql", "calql"):
        config, recipe, configured = conservative(name, weight=5.0)
        lost = []
        for seed in SEEDS:
            state = trained(name, config, data, 8_000, seed)
            env = PointMaze(spread=0.3)
            _, history = finetuned(recipe, configured, state, env, 3_000, data, seed)
            lost.append(np.max(history["q"]) - history["q"][-1])
        falls[name] = float(np.mean(lost))
        print("switch", name, lost)
    assert falls["calql"] < 0.8 * falls["cql"]


def test_a_warm_up_spares_the_values_their_fall(data):
    """WSRL (Zhou et al. 2024): without the data kept, critics that meet no experience of the policy
    before the first update fall below where they end up. Mean over three seeds."""
    config = agents.iql.Config(actor=NET, critic=NORMED, critics=4, discount=0.98)
    state = trained("iql", config, data, 8_000)
    learned = agents.iql.learned(config, state)
    falls = {}
    for warm in (1_000, 0):
        recipe = dataclasses.replace(recipes.get("wsrl"), warmup_steps=warm)
        adopted = recipe.configure(agents.sac.adopt(agents.sac.Config(discount=0.98), learned))
        lost = []
        for seed in SEEDS:
            first = online.start_state(agents.sac, adopted, recipe, seed, example(data), learned)
            env = PointMaze(spread=0.3)
            _, history = finetuned(recipe, adopted, first, env, 2_000 + warm, data, seed, 100)
            lost.append(history["q"][-1] - np.nanmin(history["q"]))
        falls[warm] = float(np.mean(lost))
        print("wsrl", warm, lost)
    assert falls[1_000] < 0.7 * falls[0]


def test_a_residual_equals_its_base_first_and_improves_it_then(data):
    """ResFiT (2025): on an arm that drifts, a cloned policy misses the goal; the correction starts
    at exactly its action. Two seeds."""
    rows = recorded(100, straight=1.0, noise=0.3)
    drift = (-0.4, -0.4)
    config = agents.bc.Config(actor=NET)
    base = trained("bc", config, rows, 5_000)
    learned = agents.bc.learned(config, base)
    before = success(agents.bc, config, base, PointMaze(drift))
    recipe = dataclasses.replace(
        recipes.get("residual"), warmup_steps=1_000, critic_only_updates=1_000
    )
    adopted = agents.residual.adopt(
        agents.residual.Config(actor=NET, critic=NORMED, discount=0.98, scale=0.5), learned
    )
    adopted = recipe.configure(adopted)
    for seed in SEEDS[:2]:
        state = online.start_state(agents.residual, adopted, recipe, seed, example(rows), learned)
        obs = rows["observations"][:100]
        key = jax.random.key(0)
        np.testing.assert_array_equal(
            agents.residual.act(adopted, state, obs, key),
            np.clip(agents.bc.act(config, base, obs, key), -1.0, 1.0),
        )
        _, history = finetuned(
            recipe,
            adopted,
            state,
            PointMaze(drift),
            5_000,
            rows,
            seed,
            judged=lambda: PointMaze(drift),
        )
        print("residual", before, history["success"])
        assert before < 0.2
        assert history["success"][-1] > 0.8
