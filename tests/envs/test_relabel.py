import dataclasses

import numpy as np
import pytest

from robo_rl.data.episodes import Episode
from robo_rl.data.transitions import flatten_episodes
from robo_rl.envs.ogbench.relabel import cube_label, cube_successes, relabel_cube

GOAL = np.array([[0.5, 0.0, 0.02]])


def cube_episode(distances_m, *, truncated_at=(), terminated_at=()):
    """One cube at the given distances from GOAL along x, one state each."""
    states = len(distances_m)
    qpos = np.zeros((states, 21))
    qpos[:, 14:17] = GOAL[0]
    qpos[:, 14] += distances_m
    terminations, truncations = np.zeros(states - 1, bool), np.zeros(states - 1, bool)
    terminations[list(terminated_at)] = True
    truncations[list(truncated_at)] = True
    return Episode(
        observations=np.arange(states, dtype=np.float32)[:, None],
        actions=np.arange(states - 1, dtype=np.float32)[:, None],
        rewards=np.zeros(states - 1),
        terminations=terminations,
        truncations=truncations,
        infos={"qpos": qpos},
    )


def flags(episodes):
    return [(e.terminations.tolist(), e.truncations.tolist()) for e in episodes]


def test_success_is_within_four_centimetres_of_every_goal():
    qpos = np.zeros((3, 28))
    goals = np.array([[0.4, 0.1, 0.02], [0.4, -0.1, 0.02]])
    qpos[:, 14:17], qpos[:, 21:24] = goals
    qpos[1, 14] += 0.0399
    qpos[2, 14] += 0.0401
    np.testing.assert_array_equal(cube_successes(qpos, goals), [[1, 1], [1, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"2 cubes need qpos of \(N, >= 28\), got \(3, 21\)"):
        cube_successes(qpos[:, :21], goals)
    with pytest.raises(ValueError, match=r"goal_xyz must be \(K, 3\)"):
        cube_successes(qpos, goals[0])


def test_pre_timing_judges_the_state_before_the_step():
    episode = cube_episode([0.3, 0.2, 0.01, 0.01, 0.3], truncated_at=[3])
    pieces = list(relabel_cube([episode], GOAL))
    flat = flatten_episodes(pieces)
    np.testing.assert_array_equal(flat["rewards"], [-1, -1, 0, 0])
    np.testing.assert_array_equal(flat["masks"], [1, 1, 0, 0])
    np.testing.assert_array_equal(flat["observations"][:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(flat["next_observations"][:, 0], [1, 2, 3, 4])


def test_post_timing_judges_the_state_after_the_step():
    episode = cube_episode([0.3, 0.2, 0.01, 0.01, 0.3], truncated_at=[3])
    flat = flatten_episodes(list(relabel_cube([episode], GOAL, timing="post")))
    np.testing.assert_array_equal(flat["rewards"], [-1, 0, 0, -1])
    np.testing.assert_array_equal(flat["masks"], [1, 0, 0, 1])


def test_split_ends_every_piece_and_loses_nothing():
    episode = cube_episode([0.3, 0.01, 0.01, 0.3, 0.3], truncated_at=[3])
    pieces = list(relabel_cube([episode], GOAL))
    assert flags(pieces) == [
        ([False, True], [False, False]),
        ([True], [False]),
        ([False], [True]),
    ]
    assert sum(len(piece) for piece in pieces) == len(episode)


def test_keep_leaves_the_recording_whole_with_the_same_transitions():
    episode = cube_episode([0.3, 0.01, 0.01, 0.3, 0.3], truncated_at=[3])
    (whole,) = relabel_cube([episode], GOAL, after_success="keep")
    assert flags([whole]) == [([False, True, True, False], [False, False, False, True])]
    kept, split = (flatten_episodes(e) for e in ([whole], list(relabel_cube([episode], GOAL))))
    for name in kept.keys() - {"episode_id"}:
        np.testing.assert_array_equal(kept[name], split[name], err_msg=name)


def test_drop_ends_the_recording_at_the_first_success():
    episode = cube_episode([0.3, 0.01, 0.01, 0.3, 0.3], truncated_at=[3])
    pieces = list(relabel_cube([episode], GOAL, after_success="drop"))
    assert flags(pieces) == [([False, True], [False, False])]
    never = cube_episode([0.3, 0.3, 0.3], truncated_at=[1])
    assert flags(relabel_cube([never], GOAL, after_success="drop")) == [
        ([False, False], [False, True])
    ]


def test_an_old_termination_that_the_new_task_does_not_know_becomes_a_truncation():
    episode = cube_episode([0.3, 0.3, 0.3], terminated_at=[1])
    assert flags(relabel_cube([episode], GOAL)) == [([False, False], [False, True])]


def test_two_cubes_count_singly_and_terminate_together():
    qpos = np.zeros((3, 28))
    goals = np.array([[0.4, 0.1, 0.02], [0.4, -0.1, 0.02]])
    qpos[1:, 14:17] = goals[0]
    qpos[2:, 21:24] = goals[1]
    episode = dataclasses.replace(cube_episode([0, 0, 0]), infos={"qpos": qpos})
    (piece,) = relabel_cube([episode], goals, timing="post")
    np.testing.assert_array_equal(piece.rewards, [-1, 0])
    np.testing.assert_array_equal(piece.terminations, [False, True])


def test_relabelling_needs_positions():
    episode = dataclasses.replace(cube_episode([0.3, 0.3]), infos={"force": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"episode 0 has no infos \['qpos'\]; it has \['force'\]"):
        list(relabel_cube([episode], GOAL))
    with pytest.raises(ValueError, match=r"no infos \['goal', 'qpos'\]"):
        list(relabel_cube([episode], None))


def test_each_step_can_be_judged_by_the_goal_it_was_recorded_under():
    """The cube stays at GOAL; the goal moves away before the third step."""
    episode = cube_episode([0.0, 0.0, 0.0, 0.0], truncated_at=[2])
    goals = np.repeat(GOAL[None], 4, axis=0)
    goals[2:, 0, 0] += 0.1
    episode = dataclasses.replace(episode, infos={**episode.infos, "goal": goals.reshape(4, 3)})
    for timing in ("pre", "post"):
        flat = flatten_episodes(list(relabel_cube([episode], None, timing=timing)))
        np.testing.assert_array_equal(flat["rewards"], [0, 0, -1])


def test_a_new_goal_is_written_into_the_observation():
    """OGBench scales positions by ten about (0.425, 0, 0): 0.5 becomes 0.75, 0.02 becomes 0.2."""
    episode = cube_episode([0.3, 0.3, 0.3], truncated_at=[1])
    episode = dataclasses.replace(
        episode,
        observations=np.full((3, 5), 9.0),
        infos={**episode.infos, "goal": np.zeros((3, 3))},
    )
    (piece,) = relabel_cube([episode], GOAL, goal_in_observation=True)
    np.testing.assert_allclose(piece.observations[:, 2:], [[0.75, 0.0, 0.2]] * 3)
    np.testing.assert_array_equal(piece.observations[:, :2], 9.0)
    np.testing.assert_array_equal(piece.infos["goal"], [GOAL[0]] * 3)
    np.testing.assert_array_equal(episode.observations, 9.0)


def test_the_label_names_goal_and_rule():
    label = cube_label(GOAL)
    assert (label.source, label.timing) == ("cube", "pre")
    assert label.detail == {"goal_xyz_m": [[0.5, 0.0, 0.02]], "success_m": 0.04}
    assert cube_label(None, "post").detail["goal_xyz_m"] == "goal"
