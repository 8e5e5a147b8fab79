import importlib
import json
import os
import pathlib
import subprocess
import sys

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.agents import bc
from robo_rl.nn.apply import apply, apply_ensemble, init_ensemble, init_params
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.plugins import load_file
from robo_rl.runs import configs
from robo_rl.runs.directory import RunDirectory

KEY = jax.random.key(0)
FILE = """
import flax.linen as linen
import jax.numpy as jnp


class Waves(linen.Module):
    width: int = 4
    slow: tuple = (1.0,)

    @linen.compact
    def __call__(self, x):
        return jnp.sin(linen.Dense(self.width)(x) * self.slow[0])
"""


class Sum(linen.Module):
    """Sees its inputs one by one: the second counts `weight` times."""

    weight: float = 2.0

    @linen.compact
    def __call__(self, first, *others):
        bias = self.param("bias", linen.initializers.zeros_init(), ())
        return first + self.weight * others[0] + bias


class Brightness(linen.Module):
    """Mean and maximum of an image."""

    @linen.compact
    def __call__(self, images):
        flat = images.reshape(len(images), -1) / 255.0
        return jnp.stack([flat.mean(axis=-1), flat.max(axis=-1)], axis=-1)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_a_file_is_pinned_by_its_whole_path_and_digest(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    net = NetConfig(arch="mine.py:Waves(width=3, slow=[2.0])")
    path, _, rest = net.arch.rpartition(":")
    assert (path, rest[:-17]) == (str(file), "Waves(width=3, slow=(2.0,))")
    assert len(rest.rpartition("@")[2]) == 16
    assert net == NetConfig(arch=f"{file}:Waves(width=3, slow=(2.0,))")
    assert configs.from_json(NetConfig, json.loads(json.dumps(configs.to_json(net)))) == net
    params = init_params(Scalar(net), KEY, jnp.zeros((1, 2)))
    assert params["trunk"]["Dense_0"]["kernel"].shape == (2, 3)
    assert params["out"]["kernel"].shape == (3, 1)


def test_a_class_of_a_file_that_a_door_has_loaded_is_found_again_by_the_files_path(file):
    module, digest = load_file(file)
    net = NetConfig(arch=module.Waves)
    assert net.arch == f"{file}:Waves@{digest[:16]}"
    assert net == NetConfig(arch=f"{file}:Waves")


def test_another_content_is_another_config_and_an_old_one_is_refused(file):
    old = NetConfig(arch=f"{file}:Waves")
    file.write_text(FILE.replace("sin", "cos"))
    assert NetConfig(arch=f"{file}:Waves") != old
    with pytest.raises(ValueError, match=r"mine.py has changed since Waves was chosen .* start a "):
        old.trunk()
    file.write_text(FILE)
    assert type(old.trunk()).__name__ == "Waves"


def test_a_class_and_a_module_may_be_handed_over(file):
    """The sum is 3 + 2 * 5 = 13, and 3 + 0.5 * 5 = 5.5 with another weight."""
    inputs = jnp.array([[3.0]]), jnp.array([[5.0]])
    for arch, expected in ((Sum, 13.0), (Sum(weight=0.5), 5.5), (Sum(), 13.0)):
        net = NetConfig(arch=arch)
        assert net.arch.startswith(f"{__name__}:Sum")
        assert configs.from_json(NetConfig, configs.to_json(net)) == net
        trunk = net.trunk()
        np.testing.assert_allclose(
            apply(trunk, init_params(trunk, KEY, *inputs), *inputs), expected
        )
    loaded = type(NetConfig(arch=f"{file}:Waves").trunk())
    assert NetConfig(arch=loaded) == NetConfig(arch=f"{file}:Waves")


def test_inputs_are_joined_for_a_module_that_takes_one_and_axes_broadcast(file):
    """States (5, 1, 2) with three actions each (5, 3, 4), as repeated states give."""
    obs, actions = jax.random.normal(KEY, (5, 1, 2)), jax.random.normal(KEY, (5, 3, 4))
    repeated = jnp.repeat(obs, 3, axis=1)
    net = Scalar(NetConfig(arch=f"{file}:Waves"))
    params = init_ensemble(net, KEY, 2, obs[:, 0], actions[:, 0])
    assert params["trunk"]["Dense_0"]["kernel"].shape == (2, 6, 4)
    q = apply_ensemble(net, params, obs, actions)
    assert q.shape == (2, 5, 3)
    np.testing.assert_allclose(q, apply_ensemble(net, params, repeated, actions), rtol=1e-5)


def test_a_class_made_in_a_function_serves_here_and_nowhere_else():
    class Local(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(3)(x)

    class Other(Local):
        pass

    net = NetConfig(arch=Local)
    assert net == NetConfig(arch=Local)
    assert net != NetConfig(arch=Other)
    assert isinstance(net.trunk(), Local)
    gone = NetConfig(arch="here:Local@ffffffffffffffff")
    with pytest.raises(ValueError, match="put it at the top of a file and give it as path/to/it"):
        gone.trunk()


def test_an_image_is_read_by_a_module_of_ones_own():
    net = NetConfig(hidden=(4,), encoder=EncoderConfig(arch=Brightness))
    rows = {"camera": np.zeros((3, 2, 4, 4, 1), np.uint8), "state": np.zeros((3, 2, 5), np.float32)}
    params = init_params(Actor(net, 2), KEY, rows)
    assert params["trunk"]["Dense_0"]["kernel"].shape == (2 + 5, 4)
    assert apply(Actor(net, 2), params, rows)[0].shape == (3, 2, 2)
    assert configs.from_json(NetConfig, configs.to_json(net)) == net


class Counting(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False)(x)


class Flat(linen.Module):
    @linen.compact
    def __call__(self, x):
        return x.reshape(-1)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: NetConfig(arch=Counting), "keeps batch_stats beside its parameters"),
        (lambda: NetConfig(arch=Flat), r"must turn rows \(B, I\) to features \(B, H\)"),
        (lambda: NetConfig(arch=f"{__name__}:Absent"), "has no Flax .linen. module Absent; it has"),
        (lambda: NetConfig(arch=f"{__name__}:Sum(height=1)"), "no setting height; it has: weight"),
    ],
)
def test_a_module_that_does_not_fit_is_refused(net, message):
    with pytest.raises(ValueError, match=message):
        init_params(Scalar(net()), KEY, jnp.zeros((3, 2)))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("absent.py:Net", "cannot read .*absent.py: No such file"),
        ("no_such_package.here:Net", "there is no module no_such_package.here; a file is given as"),
        (":Net", "expected path/to/mine.py:Module or package.module:Module"),
        (3, "expected a text or a Flax .linen. module, got 3"),
        (pathlib.Path, "expected a text or a Flax"),
        ("json:Net(width=open)", "cannot read the settings"),
        (Sum(weight=jnp.ones(3)), "a config cannot keep Sum.weight"),
    ],
)
def test_a_text_that_names_no_module_is_refused(arch, message):
    with pytest.raises(ValueError, match=message):
        NetConfig(arch=arch)
    with pytest.raises(ValueError, match=r"EncoderConfig\.arch"):
        EncoderConfig(arch=arch)


