"""A ring buffer of transitions in NumPy, for online learning and for mixing in offline data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robo_rl.data.episodes import Arrays, Episode
from robo_rl.data.returns import monte_carlo_returns, window_returns
from robo_rl.data.transitions import Transitions, flatten_episodes, leaves, take

_REQUIRED = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
)
_DERIVED = ("masks", "episode_id", "discounts", "next_actions")
_REDRAWS = 20


class ReplayBuffer:
    """The newest `capacity` transitions of one stream of experience.

    n-step windows follow the stream: they end at `terminated` (mask 0), at `truncated` (the state
    after it is bootstrapped), at `cut`, and at the newest transition. Not for interleaved
    environments: use one buffer each (`robo_rl.data.streams`), or `add_episode`.
    """

    def __init__(self, capacity: int, example_transition: Mapping[str, Any]):
        """`example_transition` is one unbatched transition; its keys, shapes and types are kept.

        Besides the required keys it may name others (`returns`, `constraint`, ...), which are
        stored and sampled as they are. `masks` are derived and not stored.
        """
        if capacity < 1:
            raise ValueError(f"ReplayBuffer: capacity must be >= 1, got {capacity}")
        missing = [key for key in _REQUIRED if key not in example_transition]
        if missing:
            raise ValueError(f"ReplayBuffer: example_transition lacks {missing}")
        self.capacity = capacity
        self._data: Transitions = {
            key: _allocate(capacity, key, value)
            for key, value in example_transition.items()
            if key not in _DERIVED
        }
        self._stream = np.zeros(capacity, np.int64)  # rows of one value follow each other in time
        self._current_stream = 0
        self._head = 0  # where the next transition goes
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what is stored."""
        return tuple(self._data)

    @classmethod
    def from_transitions(
        cls, transitions: Transitions, capacity: int | None = None
    ) -> "ReplayBuffer":
        """A buffer that holds N flat transitions (with their `episode_id`)."""
        rows = len(np.asarray(transitions["rewards"]))
        if capacity is not None and capacity < rows:
            raise ValueError(
                f"ReplayBuffer.from_transitions: capacity {capacity} is less than the {rows} rows"
            )
        buffer = cls(capacity or rows, take_row(transitions, 0))
        for key, value in buffer._data.items():
            _assign(value, slice(0, rows), transitions[key])
        ids = np.asarray(transitions["episode_id"])
        buffer._stream[:rows] = np.cumsum(np.concatenate([[False], ids[1:] != ids[:-1]]))
        buffer._current_stream = int(buffer._stream[rows - 1]) + 1
        buffer._size, buffer._head = rows, rows % buffer.capacity
        return buffer

    def add(self, transition: Mapping[str, Any]) -> None:
        """Append one transition; it must follow the one before unless that ended an episode."""
        row = self._head
        for key, value in self._data.items():
            if key not in transition:
                raise ValueError(f"ReplayBuffer.add: the transition lacks {key!r}")
            _check_shape(key, value, transition[key])
        for key, value in self._data.items():
            _assign(value, row, transition[key])
        self._stream[row] = self._current_stream
        self._head = (row + 1) % self.capacity
        self._size = min(self._size + 1, self.capacity)
        if transition["terminated"] or transition["truncated"]:
            self.cut()

    def cut(self) -> None:
        """The next transition does not follow the last one, although nothing ended: an
        environment was reset by hand, a robot was stopped, a run was resumed."""
        self._current_stream += 1

    def fill_episode(self, key: str, value: Any) -> None:
        """Write into `key`, in every row of the newest episode, what only its end tells.

        One value for all rows, or (T, ...) in the order of the steps; of those that the ring has
        overwritten, nothing is kept.
        """
        newest = self._stream[self._head - 1]
        count = int(np.count_nonzero(self._stream[: self._size] == newest))
        rows = (self._head - count + np.arange(count)) % self.capacity
        _assign(self._data[key], rows, value if np.ndim(value) == 0 else value[-count:])

    def add_episode(self, episode: Episode, discount: float | None = None) -> None:
        """Append a whole episode. With `discount`, its Monte-Carlo returns fill `returns`."""
        flat = flatten_episodes([episode])
        if discount is not None:
            flat["returns"] = monte_carlo_returns(
                np.asarray(flat["rewards"]), episode.terminations, episode.truncations, discount
            )
        lacking = [key for key in self._data if key not in flat]
        if lacking:
            raise ValueError(f"ReplayBuffer.add_episode: the episode lacks {lacking}")
        for key, value in self._data.items():
            _check_shape(key, value, take_row(flat, 0)[key])
        kept = min(len(episode), self.capacity)  # of a longer episode, the end stays
        rows = (self._head + np.arange(kept)) % self.capacity
        self.cut()
        for key, value in self._data.items():
            _assign(value, rows, take(flat[key], np.arange(len(episode) - kept, len(episode))))
        self._stream[rows] = self._current_stream
        self._head = (self._head + kept) % self.capacity
        self._size = min(self._size + kept, self.capacity)
        self.cut()

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        n_step: int = 1,
        discount: float = 0.99,
        chunk: int = 1,
        next_actions: bool = False,
        short: bool = False,
    ) -> Transitions:
        """A batch (B, ...) drawn uniformly with replacement.

        Adds `masks` (B,) = 1 - terminated and `discounts` (B,), the factor on the bootstrap:
        target = rewards + discounts * masks * Q(next_observations). With `chunk` = H > 1 the rows
        are those of `robo_rl.data.chunks`: `actions` (B, H * A), and only whole windows are drawn;
        with `short`, any, and `valid` (B, H) says what of them there is.
        With `next_actions`, adds what was done at `next_observations`; the row's own where the
        stream stops.
        """
        return sample_from([self], rng, batch, n_step, discount, chunk, next_actions, short)

    def newest(self, rows: int, discount: float = 0.99, next_actions: bool = False) -> Transitions:
        """The newest `rows` transitions in the order of time, as `sample` gives them.

        Adds `ends` (rows,): 1 where the transition in the next row does not follow this one, and
        at the newest.
        """
        if not 1 <= rows <= self._size:
            raise ValueError(
                f"ReplayBuffer.newest: rows must be in [1, {self._size}], the number that is held, "
                f"got {rows}"
            )
        at = (self._head - rows + np.arange(rows)) % self.capacity
        out = self._gather(at, 1, discount, next_actions)
        out["ends"] = self._stops(at).astype(np.float32)
        return out

    def gather(
        self,
        rows: np.ndarray,
        n_step: int = 1,
        discount: float = 0.99,
        chunk: int = 1,
        next_actions: bool = False,
        short: bool = False,
    ) -> Transitions:
        """The rows (B,), numbered by where they are held, as `sample` gives them."""
        if chunk == 1:
            return self._gather(rows, n_step, discount, next_actions)
        out = self._gather(rows, chunk, discount)
        steps = np.tile(np.arange(chunk), (len(rows), 1))
        if short:
            unbroken = ~self._breaks(self._windows(rows, chunk - 1))
            held = 1 + np.cumprod(unbroken, axis=1).sum(axis=1)  # steps before the stream breaks
            out["valid"] = (steps < held[:, None]).astype(np.float32)
            steps = np.minimum(steps, held[:, None] - 1)
        window = (rows[:, None] + steps) % self.capacity
        out["actions"] = np.asarray(self._data["actions"])[window].reshape(len(rows), -1)
        return out

    def starts(self, rows: np.ndarray, chunk: int) -> np.ndarray:
        """Which of the rows (B,) are followed by the chunk - 1 others of a whole chunk."""
        starts: np.ndarray = ~np.any(self._breaks(self._windows(rows, chunk - 1)), axis=1)
        return starts

    def _windows(self, rows: np.ndarray, steps: int) -> np.ndarray:
        window: np.ndarray = (rows[:, None] + np.arange(steps)) % self.capacity
        return window

    def _gather(
        self, rows: np.ndarray, n_step: int, discount: float, next_actions: bool = False
    ) -> Transitions:
        out = {key: take(value, rows) for key, value in self._data.items()}
        far = rows
        if n_step == 1:
            discounts = np.full(len(rows), discount, np.float32)
        else:
            window = self._windows(rows, n_step)
            rewards = np.asarray(self._data["rewards"])[window]
            sums, last, discounts = window_returns(rewards, self._stops(window), discount)
            far = window[np.arange(len(rows)), last]
            for key in ("next_observations", "terminated", "truncated"):
                out[key] = take(self._data[key], far)
            out["rewards"] = sums
        if next_actions:
            stops = self._stops(far[:, None])[:, 0]
            following = np.where(stops, far, (far + 1) % self.capacity)
            out["next_actions"] = take(self._data["actions"], following)
        out["masks"] = 1.0 - np.asarray(out["terminated"]).astype(np.float32)
        out["discounts"] = discounts
        return out

    def _stops(self, window: np.ndarray) -> np.ndarray:
        """Where (B, n) no value reaches across to the transition in the next row."""
        stops: np.ndarray = self._breaks(window) | np.asarray(self._data["terminated"])[window]
        return stops

    def _breaks(self, window: np.ndarray) -> np.ndarray:
        """Where (B, n) the transition in the next row does not follow this one in time."""
        following = (window + 1) % self.capacity
        breaks: np.ndarray = np.asarray(self._data["truncated"])[window]
        breaks = breaks | (self._stream[following] != self._stream[window])
        # The row after the newest holds the oldest, or nothing yet.
        breaks |= following == self._head
        return breaks

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything, as a flat dict of arrays: filled rows, stream numbers, position."""
        out = {
            "stream": self._stream[: self._size].copy(),
            "position": np.array(
                [self.capacity, self._size, self._head, self._current_stream], np.int64
            ),
        }
        for name, array in leaves(self._data).items():
            out[f"data/{name}"] = array[: self._size].copy()
        return out

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a `state_dict` exactly; later samples equal those of the saved buffer."""
        capacity, size, head, current = (int(value) for value in state["position"])
        if capacity != self.capacity:
            raise ValueError(
                f"ReplayBuffer.load_state_dict: saved with capacity {capacity}, "
                f"this buffer has {self.capacity}"
            )
        held = leaves(self._data)
        saved = {key.removeprefix("data/"): v for key, v in state.items() if key.startswith("data")}
        if saved.keys() != held.keys():
            raise ValueError(
                "ReplayBuffer.load_state_dict: expected the arrays "
                f"{sorted(held)}, got {sorted(saved)}"
            )
        for name, array in held.items():
            expected = (size, *array.shape[1:])
            if saved[name].shape != expected or saved[name].dtype != array.dtype:
                raise ValueError(
                    f"ReplayBuffer.load_state_dict: {name} must be {array.dtype} {expected}, "
                    f"got {saved[name].dtype} {saved[name].shape}"
                )
        for name, array in held.items():
            array[:size] = saved[name]
        self._stream[:size] = state["stream"]
        self._size, self._head, self._current_stream = size, head, current


