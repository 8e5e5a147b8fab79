"""Scenes compiled from the installed OGBench."""

import numpy as np
import pytest

from robo_rl.envs.ogbench import scenes
from robo_rl.hardware.twin.mujoco_device import load_scene, save_scene


def test_the_scene_has_the_servo_gains_and_the_time_step_of_ogbench() -> None:
    """The numbers are those of OGBench's `post_compilation`."""
    model = scenes.compile_cube_scene("single").model
    np.testing.assert_array_equal(
        model.actuator_gainprm[:6, 0], [4500, 4500, 4500, 2000, 2000, 500]
    )
    np.testing.assert_array_equal(
        model.actuator_biasprm[:6, 1], [-4500, -4500, -4500, -2000, -2000, -500]
    )
    assert model.opt.timestep == 0.002


@pytest.mark.parametrize(("name", "cubes"), scenes.CUBE_SCENES.items())
def test_every_scene_has_its_cubes_and_targets(name: str, cubes: int) -> None:
    scene = scenes.compile_cube_scene(name)
    assert len(scene.names.objects) == len(scene.names.targets) == cubes
    for joint in scene.names.objects.values():
        scene.model.joint(joint)
    for body in scene.names.targets.values():
        assert scene.model.body(body).mocapid[0] >= 0


def test_a_scene_is_compiled_once_a_process() -> None:
    assert scenes.compile_cube_scene("single") is scenes.compile_cube_scene("single")


def test_an_unknown_scene_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'quadruple'"):
        scenes.compile_cube_scene("octuple")


def test_a_scene_travels_to_other_processes_as_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scene = scenes.compile_cube_scene("single")
    again = load_scene(save_scene(scene, tmp_path / "scene.mjb"))
    assert again.names == scene.names
    np.testing.assert_array_equal(again.model.actuator_gainprm, scene.model.actuator_gainprm)
    with pytest.raises(ValueError, match=r"\.mjb"):
        save_scene(scene, tmp_path / "scene.xml")