def test_a_file_that_cannot_be_run_is_refused_with_its_reason(file):
    file.write_text("1 / 0")
    with pytest.raises(ValueError, match=r"mine.py failed in line .*ZeroDivisionError"):
        NetConfig(arch=f"{file}:Net").trunk()


def test_a_module_beside_the_script_is_kept_by_its_file(file, tmp_path, monkeypatch):
    """Its name finds it only in a process that was started by a script in the same folder."""
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    module = importlib.import_module("mine")
    net = NetConfig(arch=module.Waves(width=3))
    assert net == NetConfig(arch="mine:Waves(width=3)") == NetConfig(arch=f"{file}:Waves(width=3)")
    monkeypatch.undo()
    monkeypatch.chdir("/")
    code = (
        "import sys; from robo_rl.nn.networks import NetConfig;"
        "print(NetConfig(arch=sys.argv[1]).trunk().width)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, net.arch]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "3"


def test_an_installed_module_keeps_its_name():
    assert NetConfig(arch="flax.linen:Dropout").arch.startswith("flax.linen:Dropout@")


def test_a_run_is_not_begun_with_a_network_that_nobody_finds_again(tmp_path):
    class Local(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(4)(x)

    net = NetConfig(arch=Local)
    init_params(Scalar(net), KEY, jnp.zeros((1, 2)))  # here it can be used
    config = {"kind": "offline", "agent_config": configs.to_json(bc.Config(actor=net))}
    with pytest.raises(ValueError, match=r"Local was defined in a function .*path/to/it.py:Local"):
        RunDirectory.create(tmp_path / "run", config)
    assert list(tmp_path.iterdir()) == []
