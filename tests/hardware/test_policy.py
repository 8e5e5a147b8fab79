import io
import json
import re
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest

from robo_rl.hardware.runtime import files
from robo_rl.hardware.runtime.policy import NotFinite, NumpyPolicy, PolicyError, digest
from robo_rl.hardware.runtime.specs import ActionSpec, ObservationSpec


def _description(**more):
    return {
        "format": 2,
        "kind": "tanh_mlp",
        "rate_hz": 20.0,
        "observation": {"size": 2, "names": []},
        "action": {"size": 1, "names": [], "low": [-1.0], "high": [1.0], "dtype": "float32"},
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
    _write(tmp_path, _description())
    return tmp_path


def _write(folder, description):
    arrays = _arrays()
    np.savez(folder / "arrays.npz", **arrays)
    covered = None if description["format"] == 1 else description
    description = {**description, "sha256": digest(arrays, covered)}
    (folder / "policy.json").write_text(json.dumps(description))


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
    """A folder that was made so, with the digest of what it holds."""
    return lambda folder: _write(folder, _description(**more))


def _tamper(**more):
    """One entry changed afterwards."""

    def damage(folder):
        path = folder / "policy.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))

    return damage


def _compress(folder):
    np.savez_compressed(folder / "arrays.npz", **_arrays())


def _claim(shape, dtype="<f4", data=b""):
    """An array whose header says more than there is."""

    def damage(folder):
        header = io.BytesIO()
        about = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
            archive.writestr("policy/0/kernel.npy", header.getvalue() + data)

    return damage


def _twice(folder):
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(folder / "arrays.npz", "a") as archive,
    ):
        archive.writestr("policy/0/bias.npy", archive.read("policy/0/bias.npy"))


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
        (_tamper(rate_hz=30.0), "was changed: the folder does not have the digest"),
        (_tamper(meta={"arm": {"name": "ur5e"}}), "does not have the digest"),
        (_tamper(action={**_description()["action"], "high": [2.0]}), "does not have the digest"),
        (_tamper(format=1), "does not have the digest"),
        (_tamper(rate_hz=np.nan), "holds NaN, which is not a number"),
        (_tamper(sha256=3), "does not have the digest"),
        (_compress, r"arrays.npz is compressed, \d+ bytes that say they unpack to \d+"),
        (_claim((2**40,)), "which is not what its entry holds"),
        (_claim((-1,)), "which is not what its entry holds"),
        (_claim((1,), "<U1", b"1234"), "only numbers are read"),
        (_twice, "holds policy/0/bias twice"),
        (_describe(format=3), "not of format 1 or 2"),
        (_describe(action={"size": 1, "low": [2.0]}), "low must not be above high"),
        (_describe(action={"size": 1, "low": [1.0, 2.0]}), "low must be 1 finite numbers"),
        (_describe(action={"size": 1, "dtype": "int32"}), "dtype must be one of floats, got int32"),
        (_describe(action={"size": 1, "names": ["x", "y"]}), "2 names for 1 entries"),
        (_describe(observation={"size": 2, "names": ["x"]}), "1 names for 2 entries"),
        (_describe(action=[]), "damaged"),
        (_describe(observation={"size": 2, "parts": [{"key": "a", "shape": [3]}]}), "do not add"),
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


