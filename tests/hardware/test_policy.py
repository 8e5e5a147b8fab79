import json
import shutil

import numpy as np
import pytest

from robo_rl.hardware.runtime.policy import NumpyPolicy, PolicyError, digest


def _description(**more):
    return {
        "format": 1,
        "kind": "tanh_mlp",
        "rate_hz": 20.0,
        "observation": {"size": 2, "names": []},
        "action": {"size": 1, "names": [], "low": -1.0, "high": 1.0},
        "policy": {"hidden": [2], "activation": "relu", "layer_norm": "none", "epsilon": 0.0},
        "meta": {},
        **more,
    }


def _arrays():
    """Standardised (x0 - 1) / 2 and x1 pass through relu; the sum of both, minus 0.5."""
    arrays = {
        "normaliser/mean": [1.0, 0.0],
        "normaliser/std": [2.0, 1.0],
        "policy/0/kernel": [[1.0, 0.0], [0.0, 1.0]],
        "policy/0/bias": [0.0, 0.0],
        "policy/1/kernel": [[1.0], [1.0]],
        "policy/1/bias": [-0.5],
    }
    return {name: np.array(value, np.float32) for name, value in arrays.items()}


@pytest.fixture
def folder(tmp_path):
    arrays = _arrays()
    np.savez(tmp_path / "arrays.npz", **arrays)
    description = {**_description(), "sha256": digest(arrays)}
    (tmp_path / "policy.json").write_text(json.dumps(description))
    return tmp_path


def test_one_hidden_layer_by_hand(folder):
    """x = (5, -3): standardised (2, -3), relu (2, 0), tanh(2 - 0.5)."""
    policy = NumpyPolicy.load(folder)
    np.testing.assert_allclose(policy.act(np.array([5.0, -3.0])), [np.tanh(1.5)], rtol=1e-6)
    assert policy.act(np.zeros((4, 3, 2))).shape == (4, 3, 1)
    assert (policy.rate_hz, policy.observation_size, policy.action_size) == (20.0, 2, 1)
    assert policy.act(np.zeros(2)).dtype == np.float32


@pytest.mark.parametrize(
    ("position", "expected"), [("before", np.tanh(1.0 - 0.5)), ("after", np.tanh(0.0 - 0.5))]
)
def test_layer_norm_before_or_after_the_activation(position, expected):
    """Of (2, -3): normed (1, -1), relu, sum 1. After relu (2, 0): normed (1, -1), sum 0."""
    arrays = {
        **_arrays(),
        "policy/0/norm_scale": np.ones(2, np.float32),
        "policy/0/norm_shift": np.zeros(2, np.float32),
    }
    about = {**_description()["policy"], "layer_norm": position}
    policy = NumpyPolicy(_description(policy=about), arrays)
    np.testing.assert_allclose(policy.act(np.array([5.0, -3.0])), [expected], rtol=1e-6)


def test_a_residual_is_added_to_the_base_and_clipped():
    """Its network sees (standardised observation, base action); here it returns tanh(2 * base)."""
    correction = {
        "correction/0/kernel": np.array([[0.0], [0.0], [1.0]], np.float32),
        "correction/0/bias": np.zeros(1, np.float32),
        "correction/1/kernel": np.array([[2.0]], np.float32),
        "correction/1/bias": np.zeros(1, np.float32),
    }
    about = {**_description()["policy"], "hidden": [1], "scale": 0.5}
    policy = NumpyPolicy(
        _description(kind="residual", correction=about), {**_arrays(), **correction}
    )
    np.testing.assert_allclose(policy.act(np.array([4.0, 0.0])), [1.0])  # 0.76 + 0.45 is clipped
    base = np.tanh(0.1)  # of x = (2.2, 0): (2.2 - 1) / 2 - 0.5
    np.testing.assert_allclose(
        policy.act(np.array([2.2, 0.0])), [base + 0.5 * np.tanh(2.0 * base)], rtol=1e-5
    )


