"""Doors: by name, by entry point, by path; what is wrong is said in one sentence."""

import hashlib
import importlib.metadata
import subprocess
import sys

import pytest

from robo_rl import plugins
from robo_rl.plugins import Door, PluginError

FRACTIONS = Door[type](
    "number",
    "robo_rl.test_numbers",
    {"fraction": "fractions:Fraction", "decimal": "decimal:Decimal"},
    fits=lambda value: isinstance(value, type) and hasattr(value, "numerator"),
)
MODULES = Door[object]("method", "robo_rl.test_methods", {"maths": "math"})


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_built_in_is_found_by_name():
    found = FRACTIONS.find("fraction")
    assert found.value.__name__ == "Fraction"
    assert found.reference == "fraction"
    assert found.origin == {"name": "fraction"}
    assert MODULES.get("maths").pi > 3.14


def test_a_file_is_found_by_path_and_says_where_it_came_from(tmp_path, monkeypatch):
    path = write(tmp_path, "class Mine(int):\n    pass\n\n\nclass Other:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    found = FRACTIONS.find("mine.py")
    assert found.value.__name__ == "Mine"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.origin == {"path": str(path), "sha256": digest, "attribute": "Mine"}
    monkeypatch.chdir("/")
    assert FRACTIONS.find(found.reference).value is found.value


def test_a_changed_file_is_imported_anew(tmp_path):
    first = FRACTIONS.find(str(write(tmp_path, "class Mine(int):\n    size = 1\n")))
    second = FRACTIONS.find(str(write(tmp_path, "class Mine(int):\n    size = 2\n")))
    assert (first.value.size, second.value.size) == (1, 2)
    assert first.origin["sha256"] != second.origin["sha256"]


def test_a_file_as_a_whole_is_a_module(tmp_path):
    found = MODULES.find(str(write(tmp_path, "def update():\n    return 3\n")))
    assert found.value.update() == 3
    assert "attribute" not in found.origin


def test_a_file_may_import_its_neighbour(tmp_path):
    write(tmp_path, "SIZE = 7\n", "neighbour_of_mine.py")
    path = write(
        tmp_path, "from neighbour_of_mine import SIZE\n\n\nclass Mine(int):\n    s = SIZE\n"
    )
    assert FRACTIONS.get(str(path)).s == 7


def test_a_file_may_hold_dataclasses(tmp_path):
    text = "from __future__ import annotations\nimport dataclasses\n\n\n"
    text += "@dataclasses.dataclass\nclass Mine(int):\n    x: int = 3\n"
    assert FRACTIONS.get(str(write(tmp_path, text)))().x == 3


def test_of_several_the_one_that_is_named_is_taken(tmp_path):
    path = write(tmp_path, "class One(int):\n    pass\n\n\nclass Two(int):\n    pass\n")
    assert FRACTIONS.get(f"{path}:Two").__name__ == "Two"
    with pytest.raises(PluginError, match=r"must define one number .* it defines 2 \(One, Two\)"):
        FRACTIONS.find(str(path))


def test_what_a_file_imports_is_not_taken_for_its_own(tmp_path):
    path = write(tmp_path, "from fractions import Fraction\n\n\nclass Mine(int):\n    pass\n")
    assert FRACTIONS.get(str(path)).__name__ == "Mine"


def test_an_instance_counts_as_the_files_own(tmp_path):
    door = Door[object]("size", "none", {}, fits=lambda value: isinstance(value, complex))
    assert door.get(str(write(tmp_path, "SIZE = 2 + 1j\n"))) == 2 + 1j


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fractoin",
            "no number is called 'fractoin'; is 'fraction' meant\\? Known: fraction, decimal",
        ),
        ("nowhere.py", "number nowhere.py: there is no file /.*nowhere.py"),
    ],
)
def test_an_unknown_name_lists_the_known(name, message):
    with pytest.raises(PluginError, match=message) as caught:
        FRACTIONS.find(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nimport no_such_module_at_all\n", "line 2: 'import no_such_module_at_all': Module"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "line 2: 'return 1 / 0': ZeroDivisionError"),
        ("class Mine(int:\n    pass\n", "line 1: 'class Mine\\(int:': SyntaxError"),
    ],
)
def test_a_failed_import_shows_the_users_own_line(tmp_path, text, message):
    path = write(tmp_path, text)
    for _ in range(2):  # nothing half imported is left behind
        with pytest.raises(PluginError, match=message) as caught:
            FRACTIONS.find(str(path))
        assert str(path) in str(caught.value)


def test_a_missing_or_unfit_attribute_is_refused(tmp_path):
    path = write(tmp_path, "class Mine(int):\n    pass\n\n\nclass Other:\n    pass\n")
    with pytest.raises(PluginError, match="defines no Mime; is Mine meant"):
        FRACTIONS.find(f"{path}:Mime")
    with pytest.raises(PluginError, match=r"mine\.py:Other is no number, but class Other"):
        FRACTIONS.find(f"{path}:Other")


def test_an_installed_package_is_found_by_its_entry_point(monkeypatch):
    group = FRACTIONS.group
    points = [
        importlib.metadata.EntryPoint("theirs", "fractions:Fraction", group),
        importlib.metadata.EntryPoint("unfit", "collections:OrderedDict", group),
        importlib.metadata.EntryPoint("broken", "no_such_module_at_all:X", group),
    ]
    monkeypatch.setattr(
        plugins.importlib.metadata,
        "entry_points",
        lambda group: points if group == FRACTIONS.group else [],
    )
    found = FRACTIONS.find("theirs")
    assert (found.value.__name__, found.origin) == ("Fraction", {"name": "theirs"})
    assert FRACTIONS.names() == ("fraction", "decimal", "broken", "theirs", "unfit")
    with pytest.raises(PluginError, match="is no number, but class OrderedDict"):
        FRACTIONS.find("unfit")
    with pytest.raises(PluginError, match=r"'broken' .* no_such_module_at_all:X: importing"):
        FRACTIONS.find("broken")


def test_the_loader_brings_neither_jax_nor_mujoco():
    code = "import sys, robo_rl.plugins; print([m for m in ('jax', 'mujoco') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_a_file_that_has_changed_since_it_was_recorded_is_refused_and_not_run(tmp_path):
    recorded = MODULES.find(str(write(tmp_path, "VALUE = 1\n"))).reference
    write(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(PluginError, match=r"mine.py has changed .* put the old file back"):
        MODULES.find(recorded)
    assert not (tmp_path / "ran").exists()
