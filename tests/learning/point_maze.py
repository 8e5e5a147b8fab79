"""A point in a maze with one wall, and recorded ways through it: long, sparse and cheap to step."""

import gymnasium
import numpy as np

STEP = 0.1
GOAL, START = np.array([-0.7, 0.7]), np.array([-0.7, -0.7])
RADIUS = 0.2
WALL_TOP, WALL_END = 0.1, 0.4
CORNERS = (np.array([0.75, -0.5]), np.array([0.75, 0.5]))
"""The way round the wall, from below."""
LIMIT = 100
LEAP = 0.4
"""Of `Fork`."""


class PointMaze(gymnasium.Env):
    """Position (2,) in [-1, 1]^2, action (2,) moves it by `STEP` times itself.

    A wall covers |y| < 0.1 where x < 0.4. The reward is -1 until the goal above it is reached,
    then 0 and the end. Time is up after 100 steps.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, drift=(0.0, 0.0), spread=0.1):
        self._drift, self._spread = np.asarray(drift), spread

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        where = (options or {}).get("where")
        near = START + self._spread * self.np_random.uniform(-1.0, 1.0, 2)
        self._x = np.array(near if where is None else where, float)
        self._t = 0
        return self._x.astype(np.float32), {}

    def step(self, action):
        self._x = moved(self._x, STEP * (np.clip(action, -1.0, 1.0) + self._drift))
        self._t += 1
        reached = bool(np.linalg.norm(self._x - GOAL) < RADIUS)
        reward, late = (0.0 if reached else -1.0), self._t == LIMIT and not reached
        return self._x.astype(np.float32), reward, reached, late, {"success": reached}


def moved(x, push):
    """The position after a push: the wall and the border stop it."""
    new = np.clip(x + push, -1.0, 1.0)
    if abs(new[1]) < WALL_TOP and new[0] < WALL_END:
        new = np.array([new[0], x[1]]) if abs(x[1]) >= WALL_TOP else np.array([x[0], new[1]])
    return new


def towards(x, target, step=STEP):
    """The action that goes straight to a target, as fast as it may."""
    way = (target - x) / step
    return way / max(1.0, float(np.abs(way).max()))


def guide(x):
    """The shortest way to the goal, in straight lines."""
    if x[1] >= WALL_TOP and x[0] < CORNERS[1][0] + 0.05:
        return towards(x, GOAL)
    if x[0] > WALL_END + 0.1:
        return towards(x, CORNERS[1])
    return towards(x, CORNERS[0])


def recorded(episodes, seed=0, noise=0.5, straight=1.0, drift=(0.0, 0.0)):
    """Transitions of noisy walkers, of whom a share `straight` means to reach the goal.

    The others walk to places drawn anew again and again. Starts lie anywhere below the wall.
    """
    rng = np.random.default_rng(seed)
    env = PointMaze(drift)
    rows = []
    for episode in range(episodes):
        where = rng.uniform([-0.9, -0.9], [0.9, -0.3])
        x, _ = env.reset(options={"where": where})
        knows = rng.uniform() < straight
        target, ended = rng.uniform(-0.9, 0.9, 2), False
        while not ended:
            if np.linalg.norm(x - target) < 0.1 or rng.uniform() < 0.03:
                target = rng.uniform(-0.9, 0.9, 2)
            action = guide(x) if knows else towards(x, target)
            action = np.clip(action + noise * rng.normal(size=2), -1.0, 1.0).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((x, action, reward, following, terminated, truncated, episode))
            x, ended = following, terminated or truncated
    return _arrays(rows)


def _arrays(rows):
    names = ("observations", "actions", "rewards", "next_observations")
    names += ("terminated", "truncated", "episode_id")
    arrays = {n: np.asarray(v) for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    arrays["rewards"] = arrays["rewards"].astype(np.float32)
    return {**arrays, "masks": 1.0 - arrays["terminated"].astype(np.float32)}


class Fork(gymnasium.Env):
    """A point (2,) below a block, the goal straight above it: one must pass on either side.

    The block covers |x| < 0.35, |y| < 0.2. Reward -1 a step, 0 at the goal; 30 steps. The
    first step is so long that the side is chosen with it.
    """

    observation_space = PointMaze.observation_space
    action_space = PointMaze.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x = np.array([0.0, -0.8]) + self.np_random.uniform(-0.05, 0.05, 2)
        self._t = 0
        return self._x.astype(np.float32), {}

    def step(self, action):
        new = np.clip(self._x + LEAP * np.clip(action, -1.0, 1.0), -1.0, 1.0)
        if not (abs(new[0]) < 0.35 and abs(new[1]) < 0.2):
            self._x = new
        self._t += 1
        reached = bool(np.linalg.norm(self._x - [0.0, 0.8]) < RADIUS)
        late = self._t == 30 and not reached
        return self._x.astype(np.float32), float(reached) - 1.0, reached, late, {"success": reached}


def forked(episodes, seed=0, noise=0.1):
    """Transitions of walkers that pass the block left and right in turn."""
    rng = np.random.default_rng(seed)
    env, rows = Fork(), []
    for episode in range(episodes):
        side = 1.0 if episode % 2 else -1.0
        x, _ = env.reset(seed=int(rng.integers(2**31)))
        ended = False
        while not ended:
            target = np.array([0.0, 0.8]) if x[1] > 0.2 else np.array([0.6 * side, 0.25])
            action = towards(x, target, LEAP) + noise * rng.normal(size=2)
            action = np.clip(action, -1.0, 1.0).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((x, action, reward, following, terminated, truncated, episode))
            x, ended = following, terminated or truncated
    return _arrays(rows)
