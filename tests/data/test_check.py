import dataclasses
import json
import weakref

import gymnasium
import h5py
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from robo_rl.data import check as checking
from robo_rl.data.check import CheckConfig, check, store_report
from robo_rl.data.checks import sample
from robo_rl.data.episodes import Episode
from robo_rl.data.minari_io import Provenance, RewardLabel, StateLayout
from robo_rl.data.report import Places, Severity, finding

UNPLACED = Provenance(None, RewardLabel("environment", "1"))


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
    assert set(report.partial) == {"labels"}
    assert "6 episodes" in report.partial["labels"]
    assert set(report.passed) >= {
        "readable",
        "counts",
        "lengths",
        "spaces",
        "finite",
        "bounds",
        "ends",
        "jumps",
        "duplicates",
        "environment",
        "reward",
        "observation",
    }
    assert "no terminated_of_state" in report.skipped["terminated"]
    assert report.exit_code == 0
    assert (report.episodes, report.transitions) == (6, 180)


def only_code(report, code):
    assert codes(report) == [code]
    return report.findings[0]


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
    [("observations", np.nan), ("observations", -np.inf), ("actions", np.nan)],
)
def test_what_is_not_finite_is_found(write, clean, name, value):
    clean[2] = edit(clean[2], **{name: {4: [value, *getattr(clean[2], name)[4][1:]]}})
    report = check(write(clean), CheckConfig(reward_samples=0))
    only(report, "non_finite", 1, ((2, 4),))


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


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_clipped_and_bang_bang_actions_are_no_finding(write, clean, share):
    rng = np.random.default_rng(0)
    for e in clean:
        on = rng.random(e.actions.shape) < share
        e.actions[on] = np.sign(e.actions[on])
    assert codes(check(write(clean))) == []


def test_actions_that_are_nearly_always_on_a_bound_are_doubtful(write, clean):
    """As when commands in a unit ten times larger were cut to [-1, 1]."""
    for e in clean:
        np.clip(10.0 * e.actions, -1.0, 1.0, out=e.actions)
    finding = only_code(check(write(clean)), "action_on_bound")
    assert finding.confidence == "low"


@pytest.mark.parametrize(
    ("space", "actions", "wrong"),
    [
        (gymnasium.spaces.Discrete(50), np.arange(30) + 15, 0),
        (gymnasium.spaces.Discrete(40, start=10), np.arange(30), 10),
        (gymnasium.spaces.MultiDiscrete([30, 3]), np.arange(30)[:, None] * [1, 0] + [0, 3], 30),
    ],
)
def test_choices_are_held_against_their_number(write, clean, space, actions, wrong):
    discrete = [dataclasses.replace(e, actions=np.roll(actions, i, 0)) for i, e in enumerate(clean)]
    report = check(write(discrete, action_space=space))
    assert [f.count for f in report.findings if f.code == "action_past_bound"] == (
        [6 * wrong] if wrong else []
    )


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


class Ending:
    """PointEnv that ends the task near the origin."""

    def __init__(self):
        self.unwrapped = self
        self._point = gymnasium.make("robo_rl_test/Point-v0").unwrapped

    def __getattr__(self, name):
        return getattr(self._point, name)

    def terminated_of_state(self):
        return self._point.reward_of_state() > -0.3


def test_ends_are_replayed_beside_rewards(write, clean):
    ended = [
        dataclasses.replace(
            e,
            terminations=e.rewards > -0.3,
            truncations=(e.rewards <= -0.3) & (np.arange(len(e)) == len(e) - 1),
        )
        for e in (e.span(0, int(np.argmax([*(e.rewards[:-1] > -0.3), True])) + 1) for e in clean)
    ]
    assert any(e.terminations[-1] for e in ended)
    report = check(write(ended), env=Ending())
    assert codes(report) == []
    assert "terminated" in report.passed
    swapped = [
        dataclasses.replace(e, terminations=e.truncations, truncations=e.terminations)
        for e in ended
    ]
    report = check(write(swapped, "b-v0"), env=Ending())
    only(report, "terminated_differs", 6, tuple((i, len(e) - 1) for i, e in enumerate(ended[:5])))


def test_observations_are_replayed_beside_rewards(write, clean):
    """Positions in other units than the environment's, as after a change of its code."""
    degrees = [edit(e, observations={}) for e in clean]
    for e in degrees:
        e.observations[:, :2] = np.rad2deg(e.observations[:, :2])
    report = check(write(degrees))
    (finding,) = (f for f in report.findings if f.code == "observation_differs")
    assert "columns [0, 1]" in finding.message
    assert finding.count > 150


