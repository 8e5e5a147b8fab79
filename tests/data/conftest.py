"""A small clean dataset: point masses on a plane, and an environment that knows their reward."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

from robo_rl.data import locate
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import (
    Dataset,
    Provenance,
    RewardLabel,
    StateLayout,
    open_dataset,
    write_dataset,
)

CONTROL_HZ = 10.0
OBSERVATIONS = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
PROVENANCE = Provenance(
    control_hz=CONTROL_HZ,
    reward=RewardLabel(source="environment", version="1", timing="post"),
    arm="point",
    arm_digest="0123456789abcdef",
    layout=StateLayout(velocity_rad_s=(2.0, 2.0)),
    collector={"oracle": "random", "noise": 0.5},
)


def make_episode(seed: int, steps: int = 30, *, terminated: bool = False) -> Episode:
    """A point pushed about: q' = q + v dt, v' = 0.8 v + a dt, reward = -|q|."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-0.9, 0.9, (steps, 2)).astype(np.float32)
    q, v = np.empty((steps + 1, 2)), np.empty((steps + 1, 2))
    q[0], v[0] = rng.uniform(-1.0, 1.0, 2), rng.uniform(-0.5, 0.5, 2)
    for step in range(steps):
        q[step + 1] = q[step] + v[step] / CONTROL_HZ
        v[step + 1] = 0.8 * v[step] + actions[step] / CONTROL_HZ
    ends = np.zeros(steps, bool)
    ends[-1] = True
    return Episode(
        observations=np.concatenate([q, v], axis=1).astype(np.float32),
        actions=actions,
        rewards=-np.linalg.norm(q[1:], axis=1),
        terminations=ends & terminated,
        truncations=ends & (not terminated),
        infos={"qpos": q, "qvel": v},
        seed=seed,
        metadata={"success": terminated},
    )


class PointEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Only what a reward replay needs."""

    observation_space = OBSERVATIONS
    action_space = ACTIONS

    def __init__(self, scale: float = 1.0):
        self._scale = scale
        self._q = self._v = np.zeros(2)

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self._q = self._v = np.zeros(2)
        return np.zeros(4, np.float32), {}

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self._q, self._v = qpos, qvel

    def reward_of_state(self) -> float:
        return -self._scale * float(np.linalg.norm(self._q))

    def observation_of_state(self) -> np.ndarray:
        return np.concatenate([self._q, self._v])


if "robo_rl_test/Point-v0" not in gymnasium.registry:
    gymnasium.register("robo_rl_test/Point-v0", entry_point=PointEnv)

Write = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def datasets_root(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    root = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of Minari's datasets can be reached."""
    monkeypatch.setattr(locate, "_unreachable", lambda: "")


@pytest.fixture
def clean() -> list[Episode]:
    return [make_episode(seed, terminated=seed % 2 == 0) for seed in range(6)]


@pytest.fixture
def episode() -> Callable[..., Episode]:
    return make_episode


@pytest.fixture
def write() -> Write:
    def write_and_open(
        episodes: Sequence[Episode],
        dataset_id: str = "test/point-v0",
        provenance: Provenance = PROVENANCE,
        **arguments: Any,
    ) -> Dataset:
        arguments = {
            "observation_space": OBSERVATIONS,
            "action_space": ACTIONS,
            "env": "robo_rl_test/Point-v0",
            "as_is": True,
            **arguments,
        }
        write_dataset(dataset_id, episodes, provenance=provenance, **arguments)
        return open_dataset(dataset_id)

    return write_and_open


@pytest.fixture
def provenance() -> Provenance:
    return dataclasses.replace(PROVENANCE)
