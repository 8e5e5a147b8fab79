import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, famo2o, iql, residual, sac
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.normaliser import Normaliser
from robo_rl.runs import export as exporting
from robo_rl.runs.export import Interface, ParityError, export

NET = NetConfig(hidden=(256, 256))
GELU = NetConfig(hidden=(512, 512, 512), activation="gelu")
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
    "outside": (residual, residual.Config(base_in_observation=True, actor=NET, critics=2)),
    "whole": (residual, residual.Config(trains="whole", base=GELU, critics=2)),
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
    difference = export(
        folder, policy, Interface(20.0), act=act, observations=observations, load=NumpyPolicy.load
    )
    assert difference <= 1e-5
    expected = np.asarray(act(observations))
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(NumpyPolicy.load(folder).act(observations), expected, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "policy.json"]


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


def test_the_description_says_what_is_read_and_written(tmp_path):
    policy, act, observations = _trained("iql", np.random.default_rng(0))
    interface = Interface(
        20.0, [f"o{i}" for i in range(31)], ["x", "y", "z", "yaw", "gripper"], meta={"arm": "ur5e"}
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
    assert about["observation"]["names"][30] == "o30"
    assert about["action"] == {
        "size": 5,
        "names": ["x", "y", "z", "yaw", "gripper"],
        "low": -1.0,
        "high": 1.0,
        "chunk": 1,
    }
    assert about["meta"] == {"arm": "ur5e"}
    with pytest.raises(ValueError, match="2 action names for 5 entries"):
        exporting.describe(policy, Interface(20.0, action=["x", "y"]))


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
