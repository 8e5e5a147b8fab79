import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from robo_rl.data.check import CheckConfig, check, store_report
from robo_rl.data.minari_io import RewardLabel, StateLayout


def edit(episode, **rows):
    """Copy with single rows of arrays replaced: edit(e, actions={3: 0.5})."""
    changes = {}
    for name, values in rows.items():
        array = np.array(getattr(episode, name))
        for row, value in values.items():
            array[row] = value
        changes[name] = array
    return dataclasses.replace(episode, **changes)


def codes(report):
    return [finding.code for finding in report.findings]


def store_raw(dataset, episodes):
    """Put episodes into a dataset as a careless writer would: unchecked."""
    (dataset.folder / "main_data.hdf5").unlink()
    (dataset.folder / "main_data.hdf5").touch()
    MinariStorage.read(dataset.folder).update_episodes(
        EpisodeBuffer(
            observations=e.observations,
            actions=e.actions,
            rewards=e.rewards,
            terminations=e.terminations,
            truncations=e.truncations,
            infos=dict(e.infos),
        )
        for e in episodes
    )


def test_a_clean_dataset_passes_every_check(write, clean):
    report = check(write(clean))
    assert codes(report) == []
    assert report.skipped == {}
    assert set(report.passed) == {
        "lengths",
        "finite",
        "bounds",
        "ends",
        "jumps",
        "duplicates",
        "reward",
    }
    assert report.exit_code == 0
    assert (report.episodes, report.transitions) == (6, 180)


def only(report, code, count, places, exit_code=1):
    assert codes(report) == [code]
    (finding,) = report.findings
    assert finding.count == count
    assert finding.places == places
    assert report.exit_code == exit_code
    assert finding.advice
    return finding


@pytest.mark.parametrize(
    ("name", "value"),
    [("observations", np.nan), ("observations", np.inf), ("actions", np.nan)],
)
def test_what_is_not_finite_is_found(write, clean, name, value):
    clean[2] = edit(clean[2], **{name: {4: value}})
    only(check(write(clean)), "non_finite", 1, ((2, 4),))


def test_a_reward_that_is_not_finite_is_found(write, clean):
    clean[2] = edit(clean[2], rewards={4: np.nan})
    only(check(write(clean), CheckConfig(reward_samples=0)), "non_finite", 1, ((2, 4),))


def test_an_info_that_is_not_finite_is_a_warning(write, clean):
    clean[1] = dataclasses.replace(
        clean[1], infos={**clean[1].infos, "force": np.where(np.arange(31) == 30, np.nan, 0.0)}
    )
    only(check(write(clean)), "non_finite_info", 1, ((1, 30),), exit_code=0)


def test_an_action_past_its_bound_is_an_error(write, clean):
    clean[0] = edit(clean[0], actions={3: [1.01, 0.0], 7: [0.0, -1.5]})
    finding = only(check(write(clean)), "action_past_bound", 2, ((0, 3), (0, 7)))
    assert finding.of == 180
    assert "(1.1 %)" in finding.message


def test_an_action_on_its_bound_is_a_warning(write, clean):
    clean[5] = edit(clean[5], actions={0: [1.0, 0.0], 9: [0.2, -1.0]})
    only(check(write(clean)), "action_on_bound", 2, ((5, 0), (5, 9)), exit_code=0)


def test_discrete_actions_have_no_bounds(write, clean):
    discrete = [dataclasses.replace(e, actions=np.arange(len(e)) + i) for i, e in enumerate(clean)]
    report = check(write(discrete, action_space=gymnasium.spaces.Discrete(50)))
    assert codes(report) == []
    assert "no bounds" in report.skipped["bounds"]


def test_an_episode_without_an_end_is_found(write, clean):
    clean[1] = edit(clean[1], truncations={29: False})
    only(check(write(clean)), "end_missing", 1, ((1, 29),))


def test_terminated_in_mid_episode_is_found(write, clean):
    clean[3] = edit(clean[3], terminations={10: True})
    only(check(write(clean)), "terminated_early", 1, ((3, 10),))


def test_truncated_in_mid_episode_is_found(write, clean):
    clean[3] = edit(clean[3], truncations={10: True})
    only(check(write(clean)), "truncated_early", 1, ((3, 10),))


def test_both_ends_at_once_are_a_warning(write, clean):
    clean[0] = edit(clean[0], truncations={29: True})
    only(check(write(clean)), "end_contradictory", 1, ((0, 29),), exit_code=0)


