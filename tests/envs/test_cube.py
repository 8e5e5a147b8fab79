"""Cube tasks: starts, goals, rewards and success, against OGBench's numbers and by hand."""

import dataclasses

import numpy as np
import pytest

from robo_rl.envs.ogbench import geometry, scenes
from robo_rl.envs.tasks import cube
from robo_rl.hardware.contracts import ArmState, Pose
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from robo_rl.hardware.twin.mujoco_device import MujocoDevice

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])


def make_task(**fields: object) -> cube.CubeTask:
    config = cube.CubeTaskConfig(**fields)  # type: ignore[arg-type]
    return cube.CubeTask(UR5E_KIT, config)


def state_with(cubes: np.ndarray) -> ArmState:
    device = MujocoDevice(scenes.compile_cube_scene("single"), UR5E)
    device.open()
    poses = {f"cube_{i}": Pose(xyz, IDENTITY) for i, xyz in enumerate(np.atleast_2d(cubes))}
    return dataclasses.replace(device.read(), objects=poses)


def test_success_is_within_four_centimetres_inclusive() -> None:
    targets = np.zeros((3, 3))
    cubes = np.array([[0.04, 0.0, 0.0], [0.0401, 0.0, 0.0], [0.03, 0.03, 0.0]])
    assert geometry.successes(cubes, targets).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("form", "away", "there"),
    [
        ("goal", (0.0, False), (1.0, True)),
        ("single", (-1.0, False), (0.0, True)),
        ("random", (-1.0, False), (0.0, True)),
        ("data", (0.0, False), (1.0, False)),
    ],
)
def test_reward_and_termination_of_each_form(form, away, there) -> None:  # type: ignore[no-untyped-def]
    task = make_task(form=form)
    task.start(np.random.default_rng(0), {})
    target = task.goal_m[0]
    for cubes, (reward, terminated) in ((target + 0.1, away), (target, there)):
        outcome = task.outcome(state_with(cubes))
        assert (outcome.reward, outcome.terminated) == (reward, terminated)
        assert outcome.success == (reward == there[0])


def test_single_form_counts_the_cubes_that_are_missing() -> None:
    task = make_task(scene="double", form="single")
    task.start(np.random.default_rng(0), {})
    goals = task.goal_m
    assert task.outcome(state_with(goals)).reward == 0.0
    assert task.outcome(state_with(goals + np.array([[0.1, 0, 0], [0, 0, 0]]))).reward == -1.0
    assert task.outcome(state_with(goals + 0.1)).reward == -2.0


def test_single_form_is_task_two_unless_told_otherwise() -> None:
    """Starts and goals come from the table of OGBench itself."""
    infos = cube.task_infos("single")
    for fields, number in (({}, 2), ({"task_id": 4}, 4)):
        task = make_task(form="single", **fields)
        start = task.start(np.random.default_rng(0), {})
        np.testing.assert_array_equal(task.goal_m, infos[number - 1]["goal_xyzs"])
        placed = start.objects["cube_0"].position_m
        assert np.abs(placed - infos[number - 1]["init_xyzs"][0]).max() <= 0.01


def test_relative_positions_are_the_ways_from_tool_to_cube_and_from_cube_to_goal() -> None:
    task = make_task(scene="double", form="single", relative_positions=True)
    task.start(np.random.default_rng(0), {})
    cubes = np.array([[0.3, 0.1, 0.02], [0.5, -0.2, 0.06]])
    state = state_with(cubes)
    row = task.observe(state)
    assert row.shape == (task.observation_size,)
    ways = np.hstack([cubes - state.tool.position_m, task.goal_m - cubes])
    np.testing.assert_allclose(row[-12:].reshape(2, 6), 10.0 * ways, atol=1e-12)
    plain = make_task(scene="double", form="single")
    plain.start(np.random.default_rng(0), {})
    np.testing.assert_array_equal(row[:-12], plain.observe(state))