def test_an_archive_that_unpacks_to_much_more_is_refused_before_it_is_unpacked(folder):
    """128 MiB of zeros take less than 1 MiB when packed, and no memory goes into them."""
    path, zeros = folder / "arrays.npz", bytes(2**24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("policy/0/kernel.npy", "w") as entry,
    ):
        for _ in range(8):
            entry.write(zeros)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError, match=r"is compressed, \d+ bytes .* unpack to 134217728"):
            NumpyPolicy.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_stored_archive_that_claims_more_than_it_is_is_refused(folder):
    """The entry's size is changed where the archive lists it; its file stays as small as it was."""
    path = folder / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"1234")
    data = bytearray(path.read_bytes())
    listed = data.rindex(b"PK\x01\x02")
    for offset in (20, 24):  # compressed and uncompressed size
        data[listed + offset : listed + offset + 4] = (2**30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(PolicyError, match="says it holds 1073741824 bytes in a file of 1"):
        NumpyPolicy.load(folder)


def test_a_description_of_megabytes_is_not_parsed(folder):
    (folder / "policy.json").write_text(" " * (files.MAX_DESCRIPTION_BYTES + 1))
    with pytest.raises(PolicyError, match=r"policy\.json is larger than"):
        NumpyPolicy.load(folder)


def test_a_folder_of_the_first_format_is_still_read(tmp_path):
    """Its digest is of the arrays alone, its bounds are two numbers."""
    action = {"size": 1, "names": [], "low": -1.0, "high": 1.0}
    _write(tmp_path, _description(format=1, action=action))
    policy = NumpyPolicy.load(tmp_path)
    np.testing.assert_allclose(policy(np.array([5.0, -3.0])), [np.tanh(1.5)], rtol=1e-6)


def test_actions_are_scaled_to_the_bounds_exactly_at_the_ends():
    """low + (a + 1) / 2 * (high - low) misses these bounds; 0.25 is 5/8 of the way from -2 to 6."""
    low, high = [-2.0, 0.1, -1e-3], [6.0, 0.7, 1e9]
    spec = ActionSpec.from_json({"size": 3, "low": low, "high": high, "dtype": "float64"})
    ends = spec.scaled(np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], np.float32))
    np.testing.assert_array_equal(ends, [low, high])
    assert ends.dtype == np.float64
    assert spec.scaled(np.full(3, 0.25))[0] == 3.0
    narrow = ActionSpec.from_json({"size": 1, "low": [0.1], "high": [0.7], "dtype": "float32"})
    assert narrow.scaled(np.ones(1)) == np.float32(0.7)
    assert narrow.scaled(np.ones(1)).dtype == np.float32


def test_the_policy_acts_in_the_bounds_of_its_environment():
    """tanh(1.5) of the way from the middle 3 to the end 5."""
    action = {"size": 1, "low": [1.0], "high": [5.0], "dtype": "float64"}
    policy = NumpyPolicy(_description(action=action), _arrays())
    got = policy(np.array([5.0, -3.0]))
    np.testing.assert_allclose(got, [3.0 + 2.0 * np.tanh(1.5)], rtol=1e-6)
    np.testing.assert_allclose(policy.act(np.array([5.0, -3.0])), [np.tanh(1.5)], rtol=1e-6)