def test_a_repeated_episode_is_found(write, clean):
    finding = only(
        check(write([*clean, clean[2], clean[2]])), "duplicate", 2, ((6, None), (7, None))
    )
    assert "6 equals 2" in finding.message


@pytest.mark.parametrize(
    "change",
    [
        lambda e: dataclasses.replace(e, observations=e.observations[:-1]),
        lambda e: dataclasses.replace(e, actions=e.actions[:-1]),
        lambda e: dataclasses.replace(e, truncations=e.truncations[:-1]),
        lambda e: dataclasses.replace(e, infos={**e.infos, "qpos": e.infos["qpos"][:-1]}),
    ],
)
def test_arrays_of_wrong_length_are_found(write, clean, change):
    dataset = write(clean)
    clean[4] = change(clean[4])
    store_raw(dataset, clean)
    finding = only(check(dataset), "lengths", 1, ((4, None),))
    assert "episode 4" in finding.message


def joined(first, second):
    """Two recordings in one episode: a reset that nobody marked."""
    return dataclasses.replace(
        first,
        **{
            name: np.concatenate([getattr(first, name), getattr(second, name)])
            for name in ("rewards", "terminations")
        },
        observations=np.concatenate([first.observations[:-1], second.observations]),
        actions=np.concatenate([first.actions, second.actions]),
        truncations=np.concatenate([np.zeros(len(first), bool), second.truncations]),
        infos={k: np.concatenate([v[:-1], second.infos[k]]) for k, v in first.infos.items()},
    )


def test_a_hidden_reset_is_past_the_velocity_limits(write, clean, episode):
    """The joint limit is 2 rad/s at 10 Hz: 0.27 rad a step; the reset makes more than that."""
    glued = joined(episode(11), episode(13))
    only(check(write([*clean, glued]), CheckConfig(reward_samples=0)), "jump", 1, ((6, 29),))


def test_a_hidden_reset_is_suspected_without_limits(write, clean, episode, provenance):
    glued = joined(episode(11), episode(13))
    unlimited = dataclasses.replace(provenance, layout=None)
    long = [episode(seed, 100) for seed in range(20, 30)]
    report = check(write([*long, glued], provenance=unlimited), CheckConfig(reward_samples=0))
    only(report, "jump_suspected", 1, ((10, 29),), exit_code=0)


def test_observations_are_judged_where_no_positions_were_recorded(write, episode, provenance):
    bare = [
        dataclasses.replace(e, infos={})
        for e in [*(episode(seed, 100) for seed in range(20, 30)), joined(episode(11), episode(13))]
    ]
    bare[-1].observations[30:, 2:] += 20.0
    report = check(write(bare, provenance=provenance))
    assert codes(report) == ["jump_suspected"]
    assert "infos['qpos']" in report.skipped["reward"]


def test_a_last_state_overwritten_by_an_auto_reset_is_a_seam(write, clean, episode):
    """As an environment that resets itself hands it out: the outcome is the next start."""
    first, second = episode(11), episode(13)
    infos = {k: np.concatenate([v[:-1], second.infos[k][:1]]) for k, v in first.infos.items()}
    first = dataclasses.replace(edit(first, observations={30: second.observations[0]}), infos=infos)
    report = check(write([*clean, first, second]), CheckConfig(reward_samples=0))
    only(report, "seam", 1, ((6, 29),))


def test_a_recording_cut_in_two_is_no_seam(write, episode):
    whole = episode(0, 60)
    halves = [whole.span(0, 30), whole.span(30, 60)]
    halves[0] = edit(halves[0], truncations={29: True})
    assert codes(check(write(halves))) == []


def test_a_body_that_moves_without_speed_is_found(write, clean, provenance):
    """A cube at rest that is 0.6 m further a step later: no push does that in a tenth second."""
    layout = StateLayout(velocity_rad_s=(2.0, 2.0), object_qpos=(2,), object_qvel=(2,))
    cubes = []
    for e in clean:
        xyz, speed = np.zeros((31, 3)), np.zeros((31, 3))
        xyz[16:, 0] = 0.1  # pushed at 1 m/s for one step: fine
        speed[15, 0] = 1.0
        infos = {
            "qpos": np.concatenate([e.infos["qpos"], xyz], axis=1),
            "qvel": np.concatenate([e.infos["qvel"], speed], axis=1),
        }
        cubes.append(dataclasses.replace(e, infos=infos))
    with_cubes = dataclasses.replace(provenance, layout=layout)
    no_reward = CheckConfig(reward_samples=0)
    assert codes(check(write(cubes, "a-v0", with_cubes), no_reward)) == []
    cubes[2].infos["qpos"][20:, 2] += 0.6
    only(check(write(cubes, "b-v0", with_cubes), no_reward), "jump", 1, ((2, 19),))


