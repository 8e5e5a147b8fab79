"""The core learns without the extras, and a missing one is answered in one sentence."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from robo_rl import extras

BLOCK = "import sys\nfor name in {}:\n    sys.modules[name] = None\n"

LEARN = """
import sys
import robo_rl
robo_rl.record("random", "pendulum/random-v0", env="Pendulum-v1", episodes=2, workers=2)
robo_rl.check("pendulum/random-v0")
small = ("actor.hidden=8",)
run = robo_rl.train("pendulum/random-v0", "td3bc", steps=2, batch_size=8, option=small, out="run")
print(len(robo_rl.evaluate(run, episodes=2, workers=2).episodes.returns))
robo_rl.load_policy(robo_rl.export(run, "policy"))
small = (*small, "critic.hidden=8", "critics=2", "batch_size=8", "warmup_steps=5")
robo_rl.learn_online("Pendulum-v1", "sac", steps=10, option=small, out="online")
print([name for name in EXTRAS if sys.modules.get(name)])
"""


@pytest.fixture
def without(tmp_path):
    """Runs Python where modules, by default all of extras, cannot be imported, nor in a child."""
    paths = [str(tmp_path), *filter(None, sys.path)]
    env = {
        **os.environ,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "MINARI_DATASETS_PATH": str(tmp_path / "datasets"),
    }

    def run(*arguments, blocked=tuple(extras.EXTRA)):
        (tmp_path / "sitecustomize.py").write_text(BLOCK.format(sorted(blocked)))
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env=env,
        )

    return run


def test_record_check_train_evaluate_export_and_finetune_need_no_extra(without):
    done = without("-c", f"EXTRAS = {sorted(extras.EXTRA)}\n{LEARN}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2", "[]"]


def test_the_simulated_arm_and_its_filter_need_no_extra_of_the_robot(without):
    code = (
        "import gymnasium, robo_rl.envs\n"
        "env = gymnasium.make('robo_rl/CubeSingle-v0', barrier={})\n"
        "env.reset(seed=0); env.step(env.action_space.sample()); print('stepped')"
    )
    done = without("-c", code, blocked=[m for m, extra in extras.EXTRA.items() if extra == "robot"])
    assert done.stdout == "stepped\n", done.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["deploy", "x"],
            "error: daqp, imageio, mujoco, ogbench, cyclonedds, mcap, rosbags are not installed: "
            "pip install 'robo_rl[sim,robot]'",
        ),
        (["data", "collect", "x/y-v0"], "error: mujoco is not installed: pip install 'robo_rl[sim"),
        (
            ["data", "record", "random", "x/y-v0", "--env", "Hopper-v5"],
            "error: environment Hopper-v5 cannot be made: mujoco is not installed: pip install",
        ),
        (
            ["data", "record", "random", "x/y-v0", "--env", "antmaze-large-v0"],
            "OGBench is not installed (pip install 'robo_rl[sim]')",
        ),
        (
            ["data", "record", "random", "x/y-v0", "--env", "FetchReach-v4"],
            "Gymnasium-Robotics is not installed (pip install 'robo_rl[robotics]')",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_extra_is_one_sentence_that_names_it(without, command, told):
    done = without("-m", "robo_rl.launch.cli", *command)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_doctor_names_what_is_missing_and_does_not_fail(monkeypatch):
    from robo_rl.launch import doctor

    monkeypatch.setattr(doctor, "EXTRAS", ("mujoco", "no-such-package"))
    monkeypatch.setitem(extras.EXTRA, "no-such-package", "robot")
    finding = doctor._extras()
    assert finding.state == "warning"
    assert "pip install 'robo_rl[robot]'" in finding.advice


def test_every_module_that_an_extra_brings_is_in_that_extra():
    root = pathlib.Path(__file__).resolve().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.split(r"[<>=\[]", each)[0].replace("-", "_") for each in requirements}

    optional = project["optional-dependencies"]
    assert set(extras.EXTRA) == names(optional["sim"] + optional["robot"] + optional["robotics"])
    for module, extra in extras.EXTRA.items():
        assert module in names(optional[extra])
        assert module not in names(project["dependencies"])


def test_an_import_error_of_anything_else_stays_itself():
    with pytest.raises(ModuleNotFoundError) as caught, extras.explained():
        import no_such_module  # noqa: F401
    assert type(caught.value) is ModuleNotFoundError
    assert extras.advice(caught.value) == ""


def test_require_names_the_extra_of_the_first_missing_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(extras.MissingExtraError, match=r"rosbags.*'robo_rl\[robot\]'"):
        extras.require("json", "rosbags")