def test_states_of_another_scene_are_told_not_raised(write, clean):
    """The environment is for two numbers; the recording has three."""
    other = [
        dataclasses.replace(e, infos={k: np.c_[v, v[:, :1]] for k, v in e.infos.items()})
        for e in clean
    ]

    class Strict(Ending):
        def set_state(self, qpos, qvel):
            del qvel
            if qpos.shape != (2,):
                raise ValueError("qpos must have 2 numbers")

    report = check(write(other), env=Strict())
    finding = only_code(report, "env_differs")
    assert "qpos must have 2 numbers" in finding.message
    assert report.skipped.keys() >= {"reward", "terminated", "observation"}


def test_an_environment_of_other_spaces_is_told(write, clean):
    class Wide(NoHooks):
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)

    finding = only_code(check(write(clean), env=Wide()), "env_differs")
    assert "(7,)" in finding.message


class NoHooks(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

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
    clean[1] = edit(clean[1], truncations={29: False})
    clean[0].infos["force"] = clean[5].infos["force"] = np.r_[np.nan, np.zeros(30)]
    report = check(write([*clean, clean[2]]))
    assert set(codes(report)) == {"non_finite_info", "end_missing", "duplicate"}
    table = report.table()
    assert table.index("ERROR") < table.index("WARNING")
    assert "1:29" in table
    assert "7 episodes, 210 transitions" in table


def test_a_table_says_whether_it_shows_all_places(write, clean):
    """Two places of a finding that occurs twice are all, of one that occurs thrice they are not."""
    report = check(write([*clean, clean[2]]))
    (finding,) = report.findings
    for count, shown in ((2, "0:1, 4"), (3, "0:1, 4, ...")):
        seen = dataclasses.replace(finding, count=count, places=((0, 1), (4, None)))
        table = dataclasses.replace(report, findings=(seen,)).table()
        assert shown in table
        assert ("..." in table) == (count == 3)


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


def test_the_digest_tells_other_data_of_the_same_name(write, clean):
    first = check(write(clean)).digest
    assert check(write(clean, overwrite=True)).digest == first
    others = [clean[:5], clean[::-1], [*clean[:5], edit(clean[5], rewards={29: 0.0})]]
    digests = {check(write(other, overwrite=True)).digest for other in others}
    assert len(digests | {first}) == 4


def test_a_report_that_cannot_be_kept_is_said_not_raised(write, clean):
    dataset = write(clean)
    assert store_report(dataset, check(dataset)) is None
    (dataset.folder / "check.json").unlink()
    (dataset.folder / "check.json").mkdir()
    assert "check.json" in store_report(dataset, check(dataset))


@pytest.mark.parametrize("name", ["infos", "rewards"])
def test_a_misfit_in_one_field_keeps_an_episode_from_no_other_check(write, clean, name):
    """Infos of T rows, as Adroit's sets have them, or a reward too few: the NaN is found still."""
    dataset = write(clean)
    clean[2] = edit(clean[2], actions={4: np.nan})
    short = {
        "infos": {"infos": {k: v[:-1] for k, v in clean[2].infos.items()}},
        "rewards": {"rewards": clean[2].rewards[:-1]},
    }
    clean[2] = dataclasses.replace(clean[2], **short[name])
    store_raw(dataset, clean)
    report = check(dataset)
    assert {"lengths", "non_finite"} <= set(codes(report))
    assert "finite" not in report.passed
    assert next(f for f in report.findings if f.code == "non_finite").places == ((2, 4),)
    if name == "rewards":
        assert "rewards" in report.partial["finite"]


def recount(dataset, **counts):
    file = dataset.folder / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **counts}))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"total_episodes": 4}, "4 episodes are counted, 6 are stored"),
        ({"total_episodes": 9}, "9 episodes are counted, 6 are stored"),
        ({"total_steps": 181}, "181 steps are counted, 180 are stored"),
    ],
)
def test_counts_are_held_against_what_is_stored(write, clean, counts, said):
    recount(write(clean), **counts)
    finding = only_code(check("test/point-v0"), "counts")
    assert said in finding.message


