"""The offline loop: any agent, K updates a dispatch, N seeds in one program.

Rows are drawn inside the compiled program from (seed, step) alone. So a loop that starts at step s
from the state of step s continues exactly, and the rows of any update can be named afterwards.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.data.chunks import chunk
from robo_rl.data.episodes import Arrays
from robo_rl.data.frames import FrameStack
from robo_rl.data.returns import n_step
from robo_rl.data.transitions import stack_frames
from robo_rl.fields import check_count
from robo_rl.learn import checks
from robo_rl.learn import probe as probing
from robo_rl.learn.batches import Transitions, batch_of, readable
from robo_rl.learn.checks import check_observations, check_offline
from robo_rl.learn.contract import Agent, State, setting
from robo_rl.learn.controllers import Controller
from robo_rl.learn.monitor import Monitor, NonFiniteLoss, Silent
from robo_rl.learn.supply import supply
from robo_rl.nn import optimise
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser, fit

Evaluate = Callable[[State], Mapping[str, float]]

jax.tree_util.register_dataclass(FrameStack, ["frames", "rows"], [])


@dataclasses.dataclass(frozen=True)
class OfflineLoop:
    """How long, how often, and which seeds."""

    steps: int = 20_000
    batch_size: int = 256
    log_every: int = 500
    """Updates a dispatch; metrics are means over them, those of the probe are of the last."""
    checkpoint_every: int = 5_000
    """A multiple of `log_every`."""
    evaluate_every: int = 0
    """A multiple of `log_every`; 0 evaluates at the end only."""
    seed: int = 0
    seeds: int = 1
    """Train seeds `seed`, `seed` + 1, ... in one `vmap`; every array then leads with that axis."""
    n_step: int = 1
    """Steps of reward before the bootstrap; above 1, transitions need their `episode_id`."""
    chunk: int = 1
    """H, the length of the action chunks that the agent learns; see `robo_rl.data.chunks`."""
    frames: int = 1
    """Images become the last so many frames of their episode; see `data.transitions`."""
    normalise: bool = True
    """Standardise observations by the statistics of the data."""
    min_std: float = 1e-2
    """Smallest spread that standardising divides by."""
    device_bytes: int = 2 * 1024**3
    """Data up to this size stays on the device; more is gathered on the host."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "log_every",
            "checkpoint_every",
            "seeds",
            "n_step",
            "chunk",
            "frames",
        ):
            check_count(f"OfflineLoop.{name}", getattr(self, name))
        for name in ("seed", "evaluate_every"):
            check_count(f"OfflineLoop.{name}", getattr(self, name), 0)
        if self.chunk > 1 and self.n_step > 1:
            raise ValueError(
                "OfflineLoop.chunk: a chunk is its own n-step window; n_step must be 1"
            )
        for name in ("checkpoint_every", "evaluate_every"):
            value = getattr(self, name)
            if value % self.log_every:
                raise ValueError(
                    f"OfflineLoop.{name} must be a multiple of log_every = {self.log_every}, "
                    f"got {value}"
                )


def train(
    agent: Agent,
    config: Any,
    transitions: Transitions,
    loop: OfflineLoop,
    *,
    teacher: Controller | None = None,
    monitor: Monitor | None = None,
    evaluate: Evaluate | None = None,
    start: tuple[int, State] | None = None,
) -> State:
    """Train to `loop.steps` and return the state, from scratch or from `start` = (step, state).

    `teacher` labels the transitions, once, for an agent that learns from one.
    Calls `monitor.metrics` every `log_every` updates, `monitor.checkpoint` every
    `checkpoint_every` and at the end. Raises NonFiniteLoss before a checkpoint could be made of it.
    """
    monitor = Silent() if monitor is None else monitor
    data = _rows(agent, config, transitions, loop, teacher)
    if start is None:
        start = 0, _first_state(agent, config, transitions, data, loop)
    step, state = start
    # The first dispatch donates the state: a caller's own arrays must outlive it.
    state = jax.tree.map(jnp.copy, state)
    source = _Source(data, loop, loop.batch_size * int(setting(config, "utd", 1)))
    probe = probing.draw(agent, source.gather, source.size, loop.seed, source.keys)
    while step < loop.steps:
        length = min(loop.log_every, loop.steps - step)
        numbers = jnp.arange(step, step + length)
        state, stacked, finite = _dispatch(
            agent,
            config,
            source.rows,
            loop.seeds > 1,
            state,
            source.keys,
            numbers,
            source.batches(numbers),
        )
        _guard(step, jax.device_get(stacked), np.asarray(finite), source)
        step += length
        last = step == loop.steps
        values = _means(stacked, loop) | _probed(agent, config, state, probe, loop)
        if evaluate and (last or (loop.evaluate_every and step % loop.evaluate_every == 0)):
            values |= evaluate(state)
        monitor.metrics(step, values)
        if last or step % loop.checkpoint_every == 0:
            monitor.checkpoint(step, state)
    return state