def test_a_family_reads_the_code_of_the_coefficient_that_its_balance_chooses():
    """Balance tanh(0) = 0: half-way from 2 to 4 is 3. Of code (sin 3, cos 3, sin 0.03, cos 0.03),
    3 / 10000^(2 / 4) = 0.03, the policy adds the last to x1 alone."""
    family = {
        "balance/0/kernel": np.zeros((2, 1), np.float32),
        "balance/0/bias": np.zeros(1, np.float32),
        "balance/1/kernel": np.ones((1, 1), np.float32),
        "balance/1/bias": np.zeros(1, np.float32),
        "policy/0/kernel": np.array([[0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [0, 1]], np.float32),
    }
    about = {**_description()["policy"], "hidden": [1], "low": 2.0, "high": 4.0, "code_size": 4}
    policy = NumpyPolicy(_description(kind="family", balance=about), {**_arrays(), **family})
    expected = np.tanh(0.25 + np.cos(0.03) - 0.5)
    np.testing.assert_allclose(policy.act(np.array([7.0, 0.25])), [expected], rtol=1e-6)
    assert policy.act(np.zeros((4, 3, 2))).shape == (4, 3, 1)


def test_a_correction_is_added_to_the_end_of_the_observation_and_clipped():
    """At x = (5, -0.8): standardised (2, -0.8), relu (2, 0), tanh(2 - 0.5) on top of -0.8."""
    policy = NumpyPolicy(_description(kind="correction", scale=0.5), _arrays())
    expected = -0.8 + 0.5 * np.tanh(1.5)
    np.testing.assert_allclose(policy.act(np.array([5.0, -0.8])), [expected], rtol=1e-6)
    np.testing.assert_allclose(policy.act(np.array([5.0, 0.9])), [1.0])


def _no_file(name):
    return lambda folder: (folder / name).unlink()


def _cut(folder):
    path = folder / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-40])


def _change_a_weight(folder):
    arrays = _arrays()
    arrays["policy/1/bias"][0] = -0.4
    np.savez(folder / "arrays.npz", **arrays)


def _describe(**more):
    def damage(folder):
        path = folder / "policy.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))

    return damage


def _garble(folder):
    (folder / "policy.json").write_text("{")


def _pickle(folder):
    np.savez(folder / "arrays.npz", x=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_file("policy.json"), "policy.json is missing; make one with `robo-rl export RUN`"),
        (_no_file("arrays.npz"), "arrays.npz is missing"),
        (_cut, "damaged"),
        (_garble, "damaged"),
        (_pickle, "damaged"),
        (_change_a_weight, "does not have the digest"),
        (_describe(format=3), "not of format 1 or 2"),
        (_describe(policy={"activation": "relu", "layer_norm": "none"}), "lacks 'hidden'"),
        (_describe(policy={**_description()["policy"], "layer_norm": "x"}), "layer_norm 'x'"),
        (_describe(policy={**_description()["policy"], "arch": "x"}), "unknown architecture 'x'"),
        (_describe(kind="x"), "unknown kind 'x'; known: tanh_mlp, "),
        (_describe(policy={**_description()["policy"], "activation": "x"}), "activation 'x'"),
        (_describe(policy={**_description()["policy"], "hidden": [3]}), "must be float32"),
        (_describe(observation={"size": 3}), "must be float32"),
    ],
)
def test_a_damaged_folder_is_refused_with_its_name(folder, damage, message):
    damage(folder)
    with pytest.raises(PolicyError, match=message) as caught:
        NumpyPolicy.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    arrays = _arrays()
    arrays["policy/0/kernel"][0, 0] = value
    with pytest.raises(PolicyError, match="policy/0/kernel is not finite"):
        NumpyPolicy(_description(), arrays)


def test_a_spread_of_zero_is_refused():
    arrays = {**_arrays(), "normaliser/std": np.zeros(2, np.float32)}
    with pytest.raises(PolicyError, match="std must be > 0"):
        NumpyPolicy(_description(), arrays)


def test_an_observation_of_the_wrong_size_is_refused(folder):
    with pytest.raises(ValueError, match=r"observation must be \(..., 2\), got \(3,\)"):
        NumpyPolicy.load(folder).act(np.zeros(3))


def test_a_copied_folder_still_loads(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("copy") / "policy"
    shutil.copytree(folder, target)
    assert NumpyPolicy.load(target).action_size == 1
