import dataclasses
import errno
import json
import os

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import anchored, bc, famo2o, flowbc, fql, ifql, iql, qc, residual, sac
from robo_rl.data.spaces import Spaces
from robo_rl.hardware.runtime.kinds import KINDS as NUMPY_KINDS
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.nn import policies
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.normaliser import Normaliser
from robo_rl.runs import export as exporting
from robo_rl.runs.export import Interface, NotExportable, ParityError, export
from robo_rl.runs.specs import ActionSpec, ObservationSpec

NET = NetConfig(hidden=(256, 256))
GELU = NetConfig(hidden=(512, 512, 512), activation="gelu")
SMALL = NetConfig(hidden=(16, 16))
CASES = {
    "bc": (bc, bc.Config(actor=GELU)),
    "bc_silu_norm": (
        bc,
        bc.Config(actor=dataclasses.replace(NET, activation="silu", layer_norm="after")),
    ),
    "family": (
        famo2o,
        famo2o.Config(actor=NET, balance=dataclasses.replace(NET, layer_norm="before")),
    ),
    "iql": (iql, iql.Config(actor=NET, critic=NetConfig(hidden=(8,)))),
    "sac": (
        sac,
        sac.Config(actor=dataclasses.replace(NET, activation="tanh", layer_norm="before")),
    ),
    "one_step": (fql, fql.Config(flow=SMALL, actor=GELU, critic=SMALL)),
    "flow": (flowbc, flowbc.Config(flow=dataclasses.replace(NET, layer_norm="after"))),
    "best_of_n": (ifql, ifql.Config(flow=SMALL, critic=SMALL, samples=4)),
    "simba": (
        ifql,
        ifql.Config(
            flow=NetConfig(hidden=(32, 32), arch="simba(expansion=3)"),
            critic=NetConfig(hidden=(32,), arch="bro", activation="silu"),
            samples=3,
        ),
    ),
    "bro": (iql, iql.Config(actor=NetConfig(hidden=(64, 64), arch="bro"), critic=SMALL)),
    "chunks": (qc, qc.Config(flow=SMALL, critic=SMALL, samples=3, aggregate="min")),
    "outside": (residual, residual.Config(base_in_observation=True, actor=NET, critics=2)),
    "whole": (anchored, anchored.Config(actor=GELU, critics=2)),
    "residual": (
        residual,
        residual.Config(base=GELU, actor=dataclasses.replace(NET, layer_norm="before"), critics=2),
    ),
}


def _trained(case, rng):
    """An agent with random weights in every layer, on 31 observations and 5 actions."""
    agent, config = CASES[case]
    example = {"observations": jnp.zeros((1, 31)), "actions": jnp.zeros((1, 5))}
    mean, std = rng.normal(size=31), rng.uniform(0.05, 3.0, 31)
    normaliser = Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
    state = agent.init(config, jax.random.key(0), example, normaliser)
    if case in ("residual", "outside"):  # its last layer starts at zero
        kernel = jnp.asarray(rng.normal(size=(256, 5)) * 0.1, jnp.float32)
        actor = {**state.params["actor"]}
        actor["mean"] = {**actor["mean"], "kernel": kernel}
        state = dataclasses.replace(state, params={**state.params, "actor": actor})
    observations = (mean + std * rng.normal(size=(1000, 31))).astype(np.float32)

    @jax.jit
    def act(obs):
        return agent.act(config, state, obs, jax.random.key(0))

    return agent.policy(config, state), act, observations


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_exported_policy_computes_what_the_agent_does(case, tmp_path):
    policy, act, observations = _trained(case, np.random.default_rng(0))
    folder = tmp_path / "policy"
    drawn = policies.noise(policy, jax.random.key(0), (len(observations),))
    noise = None if drawn is None else np.asarray(drawn)
    difference = export(
        folder,
        policy,
        Interface(20.0),
        act=act,
        observations=observations,
        load=NumpyPolicy.load,
        noise=noise,
    )
    assert difference <= 1e-5
    expected = np.asarray(act(observations))
    assert np.ptp(expected) > 0.5
    exported = NumpyPolicy.load(folder)
    assert exported.kind == policy.kind
    got = exported.compute(observations, noise)
    # Rounding may decide between actions that critics value alike.
    same = np.mean(np.abs(got - expected).max(axis=-1) <= 1e-5)
    assert same > 0.99 if exported.kind == "best_of_n" else same == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "policy.json"]


def test_every_kind_is_there_in_jax_and_in_numpy_and_has_a_case_here():
    assert policies.KINDS.keys() == NUMPY_KINDS.keys()
    kinds = {_trained(case, np.random.default_rng(0))[0].kind for case in CASES}
    assert kinds == policies.KINDS.keys()


