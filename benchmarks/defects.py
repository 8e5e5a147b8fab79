"""Defects that recordings have in practice, to be put into a good set on purpose.

Those of meaning keep every array in its place and its type: steps late, units mixed, clocks
apart. Those of form are what a broken writer or disk leaves. `half` of a set means every second
episode, as when two recorders are merged.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import Provenance

Change = Callable[[Episode], Episode]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a dataset says besides its episodes."""

    episodes: Sequence[Episode]
    env: Any
    provenance: Provenance | None


@dataclasses.dataclass(frozen=True)
class Defect:
    """One way to spoil a dataset; `spoil` gives None where the set lacks what it would spoil."""

    name: str
    spoil: Callable[[Setting], Setting | None]


def _each(change: Change) -> Callable[[Setting], Setting | None]:
    return lambda good: dataclasses.replace(good, episodes=[change(e) for e in good.episodes])


def _half(change: Change) -> Callable[[Setting], Setting | None]:
    return lambda good: dataclasses.replace(
        good, episodes=[change(e) if i % 2 else e for i, e in enumerate(good.episodes)]
    )


def _nth(every: int, change: Change) -> Callable[[Setting], Setting | None]:
    return lambda good: dataclasses.replace(
        good, episodes=[e if i % every else change(e) for i, e in enumerate(good.episodes)]
    )


def _some(number: int, change: Change) -> Callable[[Setting], Setting | None]:
    return lambda good: dataclasses.replace(
        good, episodes=[change(e) if i == number else e for i, e in enumerate(good.episodes)]
    )


def _added(copies: Callable[[Sequence[Episode]], list[Episode]]) -> Callable[[Setting], Setting]:
    return lambda good: dataclasses.replace(good, episodes=[*good.episodes, *copies(good.episodes)])