def sample_from(
    buffers: Sequence[ReplayBuffer],
    rng: np.random.Generator,
    batch: int,
    n_step: int = 1,
    discount: float = 0.99,
    chunk: int = 1,
    next_actions: bool = False,
    short: bool = False,
) -> Transitions:
    """`ReplayBuffer.sample` of several buffers as if they were one: uniform over all their rows."""
    ends = np.cumsum([len(buffer) for buffer in buffers])
    if not ends[-1]:
        raise ValueError("ReplayBuffer.sample: the buffer is empty; add transitions first")
    for name, value in (("n_step", n_step), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"ReplayBuffer.sample: {name} must be >= 1, got {value}")
    if chunk > 1 and (n_step > 1 or next_actions):
        raise ValueError(
            "ReplayBuffer.sample: a chunk is its own n-step window, without next_actions; "
            "leave n_step at 1"
        )
    rows = _draw(buffers, ends, rng, batch, 1 if short else chunk)
    places = _places(ends, rows)
    parts = [
        buffers[n].gather(at, n_step, discount, chunk, next_actions, short) for n, at, _ in places
    ]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([where for *_, where in places]))
    return {key: take(value, order) for key, value in concatenate(parts).items()}


def _draw(
    buffers: Sequence[ReplayBuffer],
    ends: np.ndarray,
    rng: np.random.Generator,
    batch: int,
    chunk: int,
) -> np.ndarray:
    """Rows (B,), numbered through all buffers, uniform among those that start a whole chunk."""
    size = int(ends[-1])
    rows = rng.integers(size, size=batch)
    if chunk == 1:
        return rows

    def cut(rows: np.ndarray) -> np.ndarray:
        out = np.empty(len(rows), bool)
        for n, at, where in _places(ends, rows):
            out[where] = ~buffers[n].starts(at, chunk)
        return out

    for _ in range(_REDRAWS):
        short = cut(rows)
        if not short.any():
            return rows
        rows[short] = rng.integers(size, size=int(short.sum()))
    # Hardly any row starts a whole chunk: choose from those that do.
    every = np.arange(size)
    whole = every[~cut(every)]
    if not len(whole):
        raise ValueError(
            f"ReplayBuffer.sample: no {chunk} transitions follow each other; "
            "add longer episodes or use a shorter chunk"
        )
    drawn: np.ndarray = whole[rng.integers(len(whole), size=batch)]
    return drawn