def check(agent: Agent, config: Any, transitions: Transitions, loop: OfflineLoop) -> None:
    """Raise ValueError where `train` would refuse these transitions; no teacher is asked.

    The method's `init` and `update` are traced on their shapes, nothing is computed.
    """
    rows = _rows(agent, config, transitions, loop, _no_teacher(transitions))
    size = loop.batch_size * int(setting(config, "utd", 1))
    example = _at(rows, slice(1), jnp.asarray)
    batch = jax.eval_shape(
        lambda rows: jax.tree.map(lambda leaf: jnp.repeat(leaf, size, axis=0), rows), example
    )
    state = jax.eval_shape(functools.partial(agent.init, config), jax.random.key(0), example)
    jax.eval_shape(functools.partial(agent.update, config), state, batch)


def initial_state(agent: Agent, config: Any, transitions: Transitions, loop: OfflineLoop) -> State:
    """The state at step 0: normaliser fitted on the data if asked for, one state a seed."""
    rows = _rows(agent, config, transitions, loop, _no_teacher(transitions))
    return _first_state(agent, config, transitions, rows, loop)


def _no_teacher(transitions: Transitions) -> Controller:
    """Stands in where only shapes are read of the rows: a teacher need not be there."""
    return lambda obs: np.zeros((len(obs), np.shape(transitions["actions"])[-1]))


def _first_state(
    agent: Agent,
    config: Any,
    transitions: Transitions,
    rows: Mapping[str, np.ndarray],
    loop: OfflineLoop,
) -> State:
    """`initial_state`, where the rows that the agent reads are at hand already."""
    example = _at(rows, slice(1), jnp.asarray)
    normaliser = None
    if loop.normalise:
        normaliser = fit(transitions["observations"], loop.min_std)
    return _initial(agent, config, loop.seeds > 1, _keys(loop)[0], example, normaliser)


def seed_state(state: State, index: int) -> State:
    """The state of one seed out of a state that was trained with several."""
    return jax.tree.map(lambda leaf: leaf[index], state)