def test_an_episode_that_cannot_be_read_is_told_and_the_others_are_checked(write, clean):
    dataset = write(clean)
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        del file["episode_1/actions"]
        file["episode_4/rewards"][3] = np.nan
    report = check(dataset)
    assert {"unreadable", "non_finite"} <= set(codes(report))
    assert report.episodes == 5


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda e: {"observations": e.observations[:, :3]}, "space_differs"),
        (lambda e: {"actions": (127 * e.actions).astype(np.int8)}, "space_differs"),
        (lambda e: {"actions": np.c_[e.actions, e.actions]}, "space_differs"),
        (lambda e: {"observations": e.observations.astype(np.float16)}, "half_precision"),
        (lambda e: {"observations": e.observations.astype(np.float64)}, None),
    ],
)
def test_arrays_are_held_against_the_spaces(write, clean, change, code):
    dataset = write(clean)
    clean[3] = dataclasses.replace(clean[3], **change(clean[3]))
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        for name in ("observations", "actions"):
            del file[f"episode_3/{name}"]
            file[f"episode_3/{name}"] = getattr(clean[3], name)
    found = [f for f in check(dataset).findings if f.code in ("space_differs", "half_precision")]
    assert [f.code for f in found] == ([code] if code else [])
    assert all(f.places == ((3, None),) for f in found)


def test_a_key_of_a_dict_space_that_was_not_recorded_is_told(write, clean):
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    both = gymnasium.spaces.Dict({"state": box, "goal": box})
    dicts = [
        dataclasses.replace(e, observations={"state": e.observations, "goal": e.observations + 1})
        for e in clean
    ]
    dataset = write(dicts, observation_space=both, env=None)
    assert codes(check(dataset)) == []
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        del file["episode_3/observations/goal"]
    finding = only_code(check(dataset), "space_differs")
    assert "observations['goal'] is missing" in finding.message


def test_observations_outside_their_space_are_a_warning(write, clean):
    narrow = gymnasium.spaces.Box(-50.0, 50.0, (4,), np.float32)
    clean[2].observations[5, 1] = 51.0
    report = check(write(clean, observation_space=narrow), env=NoHooks())
    assert ("observation_past_bound", 1, ((2, 5),)) in [
        (f.code, f.count, f.places) for f in report.findings
    ]


def test_what_float32_cannot_hold_is_found(write, clean):
    """The reward is finite as stored and infinite as learned from."""
    clean[1].rewards[7] = 1e39
    report = check(write(clean), CheckConfig(reward_samples=0))
    only(report, "overflow", 1, ((1, 7),))


def test_few_episodes_are_in_memory_at_a_time(write, episode, monkeypatch):
    """Those of the sample apart, which is of bounded size: the one looked at and its neighbours."""
    alive, most = [], 0
    original = checking.view_of

    def counted(number, one):
        nonlocal most
        view = original(number, one)
        alive.append(weakref.ref(view))
        most = max(most, sum(reference() is not None for reference in alive))
        return view

    monkeypatch.setattr(checking, "view_of", counted)
    report = check(write([episode(seed, 10) for seed in range(40)]), CheckConfig(reward_samples=0))
    assert report.episodes == 40
    assert most <= 3


def test_samples_must_not_be_negative():
    with pytest.raises(ValueError, match="reward_samples must be >= 0"):
        CheckConfig(reward_samples=-1)


def test_one_short_episode_is_said_to_be_too_little_for_most_checks(write, clean):
    report = check(write([clean[0].span(0, 5)], provenance=UNPLACED))
    assert {"jumps", "duplicates", "still", "spikes"} <= report.skipped.keys()
    assert "none to compare it with" in report.skipped["duplicates"]
    assert "time limits cannot be told: 1 episodes" in report.partial["labels"]


def test_near_copies_of_short_episodes_are_said_not_to_be_looked_for(write, clean):
    report = check(write([episode.span(0, 5) for episode in clean]))
    assert "6 episodes of under 6 steps" in report.partial["duplicates"]


def test_the_table_has_a_line_for_each_result_errors_first_and_says_each_thing_once(write, clean):
    report = check(write([edit(clean[0], rewards={3: np.nan}), *clean[1:]]))
    report = dataclasses.replace(
        report, partial={"replay": "half of it"}, skipped={"images": "there are none"}
    )
    lines = report.table().splitlines()
    assert lines[2].split()[:3] == ["result", "check", "count"]
    kinds = [line.split()[0] for line in lines[3 : lines.index("", 3)]]
    assert kinds == sorted(kinds, key=["ERROR", "WARNING", "skipped", "partial", "ok"].index)
    for said in ("half of it", "there are none", report.findings[0].message):
        [line] = [line for line in lines if said in line]
        assert line.count(said) == 1
        assert line.endswith(said)


