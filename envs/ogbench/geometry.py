"""OGBench's cube scenes in numbers: sizes, limits, and where things stand in a recorded state."""

import numpy as np

CUBE_SCENES = {"single": 1, "double": 2, "triple": 3, "quadruple": 4}
"""Name -> number of cubes."""
STEP_LIMITS = {"single": 200, "double": 500, "triple": 1000, "quadruple": 1000}
"""Name -> steps of an episode, as OGBench registers its environments."""

TASKS = range(1, 6)
"""Numbers of the tasks that each scene has."""

CUBE_M = 0.04
SUCCESS_M = 0.04
"""A cube this near to its target, or nearer, is in place."""

ARM_BOUNDS_M = np.array([[0.25, -0.35, 0.20], [0.6, 0.35, 0.35]])
"""Corners of the box in which the tool starts."""
OBJECT_BOUNDS_M = np.array([[0.3, -0.3], [0.55, 0.3]])
"""Corners of the table area in which cubes and targets are drawn."""

CENTER_M = np.array([0.425, 0.0, 0.0])
"""The middle of the table: positions in observations are counted from it."""
PER_M = 10.0
"""Units of an observation per metre."""

CUBE_QPOS = 14
"""First column of a cube in qpos, and in qvel: 6 arm and 8 gripper joints come before."""
CUBE_QPOS_STRIDE = 7
CUBE_QVEL_STRIDE = 6


def check_task(number: int) -> None:
    """Raise ValueError for a number that no task of a scene has."""
    if number not in TASKS:
        raise ValueError(
            f"the tasks of OGBench's cube scenes are {TASKS[0]} to {TASKS[-1]}, got {number}"
        )


def successes(cubes_m: np.ndarray, targets_m: np.ndarray) -> np.ndarray:
    """Which cubes are in place: positions (..., 3) and targets (..., 3) give bools (...)."""
    return np.asarray(np.linalg.norm(targets_m - cubes_m, axis=-1) <= SUCCESS_M)


def cube_positions(qpos: np.ndarray, cubes: int) -> np.ndarray:
    """Positions (N, K, 3) in m of the K cubes of states (N, nq)."""
    needed = CUBE_QPOS + cubes * CUBE_QPOS_STRIDE
    if qpos.ndim != 2 or qpos.shape[1] < needed:
        raise ValueError(f"{cubes} cubes need qpos of (N, >= {needed}), got {qpos.shape}")
    starts = CUBE_QPOS + CUBE_QPOS_STRIDE * np.arange(cubes)
    return np.asarray(qpos[:, starts[:, None] + np.arange(3)])
