"""How fast the learners, the data and the policies are: a table, and bench.json.

    make bench

Medians over repeats, with the spread between the quartiles. Everything is compared within this one
process. `share_of_limit` is the time that the matrix products of an update take alone, measured
here and counted from shapes, over the time of the update. An update of TD3+BC and ReBRAC is two
steps of the critics and one of the actor; of SAC at UTD 4, four and one.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from benchmarks import matmuls
from robo_rl import agents
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.learn import offline, online
from robo_rl.learn import probe as probing
from robo_rl.learn.batches import batch_of
from robo_rl.learn.contract import Agent, Capabilities, needs, setting
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.learn.supply import supply
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import export as exporting

OBSERVATION, ACTION, ROWS, BATCH = 28, 5, 100_000, 256
TWO = NetConfig()
NORMED = NetConfig(layer_norm="before")
CASES: dict[str, tuple[str, Any]] = {
    "iql": ("iql", agents.iql.Config()),
    "td3bc": ("td3bc", agents.td3bc.Config()),
    "rebrac_2x256": (
        "rebrac",
        agents.rebrac.Config(actor=TWO, critic=NetConfig(layer_norm="after")),
    ),
    "rebrac": ("rebrac", agents.rebrac.Config()),
    "cql": ("cql", agents.cql.Config()),
    "sac_utd4": ("sac", agents.sac.Config(utd=4)),
    "fql_2x256": ("fql", agents.fql.Config(flow=TWO, actor=TWO, critic=TWO)),
    "fql": ("fql", agents.fql.Config()),
}
A_DISPATCH = 150e9
"""Floating-point operations of one: about a second on two cores."""
MANY = 8
"""Seeds that are also trained in one program."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str
    spread: float = 0.0

    def line(self) -> str:
        """For the table."""
        return f"{self.name:<36}{self.value:12.3f} {self.unit:<6} +- {self.spread:.3g}"


def row(name: str, values: np.ndarray, unit: str) -> Row:
    """Of the median of values, and the distance of their quartiles."""
    value, spread = middle(values)
    return Row(name, value, unit, spread)


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of a call, and the distance of its quartiles; the first call is left out."""
    return middle(in_turns([run], repeats)[0])


def in_turns(runs: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Seconds (N, repeats) of N calls that take turns; the first turn is left out."""
    seconds = np.zeros((len(runs), repeats + 1))
    for turn in range(repeats + 1):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            run()
            seconds[number, turn] = time.perf_counter() - start
    return seconds[:, 1:]


def middle(values: np.ndarray) -> tuple[float, float]:
    """The median, and the distance of the quartiles."""
    low, median, high = statistics.quantiles(values.tolist(), n=4)
    return median, high - low