@pytest.mark.parametrize(
    ("count", "of", "share"),
    [(1, 3, "(33 %)"), (3, 3, "(1e+02 %)"), (1, 180, "(0.56 %)"), (1, 0, "(1e+02 %)")],
)
def test_a_finding_says_how_large_its_share_is(count, of, share):
    places = [(number, None) for number in range(count)]
    (told,) = finding(Severity.WARNING, "odd", "it is", places, of, "look")
    assert told.message == f"it is {share}"
    assert (told.count, told.of) == (count, of)
    assert finding(Severity.WARNING, "odd", "it is", [], of, "look") == []


def test_places_are_counted_and_the_first_five_are_shown_in_their_order():
    places = Places([(2, 1), (0, 7), (2, None), (0, 3)])
    assert places.shown == [(0, 3), (0, 7), (2, None), (2, 1)]
    places.add_steps(3, np.array([4, 5, 6]))
    assert (places.count, places.shown[4:]) == (7, [(3, 4)])
    places.add(9)
    places.add_steps(10, np.array([1]))
    assert (places.count, len(places.shown)) == (9, 5)
    several = Places()
    several.add_steps(1, np.array([2, 8]))
    several.add(4)
    assert several.shown == [(1, 2), (1, 8), (4, None)]


def test_columns_of_a_table_begin_below_each_other(write, clean):
    lines = check(write([edit(clean[0], rewards={3: np.nan}), *clean[1:]])).table().splitlines()
    head = lines[2]
    rows = lines[3 : lines.index("", 3)]
    for name in ("check", "count", "where (episode:step)", "what"):
        place = head.index(name)
        assert all(row[place - 2 : place].strip() == "" for row in rows)
        assert any(len(row) > place and row[place] != " " for row in rows)
    assert head.index("check") == 2 + max(len(row.split()[0]) for row in [head, *rows])


class Stored:
    """Episodes as a dataset gives them, those asked for."""

    def __init__(self, episodes):
        self._episodes = episodes
        self.asked = []

    def numbered_episodes(self, numbers, _failed):
        for number in numbers:
            self.asked.append(number)
            yield number, self._episodes[number]


def test_a_sample_is_spread_over_all_episodes(episode):
    stored = Stored([episode(0, 2)] * 500)
    drawn = sample.draw(stored, 500)
    numbers = [view.number for view in drawn.views]
    assert len(numbers) == 200
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 499)
    assert set(np.diff(numbers)) == {2, 3}
    assert not drawn.whole
    assert drawn.reason == "200 of 500 episodes, 400 steps"
    assert stored.asked != numbers  # so that those read before a limit are spread, too


def test_a_sample_of_few_short_episodes_is_the_whole(episode):
    drawn = sample.draw(Stored([episode(0, 2)] * 200), 200)
    assert drawn.whole
    assert len(drawn.views) == 200


def wide(steps, width, pictures=0):
    """Each step of `width` float32 numbers and as many bytes of pictures as is said."""
    shown = np.zeros((steps + 1, width), np.float32)
    return Episode(
        observations={"state": shown, "camera": np.zeros((steps + 1, 1, pictures), np.uint8)},
        actions=np.zeros((steps, 0), np.float32),
        rewards=np.zeros(steps, np.float32),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


def test_of_long_episodes_a_sample_has_the_beginning_and_four_of_them_fill_it():
    """4 MiB of each, and 16 MiB of all, reached with the fifth."""
    long = wide(2047, 1024)  # 8 MiB, and the rewards
    drawn = sample.draw(Stored([long] * 9), 9)
    assert len(drawn.views) == 5
    assert {view.steps for view in drawn.views} == {1022}
    assert not drawn.whole
    assert drawn.reason == "5 of 9 episodes, 5110 steps, long ones by their beginning"


def test_pictures_fill_no_sample_and_are_read_up_to_96_mib():
    drawn = sample.draw(Stored([wide(15, 4, 2**20)] * 9), 9)  # 16 MiB each
    assert len(drawn.views) == 6
    assert all(view.steps == 15 for view in drawn.views)
    assert drawn.views[0].episode.observations["camera"].shape == (16, 0, 0)


def test_a_sample_ends_with_the_episode_that_goes_beyond_16_mib():
    drawn = sample.draw(Stored([wide(255, 1024)] * 30), 30)  # 1 MiB each, and the rewards
    assert len(drawn.views) == 16
    assert drawn.reason == "16 of 30 episodes, 4080 steps"
