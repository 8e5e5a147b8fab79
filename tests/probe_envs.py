"""Tiny environments whose values are known in closed form, and their transitions as arrays."""

from collections.abc import Callable

import gymnasium
import numpy as np


class _Probe(gymnasium.Env):
    observation_size, action_size = 1, 1

    def __init__(self):
        o, a = self.observation_size, self.action_size
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (o,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (a,), np.float32)


class OneStep(_Probe):
    """One step, reward 1, terminated: V = Q = 1."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


class TwoSteps(_Probe):
    """Reward 1 at the second of two steps: V(-1) = discount, V(1) = 1."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x = -1.0
        return np.array([self._x], np.float32), {}

    def step(self, action):
        last = self._x > 0.0
        self._x = 1.0
        return np.array([self._x], np.float32), float(last), last, False, {}


class Endless(_Probe):
    """Reward 1 for ever, cut by a time limit of 4 steps: V = 1 / (1 - discount)."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._t += 1
        return np.zeros(1, np.float32), 1.0, False, self._t == 4, {}


class Match(_Probe):
    """One step, reward -(a - s / 2)^2 with s uniform in [-1, 1]: the best action is s / 2."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._s = self.np_random.uniform(-1.0, 1.0)
        return np.array([self._s], np.float32), {}

    def step(self, action):
        error = float(action[0]) - self._s / 2
        info = {"success": abs(error) < 0.15}
        return np.zeros(1, np.float32), -(error**2), True, False, info


class Blob(_Probe):
    """`Match` for eyes: a bright bar of a 2 x 16 image stands at x, the best action is x.

    The vector beside it is a number drawn apart from x: it tells nothing.
    """

    def __init__(self):
        super().__init__()
        image = gymnasium.spaces.Box(0, 255, (2, 16, 1), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {"image": image, "state": self.observation_space}
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, other = self.np_random.uniform(-0.8, 0.8, 2)
        bar = np.exp(-0.5 * ((np.arange(16) - 7.5 - 7.5 * self._x) / 1.5) ** 2)
        image = np.tile((255 * bar).astype(np.uint8)[None, :, None], (2, 1, 1))
        self._seen = {"image": image, "state": np.array([other], np.float32)}
        return self._seen, {}

    def step(self, action):
        error = float(action[0]) - self._x
        return self._seen, -(error**2), True, False, {"success": abs(error) < 0.2}


class Clip(Blob):
    """`Blob` in episodes of three frames, each a brighter one than the last."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self._t = 0
        return self._dimmed(obs), info

    def step(self, action):
        obs, reward, *_, info = super().step(action)
        self._t += 1
        return self._dimmed(obs), reward, False, self._t == 3, info

    def _dimmed(self, obs):
        return {**obs, "image": obs["image"] // (4 - self._t)}


class Reach(_Probe):
    """Move a point in the plane to the origin: 0.2 a a step, success within 0.15, 20 steps."""

    observation_size, action_size = 2, 2

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        angle, radius = self.np_random.uniform(0, 2 * np.pi), self.np_random.uniform(0.6, 1.0)
        self._x = radius * np.array([np.cos(angle), np.sin(angle)])
        return self._x.astype(np.float32), {}

    def step(self, action):
        self._t += 1
        self._x = np.clip(self._x + 0.2 * np.asarray(action, np.float64), -1.5, 1.5)
        success = bool(np.linalg.norm(self._x) < 0.15)
        out = self._x.astype(np.float32)
        return out, float(success) - 1.0, success, self._t >= 20, {"success": success}


class Ridge(_Probe):
    """A ridge that winds: d' = 1.5 d + 0.5 (a - bend), bend = 0.5 sin(2 angle); the angle grows by
    0.3 a step. It begins on the ridge, d = 0; off it at |d| > 1; success after 25 steps."""

    observation_size = 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t, self._d, self._angle = 0, 0.0, self.np_random.uniform(0.0, 2.0 * np.pi)
        return self._seen(), {}

    def _seen(self):
        return np.array([self._d, np.cos(self._angle), np.sin(self._angle)], np.float32)

    def step(self, action):
        self._t += 1
        bend = 0.5 * np.sin(2.0 * self._angle)
        self._d = 1.5 * self._d + 0.5 * (float(action[0]) - bend)
        self._angle += 0.3
        fallen, there = abs(self._d) > 1.0, self._t >= 25
        success = there and not fallen
        return self._seen(), float(success), fallen, there, {"success": success}


def ridge_expert(obs: np.ndarray) -> np.ndarray:
    """Takes the bend and all of the deviation out at once, for observations (..., 3)."""
    d, cos, sin = np.moveaxis(np.asarray(obs), -1, 0)
    return np.clip(sin * cos - 3.0 * d, -1.0, 1.0)[..., None].astype(np.float32)


def reach_expert(obs: np.ndarray) -> np.ndarray:
    """Straight to the origin of `Reach`."""
    return np.clip(-obs / 0.2, -1.0, 1.0).astype(np.float32)


def collect(
    env: gymnasium.Env,
    episodes: int,
    policy: Callable[[np.ndarray], np.ndarray] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Transitions of a policy, or of uniform actions; `noise` is the share of uniform actions."""
    rng = np.random.default_rng(seed)
    rows = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed * 1000 + episode)
        ended = False
        while not ended:
            action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
            if policy is not None and rng.uniform() >= noise:
                action = policy(obs)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((obs, action, reward, following, terminated, truncated, episode))
            obs, ended = following, terminated or truncated
    columns = [_column(column) for column in zip(*rows, strict=True)]
    names = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")
    data = dict(zip((*names, "episode_id"), columns, strict=True))
    data["rewards"] = data["rewards"].astype(np.float32)
    data["masks"] = 1.0 - data["terminated"].astype(np.float32)
    return data


def _column(values):
    if isinstance(values[0], dict):
        return {name: np.array([value[name] for value in values]) for name in values[0]}
    return np.array(values)