def transitions() -> dict[str, np.ndarray]:
    """Random rows of the size of cube-single's, in episodes of 100."""
    rng = np.random.default_rng(0)
    ends = np.arange(ROWS) % 100 == 99
    arrays = {
        "observations": rng.normal(size=(ROWS, OBSERVATION)),
        "actions": rng.uniform(-1.0, 1.0, (ROWS, ACTION)),
        "rewards": rng.normal(size=ROWS),
        "next_observations": rng.normal(size=(ROWS, OBSERVATION)),
        "masks": 1.0 - ends,
    }
    rows = {name: value.astype(np.float32) for name, value in arrays.items()}
    flags = {"terminated": ends, "truncated": np.zeros(ROWS, bool)}
    return {**rows, **flags, "episode_id": np.arange(ROWS) // 100}


class Unwatched:
    """An agent without the probe of its critics, whose share depends on how often it is taken."""

    def __init__(self, agent: Agent):
        self.__name__ = agent.__name__
        self.CAPABILITIES = Capabilities(needs(agent))
        self.init, self.update = agent.init, agent.update


def update_rows(name: str, agent: Agent, config: Any, repeats: int) -> list[Row]:
    """Updates a second, and the share of the limit of the products."""
    data = supply(agent, config, transitions())
    bare: Any = Unwatched(agent)
    example = {
        key: value[: BATCH * setting(config, "utd", 1)] for key, value in batch_of(data).items()
    }
    state = agent.init(config, jax.random.key(0), example)
    counts = matmuls.products(lambda s, b: agent.update(config, s, b), state, example)
    flops = sum(count * product.flops for product, count in counts.items())

    def rates(seeds: int) -> np.ndarray:
        """Of three more dispatches than one, in turns: what starting costs is not counted."""
        one = max(1, round(A_DISPATCH / flops / seeds))
        loops = [OfflineLoop(steps, BATCH, one, steps, seeds=seeds) for steps in (one, 4 * one)]
        short, long = in_turns(
            [lambda loop=loop: offline.train(bare, config, data, loop) for loop in loops], repeats
        )
        return 3 * seeds * one / (long - short)

    alone = sum(count * matmuls.seconds_of(product) for product, count in counts.items())
    single = rates(1)
    return [
        row(f"{name}.updates_per_s", single, "1/s"),
        Row(f"{name}.mflop_per_update", flops / 1e6, "MFLOP"),
        row(f"{name}.share_of_limit", alone * single, ""),
        row(f"{name}.updates_per_s_{MANY}_seeds", rates(MANY), "1/s"),
    ]


class Nothing(gymnasium.Env[np.ndarray, np.ndarray]):
    """Costs nothing, so that what is measured is the loop."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode of 100 steps."""
        super().reset(seed=seed)
        self._t = 0
        return np.zeros(OBSERVATION, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pass."""
        self._t += 1
        return np.full(OBSERVATION, 0.01 * self._t, np.float32), 0.0, False, self._t == 100, {}


class NothingAtOnce(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`Nothing` many times, at the cost of one."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    single_observation_space = Nothing.observation_space
    single_action_space = Nothing.action_space

    def __init__(self, count: int):
        self.num_envs = count
        self._t = np.zeros(count)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episodes of 100 steps."""
        self._t[options["reset_mask"]] = 0.0
        return self._obs(), {}

    def step(self, actions: np.ndarray) -> Any:
        """Pass."""
        self._t += 1.0
        never = np.zeros(self.num_envs, bool)
        return self._obs(), np.zeros(self.num_envs), never, self._t == 100.0, {}

    def _obs(self) -> np.ndarray:
        return np.repeat(0.01 * self._t[:, None], OBSERVATION, axis=1).astype(np.float32)


def online_rows(utd: int, envs: int, repeats: int) -> list[Row]:
    """Steps a second with SAC, and their time over that of acting and updating alone, less 1.

    Of a long run less a short one: neither starting counts nor the checkpoint at the end. What is
    compared is timed in turns, and the medians are over ratios within a turn.
    """
    recipe, fewer, more, times = Recipe(warmup_steps=0, utd=utd), 80, 240, 80
    config = recipe.configure(agents.sac.Config())
    batch = {
        key: value[: utd * recipe.batch_size] for key, value in batch_of(transitions()).items()
    }
    state = jax.jit(agents.sac.init, static_argnums=0)(config, jax.random.key(0), batch)
    update = jax.jit(agents.sac.update, static_argnums=0, donate_argnums=1)
    keys = jax.random.split(jax.random.key(0), envs)
    act = jax.jit(
        jax.vmap(
            lambda state, obs, key: agents.sac.act(config, state, obs, key, True), (None, 0, 0)
        )
    )
    obs = np.zeros((envs, OBSERVATION), np.float32)

    def run(steps: int) -> None:
        loop = OnlineLoop(steps, log_every=steps, checkpoint_every=steps)
        env = Nothing() if envs == 1 else NothingAtOnce(envs)
        online.finetune(agents.sac, config, env, recipe, loop, state)

    def learn() -> None:
        learned = jax.tree.map(jnp.copy, state)
        for _ in range(times):
            learned, metrics = update(config, learned, batch)
            jax.block_until_ready(metrics)

    def ask() -> None:
        for _ in range(times):
            np.asarray(act(state, obs, keys))

    seconds = in_turns([lambda: run(fewer), learn, lambda: run(more), ask], repeats)
    whole = (seconds[2] - seconds[0]) / (more - fewer)
    alone = (seconds[1] + seconds[3] / envs) / times
    many = "" if envs == 1 else f"_{envs}_envs"
    rate = many or f"_utd{utd}"

    return [
        row(f"online.steps_per_s{rate}", 1.0 / whole, "1/s"),
        row(f"online.overhead{many}_utd{utd}", whole / alone - 1.0, ""),
    ]


def act_rows() -> list[Row]:
    """Latency of one observation: JAX, and the exported policy."""
    config = agents.iql.Config()
    example = {key: value[:1] for key, value in batch_of(transitions()).items()}
    state = agents.iql.init(config, jax.random.key(0), example)
    exported = NumpyPolicy(
        *exporting.describe(agents.iql.policy(config, state), exporting.Interface(20.0))
    )
    act = jax.jit(agents.iql.act, static_argnums=(0, 4))
    key, obs = jax.random.key(0), np.zeros(OBSERVATION, np.float32)
    rows = []
    for name, run in (
        ("jax", lambda: np.asarray(act(config, state, obs, key, False))),
        ("numpy", lambda: exported.act(obs)),
    ):
        run()
        times = []
        for _ in range(5000):
            start = time.perf_counter()
            run()
            times.append(1e6 * (time.perf_counter() - start))
        for label, share in (("p50", 50.0), ("p99", 99.0), ("p999", 99.9)):
            rows.append(Row(f"act.{name}_{label}_us", float(np.percentile(times, share)), "us"))
    return rows


def data_rows(rows_in_all: int, repeats: int) -> list[Row]:
    """Reading a Minari dataset into arrays, against iterating over its episodes."""
    import minari
    from minari.data_collector import EpisodeBuffer

    from robo_rl.data.minari_io import open_dataset

    rng = np.random.default_rng(0)
    length = 200
    episodes = [
        EpisodeBuffer(
            id=k,
            observations=rng.normal(size=(length + 1, OBSERVATION)).astype(np.float32),
            actions=rng.uniform(-1.0, 1.0, (length, ACTION)).astype(np.float32),
            rewards=[0.0] * length,
            terminations=[False] * (length - 1) + [True],
            truncations=[False] * length,
        )
        for k in range(rows_in_all // length)
    ]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["MINARI_DATASETS_PATH"] = folder
        minari.create_dataset_from_buffers(
            "bench/load-v0",
            buffer=episodes,
            observation_space=Nothing.observation_space,
            action_space=Nothing.action_space,
            description="random numbers",
        )
        dataset = open_dataset("bench/load-v0")

        def anew() -> None:
            """As if it had never been read here."""
            for copy in dataset.folder.glob(".*.flat.npz"):
                copy.unlink()
            dataset.transitions()

        first, _ = timed(anew, repeats)
        ours, spread = timed(dataset.transitions, repeats)
        theirs, _ = timed(
            lambda: [e.rewards for e in minari.load_dataset("bench/load-v0").iterate_episodes()], 3
        )
    return [
        Row("data.load_s", ours, "s", spread),
        Row("data.load_vs_episode_iteration", theirs / ours, "times", spread / ours),
        Row("data.first_load_vs_episode_iteration", theirs / first, "times"),
    ]


def share_rows(repeats: int) -> list[Row]:
    """What drawing rows, and the probe, cost beside the updates of IQL."""
    config, updates = agents.iql.Config(), 200
    data = {key: jnp.asarray(value) for key, value in batch_of(transitions()).items()}
    state = agents.iql.init(config, jax.random.key(0), {k: v[:1] for k, v in data.items()})

    def drawn(number: jax.Array) -> dict[str, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), number)
        rows = jax.random.randint(key, (BATCH,), 0, ROWS)
        return {name: value[rows] for name, value in data.items()}

    def update(carry: Any, number: jax.Array) -> tuple[Any, None]:
        return agents.iql.update(config, carry, drawn(number))[0], None

    def touch(carry: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        return sum((value.sum() for value in drawn(number).values()), carry), None

    numbers = jnp.arange(updates)
    seconds = []
    for body, start in ((touch, jnp.zeros(())), (update, state)):
        run = jax.jit(lambda carry, body=body: jax.lax.scan(body, carry, numbers)[0])
        seconds.append(timed(lambda r=run, s=start: jax.block_until_ready(r(s)), repeats)[0])
    probe = probing.draw(
        agents.iql,
        lambda rows: {name: value[rows] for name, value in data.items()},
        ROWS,
        0,
        jax.random.key(0),
    )
    watching, _ = timed(
        lambda: jax.block_until_ready(probing.measure(agents.iql, config, state, probe)),
        20 * repeats,
    )
    learning = OfflineLoop().log_every * seconds[1] / updates
    return [
        Row("data.sampling_share", seconds[0] / seconds[1], ""),
        Row("iql.probe_share", watching / (watching + learning), ""),
    ]


def main() -> None:
    """Measure, print a table, write bench.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the dataset to be read")
    parser.add_argument("--d3rlpy", type=pathlib.Path, help="Python that has it, to compare with")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench.json"))
    options = parser.parse_args()
    rows: list[Row] = []

    def show(new: list[Row]) -> None:
        for row in new:
            print(row.line(), flush=True)
        rows.extend(new)

    print(f"{jax.default_backend()}, {len(os.sched_getaffinity(0))} cores")
    for name, (agent, config) in CASES.items():
        show(update_rows(name, agents.get(agent), config, options.repeats))
    for utd, envs in ((1, 1), (4, 1), (1, 8)):
        show(online_rows(utd, envs, 3 * options.repeats))
    show(act_rows())
    show(data_rows(options.rows, options.repeats))
    show(share_rows(options.repeats))
    if options.d3rlpy:
        from benchmarks import side_by_side

        show(side_by_side.rows(options.d3rlpy, options.repeats))
    aside = options.out.with_suffix(".part")
    aside.write_text(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, indent=1))
    aside.replace(options.out)


if __name__ == "__main__":
    main()
