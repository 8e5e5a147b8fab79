"""Both loops, evaluation and export on observations with images."""

import dataclasses
import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc, sac
from robo_rl.data.transitions import stack_frames
from robo_rl.hardware.runtime.policy import NumpyPolicy
from robo_rl.judge.episodes import evaluate, evaluation_seeds
from robo_rl.learn import offline, online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.contract import Capabilities
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.online import OnlineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.normaliser import identity_for
from robo_rl.runs import export, sessions, trees
from tests.probe_envs import Clip, collect

pytestmark = pytest.mark.usefixtures("quick_compile")

NET = NetConfig(hidden=(8,), encoder=EncoderConfig((2,), blocks=0, features=4))
SAC = sac.Config(actor=NET, critic=NET, critics=2)
LOOP = OfflineLoop(steps=4, batch_size=4, log_every=2, checkpoint_every=2)
ONLINE = OnlineLoop(env_steps=24, capacity=50, log_every=8, checkpoint_every=8)
RECIPE = Recipe(offline_fraction=0.5, warmup_steps=8, batch_size=4)


class Memory:
    def __init__(self):
        self.saved = {}

    def metrics(self, step, values):
        pass

    def checkpoint(self, step, snapshot):
        self.saved[step] = {k: np.array(v) for k, v in trees.flatten(snapshot).items()}


@pytest.fixture(scope="module")
def data():
    return collect(Clip(), 8)


def _assert_equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


class Reader:
    """An agent without networks: what it has seen of images and vectors is its state."""

    CAPABILITIES = Capabilities(images=True)
    Config = type(None)
    __name__ = "reader"

    def init(self, config, key, example, normaliser):
        now, later = (example[f"{name}observations"] for name in ("", "next_"))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), (now, later))
        return {"seen": zeros, "normaliser": normaliser}

    def update(self, config, state, batch):
        now, later = (batch[f"{name}observations"] for name in ("", "next_"))
        rows = state["normaliser"](now), later
        seen = jax.tree.map(lambda old, new: 0.9 * old + new.mean(axis=0), state["seen"], rows)
        return {**state, "seen": seen}, {"loss": jnp.mean(batch["rewards"])}


class Unnormalised(Reader):
    def init(self, config, key, example, normaliser):
        return super().init(config, key, example, identity_for(example["observations"]))


READER = Reader()
_read = functools.partial(offline.train, READER, None)


def test_an_offline_run_resumes_and_standardises_the_vector_alone(data):
    memory = Memory()
    whole = _read(data, LOOP, monitor=memory)
    template = offline.initial_state(READER, None, data, LOOP)
    half = trees.unflatten(template, memory.saved[2])
    _assert_equal(whole, _read(data, LOOP, start=(2, half)))
    assert sorted(whole["normaliser"].mean) == ["state"]
    mean = data["observations"]["state"].mean(axis=0)
    np.testing.assert_allclose(whole["normaliser"].mean["state"], mean, rtol=1e-5)


def test_stacks_are_gathered_as_whole_images_are_on_the_device_and_on_the_host(data):
    loop = dataclasses.replace(LOOP, frames=3)
    lazy = _read(data, loop)
    assert lazy["seen"][1]["image"].shape == (2, 16, 3)
    assert not np.array_equal(lazy["seen"][0]["image"][..., 0], lazy["seen"][0]["image"][..., 2])
    _assert_equal(lazy, _read(data, dataclasses.replace(loop, device_bytes=1)))
    stacked = stack_frames(data, 3)
    whole = {**data}
    for name in ("observations", "next_observations"):
        whole[name] = {k: np.asarray(v) for k, v in stacked[name].items()}
    _assert_equal(lazy, _read(whole, LOOP))


def test_a_nan_beside_an_image_is_named(data):
    broken = {**data, "observations": {**data["observations"]}}
    broken["observations"]["state"] = np.full((24, 1), np.nan, np.float32)
    loop = dataclasses.replace(LOOP, normalise=False)
    with pytest.raises(ValueError, match="reader: observations/state must be finite"):
        offline.train(Unnormalised(), None, broken, loop)


@functools.cache
def _fresh():
    example = batch_of(collect(Clip(), 1))
    return jax.jit(sac.init, static_argnums=0)(SAC, jax.random.key(0), example)


def test_an_online_run_on_images_resumes_bit_for_bit_and_keeps_bytes(data):
    run = functools.partial(
        online.finetune, sac, SAC, Clip(), RECIPE, ONLINE, _fresh(), offline=data
    )
    memory = Memory()
    whole = run(monitor=memory)
    saved = memory.saved[9]
    image = saved["buffer/data/observations/image"]
    assert (image.dtype, image.shape) == (np.uint8, (9, 2, 16, 1))
    snapshot = trees.unflatten(sessions.online_template(_fresh()), saved)
    _assert_equal(whole, run(snapshot=snapshot))
    assert int(whole.opt["critic"].count) == 24 - 8


def test_a_policy_on_images_is_evaluated_and_its_export_refused(tmp_path):
    state = _fresh()
    act = jax.jit(lambda obs: sac.act(SAC, state, obs, jax.random.key(0)))
    result = evaluate(Clip(), lambda obs: np.asarray(act(obs)), evaluation_seeds(0, 2))
    assert result.lengths == (3, 3)
    with pytest.raises(ValueError, match=r"reads image, state by an encoder.*NumPy"):
        export.export(
            tmp_path / "policy",
            sac.policy(SAC, state),
            export.Interface(20.0),
            act=np.asarray,
            observations=np.zeros((1, 1)),
            load=NumpyPolicy.load,
        )


def test_agents_that_read_vectors_are_refused_by_both_loops(data):
    config, example = bc.Config(actor=NET), batch_of(collect(Clip(), 1))
    with pytest.raises(ValueError, match=r"bc reads one vector .* image \(an image\)"):
        offline.train(bc, config, data, LOOP)
    with pytest.raises(ValueError, match="bc reads one vector"):
        online.start_state(bc, config, Recipe(), 0, example, None)
    with pytest.raises(ValueError, match="bc reads one vector"):
        online.finetune(bc, config, Clip(), RECIPE, ONLINE, _fresh(), offline=data)


def test_images_that_are_not_bytes_are_refused_by_name():
    env = Clip()
    floats = gymnasium.spaces.Box(0.0, 1.0, (2, 16, 1), np.float32)
    env.observation_space = gymnasium.spaces.Dict({"image": floats})
    with pytest.raises(ValueError, match=r"image must be a Box \(O,\), or an image .* of bytes"):
        online.finetune(sac, SAC, env, RECIPE, ONLINE, _fresh())


def test_an_image_may_be_the_whole_observation():
    data = collect(Clip(), 4)
    for name in ("observations", "next_observations"):
        data[name] = data[name]["image"]
    state = _read(data, dataclasses.replace(LOOP, frames=2))
    assert state["seen"][0].shape == (2, 16, 2)
    assert state["normaliser"].mean == {}
