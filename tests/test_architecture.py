"""The shape of the code: no circles of imports, and every robot in its own folder."""

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import robo_rl

HOME = pathlib.Path(robo_rl.__file__).resolve().parent
ROOMS = ("agents", "envs", "hardware", "launch")

_GRAPH = """
import json, grimp
graph = grimp.build_graph("robo_rl", cache_dir=None)
print(json.dumps({m: sorted(graph.find_modules_directly_imported_by(m)) for m in graph.modules}))
"""


def sources():
    """(module folder name, file) of all code, wherever the rooms lie."""
    beside = HOME if (HOME / "agents").exists() else HOME.parent
    for room in ROOMS:
        for path in (beside / room).rglob("*.py"):
            yield f"{room}/{path.relative_to(beside / room).as_posix()}", path
    for path in HOME.rglob("*.py"):
        name = path.relative_to(HOME).as_posix()
        if name.split("/")[0] not in ROOMS:
            yield f"robo_rl/{name}", path


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Module -> modules that it imports, also only for its types. All rooms lie in one package.

    `robo_rl/__init__.py` names what it lends from everywhere, so it has none here. `launch` has no
    `__init__.py`, without which it would not be seen.
    """
    root = tmp_path_factory.mktemp("whole")
    for name, path in sources():
        target = root / ("" if name.startswith("robo_rl/") else "robo_rl") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for folder in ("launch", "launch/commands"):
        (root / "robo_rl" / folder / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", _GRAPH],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    assert len(found) > 150
    return {**found, "robo_rl": []}


def circle(imports):
    """One circle of imports, its first module again at the end; empty where there is none."""
    done: set[str] = set()
    for start in sorted(imports):
        path, ways = [start], [iter(imports[start])]
        while path and start not in done:
            following = next(ways[-1], None)
            if following is None:
                done.add(path.pop())
                ways.pop()
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                ways.append(iter(imports[following]))
    return []


def test_no_module_imports_itself_by_a_detour(imports):
    assert " -> ".join(circle(imports)) == ""


def test_rooms_do_not_import_each_other_in_circles(imports):
    def room(module):
        return ".".join(module.split(".")[:2])

    rooms: dict[str, set[str]] = {}
    for module, imported in imports.items():
        rooms.setdefault(room(module), set()).update(room(m) for m in imported)
    rooms = {name: others - {name, "robo_rl"} for name, others in rooms.items()}
    assert " -> ".join(circle(rooms)) == ""


def test_a_circle_is_found_wherever_it_begins():
    assert circle({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}) == ["b", "d", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
    for order in itertools.permutations("xyz"):
        ring = dict(zip(order, [[n] for n in (*order[1:], order[0])], strict=True))
        assert len(circle(ring)) == 4


def test_a_robot_is_named_in_its_own_folder_only():
    named = {
        name
        for name, path in sources()
        if re.search(r"\bUR5E|ur5e_", path.read_text(encoding="utf-8"))
    }
    own = {name for name in named if name.startswith("hardware/robots/ur5e/")}
    assert own
    assert named == own


def test_processes_that_judge_policies_bring_no_learner():
    code = (
        "import sys, robo_rl.workflow.evaluate;"
        "print([n for n in ('jax', 'imageio', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
