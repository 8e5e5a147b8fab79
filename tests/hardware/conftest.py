"""A scene and a nominal arm as files, and DDS domains that no other test uses."""

import itertools
import os
import pathlib

import mujoco
import pytest

from robo_rl.envs.ogbench.scenes import compile_cube_scene
from robo_rl.hardware.bridges.dds import MAX_DOMAIN_ID
from robo_rl.hardware.robots.ur5e.model import ur5e_model
from robo_rl.hardware.twin.mujoco_device import save_scene

# Every worker takes its own share; `robo-rl quickstart` and `doctor` stay below.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_domains = itertools.cycle(range(101 + _WORKER, MAX_DOMAIN_ID, _WORKERS))


@pytest.fixture
def domain_id() -> int:
    """A DDS domain of its own, also beside other test workers."""
    return next(_domains)


@pytest.fixture(scope="module")
def module_domain_id() -> int:
    """The same for what all tests of a file share."""
    return next(_domains)


@pytest.fixture(scope="session")
def scene_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """OGBench's scene with one cube, as the twin loads it."""
    path = tmp_path_factory.mktemp("scene") / "cube.mjb"
    return str(save_scene(compile_cube_scene("single"), path))


@pytest.fixture(scope="session")
def arm_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The nominal arm, as the robot process loads it."""
    path: pathlib.Path = tmp_path_factory.mktemp("arm") / "arm.mjb"
    mujoco.mj_saveModel(ur5e_model(), str(path), None)
    return str(path)
