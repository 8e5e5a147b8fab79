"""Collected episodes: their shape, their ends, and that workers do not change them."""

import numpy as np
import pytest

from robo_rl.envs.ogbench import scenes
from robo_rl.envs.ogbench.collect import CollectConfig, Episode, collect, state_layout
from robo_rl.envs.ogbench.oracles import OracleConfig


def equal(a: Episode, b: Episode) -> bool:
    same = all(np.array_equal(a[key], b[key]) for key in a if key != "infos")
    return same and all(np.array_equal(a["infos"][key], b["infos"][key]) for key in a["infos"])


@pytest.mark.parametrize("kind", ["markov", "plan"])
def test_oracles_bring_the_cube_to_the_target_through_the_guards(kind: str) -> None:
    config = CollectConfig(episodes=5, oracle=OracleConfig(kind, noise=0.05), seed=1)
    episodes = list(collect(config))
    assert sum(episode["infos"]["success"][-1] for episode in episodes) >= 4
    for episode in episodes:
        steps = len(episode["actions"])
        assert episode["observations"].shape == (steps + 1, 31)
        assert episode["actions"].shape == (steps, 5)
        assert episode["actions"].dtype == np.float32
        assert np.abs(episode["actions"]).max() <= 1.0
        assert not episode["terminations"].any()
        assert episode["truncations"].tolist() == [False] * (steps - 1) + [True]
        for key, rows in episode["infos"].items():
            assert len(rows) == steps + 1, key
        # Reward 1 where the state that a step led to has the cube on its target.
        np.testing.assert_array_equal(episode["rewards"], episode["infos"]["success"][1:])
        goal = (episode["infos"]["goal"] - [0.425, 0.0, 0.0]) * 10
        np.testing.assert_allclose(episode["observations"][:, 28:], goal)


def test_success_ends_an_episode_of_the_random_form() -> None:
    config = CollectConfig(episodes=1, env={"form": "random"}, oracle=OracleConfig(noise=0.0))
    (episode,) = collect(config)
    assert episode["terminations"][-1]
    assert not episode["truncations"].any()
    assert episode["rewards"][-1] == 0.0
    assert (episode["rewards"][:-1] == -1.0).all()


def test_retargeting_goes_on_to_the_step_limit_with_new_goals() -> None:
    config = CollectConfig(
        episodes=1, oracle=OracleConfig("plan"), max_steps=200, retarget=True, seed=2
    )
    (episode,) = collect(config)
    assert len(episode["actions"]) == 200
    goals = episode["infos"]["goal"]
    changes = np.flatnonzero((np.diff(goals, axis=0) != 0).any(axis=1)) + 1
    assert len(changes) >= 1
    # The observation that an action answers carries the goal that it works for.
    appended = episode["observations"][changes, 28:]
    np.testing.assert_allclose(appended, (goals[changes] - [0.425, 0.0, 0.0]) * 10)


def test_workers_do_not_change_the_episodes_nor_their_order() -> None:
    config = CollectConfig(episodes=3, max_steps=12, seed=5)
    alone = list(collect(config))
    told: list[tuple[int, int]] = []
    parallel = CollectConfig(episodes=3, max_steps=12, seed=5, workers=2)
    together = list(collect(parallel, lambda done, steps: told.append((done, steps))))
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not equal(alone[0], alone[1])
    assert told == [(1, 12), (2, 24), (3, 36)]


def test_an_episode_does_not_depend_on_the_ones_before_it() -> None:
    many = list(collect(CollectConfig(episodes=3, max_steps=8, seed=7)))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    again = list(collect(CollectConfig(episodes=3, max_steps=8, seed=7)))
    assert all(equal(a, b) for a, b in zip(many, again, strict=True))
    # The oracles' use of NumPy's global generator leaves no trace.
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_random_actions_and_noise_reach_the_actions() -> None:
    def actions(**fields: float) -> np.ndarray:
        config = CollectConfig(episodes=1, max_steps=10, oracle=OracleConfig(**fields))  # type: ignore[arg-type]
        return next(iter(collect(config)))["actions"]

    quiet = actions(noise=0.0)
    assert (actions(noise=0.5) != quiet).any()
    assert (actions(noise=0.0, random_action_probability=1.0) != quiet).all()
    assert (actions(noise=0.0, min_norm=0.0) != quiet).any()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: OracleConfig("human"), "kind must be one of"),
        (lambda: OracleConfig(noise=-1.0), "noise must be >= 0"),
        (lambda: OracleConfig(random_action_probability=2.0), r"in \[0, 1\]"),
        (lambda: CollectConfig(episodes=0), "episodes must be >= 1"),
        (lambda: CollectConfig(episodes=1, env={"form": "goal"}), "'data' or 'random'"),
    ],
)
def test_bad_configs_are_refused(make, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=told):
        make()


def test_the_layout_of_a_state_is_that_of_the_scene():
    """Against MuJoCo's own addresses of the cubes' free joints."""
    scene = scenes.compile_cube_scene("double")
    layout = state_layout("double")
    joints = [scene.model.joint(name) for name in scene.names.objects.values()]
    assert layout.object_qpos == tuple(int(joint.qposadr[0]) for joint in joints)
    assert layout.object_qvel == tuple(int(joint.dofadr[0]) for joint in joints)
    arm = [scene.model.joint(name) for name in scene.names.arm_joints]
    assert [int(joint.qposadr[0]) for joint in arm] == list(range(layout.arm_qpos, 6))
