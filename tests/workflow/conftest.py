import gymnasium
import numpy as np
import pytest

from robo_rl.workflow.record import record
from tests.probe_envs import Reach

LIMIT = 7


class Arm(gymnasium.Wrapper):
    """`Reach` in the place of an arm; breaks down at step `breaks_at` of the process."""

    steps, breaks_at = 0, None

    def __init__(self):
        super().__init__(Reach())

    def step(self, action):
        Arm.steps += 1
        if Arm.steps == Arm.breaks_at:
            raise KeyboardInterrupt
        return super().step(action)


class Pointed(gymnasium.Env):
    """`Reach` in other spaces: a Dict with the goal apart, actions in [-2, 4] and [0, 1]."""

    def __init__(self):
        self._inner = Reach()
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "position": box(-np.inf, np.inf, (2,), np.float64),
                "goal": box(-np.inf, np.inf, (1,), np.float64),
            }
        )
        self.action_space = box(np.array([-2.0, 0.0]), np.array([4.0, 1.0]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        obs, info = self._inner.reset(seed=seed)
        return self._seen(obs), info

    def step(self, action):
        assert self.action_space.contains(action), action
        unit = 2.0 * (action - self.action_space.low) / np.ptp(
            np.stack([self.action_space.low, self.action_space.high]), axis=0
        ) - np.ones(2)
        obs, reward, terminated, truncated, info = self._inner.step(unit.astype(np.float32))
        return self._seen(obs), reward, terminated, truncated, {"is_success": info["success"]}

    def _seen(self, obs):
        return {"position": np.asarray(obs, np.float64), "goal": np.zeros(1)}


for _name, _kind in (("Arm", Arm), ("Pointed", Pointed)):
    if f"probe/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"probe/{_name}-v0", entry_point=_kind, max_episode_steps=LIMIT)


@pytest.fixture
def arm(monkeypatch):
    """The class that stands in for an arm, its counter at 0."""
    monkeypatch.setattr(Arm, "steps", 0)
    monkeypatch.setattr(Arm, "breaks_at", None)
    return Arm


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Records a small dataset of a probe environment, and returns its name."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))

    def make(name, episodes=10):
        dataset = f"probe/{name.lower()}-v0"
        record("random", dataset, env=f"probe/{name}-v0", episodes=episodes, workers=0)
        return dataset

    return make
