"""Environments that can be put into a state, and which state a recorded observation shows."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

_PROBES = 6
_SAME = 1e-3  # what moved less did not depend on what was moved
_MOST_TOLD = 12  # numbers of the state that are found from an observation's sines and the like
_SOLVED = 2e-5  # observations are often kept as float32
_ITERATIONS, _TRIALS = 12, 6
_NUDGE = 1e-6
_LASTING = 1e-5


class CannotPutError(Exception):
    """The environment cannot be put into states; the text says why."""


Outcome = tuple[np.ndarray, float, bool]
"""Observation, reward, terminated."""


class Machine(Protocol):
    """An environment whose state can be set."""

    name: str
    rest: np.ndarray
    """(S,) a usual state."""
    period_s: float | None
    """Seconds that a step takes, where it says."""

    def put(self, state: np.ndarray) -> np.ndarray:
        """Set the state (S,); what it is then, as some numbers may be normalised."""

    def state(self) -> np.ndarray:
        """(S,) as it is now."""

    def observe(self) -> np.ndarray:
        """(O,) what it shows."""

    def act(self, action: np.ndarray) -> Outcome:
        """One step."""

    def cuts(self, shown: np.ndarray) -> np.ndarray:
        """(O,) the size beyond which a number is not shown; infinity for most."""


def machine_of(unwrapped: Any) -> Machine:
    """The environment as a machine. Raises CannotPutError where it is of no known kind."""
    hooks = ("set_state", "do_simulation", "_get_obs", "model")
    steppable = all(hasattr(unwrapped, name) for name in hooks)
    if steppable and list(inspect.signature(unwrapped.set_state).parameters) == ["qpos", "qvel"]:
        return _MuJoCo(unwrapped)
    state = getattr(unwrapped, "state", None)
    classic = type(unwrapped).__module__.startswith("gymnasium.envs.classic_control")
    if classic and isinstance(state, np.ndarray) and state.ndim == 1:
        return _Classic(unwrapped)
    raise CannotPutError(
        f"{type(unwrapped).__name__} does not go on from set_state(qpos, qvel) as Gymnasium's "
        "MuJoCo environments do"
    )


def of_state_alone(machine: Machine, actions: Any, rng: np.random.Generator) -> np.ndarray:
    """(O,) bool, numbers of the observation after a step that the same state, put, shows too.

    Contact forces hang on the solver, and places of bodies may be those of a moment before.
    """
    same = np.ones(len(machine.observe()), bool)
    for _ in range(_PROBES):
        machine.put(machine.rest + rng.uniform(-0.1, 0.1, len(machine.rest)))
        machine.act(rng.uniform(-0.3, 0.3, actions.shape))
        reached, state = machine.observe(), machine.state()
        machine.act(rng.uniform(-0.3, 0.3, actions.shape))
        machine.put(state)
        same &= np.isclose(machine.observe(), reached, atol=_LASTING, rtol=_LASTING)
    return same


@contextlib.contextmanager
def quiet_simulator() -> Iterator[None]:
    """Keep MuJoCo from writing a log file into the working folder where a state is impossible."""
    try:
        import mujoco
    except ImportError:  # then nothing here is of MuJoCo
        yield
        return
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


class _MuJoCo:
    """Gymnasium's own MuJoCo environments."""

    def __init__(self, env: Any):
        self._env = env
        self.name = type(env).__name__
        self.rest = np.concatenate([env.init_qpos, env.init_qvel]).astype(np.float64)
        self.period_s: float | None = float(env.dt)

    def put(self, state: np.ndarray) -> np.ndarray:
        nq = self._env.model.nq
        # Every step starts its solver anew, so that it does not matter which was taken before.
        self._env.data.qacc_warmstart[:] = 0.0
        self._env.set_state(state[:nq], state[nq:])
        return self.state()

    def state(self) -> np.ndarray:
        return np.concatenate([self._env.data.qpos, self._env.data.qvel])

    def observe(self) -> np.ndarray:
        return np.asarray(self._env._get_obs(), np.float64).reshape(-1)

    def act(self, action: np.ndarray) -> Outcome:
        observation, reward, terminated, _, _ = self._env.step(action)
        return np.asarray(observation, np.float64).reshape(-1), float(reward), bool(terminated)

    def cuts(self, shown: np.ndarray) -> np.ndarray:
        out = np.full(len(shown), np.inf)
        fast = self.rest.copy()
        fast[self._env.model.nq :] = 1e4
        state = self.put(fast)
        seen = self.observe()
        for number in np.flatnonzero(shown >= 0).tolist():
            if abs(seen[number]) < abs(state[shown[number]]) - 1.0:
                out[number] = abs(seen[number])
        self.put(self.rest)
        return out


