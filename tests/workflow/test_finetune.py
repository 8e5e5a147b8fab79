"""`robo-rl finetune` with recipes that learn from rollouts, on a small environment."""

import contextlib
import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from robo_rl import agents
from robo_rl.launch import cli
from robo_rl.learn import recipes
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import trees
from robo_rl.workflow import evaluate, training, vector_envs
from tests.probe_envs import Reach, collect

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = NetConfig(hidden=(8, 8))
LOOP = OfflineLoop(steps=4, batch_size=8, log_every=4, checkpoint_every=4)


@dataclasses.dataclass(frozen=True)
class SavedOften(OnlineLoop):
    checkpoint_every: int = 20


class Arm(gymnasium.Wrapper):
    """`Reach` in the place of the arm; breaks down at step `breaks_at` of the process."""

    steps, breaks_at = 0, None

    def __init__(self):
        super().__init__(gymnasium.wrappers.TimeLimit(Reach(), 7))

    def step(self, action):
        Arm.steps += 1
        if Arm.steps == Arm.breaks_at:
            raise KeyboardInterrupt
        return super().step(action)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The run of an offline agent, by name; and the vectors of arms that were made."""
    data = collect(Reach(), 10)
    monkeypatch.setattr(training.DataView, "load", lambda _: data)
    monkeypatch.setattr(evaluate, "time_limited", lambda _: Arm())
    monkeypatch.setattr(Arm, "steps", 0)
    monkeypatch.setattr(Arm, "breaks_at", None)
    for recipe in ("ppo", "unio4_online"):
        options = {**dict(recipes.RECIPES[recipe].options), "minibatch": 16, "epochs": 2}
        changed = dataclasses.replace(
            recipes.RECIPES[recipe], rollout=16, options=tuple(options.items())
        )
        monkeypatch.setitem(recipes.RECIPES, recipe, changed)
    monkeypatch.setattr(training, "OnlineLoop", SavedOften)
    # Several arms stay in this process, which counts their steps.
    vectors = []

    def vector(makers, context, autoreset_mode):
        vectors.append(SyncVectorEnv(makers, autoreset_mode=autoreset_mode))
        return vectors[-1]

    monkeypatch.setattr(vector_envs, "AsyncVectorEnv", vector)
    monkeypatch.setattr(evaluate, "compiled", contextlib.nullcontext)

    def make(name):
        nets = {"flowbc": {"flow": SMALL}, "fql": dict.fromkeys(("flow", "actor", "critic"), SMALL)}
        config = agents.get(name).Config(**nets.get(name, {"actor": SMALL}))
        return training.start_offline(
            tmp_path / name, name, config, training.DataView("x"), LOOP
        ).path

    yield make, vectors
    assert all(vector.closed for vector in vectors)


@pytest.mark.parametrize(
    ("name", "recipe", "envs"), [("bc", "ppo", 1), ("iql", "unio4_online", 1), ("bc", "ppo", 2)]
)
def test_a_rollout_recipe_runs_from_an_offline_run_and_resumes_exactly(
    name, recipe, envs, source, tmp_path, monkeypatch
):
    make, vectors = source
    offline = make(name)
    options = cli.Finetune(offline, recipe=recipe, steps=48, envs=envs, out=tmp_path / "whole")
    assert training.finetune(options) == 0
    monkeypatch.setattr(Arm, "breaks_at", Arm.steps + 30)
    with pytest.raises(KeyboardInterrupt):
        training.finetune(dataclasses.replace(options, out=tmp_path / "cut"))
    assert training.resume(tmp_path / "cut") == 0
    whole, resumed = (training.load(tmp_path / path) for path in ("whole", "cut"))
    for key, value in trees.flatten(whole.state).items():
        np.testing.assert_array_equal(trees.flatten(resumed.state)[key], value, err_msg=key)
    lines = [(tmp_path / path / "metrics.jsonl").read_text() for path in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[-1])["updates"] == 3.0
    assert training.RunDirectory.open(tmp_path / "cut").config["envs"] == envs
    assert [vector.num_envs for vector in vectors] == ([] if envs == 1 else [envs] * 3)
    folder, difference = training.export_run(tmp_path / "whole")
    assert (folder / "policy.json").exists()
    assert difference < 1e-5


def test_what_cannot_work_is_said_before_a_folder_is_made(source, tmp_path):
    offline = source[0]("flowbc")
    few = cli.Finetune(offline, recipe="ppo", steps=15, out=tmp_path / "few")
    with pytest.raises(ValueError, match=r"env_steps = 15 .* Recipe.rollout = 16"):
        training.finetune(few)
    flow = cli.Finetune(offline, recipe="unio4_online", steps=16, out=tmp_path / "flow")
    with pytest.raises(ValueError, match=r"flowbc hands on no policy .* or a run of .*iql"):
        training.finetune(flow)
    with pytest.raises(ValueError, match=r"ppo learns from rollouts .* finetune"):
        training.train(cli.Train("x", agent="ppo", out=tmp_path / "train"))
    other = cli.Finetune(offline, recipe="cql", out=tmp_path / "other")
    with pytest.raises(ValueError, match=r"goes on with a run of cql; .* is of flowbc"):
        training.finetune(other)
    shares = cli.Finetune(offline, recipe="ppo", steps=48, envs=3, out=tmp_path / "shares")
    with pytest.raises(ValueError, match=r"multiple of the 3 environments"):
        training.finetune(shares)
    with pytest.raises(ValueError, match=r"--envs must be >= 1, got 0"):
        training.finetune(dataclasses.replace(shares, envs=0))
    with pytest.raises(ValueError, match=r"no such setting; is rollout meant\?"):
        training.finetune(dataclasses.replace(shares, option=("rolout=8",)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowbc"]


def test_a_run_that_does_not_fit_the_arm_is_refused_by_its_shapes(source, tmp_path, monkeypatch):
    offline = source[0]("iql")
    monkeypatch.setattr(evaluate, "time_limited", lambda _: gymnasium.make("Pendulum-v1"))
    message = r"reads \(2,\) and gives \(2,\), .* shows \(3,\) and takes \(1,\)"
    with pytest.raises(ValueError, match=message):
        training.finetune(cli.Finetune(offline, recipe="iql", out=tmp_path / "online"))
    with pytest.raises(ValueError, match=message):
        training.evaluate(cli.Eval(offline))
    assert not (tmp_path / "online").exists()


def test_a_recipe_plays_chunks_as_long_as_those_that_were_learned(source, tmp_path):
    offline = source[0]("fql")
    options = cli.Finetune(offline, recipe="qc_fql", steps=16, out=tmp_path / "online")
    with pytest.raises(
        ValueError, match=r"chunks of 1 actions and the recipe plays 5; .*--chunk 5"
    ):
        training.finetune(options)
    settings = ("chunk=1", "warmup_steps=8", "batch_size=4")
    assert training.finetune(dataclasses.replace(options, option=settings)) == 0
    recipe = training.RunDirectory.open(tmp_path / "online").config["recipe"]
    assert (recipe["chunk"], recipe["warmup_steps"], recipe["batch_size"]) == (1, 8, 4)


def test_options_of_the_agent_are_kept_with_the_online_run(source, tmp_path):
    options = cli.Finetune(
        source[0]("iql"), "unio4_online", 16, out=tmp_path / "online", option=("clip=0.01",)
    )
    assert training.finetune(options) == 0
    assert training.load(tmp_path / "online").config.clip == 0.01
