"""`import robo_rl` is the door: light, complete, and typed."""

import subprocess
import sys

import pytest

import robo_rl


def _python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_importing_the_library_brings_neither_jax_nor_mujoco_nor_numpy():
    heavy = "('jax', 'mujoco', 'numpy', 'gymnasium', 'minari', 'h5py', 'scipy')"
    assert _python(f"import robo_rl, sys; print([n for n in {heavy} if n in sys.modules])") == "[]"


def test_every_public_name_is_there_and_comes_from_where_it_is_said_to():
    for name in robo_rl.__all__:
        assert getattr(robo_rl, name) is not None
        assert name in dir(robo_rl)
    verbs = "open_dataset check train finetune evaluate export load_run load_policy make_env"
    assert set((verbs + " choose record deploy").split()) <= set(robo_rl.__all__)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"robo_rl has no 'trian'; it has .*train"):
        robo_rl.trian  # noqa: B018


def test_acting_with_an_exported_policy_brings_no_jax():
    code = (
        "import robo_rl, sys; robo_rl.NumpyPolicy; robo_rl.make_env; robo_rl.open_dataset;"
        "print('jax' in sys.modules)"
    )
    assert _python(code) == "False"


def test_loading_an_exported_policy_brings_nothing_that_it_does_not_run_on():
    heavy = "('jax', 'mujoco', 'gymnasium', 'minari', 'h5py', 'scipy')"
    code = "import robo_rl, sys; robo_rl.load_policy;"
    assert _python(f"{code} print([n for n in {heavy} if n in sys.modules])") == "[]"