class Own(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(x)


@pytest.mark.parametrize("part", ["flow", "critic"])
def test_a_network_that_numpy_cannot_compute_is_refused_by_its_name(part):
    config = ifql.Config(flow=SMALL, critic=SMALL)
    config = dataclasses.replace(config, **{part: NetConfig(arch=Own)})
    example = {"observations": jnp.zeros((1, 3)), "actions": jnp.zeros((1, 2))}
    policy = ifql.policy(config, ifql.init(config, jax.random.key(0), example))
    with pytest.raises(NotExportable, match=r"Own@\w+ is a network of your own, .* train w"):
        exporting.check_exportable(policy)


def test_a_critic_of_ones_own_does_not_hinder_an_export_that_has_none():
    config = iql.Config(actor=SMALL, critic=NetConfig(arch=Own))
    example = {"observations": jnp.zeros((1, 3)), "actions": jnp.zeros((1, 2))}
    policy = iql.policy(config, iql.init(config, jax.random.key(0), example))
    description, arrays = exporting.describe(policy, Interface(20.0))
    assert NumpyPolicy(description, arrays).compute(np.zeros(3)).shape == (2,)


def test_a_difference_fails_the_export_and_leaves_the_old_one(tmp_path):
    policy, act, observations = _trained("iql", np.random.default_rng(0))
    folder = tmp_path / "policy"
    common = {"observations": observations, "load": NumpyPolicy.load}
    export(folder, policy, Interface(20.0), act=act, **common)
    before = (folder / "policy.json").read_bytes()
    with pytest.raises(ParityError, match="differs from the trained one by 1"):
        export(folder, policy, Interface(5.0), act=lambda x: act(x) + 1e-4, **common)
    with pytest.raises(ParityError, match="nan"):
        export(folder, policy, Interface(5.0), act=lambda x: act(x) * jnp.nan, **common)
    assert (folder / "policy.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    export(folder, policy, Interface(5.0), act=act, **common)
    assert NumpyPolicy.load(folder).rate_hz == 5.0


def test_an_export_that_the_system_refuses_names_its_folder(tmp_path, monkeypatch):
    policy, act, observations = _trained("iql", np.random.default_rng(0))

    def refusing(*_args, **_arrays):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(exporting.np, "savez", refusing)
    with pytest.raises(OSError, match=r"cannot export to .*policy: File too large; the system"):
        export(
            tmp_path / "policy",
            policy,
            Interface(20.0),
            act=act,
            observations=observations,
            load=NumpyPolicy.load,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_description_says_what_is_read_and_written(tmp_path):
    """Parts of 25 + 2 * 3 entries; the second action goes from -2 to 6, so 0 is its middle 2."""
    policy, act, observations = _trained("iql", np.random.default_rng(0))
    low, high = (-1.0, -2.0, 0.0, 0.1, 0.2), (1.0, 6.0, 1.0, 0.3, 0.7)
    spaces = Spaces((("observation", (25,)), ("goal", (2, 3))), (), low, high, "float64")
    action = dataclasses.replace(ActionSpec.of(spaces), names=("x", "y", "z", "yaw", "gripper"))
    interface = Interface(
        None,
        ObservationSpec.of(spaces),
        action,
        meta={"environment": {"id": "FetchReach-v4", "kwargs": {}, "max_episode_steps": 50}},
    )
    export(
        tmp_path / "p",
        policy,
        interface,
        act=act,
        observations=observations,
        load=NumpyPolicy.load,
    )
    about = json.loads((tmp_path / "p" / "policy.json").read_text())
    assert about["observation"] == {
        "size": 31,
        "names": [],
        "parts": [{"key": "observation", "shape": [25]}, {"key": "goal", "shape": [2, 3]}],
    }
    assert about["action"]["names"] == ["x", "y", "z", "yaw", "gripper"]
    assert about["meta"] == dict(interface.meta)
    exported = NumpyPolicy.load(tmp_path / "p")
    assert (exported.rate_hz, exported.action.dtype) == (None, "float64")
    row = observations[0].astype(np.float64)
    seen = {"goal": row[25:].reshape(2, 3), "extra": 0, "observation": row[:25]}
    np.testing.assert_array_equal(exported.act(seen), exported.act(row))
    for actions in (np.ones(5), -np.ones(5), np.random.default_rng(0).uniform(-1, 1, (100, 5))):
        np.testing.assert_array_equal(exported.action.scaled(actions), spaces.from_unit(actions))
    np.testing.assert_array_equal(exported.act(seen), exported.compute(spaces.read(seen)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"action": ActionSpec(names=("x", "y"))}, "2 action names for 5 entries"),
        ({"action": ActionSpec(low=(0.0,))}, "1 action low for 5 entries"),
        ({"action": ActionSpec(low=(1.5,) * 5)}, "none low above high"),
        ({"action": ActionSpec(high=(float("inf"),) * 5)}, "finite bounds"),
        ({"observation": ObservationSpec(names=("x",))}, "1 observation names for 31 entries"),
        ({"observation": ObservationSpec(parts=(("a", (3, 2)),))}, r"hold 6 .* reads 31: a \(3, 2"),
        ({"meta": {"arm": float("nan")}}, "not JSON compliant"),
    ],
)
def test_a_description_that_is_not_of_the_policy_is_refused(spec, message):
    policy, _, _ = _trained("iql", np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        exporting.describe(policy, Interface(20.0, **spec))


def test_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    policy, act, observations = _trained("iql", np.random.default_rng(0))
    with pytest.raises(FileExistsError, match="not an exported policy"):
        export(
            tmp_path,
            policy,
            Interface(20.0),
            act=act,
            observations=observations,
            load=NumpyPolicy.load,
        )


def test_probe_observations_are_of_the_data_and_around_it():
    data = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    probe = exporting.probe_observations(data)
    assert probe.shape == (1000, 3)
    known = {row.tobytes() for row in data}
    assert all(row.tobytes() in known for row in probe[:500])
    assert not any(row.tobytes() in known for row in probe[500:])


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="rate_hz must be > 0"):
        Interface(0.0)