def _keys(loop: OfflineLoop) -> tuple[jax.Array, jax.Array]:
    """Keys for initialisation and for drawing rows, (S,) or () for one seed."""
    seeds = jnp.arange(loop.seed, loop.seed + loop.seeds)
    both = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
    init_keys, row_keys = both[:, 0], both[:, 1]
    return (init_keys, row_keys) if loop.seeds > 1 else (init_keys[0], row_keys[0])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initial(
    agent: Agent,
    config: Any,
    many: bool,
    keys: jax.Array,
    example: Batch,
    normaliser: Normaliser | None,
) -> State:
    def one(key: jax.Array) -> State:
        return agent.init(config, key, example, normaliser)

    return jax.vmap(one)(keys) if many else one(keys)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _draw(keys: jax.Array, step: jax.Array, size: int, rows: int) -> jax.Array:
    """Row numbers ([S,] B) of update `step`."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(key, step), (rows,), 0, size)

    return jax.vmap(one)(keys) if keys.ndim else one(keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _dispatch(
    agent: Agent,
    config: Any,
    rows: int,
    many: bool,
    state: State,
    keys: jax.Array,
    numbers: jax.Array,
    data: tuple[Batch | None, Batch | None],
) -> tuple[State, Metrics, jax.Array]:
    """Updates `numbers` (K,). Metrics (K, [S]); and whether the last state is finite."""
    resident, gathered = data

    def update(carry: State, batch: Batch) -> tuple[State, Metrics]:
        return agent.update(config, carry, batch)

    one = jax.vmap(update) if many else update

    def body(carry: State, inputs: tuple[jax.Array, Batch | None]) -> tuple[State, Metrics]:
        number, batch = inputs
        if resident is not None:
            chosen = _draw(keys, number, len(resident["rewards"]), rows)
            batch = _at(resident, chosen)
        assert batch is not None
        return one(carry, batch)

    state, metrics = jax.lax.scan(body, state, (numbers, gathered))
    return state, metrics, optimise.all_finite(state)


def _is_stack(value: Any) -> bool:
    return isinstance(value, FrameStack)


def _at(data: Any, rows: Any, convert: Callable[[Any], Any] = lambda part: part) -> Any:
    """The given rows of every array, each put through `convert`; frames are stacked here."""
    return jax.tree.map(lambda part: convert(part[rows]), data, is_leaf=_is_stack)


class _Source:
    """The data, on the device or gathered for each dispatch; the same rows either way."""

    def __init__(self, data: Mapping[str, np.ndarray], loop: OfflineLoop, rows: int):
        self.data = data
        self.rows = rows
        self.keys = _keys(loop)[1]
        self.size = len(data["rewards"])
        # Stacks of frames before and after a step are of the same frames.
        leaves = {id(leaf): leaf for leaf in jax.tree.leaves(data)}
        self._resident: Batch | None = None
        if sum(leaf.nbytes for leaf in leaves.values()) <= loop.device_bytes:
            moved = {number: jnp.asarray(leaf) for number, leaf in leaves.items()}
            self._resident = jax.tree.map(lambda leaf: moved[id(leaf)], data)

    def batches(self, numbers: jax.Array) -> tuple[Batch | None, Batch | None]:
        """(all data, None) or (None, the batches of updates `numbers` (K, [S,] B, ...))."""
        if self._resident is not None:
            return self._resident, None
        return None, self.gather(np.stack([self.chosen(int(number)) for number in numbers]))

    def gather(self, rows: np.ndarray) -> Batch:
        """Copies of the rows of given numbers (...)."""
        gathered: Batch = _at(self.data, rows, jnp.asarray)
        return gathered

    def chosen(self, step: int) -> np.ndarray:
        """Row numbers ([S,] B) of update `step`."""
        return np.asarray(_draw(self.keys, jnp.asarray(step), self.size, self.rows))


def _rows(
    agent: Agent,
    config: Any,
    transitions: Transitions,
    loop: OfflineLoop,
    teacher: Controller | None,
) -> dict[str, np.ndarray]:
    """What the agent reads: with what it needs, and in n-step rows or chunks if so asked."""
    check_offline(agent)
    spanning = checks.EPISODES if max(loop.n_step, loop.chunk, loop.frames) > 1 else ()
    checks.check_transitions(agent, config, transitions, (*checks.COMMON, *spanning))
    supplied: dict[str, Arrays] = dict(supply(agent, config, transitions, teacher))
    if loop.frames > 1:
        supplied = stack_frames(supplied, loop.frames)
    if loop.chunk > 1:
        short = agent.CAPABILITIES.short_chunks
        supplied = chunk(supplied, loop.chunk, config.discount, short=short)
    elif loop.n_step > 1:
        supplied = n_step(supplied, loop.n_step, config.discount)
    rows = {name: readable(value) for name, value in batch_of(supplied).items()}
    check_observations(agent, rows["observations"])
    return rows


def _means(stacked: Metrics, loop: OfflineLoop) -> dict[str, float]:
    """Means over the updates; with several seeds over all of them, and for each."""
    out: dict[str, float] = {}
    for name, value in sorted(jax.device_get(stacked).items()):
        mean = np.asarray(value, np.float64).mean(axis=0)
        out[name] = float(mean.mean())
        if loop.seeds > 1:
            for index in range(loop.seeds):
                out[f"seed{loop.seed + index}/{name}"] = float(mean[index])
    return out


def _probed(
    agent: Agent, config: Any, state: State, probe: probing.Probe | None, loop: OfflineLoop
) -> dict[str, float]:
    """The probe's metrics, without those that are not finite.

    They are not for the probe to report: the guard names the update and the rows they come from.
    """
    measured = probing.measure(agent, config, state, probe)
    values = _means({name: value[None] for name, value in measured.items()}, loop)
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _guard(
    step: int, stacked: Mapping[str, np.ndarray], finite: np.ndarray, source: _Source
) -> None:
    """Raise with the first update, the terms and the rows, if anything is not finite."""
    names = sorted(stacked)
    values = np.stack([np.asarray(stacked[name]) for name in names], axis=1)
    values = values.reshape(*values.shape[:2], -1)  # (K, M, S)
    bad = ~np.isfinite(values)
    if not bad.any() and finite:
        return
    steps = np.flatnonzero(bad.any(axis=(1, 2)))
    at = int(steps[0]) if len(steps) else len(values) - 1
    terms = [name for name, wrong in zip(names, bad[at].any(axis=1), strict=True) if wrong]
    chosen = source.chosen(step + at)
    if chosen.ndim == 2:
        seed = int(np.argmax(bad[at].any(axis=0)))
        chosen, terms = chosen[seed], [f"{term} of seed {seed}" for term in terms]
    batch = _at(source.data, chosen)
    raise NonFiniteLoss(step + at, terms or ["parameters"], chosen, batch)
