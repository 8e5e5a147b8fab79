import warnings

import gymnasium
import numpy as np
import pytest

from robo_rl.data import formats
from robo_rl.data.errors import DatasetCorruptError, DatasetError, DatasetNotFoundError
from robo_rl.data.formats.readers import ogbench as reading
from robo_rl.data.minari_io import open_dataset
from robo_rl.quiet import quiet

STEPS = 40


def import_npz(path, name, **options):
    return formats.import_dataset(path, name, "ogbench", **options)


def record(env_id, oracle_name, folder, trajectories=2):
    """A file as OGBench's data generation writes it: compact, with the oracle's noise."""
    with quiet():
        import ogbench  # noqa: F401
        from ogbench.manipspace.oracles.markov import button_markov, cube_markov

        oracles = {
            "cube": cube_markov.CubeMarkovOracle,
            "button": button_markov.ButtonMarkovOracle,
        }
        env = gymnasium.make(env_id, terminate_at_goal=False, mode="data_collection")
        oracle = oracles[oracle_name](env=env, min_norm=0.4)
        rows = {key: [] for key in ("observations", "actions", "terminals", "qpos", "qvel")}
        buttons = []
        np.random.seed(0)  # noqa: NPY002  OGBench's oracles draw from the global state
        for trajectory in range(trajectories):
            observation, info = env.reset(seed=trajectory)
            oracle.reset(observation, info)
            for step in range(STEPS + 1):
                action = np.clip(oracle.select_action(observation, info), -1.0, 1.0)
                following, _, _, _, info = env.step(action)
                rows["observations"].append(observation)
                rows["actions"].append(action)
                rows["terminals"].append(step == STEPS)
                rows["qpos"].append(info["prev_qpos"])
                rows["qvel"].append(info["prev_qvel"])
                if "prev_button_states" in info:
                    buttons.append(info["prev_button_states"])
                observation = following
        env.close()
    arrays = {
        key: np.array(value, bool if key == "terminals" else np.float32)
        for key, value in rows.items()
    }
    if buttons:
        arrays["button_states"] = np.array(buttons, np.int64)
    path = folder / f"{env_id.removesuffix('-v0')}-play-v0.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture(scope="module")
def cube_file(tmp_path_factory):
    path = record("cube-single-v0", "cube", tmp_path_factory.mktemp("cube"))
    with np.load(path) as stored:
        arrays = dict(stored)
    # The oracle's own goals are not the task's: lay the cube there in three spells.
    for rows in (slice(5, 9), slice(30, 31), slice(60, STEPS * 2 + 2)):
        arrays["qpos"][rows, 14:17] = [0.50, 0.0, 0.02]
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture(scope="module")
def puzzle_file(tmp_path_factory):
    return record("puzzle-3x3-v0", "button", tmp_path_factory.mktemp("puzzle"), trajectories=1)


def theirs(path, env_id=None):
    """The transitions as OGBench's own loader and relabelling give them."""
    with quiet():
        from ogbench.relabel_utils import relabel_dataset
        from ogbench.utils import load_dataset

        dataset = load_dataset(path, add_info=True)
        if env_id:
            env = gymnasium.make(env_id)
            relabel_dataset(env_id, env, dataset)
            env.close()
    return dataset


def test_imported_transitions_equal_ogbench_load_dataset(cube_file):
    import_npz(cube_file, "ogbench/cube-v0")
    dataset = open_dataset("ogbench/cube-v0")
    flat = dataset.transitions(infos=("qpos", "qvel"))
    expected = theirs(cube_file)
    for name in ("observations", "actions", "next_observations", "qpos", "qvel"):
        np.testing.assert_array_equal(flat[name], expected[name], err_msg=name)
    ends = flat["terminated"] | flat["truncated"]
    np.testing.assert_array_equal(ends, expected["terminals"] == 1)
    assert not flat["terminated"].any()
    np.testing.assert_array_equal(flat["rewards"], 0.0)
    assert dataset.total_episodes == 2
    assert dataset.env_spec.id == "cube-single-v0"
    assert dataset.provenance.reward.source == "none"
    assert dataset.provenance.control_hz == pytest.approx(20.0)
    # Six joints of the arm and eight of the gripper come before the cube's.
    assert dataset.provenance.layout.object_qpos == (14,)
    assert dataset.provenance.layout.object_qvel == (14,)


def test_single_task_rewards_equal_ogbench_relabel_dataset(cube_file):
    import_npz(cube_file, "ogbench/cube-task2-v0", task=2)
    dataset = open_dataset("ogbench/cube-task2-v0")
    flat = dataset.transitions()
    expected = theirs(cube_file, "cube-single-singletask-task2-v0")
    for name in ("observations", "actions", "next_observations", "rewards", "masks"):
        np.testing.assert_array_equal(flat[name], expected[name], err_msg=name)
    assert 0 < (flat["masks"] == 0).sum() < len(flat["masks"])
    assert dataset.env_spec.id == "cube-single-singletask-task2-v0"
    reward = dataset.provenance.reward
    assert (reward.source, reward.timing) == ("ogbench.relabel_utils.relabel_dataset", "pre")
    assert reward.detail == {"env_id": "cube-single-singletask-task2-v0", "task": 2}


def test_dropping_what_follows_a_success_keeps_the_start_of_each_trajectory(cube_file):
    import_npz(cube_file, "ogbench/drop-v0", task=2, after_success="drop")
    lengths = [len(episode) for episode in open_dataset("ogbench/drop-v0").episodes()]
    assert lengths == [6, 60 - (STEPS + 1) + 1]