def _states(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def act(episode: Episode) -> Episode:
        assert isinstance(episode.observations, np.ndarray)
        rows = episode.observations
        changed = change(rows.copy()).astype(rows.dtype)
        return dataclasses.replace(episode, observations=changed)

    return act


def _actions(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def act(episode: Episode) -> Episode:
        changed = change(episode.actions.copy()).astype(episode.actions.dtype)
        return dataclasses.replace(episode, actions=changed)

    return act


def _rewards(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda e: dataclasses.replace(e, rewards=change(e.rewards.copy()))


def _info(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda e: dataclasses.replace(
        e, infos={**e.infos, name: change(np.array(e.infos[name]))}
    )


def _needs(info: str, spoil: Callable[[Setting], Setting | None]) -> Any:
    return lambda good: spoil(good) if info in good.episodes[0].infos else None


def _rows_taken(episode: Episode, rows: np.ndarray) -> Episode:
    """Every state array by rows (T + 1,), steps as they are."""
    assert isinstance(episode.observations, np.ndarray)
    return dataclasses.replace(
        episode,
        observations=episode.observations[rows],
        infos={name: array[rows] for name, array in episode.infos.items()},
    )


def _steps_kept(episode: Episode, kept: np.ndarray) -> Episode:
    """Only some steps (K,), with the states before them and the last one; the end stays."""
    out = _rows_taken(episode, np.append(kept, len(episode)))
    last = np.append(kept[:-1], len(episode) - 1)
    return dataclasses.replace(
        out,
        actions=episode.actions[kept],
        rewards=episode.rewards[kept],
        terminations=episode.terminations[last],
        truncations=episode.truncations[last],
    )


def _beginning(episode: Episode) -> Episode:
    out = episode.span(0, len(episode) - 2)
    return dataclasses.replace(out, truncations=np.arange(len(out)) == len(out) - 1)


def _swap(array: np.ndarray) -> np.ndarray:
    array[:, [0, 1]] = array[:, [1, 0]]
    return array


def _scaled(columns: slice, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def act(array: np.ndarray) -> np.ndarray:
        array[:, columns] *= factor
        return array

    return act


def _stuck(array: np.ndarray) -> np.ndarray:
    array[:, 3] = 0.0
    return array


def _set(array: np.ndarray, value: float) -> np.ndarray:
    array[:, 3] = value
    return array


def _stuck_halfway(array: np.ndarray) -> np.ndarray:
    array[len(array) // 2 :, 3] = array[len(array) // 2, 3]
    return array


def _marked(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    array[rng.random(len(array)) < 0.2, 3] = -999.0
    return array


def _blank_first(array: np.ndarray) -> np.ndarray:
    array[0] = 0.0
    return array


def _prize(rewards: np.ndarray) -> np.ndarray:
    rewards = rewards.copy()
    rewards[len(rewards) // 2] = 1e6
    return rewards


def _frozen(array: np.ndarray) -> np.ndarray:
    array[len(array) // 2 :] = array[len(array) // 2]
    return array


def _quaternion_order(array: np.ndarray) -> np.ndarray:
    array[:, 22:26] = array[:, [23, 24, 25, 22]]
    return array


def _shuffled(episode: Episode, rng: np.random.Generator) -> Episode:
    order = rng.permutation(len(episode))
    out = _rows_taken(episode, np.append(order, len(episode)))
    return dataclasses.replace(out, actions=episode.actions[order], rewards=episode.rewards[order])


def _stale(episode: Episode) -> Episode:
    rows = np.arange(len(episode) + 1)
    return _rows_taken(episode, rows - (rows % 3 == 1))


def _spikes(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(array.shape) < 5e-4
    return array + hit * rng.choice([-50.0, 50.0], array.shape)


def _dropped(episode: Episode, rng: np.random.Generator) -> Episode:
    kept = rng.random(len(episode)) > 0.2
    kept[0] = True
    return _steps_kept(episode, np.flatnonzero(kept))


def _timed_out(good: Setting) -> Setting | None:
    """Nothing to spoil where nothing ends by time."""
    cut = any(e.truncations.any() for e in good.episodes)
    return _each(_timed_out_as_ended)(good) if cut else None


def _timed_out_as_ended(episode: Episode) -> Episode:
    ends = episode.terminations | episode.truncations
    return dataclasses.replace(episode, terminations=ends, truncations=np.zeros_like(ends))


def _never(good: Setting) -> Setting | None:
    """Nothing to spoil where nothing ends but by time."""
    ends = any(e.terminations.any() for e in good.episodes)
    return _each(_never_ended)(good) if ends else None


def _never_ended(episode: Episode) -> Episode:
    ends = episode.terminations | episode.truncations
    return dataclasses.replace(episode, terminations=np.zeros_like(ends), truncations=ends)


def _merged(good: Setting) -> Setting:
    pairs = zip(good.episodes[::2], good.episodes[1::2], strict=False)
    return dataclasses.replace(good, episodes=[_glued(one, other) for one, other in pairs])


def _glued(one: Episode, other: Episode) -> Episode:
    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b])

    assert isinstance(one.observations, np.ndarray)
    assert isinstance(other.observations, np.ndarray)
    none = np.zeros(len(one), bool)
    return Episode(
        join(one.observations[:-1], other.observations),
        join(one.actions, other.actions),
        join(one.rewards, other.rewards),
        join(none, other.terminations),
        join(none, other.truncations),
        {name: join(array[:-1], other.infos[name]) for name, array in one.infos.items()},
    )


def _others_observations(good: Setting) -> Setting:
    episodes = list(good.episodes)
    for index in range(1, len(episodes) - 1, 2):
        other, own = good.episodes[index + 1].observations, good.episodes[index].observations
        assert isinstance(other, np.ndarray)
        assert isinstance(own, np.ndarray)
        episodes[index] = dataclasses.replace(
            episodes[index], observations=np.resize(other, own.shape)
        )
    return dataclasses.replace(good, episodes=episodes)


def _others_goals(good: Setting) -> Setting:
    episodes = []
    for index, episode in enumerate(good.episodes):
        other = good.episodes[(index + 1) % len(good.episodes)].infos["goal"][:1]
        goal = np.repeat(other, len(episode) + 1, axis=0)
        episodes.append(dataclasses.replace(episode, infos={**episode.infos, "goal": goal}))
    return dataclasses.replace(good, episodes=episodes)


def _others_actions(good: Setting) -> Setting:
    episodes = []
    for index, episode in enumerate(good.episodes):
        other = good.episodes[(index + 1) % len(good.episodes)].actions
        rows = np.arange(len(episode)) % len(other)
        episodes.append(dataclasses.replace(episode, actions=other[rows]))
    return dataclasses.replace(good, episodes=episodes)


def _single_steps(good: Setting) -> Setting:
    steps = [e.span(t, t + 1) for e in good.episodes[:6] for t in range(len(e) - 1)]
    ended = [dataclasses.replace(e, truncations=~e.terminations) for e in steps[:200]]
    return dataclasses.replace(good, episodes=ended)


def _other_env(good: Setting) -> Setting:
    own = str(getattr(good.env, "id", ""))
    other = "HalfCheetah-v5" if own.startswith("Walker2d") else "Walker2d-v5"
    cube = own.startswith("robo_rl/Cube")
    return dataclasses.replace(good, env="robo_rl/CubeDouble-v0" if cube else other)


def _said(**changes: Callable[[Provenance], Any]) -> Callable[[Setting], Setting | None]:
    def act(good: Setting) -> Setting | None:
        if good.provenance is None or not good.provenance.control_hz:
            return None
        values = {name: change(good.provenance) for name, change in changes.items()}
        return dataclasses.replace(good, provenance=dataclasses.replace(good.provenance, **values))

    return act


def _quaternions(good: Setting) -> Setting | None:
    cube = "target_cube" in good.episodes[0].infos
    return _half(_states(_quaternion_order))(good) if cube else None


def semantic(seed: int = 0) -> list[Defect]:
    """Defects of meaning."""
    rng = np.random.default_rng(seed)
    noisy = _states(lambda rows: rows + 1e-6 * rng.normal(size=rows.shape))
    table: dict[str, Callable[[Setting], Setting | None]] = {
        "actions one step late": _each(_actions(lambda a: np.concatenate([a[:1], a[:-1]]))),
        "actions one step early": _each(_actions(lambda a: np.concatenate([a[1:], a[-1:]]))),
        "two actions swapped, half": _half(_actions(_swap)),
        "first action's sign flipped, half": _half(_actions(_scaled(slice(0, 1), -1.0))),
        "last action (gripper) inverted, half": _half(_actions(_scaled(slice(-1, None), -1.0))),
        "six columns in degrees, half": _half(_states(_scaled(slice(0, 6), np.rad2deg(1.0)))),
        "six columns in degrees, all": _each(_states(_scaled(slice(0, 6), np.rad2deg(1.0)))),
        "two columns swapped, half": _half(_states(_swap)),
        "quaternion xyzw, half": _quaternions,
        "a fifth of the frames dropped": _each(lambda e: _dropped(e, rng)),
        "every third frame stale": _each(_stale),
        "one column stuck": _each(_states(_stuck)),
        "actions five times too large, cut": _each(_actions(lambda a: np.clip(5 * a, -1, 1))),
        "actions fifty times too small": _each(_actions(lambda a: 0.02 * a)),
        "rewards one step late": _each(_rewards(lambda r: np.concatenate([r[:1], r[:-1]]))),
        "rewards with the wrong sign": _each(_rewards(lambda r: -r)),
        "time limits marked terminated": _timed_out,
        "ends all marked truncated": _never,
        "NaN in infos": _needs("qvel", _each(_info("qvel", _with_nan))),
        "NaN in actions, half": _half(_actions(_with_nan)),
        "spikes of 50 in 0.05 % of the numbers": _each(_states(lambda o: _spikes(o, rng))),
        "half the episodes at half the rate": _half(
            lambda e: _steps_kept(e, np.arange(0, len(e), 2))
        ),
        "environment of another robot": _other_env,
        "goals of other episodes in infos": _needs("goal", _others_goals),
        "episodes twice": _added(lambda episodes: list(episodes[:5])),
        "episodes twice, with noise of 1e-6": _added(lambda es: [noisy(e) for e in es[:5]]),
        "beginnings of episodes twice": _added(lambda es: [_beginning(e) for e in es[:5]]),
        "success inverted": _needs("success", _each(_info("success", np.logical_not))),
        "steps shuffled": _each(lambda e: _shuffled(e, rng)),
        "states backwards in time, half": _half(
            lambda e: _rows_taken(e, np.arange(len(e), -1, -1))
        ),
        "pairs of episodes glued": _merged,
        "sensors freeze halfway, half": _half(_states(_frozen)),
        "control rate four times too high": _said(control_hz=lambda p: 4 * p.control_hz),
        "digest of another arm": _said(arm_digest=lambda _: "deadbeef"),
        "joints swapped in infos, half": _needs("qpos", _half(_info("qpos", _swap))),
        "observations of another episode, half": _others_observations,
        "last observation is the one before": _each(
            _states(lambda o: np.concatenate([o[:-1], o[-2:-1]]))
        ),
        "rewards never paid": _each(_rewards(lambda r: np.full_like(r, r.min()))),
        "episodes of a single step": _single_steps,
        "one column stuck at 0.37": _each(_states(functools.partial(_set, value=0.37))),
        "one column stuck in each second half": _each(_states(_stuck_halfway)),
        "-999 in a fifth of a column": _each(_states(lambda o: _marked(o, rng))),
        "first rows never written": _each(_states(_blank_first)),
        "one episode of nothing": _some(7, _states(np.zeros_like)),
        "100 more in a twentieth of the rewards": _each(
            _rewards(lambda r: r + 100.0 * (rng.random(len(r)) < 0.05))
        ),
        "rewards a tenth in every twelfth episode": _nth(12, _rewards(lambda r: 0.1 * r)),
        "one reward of a million": _some(7, _rewards(_prize)),
        "actions of the next episode": _others_actions,
    }
    return [Defect(name, spoil) for name, spoil in table.items()]


def _with_nan(array: np.ndarray) -> np.ndarray:
    array[min(3, len(array) - 1), 0] = np.nan
    return array


FileDefect = Callable[[pathlib.Path], None]
"""Spoils the data folder of a dataset."""


def _replaced(folder: pathlib.Path, numbers: Any, name: str, change: Any) -> None:
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        for number in numbers or range(len(file)):
            group = file[f"episode_{number}"]
            array = group[name][()]
            del group[name]
            group[name] = change(array)


def _cut_file(folder: pathlib.Path) -> None:
    file = folder / "main_data.hdf5"
    os.truncate(file, file.stat().st_size * 2 // 3)


def _flipped_bytes(folder: pathlib.Path) -> None:
    file = folder / "main_data.hdf5"
    with h5py.File(file) as opened:
        rows = opened["episode_0/observations"]
        start = rows.id.get_offset()
        start = rows.id.get_chunk_info(0).byte_offset if start is None else start
    content = bytearray(file.read_bytes())
    for byte in range(start + 64, start + 128):
        content[byte] ^= 0xFF
    file.write_bytes(content)


def _empty_episode(folder: pathlib.Path) -> None:
    for name in ("actions", "rewards", "terminations", "truncations"):
        _replaced(folder, [1], name, lambda array: array[:0])
    _replaced(folder, [1], "observations", lambda array: array[:1])


def _gone(folder: pathlib.Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        del file["episode_1"]


def _miscounted(folder: pathlib.Path) -> None:
    file = folder / "metadata.json"
    said = json.loads(file.read_text())
    said |= {"total_episodes": said["total_episodes"] - 3, "total_steps": 999}
    file.write_text(json.dumps(said))


def _text_info(folder: pathlib.Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        group = file["episode_1"]
        rows = len(group["observations"])
        group.require_group("infos")["note"] = np.array([b"x"] * rows)


FORM: dict[str, FileDefect] = {
    "file cut short": _cut_file,
    "64 bytes of observations flipped": _flipped_bytes,
    "actions stored as bytes": functools.partial(
        _replaced, numbers=None, name="actions", change=lambda a: np.round(127 * a).astype(np.int8)
    ),
    "observations in half precision": functools.partial(
        _replaced, numbers=None, name="observations", change=lambda o: o.astype(np.float16)
    ),
    "terminations stored as bytes": functools.partial(
        _replaced, numbers=None, name="terminations", change=lambda t: t.astype(np.int8)
    ),
    "an empty episode": _empty_episode,
    "an episode gone": _gone,
    "metadata that count wrongly": _miscounted,
    "a reward too few": functools.partial(
        _replaced, numbers=[1], name="rewards", change=lambda r: r[:-1]
    ),
    "text among the infos": _text_info,
    "an episode with a column less": functools.partial(
        _replaced, numbers=[1], name="observations", change=lambda o: o[:, :-1]
    ),
}
