"""Replay of environments that run side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robo_rl.data.replay import ReplayBuffer, concatenate, sample_from, take_row
from robo_rl.data.transitions import Transitions, take

_FRESH = "fresh"


class Streams:
    """One `ReplayBuffer` each of E environments, read as if they were one.

    With E = 1 draws and `state_dict` are those of the one buffer.
    """

    def __init__(self, buffers: Sequence[ReplayBuffer]):
        self._buffers = tuple(buffers)
        self._fresh = np.zeros(len(buffers), np.int64)  # rows added since the last `take_rollout`

    @classmethod
    def from_transitions(cls, transitions: Transitions, count: int, capacity: int) -> "Streams":
        """E = `count` buffers that start with N flat transitions, in blocks of equal length.

        Where a block begins within an episode, the stream is cut.
        """
        if count == 1:
            return cls([ReplayBuffer.from_transitions(transitions, capacity)])
        buffers = []
        for rows in np.array_split(np.arange(len(np.asarray(transitions["rewards"]))), count):
            block = {key: take(value, rows) for key, value in transitions.items()}
            buffers.append(
                ReplayBuffer.from_transitions(block, capacity)
                if len(rows)
                else ReplayBuffer(capacity, take_row(transitions, 0))
            )
        return cls(buffers)

    def __len__(self) -> int:
        return sum(len(buffer) for buffer in self._buffers)

    def __getitem__(self, index: int) -> ReplayBuffer:
        """The buffer of one environment."""
        return self._buffers[index]

    @property
    def fresh(self) -> int:
        """Rows added since the last `take_rollout`."""
        return int(self._fresh.sum())

    def add(self, index: int, transition: Mapping[str, Any]) -> None:
        """Append one transition of environment `index`."""
        self._buffers[index].add(transition)
        self._fresh[index] += 1

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
        """As `ReplayBuffer.sample`, uniform over all rows, however many each environment has."""
        return sample_from(self._buffers, rng, batch, n_step, discount, chunk, next_actions, short)

    def take_rollout(
        self, rows: int, discount: float = 0.99, next_actions: bool = False
    ) -> Transitions:
        """The newest `rows` of those not taken yet, one environment's behind the other's.

        As `ReplayBuffer.newest` gives them, so that `ends` (rows,) marks the seams too. The shares
        are equal unless some environments rested. The oldest rows in excess are never taken.
        """
        if not 1 <= rows <= self.fresh:
            raise ValueError(
                f"Streams.take_rollout: rows must be in [1, {self.fresh}], the number that is "
                f"fresh, got {rows}"
            )
        shares = self._fresh.copy()
        while shares.sum() > rows:
            shares[np.argmax(shares)] -= 1
        self._fresh[:] = 0
        return concatenate(
            [
                buffer.newest(share, discount, next_actions)
                for buffer, share in zip(self._buffers, shares.tolist(), strict=True)
                if share
            ]
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything, as a flat dict of arrays; those of E > 1 buffers behind their numbers."""
        if len(self._buffers) == 1:
            return self._buffers[0].state_dict()
        states = enumerate(buffer.state_dict() for buffer in self._buffers)
        arrays = {f"{n}/{key}": value for n, state in states for key, value in state.items()}
        return {**arrays, _FRESH: self._fresh.copy()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a `state_dict` exactly; later draws equal those of the saved buffers."""
        saved, count = len(state.get(_FRESH, [0])), len(self._buffers)
        if saved != count:
            raise ValueError(
                f"Streams.load_state_dict: saved with {saved} environments, this run has {count}"
            )
        if count == 1:
            self._buffers[0].load_state_dict(state)
            # A ring of a rollout's length is at its first row again whenever one was taken.
            self._fresh[0] = state["position"][2]
            return
        for index, buffer in enumerate(self._buffers):
            prefix = f"{index}/"
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            buffer.load_state_dict(own)
        self._fresh[:] = state[_FRESH]