def test_puzzles_bring_their_buttons_and_rewards(puzzle_file):
    import_npz(puzzle_file, "ogbench/puzzle-v0", task=0)
    flat = open_dataset("ogbench/puzzle-v0").transitions(infos=("button_states",))
    expected = theirs(puzzle_file, "puzzle-3x3-singletask-v0")
    for name in ("observations", "rewards", "masks", "button_states"):
        np.testing.assert_array_equal(flat[name], expected[name], err_msg=name)


def test_mazes_import_too(tmp_path):
    """Ant maze: any numbers in the right shapes; the reward looks at the first two of qpos."""
    rng = np.random.default_rng(0)
    rows = 20
    path = tmp_path / "antmaze-medium-navigate-v0.npz"
    np.savez(
        path,
        observations=rng.normal(size=(rows, 29)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 8)).astype(np.float32),
        terminals=np.arange(rows) % 10 == 9,
        qpos=rng.uniform(0, 20, (rows, 15)).astype(np.float32),
        qvel=rng.normal(size=(rows, 14)).astype(np.float32),
    )
    import_npz(path, "ogbench/maze-v0", task=1)
    flat = open_dataset("ogbench/maze-v0").transitions()
    expected = theirs(path, "antmaze-medium-singletask-task1-v0")
    for name in ("observations", "actions", "rewards", "masks"):
        np.testing.assert_array_equal(flat[name], expected[name], err_msg=name)


def test_pixels_and_discrete_actions_import_too(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "powderworld-easy-play-v0.npz"
    image = rng.integers(0, 256, (6, 32, 32, 6), np.uint8)
    np.savez(
        path,
        observations=image,
        actions=rng.integers(0, 8, 6, np.int32),
        terminals=np.arange(6) == 5,
    )
    import_npz(path, "ogbench/powder-v0")
    flat = open_dataset("ogbench/powder-v0").transitions()
    np.testing.assert_array_equal(flat["observations"], image[:-1])
    assert flat["observations"].dtype == np.uint8
    assert flat["actions"].dtype == np.int32


@pytest.mark.parametrize(
    ("stem", "env_id"),
    [
        ("cube-single-play-v0", "cube-single-v0"),
        ("cube-single-noisy-v0-val", "cube-single-v0"),
        ("cube-octuple-play-100m-v0-003", "cube-octuple-v0"),
        ("puzzle-4x4-play-v0", "puzzle-4x4-v0"),
        ("antmaze-large-stitch-v0", "antmaze-large-v0"),
        ("visual-scene-noisy-v0", "visual-scene-v0"),
    ],
)
def test_the_file_name_tells_the_environment(stem, env_id):
    assert reading.environment_of(stem) == env_id


def test_an_unknown_file_name_asks_for_the_environment(cube_file, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(cube_file.read_bytes())
    with pytest.raises(DatasetError, match="Name the environment yourself"):
        import_npz(path, "mine-v0")
    import_npz(path, "mine-v0", env="cube-single-v0")
    assert open_dataset("mine-v0").total_episodes == 2


def test_an_unknown_environment_lists_similar_ones():
    with pytest.raises(
        DatasetError, match=r"no environment 'cube-nonuple-v0'; similar: .*'cube-octuple-v0'"
    ):
        reading.make_env("cube-nonuple-v0")


def test_damaged_files_are_clear_errors(cube_file, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no file"):
        reading.read_npz(tmp_path / "none.npz")
    content = cube_file.read_bytes()
    broken = tmp_path / "broken.npz"
    for kept in (0, 10, len(content) // 2, len(content) - 40):
        broken.write_bytes(content[:kept])
        with pytest.raises(DatasetCorruptError, match=r"broken\.npz"):
            reading.read_npz(broken)
    with np.load(cube_file) as stored:
        arrays = dict(stored)
    cases = [
        ({**arrays, "actions": arrays["actions"][:-1]}, "all arrays must have 82 rows"),
        ({**arrays, "terminals": np.zeros(82, bool)}, "the last row is not terminal"),
        ({"observations": arrays["observations"]}, r"lacks \['actions', 'terminals'\]"),
        ({**arrays, "qpos": np.array([None] * 82)}, "cannot be read"),
    ]
    for content_of, message in cases:
        np.savez(broken, **content_of)
        with pytest.raises(DatasetCorruptError, match=message):
            reading.read_npz(broken)


def test_what_is_no_archive_at_all_is_not_taken_for_a_pickle(tmp_path):
    page = tmp_path / "page.npz"
    page.write_text("<html>404</html>", encoding="utf-8")
    with pytest.raises(DatasetCorruptError, match=r"page\.npz cannot be read: it is no \.npz file"):
        reading.read_npz(page)


def test_a_task_that_the_data_never_reach_is_said(cube_file, tmp_path, caplog):
    with np.load(cube_file) as stored:
        arrays = dict(stored)
    path = tmp_path / "cube-single-play-v0.npz"
    np.savez(path, **{**arrays, "qpos": np.zeros_like(arrays["qpos"])})
    import_npz(path, "cube-v0", task=2)
    assert "no episode ever reaches the goal of cube-single-singletask-task2-v0" in caplog.text
    caplog.clear()
    import_npz(path, "play-v0")
    assert caplog.text == ""


def test_rewards_need_the_state(cube_file, tmp_path):
    with np.load(cube_file) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "qpos"}
    path = tmp_path / "cube-single-play-v0.npz"
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match="has no qpos; single-task rewards need it"):
        import_npz(path, "cube-v0", task=1)


def test_importing_warns_of_nothing(cube_file):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_npz(cube_file, "quiet-v0", task=1)
    assert [str(warning.message) for warning in caught] == []
