import dataclasses
import importlib.metadata
import json
import textwrap

import jax
import numpy as np
import pytest

from robo_rl import agents
from robo_rl.agents import AGENTS, plugins
from robo_rl.learn import offline
from robo_rl.learn.contract import Capabilities, name_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.runs import configs
from tests.probe_envs import Match, collect

FILE = """
'''Regression of actions on observations, by one matrix.'''

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.5


def init(config, key, example_batch, normaliser=None):
    size = example_batch["observations"].shape[-1], example_batch["actions"].shape[-1]
    return jnp.zeros(size)


def update(config, state, batch):
    error = batch["observations"] @ state - batch["actions"]
    slope = batch["observations"].T @ error / len(error)
    return state - config.rate * slope, {"loss": jnp.mean(error**2)}


def act(config, state, observations, key, explore=False):
    return jnp.clip(observations @ state, -1.0, 1.0)
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(FILE))
    return file


def _train(agent):
    data = collect(Match(), 64)
    data["actions"] = 0.5 * data["observations"]
    loop = OfflineLoop(steps=200, log_every=200, checkpoint_every=200, normalise=False)
    return offline.train(agent, agent.Config(), data, loop)


def test_a_file_is_an_agent_and_is_trained_as_one(path):
    agent = agents.get(str(path))
    assert name_of(agent) == "mine"
    assert Capabilities() == agent.CAPABILITIES
    np.testing.assert_allclose(_train(agent), [[0.5]], atol=0.01)
    assert agents.get(str(path)) is agent  # one identity: a program is compiled once
    config = agent.Config(rate=0.25)
    assert (
        configs.from_json(agent.Config, json.loads(json.dumps(configs.to_json(config)))) == config
    )


def test_a_class_in_a_file_is_an_agent(path):
    path.write_text(
        "import jax.numpy as jnp\nimport dataclasses\n\nclass Still:\n"
        '    """Does nothing."""\n'
        "    @dataclasses.dataclass(frozen=True)\n    class Config:\n        size: int = 1\n\n"
        "    @staticmethod\n    def init(config, key, example_batch, normaliser=None):\n"
        "        return jnp.zeros(())\n\n"
        "    @staticmethod\n    def update(config, state, batch):\n        return state, {}\n\n"
        "    @staticmethod\n    def act(config, state, observations, key, explore=False):\n"
        "        return jnp.zeros((*observations.shape[:-1], config.size))\n"
    )
    agent = agents.get(f"{path}:Still")
    action = agent.act(agent.Config(), None, np.ones((3, 2)), jax.random.key(0))
    assert action.shape == (3, 1)
    assert (name_of(agent), agent.__doc__) == ("Still", "Does nothing.")
    assert hash(agent) is not None
    with pytest.raises(ValueError, match=r"mine.py defines no Other; it defines .*Still"):
        agents.get(f"{path}:Other")


def test_a_description_finds_the_same_file_from_anywhere_and_no_other(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recorded = agents.describe("mine.py")
    assert recorded.startswith(f"{path}#sha256=")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert agents.get(recorded) is agents.get(str(path))
    assert agents.describe(recorded) == recorded
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match=r"mine.py has changed since this was recorded"):
        agents.get(recorded)
    path.unlink()
    with pytest.raises(ValueError, match=r"agent .*mine.py: there is no file"):
        agents.get(recorded)


def test_built_in_agents_are_described_by_their_names():
    assert [agents.describe(name) for name in AGENTS] == list(AGENTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def init", "def begin", r"mine\.py is no agent: it lacks init; robo_rl\.learn\.contract"),
        ("class Config", "class Settings", "is no agent: it lacks Config"),
        ("explore=False", "", r"act must take \(config, state, observations, key, explore\)"),
        ("state, batch):", "batch):", r"update must take \(config, state, batch\)"),
        ("(frozen=True)", "()", r"Config must be hashable .*frozen=True"),
        ("@dataclasses.dataclass(frozen=True)\n", "", "Config must be a dataclass"),
        ("rate: float = 0.5", "rate: float", "Config needs a default for rate"),
        ("import dataclasses", "import dataclasses\nCAPABILITIES = 1", "CAPABILITIES must be a"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_in_a_sentence(path, old, new, message):
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        agents.get(str(path))


def test_a_file_without_a_policy_says_so_when_it_is_asked_for_one(path):
    agent = agents.get(str(path))
    with pytest.raises(ValueError, match=r"mine.py has no `policy` function"):
        agent.policy(agent.Config(), None)


def test_an_error_in_the_file_is_the_users_to_see(path):
    path.write_text("raise RuntimeError('of the file')\n")
    with pytest.raises(ValueError, match=r"mine.py failed in line 1: .*RuntimeError: of the file"):
        agents.get(str(path))


def test_what_a_file_has_functions_for_it_can_do(path):
    path.write_text(
        path.read_text() + "\ndef q_values(config, state, observations, actions):\n    pass\n"
    )
    agent = agents.get(str(path))
    assert agent.CAPABILITIES.q_values is agent.q_values
    assert agent.CAPABILITIES.learned is None


def test_an_installed_package_brings_an_agent(monkeypatch):
    point = importlib.metadata.EntryPoint("ours", "robo_rl.agents.iql", plugins.GROUP)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == plugins.GROUP else []
    )
    assert agents.get("ours") is AGENTS["iql"]
    assert agents.describe("ours") == "ours"
    with pytest.raises(ValueError, match=r"known: .*ours.*path of a file"):
        agents.get("theirs")


def test_a_built_in_name_is_never_another_agents(monkeypatch):
    point = importlib.metadata.EntryPoint("iql", "robo_rl.agents.bc", plugins.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert agents.get("iql") is AGENTS["iql"]
    assert dataclasses.is_dataclass(agents.get("iql").Config)