def test_a_dict_is_put_in_a_row_in_the_declared_order():
    parts = [{"key": "b", "shape": []}, {"key": "a/x", "shape": [2, 2]}]
    spec = ObservationSpec.from_json({"size": 5, "parts": parts})
    seen = {"a": {"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "y": 9.0}, "b": np.float64(7.0)}
    np.testing.assert_array_equal(spec.flatten(seen), [7.0, 1.0, 2.0, 3.0, 4.0])
    many = {"a": {"x": np.zeros((6, 2, 2))}, "b": np.zeros(6)}
    assert spec.flatten(many).shape == (6, 5)
    with pytest.raises(ValueError, match="lacks 'a/x'; it must have b, a/x"):
        spec.flatten({"b": 1.0})
    with pytest.raises(ValueError, match=r"'a/x'\] must be \(..., 2, 2\), got \(3,\)"):
        spec.flatten({"a": {"x": np.zeros(3)}, "b": 1.0})
    with pytest.raises(ValueError, match=r"reads a vector \(..., 5\), got a Dict of a"):
        ObservationSpec(5).flatten({"a": 1})


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


def test_the_epsilon_of_layer_norm_stands_inside_of_the_root():
    """(2, -3) has a variance of 6.25; with an epsilon of as much it is 2.5 / sqrt(12.5), relu."""
    arrays = {
        **_arrays(),
        "policy/0/norm_scale": np.ones(2, np.float32),
        "policy/0/norm_shift": np.zeros(2, np.float32),
    }
    about = {**_description()["policy"], "layer_norm": "before", "epsilon": 6.25}
    policy = NumpyPolicy(_description(policy=about), arrays)
    expected = np.tanh(2.5 / np.sqrt(12.5) - 0.5)
    np.testing.assert_allclose(policy.act(np.array([5.0, -3.0])), [expected], rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_an_observation_that_is_not_finite_is_refused_and_no_action_comes_of_it(folder, wrong):
    policy = NumpyPolicy.load(folder)
    for ask in (policy, policy.act, policy.compute):
        with pytest.raises(
            NotFinite, match=rf"finite as float32, entry 1 is {re.escape(str(wrong))}"
        ):
            ask(np.array([0.0, wrong]))
    with pytest.raises(NotFinite, match="entry 2, 0 is nan"):
        policy.act(np.where(np.arange(6).reshape(3, 2) == 4, np.nan, 0.0))


def test_lists_and_integers_are_read_and_what_is_no_number_is_not(folder):
    policy = NumpyPolicy.load(folder)
    expected = policy.act(np.array([5.0, -3.0]))
    for same in ([5.0, -3.0], (5, -3), np.array([5, -3])):
        np.testing.assert_array_equal(policy.act(same), expected)
    for wrong, message in (
        (np.array([5.0, None]), "must be numbers, got object"),
        (["5", "-3"], "must be numbers, got <U"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        (3.0, r"must be \(..., 2\), got \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.act(wrong)


def test_noise_is_not_used_up_by_an_observation_that_is_refused():
    arrays = {**_arrays(), "policy/0/kernel": np.eye(3, 2, dtype=np.float32)}
    policy, other = (NumpyPolicy(_description(kind="one_step"), arrays) for _ in "ab")
    with pytest.raises(NotFinite):
        policy.act([np.nan, 0.0])
    np.testing.assert_array_equal(policy.act([1.0, 0.0]), other.act([1.0, 0.0]))


def test_a_bound_may_be_one_number_for_all_actions_and_a_chunk_is_told():
    spec = ActionSpec.from_json({"size": 2, "low": -0.5, "high": [0.2, 0.4], "chunk": 3})
    np.testing.assert_array_equal(spec.low, [-0.5, -0.5])
    np.testing.assert_array_equal(spec.high, [0.2, 0.4])
    assert spec.chunk == 3


def test_an_action_without_bounds_is_between_minus_one_and_one_in_float32():
    spec = ActionSpec.from_json({"size": 2})
    np.testing.assert_array_equal(spec.low, [-1.0, -1.0])
    np.testing.assert_array_equal(spec.high, [1.0, 1.0])
    assert (spec.dtype, spec.names, spec.chunk) == ("float32", (), 1)
    ends = np.array([[-1.0], [0.0], [1.0]])
    upper = ActionSpec.from_json({"size": 1, "high": [3.0]})
    np.testing.assert_array_equal(upper.scaled(ends).T, [[-1.0, 1.0, 3.0]])
    lower = ActionSpec.from_json({"size": 1, "low": [-3.0]})
    np.testing.assert_array_equal(lower.scaled(ends).T, [[-3.0, -1.0, 1.0]])


@pytest.mark.parametrize("about", [{"size": 0}, {"size": -1}, {"size": 1, "chunk": 0}])
def test_an_action_of_nothing_is_refused(about):
    with pytest.raises(PolicyError, match="both must be >= 1"):
        ActionSpec.from_json(about)


def test_bounds_that_meet_leave_one_action():
    spec = ActionSpec.from_json({"size": 1, "low": [2.0], "high": [2.0]})
    np.testing.assert_array_equal(spec.scaled(np.array([[-1.0], [0.3], [1.0]])), [[2.0]] * 3)


def test_an_array_larger_than_a_part_comes_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PART", 64)
    arrays = {
        "a": np.arange(1000.0).reshape(50, 20),
        "b": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "c": np.float32(7.0),
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    read = files._read_arrays(tmp_path / "arrays.npz")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == np.shape(array)


def test_the_formats_that_are_read_are_the_first_and_the_second():
    assert files.READ_FORMATS == (1, 2)
