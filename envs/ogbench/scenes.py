"""OGBench's manipulation scenes, compiled from the installed package."""

import dataclasses
import functools
import importlib
from typing import Any

from robo_rl.envs.ogbench.geometry import CUBE_SCENES as CUBE_SCENES
from robo_rl.hardware import robots
from robo_rl.hardware.twin.mujoco_device import Scene, SceneNames
from robo_rl.quiet import quiet

ROBOT = "ur5e"
"""The robot in all of them."""

_RENDER_WIDTH, _RENDER_HEIGHT = 640, 480


def load_ogbench(module: str) -> Any:
    """Import `ogbench.<module>`: late, because it takes a second."""
    with quiet():
        return importlib.import_module(f"ogbench.{module}")


@functools.cache
def compile_cube_scene(name: str = "single") -> Scene:
    """Compile one of `CUBE_SCENES` with OGBench's servo gains and time step.

    Every call in a process returns the same model: copy it before changing it.
    """
    if name not in CUBE_SCENES:
        raise ValueError(f"compile_cube_scene: no scene {name!r}; known: {sorted(CUBE_SCENES)}")
    cube_env = load_ogbench("manipspace.envs.cube_env")
    # The render size is the largest that a camera image of this model can have.
    env = cube_env.CubeEnv(env_type=name, width=_RENDER_WIDTH, height=_RENDER_HEIGHT)
    with quiet():
        env.reset(seed=0, options={"task_id": 1})
    return Scene(env.model, cube_names(CUBE_SCENES[name]))


def cube_names(cubes: int) -> SceneNames:
    """Names of OGBench's arm with its gripper and `cubes` cubes."""
    return dataclasses.replace(
        robots.get(ROBOT).names,
        objects={f"cube_{i}": f"object_joint_{i}" for i in range(cubes)},
        targets={f"cube_{i}": f"object_target_{i}" for i in range(cubes)},
    )
