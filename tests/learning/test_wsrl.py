"""WSRL (Zhou et al. 2024) on Gymnasium's Pendulum: what a warm-up spares, by the shipped recipe.

Offline, IQL learns from episodes of a hand-written swing-up, half of them mostly noise. The recipe
"wsrl" then goes on without these data, as it is shipped and with `warmup_steps=0`; all else is
alike, the seeds too. Networks are 2x64, critics ten with LayerNorm, as in the paper but for the
width.
"""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robo_rl
from robo_rl import agents
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline, online, recipes
from robo_rl.learn.batches import batch_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from tests.learning.history import History

pytestmark = pytest.mark.learning

SEEDS = (0, 1, 2, 3, 4)
UPDATES, EVERY = 1_000, 200
NET = NetConfig(hidden=(64, 64))
CRITIC = NetConfig(hidden=(64, 64), layer_norm="before")
EPISODES = evaluation_seeds(0, 10)


def swing_up(observation):
    """Torque in [-1, 1]: energy is pumped in, near the top it is held there by a spring."""
    cosine, sine, speed = observation
    if cosine > 0.9:
        return float(np.clip(-(8.0 * sine + 2.0 * speed), -1.0, 1.0))
    missing = 10.0 * (1.0 - cosine) - speed**2 / 3.0 * 0.5
    return float(np.clip(missing * np.sign(speed or 1.0), -1.0, 1.0))


def recorded(episodes=100):
    """Rows of the swing-up, with noise of 0.3 in half of the episodes and of 2 in the others."""
    env, rng = robo_rl.make_env("Pendulum-v1", learner=True), np.random.default_rng(0)
    rows = {name: [] for name in ("observations", "actions", "rewards", "next_observations")}
    for episode in range(episodes):
        observation, _ = env.reset(seed=1_000 + episode)
        over = False
        while not over:
            noise = (0.3, 2.0)[episode % 2] * rng.normal()
            action = np.clip([swing_up(observation) + noise], -1.0, 1.0).astype(np.float32)
            following, reward, _, over, _ = env.step(action)
            for name, value in zip(rows, (observation, action, reward, following), strict=True):
                rows[name].append(value)
            observation = following
    data = {name: np.asarray(value, np.float32) for name, value in rows.items()}
    count = len(data["rewards"])
    limit = gymnasium.spec("Pendulum-v1").max_episode_steps
    return {
        **data,
        "terminated": np.zeros(count, bool),
        "truncated": np.arange(1, count + 1) % limit == 0,
        "masks": np.ones(count, np.float32),
        "episode_id": (np.arange(count) // limit).astype(np.int32),
    }


def mean_return(agent, config, state):
    """Of the policy that does not explore."""
    act = jax.jit(lambda obs: agent.act(config, state, obs, jax.random.key(0), False))
    env = robo_rl.make_env("Pendulum-v1", learner=True)
    return evaluate(env, lambda obs: np.asarray(act(obs)), EPISODES).mean_return


def after_the_switch(data, config, learned, warmup, seed):
    """The recipe's reports over so many updates after the warm-up."""
    recipe = dataclasses.replace(recipes.get("wsrl"), warmup_steps=warmup)
    adopted = recipe.configure(agents.sac.adopt(agents.sac.Config(), learned))
    example = {key: jnp.asarray(value[:1]) for key, value in batch_of(data).items()}
    first = online.start_state(agents.sac, adopted, recipe, seed, example, learned)
    history = History()
    loop = OnlineLoop(
        warmup + UPDATES,
        log_every=EVERY,
        evaluate_every=EVERY,
        checkpoint_every=10**9,
        seed=seed,
    )
    online.finetune(
        agents.sac,
        adopted,
        robo_rl.make_env("Pendulum-v1", learner=True),
        recipe,
        loop,
        first,
        monitor=history,
        evaluate=lambda state: {"return": mean_return(agents.sac, adopted, state)},
    )
    late = np.array(history.steps) > warmup
    return {name: history[name][late] for name in ("q", "return")}


def travelled(values):
    """How far a metric goes up and down from report to report, in all."""
    return float(np.abs(np.diff(values)).sum())


def test_a_warm_up_calms_the_values_and_returns_do_not_dip_on_pendulum():
    """After the switch mean Q of the batches moves less up and down where the policy's own
    experience came first, and the shipped recipe loses no return on the way: a tenth of the offline
    policy's at most. Five seeds."""
    data = recorded()
    config = agents.iql.Config(actor=NET, critic=CRITIC, critics=10)
    shipped = recipes.get("wsrl").warmup_steps
    ways, dips = {shipped: [], 0: []}, {shipped: [], 0: []}
    offline_returns = []
    for seed in SEEDS:
        loop = OfflineLoop(5_000, 256, 500, 5_000, seed=seed)
        state = offline.train(agents.iql, config, data, loop)
        learned = agents.iql.learned(config, state)
        offline_returns.append(mean_return(agents.iql, config, state))
        for warmup in ways:
            seen = after_the_switch(data, config, learned, warmup, seed)
            ways[warmup].append(travelled(seen["q"]))
            dips[warmup].append(offline_returns[-1] - float(np.min(seen["return"])))
            print("wsrl", seed, "warm-up", warmup, "offline", round(offline_returns[-1]))
            print("  returns", seen["return"].round().tolist(), "q", seen["q"].round(1).tolist())
    print("ways of Q", ways, "dips of the return", dips)
    assert np.mean(ways[shipped]) < 0.7 * np.mean(ways[0])
    assert np.mean(dips[shipped]) < -0.1 * np.mean(offline_returns)