class _Classic:
    """Gymnasium's classic control, whose state is an attribute."""

    def __init__(self, env: Any):
        self._env = env
        self.name = type(env).__name__
        self.rest = np.asarray(env.state, np.float64).copy()
        self.period_s: float | None = None

    def put(self, state: np.ndarray) -> np.ndarray:
        self._env.state = state.copy()
        return state

    def state(self) -> np.ndarray:
        return np.asarray(self._env.state, np.float64).copy()

    def observe(self) -> np.ndarray:
        hook = getattr(self._env, "_get_obs", None)
        return np.asarray(self._env.state if hook is None else hook(), np.float64).reshape(-1)

    def act(self, action: np.ndarray) -> Outcome:
        observation, reward, terminated, _, _ = self._env.step(action)
        return np.asarray(observation, np.float64).reshape(-1), float(reward), bool(terminated)

    def cuts(self, shown: np.ndarray) -> np.ndarray:
        return np.full(len(shown), np.inf)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What an observation (O,) tells of a machine's state (S,)."""

    machine: Machine
    state_of: np.ndarray  # (O,) the number of the state that is repeated; -1 for none
    told: np.ndarray  # numbers of the state that others follow from: sines, places of a tool
    followed: np.ndarray  # (O,) bool, numbers that follow from the state
    judged: np.ndarray  # (O,) bool, those of them that what does not show moves not at once
    pays: bool  # whether it has none in the reward either
    cut: np.ndarray  # (O,)

    def state(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """The state that shows this; None where none was found."""
        known = self.state_of >= 0
        state = self.machine.rest.copy()
        state[self.state_of[known]] = observation[known]
        if not len(self.told):
            return state
        for trial in range(_TRIALS):
            if trial:
                state[self.told] = rng.uniform(-np.pi, np.pi, len(self.told))
            if self._solve(state, observation):
                return self._unwound(state, observation)
        return None

    def _unwound(self, state: np.ndarray, observation: np.ndarray) -> np.ndarray:
        """Angles without whole turns, as far as that shows the same: joints have limits."""
        rest = self.machine.rest[self.told]
        turns = 2.0 * np.pi * np.round((state[self.told] - rest) / (2.0 * np.pi))
        nearer = state.copy()
        nearer[self.told] -= turns
        return nearer if turns.any() and self._solve(nearer, observation) else state

    def turned(self, state: np.ndarray) -> list[np.ndarray]:
        """States a whole turn away, which show the same where an angle shows by its sine."""
        out = []
        for number in self.told.tolist():
            for turn in (2.0 * np.pi, -2.0 * np.pi):
                other = state.copy()
                other[number] += turn
                out.append(other)
        return out

    def _solve(self, state: np.ndarray, observation: np.ndarray) -> bool:
        """Newton's way to the state, in place; whether it led there."""
        rows = self.followed & (self.state_of < 0)
        for _ in range(_ITERATIONS):
            off = observation[rows] - self._seen(state)[rows]
            if (abs(off) <= _SOLVED * (1.0 + abs(observation[rows]))).all():
                return True
            slopes = np.stack([self._slope(state, one)[rows] for one in self.told], axis=1)
            step = np.linalg.lstsq(slopes, off, rcond=1e-6)[0]
            state[self.told] += step.clip(-0.7, 0.7)
        return False

    def _seen(self, state: np.ndarray) -> np.ndarray:
        self.machine.put(state)
        return self.machine.observe()

    def _slope(self, state: np.ndarray, number: int) -> np.ndarray:
        moved = state.copy()
        moved[number] += _NUDGE
        here = self._seen(state)
        return np.asarray((self._seen(moved) - here) / _NUDGE)


def shown_by(machine: Machine, actions: Any, rng: np.random.Generator) -> Shown:
    """Find out by putting states at random what observations tell of them.

    Raises CannotPutError where they tell too little.
    """
    states = [machine.rest + rng.uniform(-0.1, 0.1, len(machine.rest)) for _ in range(_PROBES)]
    put, seen = [], []
    for state in states:
        # Quaternions are brought to unit length; what was put is what stands there now.
        put.append(machine.put(state))
        seen.append(machine.observe())
    # Observations may be float32.
    same = np.isclose(np.array(seen)[:, :, None], np.array(put)[:, None], atol=1e-7, rtol=1e-6)
    equal = same.all(axis=0)
    state_of = np.where(equal.any(axis=1), equal.argmax(axis=1), -1)
    hidden = np.setdiff1d(np.arange(len(machine.rest)), state_of)
    rows = {number: _rows_moved(machine, states, number) for number in hidden.tolist()}
    told = np.array([number for number in rows if rows[number].any()], np.int64)
    unseen = np.array([number for number in rows if not rows[number].any()], np.int64)
    followed = state_of >= 0
    for number in told.tolist():
        followed |= rows[number]
    moved, pays = _mattering(machine, states, unseen, actions, rng)
    judged = followed & ~moved
    if len(told) > _MOST_TOLD or judged.sum() < 0.5 * followed.sum() or not judged.any():
        raise CannotPutError(
            f"{len(hidden)} numbers of the state of {machine.name} do not show in observations"
        )
    return Shown(machine, state_of, told, followed, judged, pays, machine.cuts(state_of))


def _rows_moved(machine: Machine, states: list[np.ndarray], number: int) -> np.ndarray:
    """(O,) bool, numbers of the observation that change with one of the state."""
    out = np.zeros(0, bool)
    for state in states:
        machine.put(state)
        here = machine.observe()
        moved = state.copy()
        moved[number] += 0.3
        machine.put(moved)
        change = abs(machine.observe() - here) > _SAME
        out = change if not len(out) else out | change
    return out


def _mattering(
    machine: Machine,
    states: list[np.ndarray],
    unseen: np.ndarray,
    actions: Any,
    rng: np.random.Generator,
) -> tuple[np.ndarray, bool]:
    """Which numbers (O,) of the next observation change with what does not show, and whether the
    reward stays; how far a walker has come changes neither."""
    moved, pays = np.zeros(len(machine.observe()), bool), True
    for state in states if len(unseen) else []:
        action = rng.uniform(-0.3, 0.3, actions.shape)
        reached = []
        for shift in (0.0, 0.3):
            other = state.copy()
            other[unseen] += shift
            machine.put(other)
            reached.append(machine.act(action))
        moved |= abs(reached[0][0] - reached[1][0]) > _SAME
        pays &= abs(reached[0][1] - reached[1][1]) <= _SAME * (1.0 + abs(reached[0][1]))
    return moved, pays
