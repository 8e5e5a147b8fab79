"""Files that are whole or not there, JSON that every program reads, and text on any terminal."""

import ast
import errno
import importlib.util
import json
import os
import pathlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import robo_rl
from robo_rl import files

NUMBERS = {"a": [1.0, float("nan")], "b": {"c": np.float32(np.inf), "d": np.array([1, 2])}}


def _strict(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_has_no_word_for_become_null():
    assert _strict(files.dumps(NUMBERS)) == {"a": [1.0, None], "b": {"c": None, "d": [1, 2]}}


def test_or_they_are_refused_by_place(tmp_path):
    with pytest.raises(ValueError, match=r"a\[1\] is nan, which JSON cannot hold"):
        files.dumps(NUMBERS, nonfinite="refuse")
    with pytest.raises(ValueError, match=r"b\.c is -inf"):
        files.write_json(tmp_path / "x.json", {"b": {"c": -np.inf}})
    assert os.listdir(tmp_path) == []


def test_what_json_cannot_hold_at_all_is_an_error():
    with pytest.raises(TypeError, match="object"):
        files.dumps({"x": object()})


def test_json_is_ascii_whatever_it_says(tmp_path):
    files.write_json(tmp_path / "x.json", {"name": "Würfel"})
    assert (tmp_path / "x.json").read_bytes().isascii()
    assert files.read_json(tmp_path / "x.json") == {"name": "Würfel"}


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """The second begins while the first is about to rename what it wrote."""
    path, first = tmp_path / "a", os.fsync

    def write_another(descriptor):
        monkeypatch.setattr(os, "fsync", first)
        files.write_bytes(path, b"second")
        first(descriptor)

    monkeypatch.setattr(os, "fsync", write_another)
    files.write_bytes(path, b"first")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_gives_the_systems_reason_and_advice_that_fits_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: No such file or directory$"):
        files.write_bytes(tmp_path / "none" / "a", b"")
    full = files.refused("cannot write a", OSError(errno.ENOSPC, "No space left on device"))
    assert str(full).endswith("No space left on device; free space and try again")
    denied = files.refused("cannot write a", OSError(errno.EROFS, "Read-only file system"))
    assert str(denied).endswith("choose a folder that you may write to")


_LIMITED = """
import resource, signal, sys, pathlib
from robo_rl import files
path = pathlib.Path(sys.argv[1])
files.append(path, '{"step": 1}\\n')
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    files.append(path, '{"step": 2}\\n')
except OSError as error:
    print(error)
"""


def test_a_line_that_does_not_fit_on_the_disk_is_not_begun(tmp_path):
    path = tmp_path / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert path.read_text(encoding="utf-8") == '{"step": 1}\n'


def test_a_path_is_made_absolute_and_its_tilde_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert files.absolute("a/../b") == tmp_path / "b"
    assert files.absolute("~/b") == pathlib.Path("/home/someone/b")


def test_any_text_can_be_printed_under_an_ascii_locale():
    code = (
        "import sys; from robo_rl import files; files.printable_output()\n"
        "print('W\\u00fcrfel \\u2022'); print('\\u00fc', file=sys.stderr)"
    )
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, **plain, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert done.stdout == b"W?rfel ?\n"
    assert done.stderr == b"\\xfc\n"


def _modules():
    packages = [found.name for found in pkgutil.iter_modules(robo_rl.__path__) if found.ispkg]
    yield from pathlib.Path(robo_rl.__file__).parent.glob("*.py")
    for room in (*packages, "launch"):  # which has no __init__.py
        for folder in importlib.util.find_spec(f"robo_rl.{room}").submodule_search_locations:
            yield from pathlib.Path(folder).rglob("*.py")


def _text_files_of_unknown_encoding(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [a.value for a in node.args if isinstance(a, ast.Constant)]
        modes = [value for value in given if isinstance(value, str)]
        opens = name in ("open", "fdopen") and (modes or isinstance(node.func, ast.Name))
        text = opens and not any("b" in mode for mode in modes)
        if name in ("read_text", "write_text") or text:
            yield f"{module.name}:{node.lineno}"


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale():
    found = [place for path in _modules() for place in _text_files_of_unknown_encoding(path)]
    assert len(list(_modules())) > 100
    assert found == []