def test_goal_form_draws_every_task_and_takes_one_by_option() -> None:
    task, rng = make_task(), np.random.default_rng(0)
    drawn = set()
    for _ in range(60):
        task.start(rng, {})
        drawn.add(task.task_id)
    assert drawn == {1, 2, 3, 4, 5}
    task.start(rng, {"task_id": 3})
    assert task.task_id == 3
    with pytest.raises(ValueError, match="1 to 5, got 6"):
        task.start(rng, {"task_id": 6})


def test_random_starts_fill_ogbench_bounds() -> None:
    task, rng = make_task(form="data"), np.random.default_rng(0)
    starts = [task.start(rng, {}) for _ in range(200)]
    for poses in ([s.objects["cube_0"] for s in starts], [s.targets["cube_0"] for s in starts]):
        xyz = np.array([pose.position_m for pose in poses])
        assert (xyz[:, 2] == 0.02).all()
        low, high = xyz[:, :2].min(axis=0), xyz[:, :2].max(axis=0)
        assert (low >= [0.3, -0.3]).all()
        assert (low < [0.32, -0.27]).all()
        assert (high <= [0.55, 0.3]).all()
        assert (high > [0.53, 0.27]).all()


def test_the_goal_is_appended_in_the_units_of_the_observation() -> None:
    with_goal, without = (
        make_task(form="single"),
        make_task(form="single", goal_in_observation=False),
    )
    for task in (with_goal, without):
        task.start(np.random.default_rng(0), {})
    state = state_with(np.array([0.4, 0.1, 0.02]))
    row = with_goal.observe(state)
    assert row.shape == (31,)
    np.testing.assert_array_equal(row[:28], without.observe(state))
    np.testing.assert_array_equal(row[:28], with_goal.goal_observation(state))
    expected = (with_goal.goal_m[0] - [0.425, 0.0, 0.0]) * 10
    np.testing.assert_allclose(row[28:], expected)


def test_a_new_target_leaves_the_other_cubes_and_hides_their_markers() -> None:
    task, rng = make_task(scene="double", form="data"), np.random.default_rng(0)
    task.start(rng, {})
    cubes = np.array([[0.35, 0.1, 0.02], [0.5, -0.1, 0.02]])
    stacked = 0
    for _ in range(50):
        task.new_target(rng, state_with(cubes), p_stack=0.5)
        (name,) = task.targets
        target = int(name[-1])
        other = 1 - target
        np.testing.assert_array_equal(task.goal_m[other], cubes[other])
        if task.goal_m[target, 2] > 0.05:
            stacked += 1
            np.testing.assert_allclose(task.goal_m[target], cubes[other] + [0, 0, 0.04])
    assert 10 < stacked < 40


def test_a_covered_cube_is_never_the_target() -> None:
    task, rng = make_task(scene="double", form="data"), np.random.default_rng(0)
    task.start(rng, {})
    tower = np.array([[0.4, 0.0, 0.02], [0.4, 0.0, 0.06]])
    for _ in range(20):
        task.new_target(rng, state_with(tower), p_stack=0.5)
        assert list(task.targets) == ["cube_1"]


def test_preset_tasks_have_one_target_an_episode() -> None:
    task = make_task(form="single")
    task.start(np.random.default_rng(0), {})
    with pytest.raises(ValueError, match="one target an episode"):
        task.new_target(np.random.default_rng(0), state_with(np.zeros(3)), 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scene": "nine"},
        {"form": "x"},
        {"form": "data", "task_id": 1},
        {"relative_positions": True, "goal_in_observation": False},
    ],
)
def test_an_unknown_task_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="CubeTaskConfig"):
        cube.CubeTaskConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("scene", geometry.CUBE_SCENES)
def test_each_scene_has_the_tasks_that_are_said(scene: str) -> None:
    assert len(cube.task_infos(scene)) == len(geometry.TASKS)


@pytest.mark.parametrize("number", [0, 6, -1])
def test_a_number_that_no_task_has_is_refused_with_those_there_are(number: int) -> None:
    with pytest.raises(ValueError, match=f"cube scenes are 1 to 5, got {number}"):
        make_task(form="single", task_id=number)