def _places(ends: np.ndarray, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Of every buffer that holds some of the rows (B,): its number, which of its own rows they
    are, and where they stand among the B. `ends` (N,) adds up the buffers' sizes."""
    if len(ends) == 1:
        return [(0, rows, np.arange(len(rows)))]
    owner = np.searchsorted(ends, rows, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    held = [(n, np.flatnonzero(owner == n)) for n in np.unique(owner).tolist()]
    return [(n, rows[where] - starts[n], where) for n, where in held]


def symmetric_sample(
    rng: np.random.Generator,
    batch: int,
    offline: ReplayBuffer,
    online: ReplayBuffer,
    n_step: int = 1,
    discount: float = 0.99,
) -> Transitions:
    """Half of each, interleaved (offline first), as RLPD does. Keys that both hold.

    Interleaved so that every contiguous part of the batch is mixed too.
    """
    if batch < 2 or batch % 2:
        raise ValueError(f"symmetric_sample: batch must be even and >= 2, got {batch}")
    halves = [buffer.sample(rng, batch // 2, n_step, discount) for buffer in (offline, online)]
    return {
        key: _interleave(key, halves[0][key], halves[1][key])
        for key in halves[0]
        if key in halves[1]
    }


def take_row(transitions: Mapping[str, Arrays], row: int) -> dict[str, Any]:
    """One transition of flat arrays."""
    return {
        key: {k: v[row] for k, v in value.items()} if isinstance(value, Mapping) else value[row]
        for key, value in transitions.items()
    }


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """The rows of all parts behind each other; every part has the same keys."""
    return {key: _joined([part[key] for part in parts]) for key in parts[0]}


def _joined(values: Sequence[Arrays]) -> Arrays:
    if isinstance(values[0], Mapping):
        return {k: np.concatenate([value[k] for value in values]) for k in values[0]}
    return np.concatenate([np.asarray(value) for value in values])


def _interleave(name: str, first: Arrays, second: Arrays) -> Arrays:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {k: np.asarray(_interleave(f"{name}/{k}", first[k], second[k])) for k in first}
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(
            f"symmetric_sample: {name} is {first.shape[1:]} offline and {second.shape[1:]} online"
        )
    out = np.empty((2 * len(first), *first.shape[1:]), np.result_type(first, second))
    out[0::2], out[1::2] = first, second
    return out


def _allocate(capacity: int, name: str, example: Any) -> Arrays:
    if isinstance(example, Mapping):
        return {k: np.asarray(_allocate(capacity, f"{name}/{k}", v)) for k, v in example.items()}
    array = np.asarray(example)
    dtype: Any = array.dtype
    if name in ("terminated", "truncated"):
        dtype = np.bool_
    elif array.dtype == np.float64:
        dtype = np.float32
    return np.zeros((capacity, *array.shape), dtype)


def _check_shape(name: str, store: Arrays, value: Any) -> None:
    if isinstance(store, Mapping):
        if not isinstance(value, Mapping) or store.keys() - value.keys():
            raise ValueError(f"ReplayBuffer.add: {name} must be a dict with {sorted(store)}")
        for key, array in store.items():
            _check_shape(f"{name}/{key}", array, value[key])
    elif np.shape(value) != store.shape[1:]:
        raise ValueError(
            f"ReplayBuffer.add: {name} must be {store.shape[1:]}, got {np.shape(value)}"
        )


def _assign(store: Arrays, rows: Any, value: Any) -> None:
    if isinstance(store, Mapping):
        for key, array in store.items():
            array[rows] = value[key]
    else:
        store[rows] = value
