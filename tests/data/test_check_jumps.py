"""Resets inside episodes, on recordings of an arm without limits, infos or an environment."""

import dataclasses

import gymnasium
import h5py
import numpy as np
import pytest

from robo_rl.data.check import check
from robo_rl.data.episodes import Episode
from robo_rl.data.provenance import Provenance, RewardLabel

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)
UNKNOWN = Provenance(None, RewardLabel("none", "1"))


def arm(rng, steps, start=None):
    """Six joints that gather speed at random."""
    speed = np.zeros((steps + 1, 6))
    for step in range(steps):
        speed[step + 1] = 0.9 * speed[step] + rng.normal(0.0, 0.004, 6)
    first = rng.uniform(-1.0, 1.0, 6) if start is None else start
    ends = np.arange(steps) == steps - 1
    return Episode(
        observations=(first + np.cumsum(speed, axis=0)).astype(np.float32),
        actions=rng.uniform(-0.9, 0.9, (steps, 2)).astype(np.float32),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, bool),
        truncations=ends,
    )


def glued(parts):
    """One episode of all parts; the last state of each but the last is lost."""
    states = [part.observations[:-1] for part in parts[:-1]] + [parts[-1].observations]
    steps = sum(len(part) for part in parts)
    return Episode(
        observations=np.concatenate(states),
        actions=np.concatenate([part.actions for part in parts]),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


def found(report):
    return {f.code: f for f in report.findings}


@pytest.mark.parametrize(("steps", "count", "least"), [(200, 10, 9), (57, 20, 18), (25, 40, 38)])
def test_glued_episodes_are_told_apart_at_their_seams(write, steps, count, least):
    """Up to one step in 25 is a seam, and still none of the others is suspected."""
    rng = np.random.default_rng(0)
    episode = glued([arm(rng, steps) for _ in range(count)])
    finding = found(check(write([episode], provenance=UNKNOWN, observation_space=SPACE)))[
        "jump_suspected"
    ]
    assert least <= finding.count <= count - 1
    assert all((step + 1) % steps == 0 for _, step in finding.places)
    assert finding.confidence == "medium"


def test_one_recording_cut_into_episodes_has_no_seam(write):
    rng = np.random.default_rng(0)
    episodes = [arm(rng, 60)]
    for _ in range(7):
        episodes.append(arm(rng, 60, episodes[-1].observations[-1]))
    report = check(write(episodes, provenance=UNKNOWN, observation_space=SPACE))
    assert "jumps" not in report.skipped
    assert "returns to a first state cannot be told" in report.partial["jumps"]


def test_dict_observations_are_looked_at_side_by_side(write):
    rng = np.random.default_rng(0)

    def split(episode):
        joints = {"left": episode.observations[:, :3], "right": episode.observations[:, 3:]}
        return dataclasses.replace(episode, observations=joints)

    half = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    space = gymnasium.spaces.Dict({"left": half, "right": half})
    whole = [split(arm(rng, 60)) for _ in range(4)]
    bad = split(glued([arm(rng, 60), arm(rng, 60)]))
    assert "jumps" in check(write(whole, provenance=UNKNOWN, observation_space=space)).partial
    dataset = write([*whole, bad], "b-v0", UNKNOWN, observation_space=space)
    assert found(check(dataset))["jump_suspected"].places == ((4, 59),)


def test_images_are_not_said_to_be_free_of_jumps(write):
    rng = np.random.default_rng(0)
    space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    pictures = [
        dataclasses.replace(
            arm(rng, 20), observations=rng.integers(0, 255, (21, 8, 8, 3), np.uint8)
        )
        for _ in range(4)
    ]
    report = check(write(pictures, provenance=UNKNOWN, observation_space=space))
    assert "no vector of reals" in report.skipped["jumps"]
    assert "jumps" not in report.passed


def test_episodes_of_another_width_are_said_not_to_be_looked_at(write):
    rng = np.random.default_rng(0)
    dataset = write([arm(rng, 60) for _ in range(5)], provenance=UNKNOWN, observation_space=SPACE)
    with h5py.File(dataset.folder / "main_data.hdf5", "r+") as file:
        narrow = file["episode_3/observations"][:, :4]
        del file["episode_3/observations"]
        file["episode_3/observations"] = narrow
    report = check(dataset)
    assert "1 episodes have no state as the others" in report.partial["jumps"]
    assert "space_differs" in found(report)


def test_a_walker_put_back_to_its_start_is_seen_although_it_jerks_as_hard_by_itself(write):
    """Velocities change at random from step to step, so only the start gives the reset away."""
    rng = np.random.default_rng(0)

    def walker(steps):
        episode = arm(rng, steps)
        rows = rng.normal(0.0, 1.0, (steps + 1, 6))
        rows[0] *= 0.01
        return dataclasses.replace(episode, observations=rows.astype(np.float32))

    clean = [walker(100) for _ in range(12)]
    assert "jumps" in check(write(clean, provenance=UNKNOWN, observation_space=SPACE)).passed
    bad = glued([walker(100), walker(100)])
    dataset = write([*clean, bad], "b-v0", UNKNOWN, observation_space=SPACE)
    assert found(check(dataset))["reset_inside"].places == ((12, 99),)