def test_a_reward_that_the_environment_does_not_give_is_found(write, clean):
    clean[3] = edit(clean[3], rewards={12: -9.0})
    finding = only(
        check(write(clean), CheckConfig(reward_samples=180)), "reward_differs", 1, ((3, 12),)
    )
    assert "-9 stored" in finding.message


def test_the_environment_is_made_with_the_stored_arguments(write, clean):
    assert codes(check(write(clean, env_kwargs={"scale": 2.0}))) == ["reward_differs"]
    doubled = [dataclasses.replace(e, rewards=2.0 * e.rewards) for e in clean]
    assert codes(check(write(doubled, "two-v0", env_kwargs={"scale": 2.0}))) == []


def test_pre_timing_replays_the_state_before_the_step(write, clean, provenance):
    label = RewardLabel(source="environment", version="1", timing="pre")
    before = [
        dataclasses.replace(e, rewards=-np.linalg.norm(e.infos["qpos"][:-1], axis=1)) for e in clean
    ]
    assert codes(check(write(clean, "a-v0"))) == []
    assert codes(check(write(before, "b-v0"))) == ["reward_differs"]
    pre = dataclasses.replace(provenance, reward=label)
    assert codes(check(write(before, "c-v0", pre))) == []


class NoHooks(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, **_):
        return np.zeros(1, np.float32), {}


def test_a_replay_that_cannot_be_made_says_why(write, clean, provenance):
    reasons = {
        "a-v0": (write(clean, "a-v0", env=None), None, "names no environment"),
        "b-v0": (write(clean, "b-v0", env="elsewhere/Arm-v1"), None, "cannot be made"),
        "c-v0": (write(clean, "c-v0"), NoHooks(), "has no set_state"),
    }
    bare = [dataclasses.replace(e, infos={"qpos": e.infos["qpos"]}) for e in clean]
    reasons["d-v0"] = (write(bare, "d-v0"), None, r"no infos")
    none = dataclasses.replace(provenance, reward=RewardLabel("none", "1"))
    reasons["e-v0"] = (write(clean, "e-v0", none), None, "reward-free")
    for dataset, env, reason in reasons.values():
        report = check(dataset, env=env)
        assert reason in report.skipped["reward"]
        assert codes(report) == []
        assert report.exit_code == 0
        assert "reward" not in report.passed


def test_a_state_that_needs_more_than_was_recorded_says_so(write, clean):
    class Buttons(NoHooks):
        def set_state(self, qpos, qvel, button_states):
            del qpos, qvel, button_states

        def reward_of_state(self):
            return 0.0

    report = check(write(clean), env=Buttons())
    assert "needs infos['button_states']" in report.skipped["reward"]


def test_several_defects_are_all_reported_errors_first(write, clean):
    clean[5] = edit(clean[5], actions={0: [1.0, 0.0]})
    clean[1] = edit(clean[1], truncations={29: False})
    report = check(write([*clean, clean[2]]))
    assert set(codes(report)) == {"action_on_bound", "end_missing", "duplicate"}
    table = report.table()
    assert table.index("ERROR") < table.index("WARNING")
    assert "1:29" in table
    assert "7 episodes, 210 transitions" in table


def test_the_report_is_json_and_can_be_kept(write, clean):
    clean[1] = edit(clean[1], truncations={29: False})
    dataset = write(clean)
    report = check("test/point-v0")
    store_report(dataset, report)
    stored = json.loads((dataset.folder / "check.json").read_text())
    assert stored == json.loads(json.dumps(report.to_json()))
    assert stored["exit_code"] == 1
    assert stored["findings"][0]["severity"] == "error"
    assert stored["findings"][0]["places"] == [[1, 29]]
    assert codes(check(dataset)) == ["end_missing"]


def test_samples_must_not_be_negative():
    with pytest.raises(ValueError, match="reward_samples must be >= 0"):
        CheckConfig(reward_samples=-1)
