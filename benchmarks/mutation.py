"""How many small faults the tests catch: a sample of mutants by cosmic-ray, each against its room.

    make mutation
    make mutation ARGS="--count 60 --rooms agents envs --seed 1"

makes an environment for cosmic-ray and goes on where an earlier call stopped. A mutant is one
changed operator, comparison, number, constant, decorator, loop or exception of one file, written
into a copy of the tree. The tests of its own room run on it: first the file that is named as the
module, then those that mention it, then the others, until one fails. Every file of tests runs
once unchanged before: it has to pass, and three times what it takes is a mutant's time limit.

cosmic-ray makes the mutants and is not asked to run them: it has one command for all. mutmut 3 runs
the tests in forks of one process, which JAX's threads do not survive.
"""

import argparse
import ast
import collections
import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROOMS = {
    "agents": "tests/agents",
    "robo_rl/learn": "tests/learn",
    "robo_rl/data": "tests/data",
    "hardware": "tests/hardware",
    "envs": "tests/envs",
}
"""Folders of mutants, and of the tests that are to catch them."""
COPIED = ("robo_rl", "agents", "envs", "hardware", "launch", "tests", "examples", "benchmarks")
SLACK_S = 60.0
CAUGHT = ("failed", "time")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    operator: str
    occurrence: int
    line: int
    source: str
    """Digest of the file that it changes: results of another text do not count."""

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"{self.path}:{self.line} {self.operator} #{self.occurrence} {self.source}"


def _annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where types are annotated: what is changed there, only a type checker sees."""
    spans = []
    for node in ast.walk(ast.parse(text)):
        for field in ("annotation", "returns"):
            found = getattr(node, field, None)
            if isinstance(found, ast.expr):
                start = (found.lineno, found.col_offset)
                spans.append((start, (found.end_lineno or 0, found.end_col_offset or 0)))
    return spans


def mutants_of(path: str) -> Iterator[tuple[tuple[Any, ...], Mutant]]:
    """All mutants of a file, each with the place and kind that it shares with its variants."""
    text = (ROOT / path).read_text(encoding="utf-8")
    source = hashlib.sha256(text.encode()).hexdigest()[:12]
    spans = _annotations(text)
    nodes = list(ast_nodes(get_ast(text)))
    for name in cosmic_ray.plugins.operator_names():
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments():  # those that replace variables need to be told which
            continue
        operator = kind()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(places):
            if any(low <= start and end <= high for low, high in spans):
                continue
            family = name.rpartition("/")[2].partition("_")[0]
            yield (start, end, family), Mutant(path, name, occurrence, start[0], source)


def sample(rooms: list[str], count: int, seed: int) -> list[Mutant]:
    """So many mutants: places and kinds are drawn alike, however many variants they have."""
    places: dict[Any, list[Mutant]] = collections.defaultdict(list)
    for room in rooms:
        for file in sorted((ROOT / room).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            for place, mutant in mutants_of(path):
                places[(path, *place)].append(mutant)
    rng = random.Random(seed)
    chosen: list[Mutant] = []
    for place in rng.sample(sorted(places), len(places)):
        mutant = rng.choice(places[place])
        if len(chosen) < count and changed(mutant) is not None:
            chosen.append(mutant)
    return chosen


def changed(mutant: Mutant) -> str | None:
    """The text of the file as a mutant has it; None where cosmic-ray cannot make it."""
    original = (ROOT / mutant.path).read_text(encoding="utf-8")
    operator = cosmic_ray.plugins.get_operator(mutant.operator)()
    try:
        text: str | None = mutate_code(original, operator, mutant.occurrence)
    except AttributeError:  # it renames exceptions by one word, `except a.b` has two
        return None
    return text


def tests_of(path: str, scope: str) -> list[str]:
    """Files of tests for a module, the nearest first; `scope` "module" leaves out the others."""
    room = max((r for r in ROOMS if path.startswith(f"{r}/")), key=len)
    stem = pathlib.PurePath(path).stem
    stem = pathlib.PurePath(path).parent.name if stem == "__init__" else stem
    files = sorted((ROOT / ROOMS[room]).rglob("test_*.py"))
    mentions = re.compile(rf"\b{re.escape(stem)}\b")

    def distance(file: pathlib.Path) -> int:
        if file.stem == f"test_{stem}":
            return 0
        return 1 if mentions.search(file.read_text(encoding="utf-8")) else 2

    near = [file for file in files if scope == "room" or distance(file) < 2]
    ordered = sorted(near or files, key=distance)
    return [file.relative_to(ROOT).as_posix() for file in ordered]


class Tree:
    """A copy of the sources that may be changed, and the tests that run on it."""

    def __init__(self, folder: pathlib.Path, python: str, threads: int):
        self.path = folder
        self._python = python
        shutil.rmtree(folder, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
        self._env = {
            **os.environ,
            "PYTHONPATH": str(folder),
            # A mutant may have the size and the second of the file that it replaces.
            "PYTHONDONTWRITEBYTECODE": "1",
            # What a mutant leaves as it was need not be compiled again.
            "JAX_COMPILATION_CACHE_DIR": str(folder.with_name("jax")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if threads == 1:
            self._env |= {"OMP_NUM_THREADS": "1"}
            self._env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

    def test(self, files: list[str], limit_s: float) -> tuple[str, float, str]:
        """passed, failed or time, the seconds that it took, and what failed."""
        command = [self._python, "-m", "pytest", "-x", "-q", "-p", "no:randomly"]
        command += ["-p", "no:cacheprovider", "-m", "not learning", "--no-header", *files]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.path,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return "time", time.monotonic() - began, ""
        told = [row for row in output.splitlines() if row.startswith(("FAILED", "ERROR"))]
        outcome = "passed" if process.returncode in (0, 5) else "failed"
        return outcome, time.monotonic() - began, (told or [""])[0][:200]


class Ledger:
    """What is known already, a JSON line each; a call that was stopped loses one at most."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.known[row["name"]] = row

    def add(self, name: str, **row: Any) -> dict[str, Any]:
        """Keep a row under a name."""
        self.known[name] = {"name": name, **row}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.known[name]) + "\n")
        return self.known[name]


def baseline(tree: Tree, ledger: Ledger, file: str) -> dict[str, Any]:
    """Outcome and seconds of a file of tests on the unchanged tree."""
    digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:12]
    name = f"unchanged {file} {digest}"
    if name not in ledger.known:
        outcome, seconds, told = tree.test([file], 1800.0)
        ledger.add(name, outcome=outcome, seconds=seconds, told=told)
        print(f"{outcome:8} {seconds:6.1f} s  unchanged {file}  {told}", flush=True)
    return ledger.known[name]


def judge(tree: Tree, ledger: Ledger, mutant: Mutant, scope: str) -> dict[str, Any]:
    """Run the tests on a mutant, file by file, until one fails."""
    files = tests_of(mutant.path, scope)
    texts = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:12]
    known = ledger.known.get(mutant.name)
    if known is not None and (known["outcome"] in CAUGHT or known["texts"] == texts):
        return known  # a survivor is tried again by other tests
    original = (ROOT / mutant.path).read_text(encoding="utf-8")
    text = changed(mutant)
    assert text is not None
    diff = difflib.unified_diff(
        original.splitlines(), text.splitlines(), mutant.path, mutant.path, "", "", 2, ""
    )
    target, seconds, outcome, told = tree.path / mutant.path, 0.0, "passed", ""
    ran: list[str] = []
    for file in files:
        before = baseline(tree, ledger, file)
        if before["outcome"] != "passed":
            continue
        target.write_text(text, encoding="utf-8")
        try:
            outcome, took, told = tree.test([file], 3.0 * before["seconds"] + SLACK_S)
        finally:
            target.write_text(original, encoding="utf-8")
        seconds += took
        ran.append(file)
        if outcome in CAUGHT:
            break
    return ledger.add(
        mutant.name,
        outcome=outcome if ran else "untested",
        seconds=seconds,
        told=told,
        tests=ran,
        texts=texts,
        diff="\n".join(list(diff)[2:]),
    )


def report(rows: dict[str, dict[str, Any]], wanted: int) -> str:
    """Survivors with their changes, then the shares by room, then the whole."""
    lines = []
    for name, row in rows.items():
        if row["outcome"] not in CAUGHT:
            lines.append(f"\nSURVIVED {name}\n  tests: {' '.join(row['tests'])}\n{row['diff']}")
    lines.append("")
    for room in ROOMS:
        of = [row for name, row in rows.items() if name.startswith(f"{room}/")]
        if of:
            caught = sum(row["outcome"] in CAUGHT for row in of)
            lines.append(f"{room:14} {caught:3} of {len(of):3} caught")
    caught = sum(row["outcome"] in CAUGHT for row in rows.values())
    timed = sum(row["outcome"] == "time" for row in rows.values())
    lines.append(
        f"caught {caught} of {len(rows)} mutants ({100 * caught / max(len(rows), 1):.1f} %), "
        f"{timed} of them by the time limit; {wanted - len(rows)} of the sample were not run"
    )
    return "\n".join(lines)


def main() -> None:
    """Draw, run what is not known, print survivors and shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument(
        "--scope", choices=("room", "module"), default="room", help="tests: all, or the nearest"
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after; 0: never")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="that the tests run by")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutation")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = sample(options.rooms, options.count, options.seed)
    ledger = Ledger(folder / f"results-{options.scope}.jsonl")
    tree = Tree(folder / "tree", options.python, options.threads)
    began, rows = time.monotonic(), {}
    for number, mutant in enumerate(chosen, 1):
        late = options.minutes and time.monotonic() - began > 60.0 * options.minutes
        if late and mutant.name not in ledger.known:
            continue
        row = rows[mutant.name] = judge(tree, ledger, mutant, options.scope)
        print(
            f"{number:3}/{len(chosen)} {row['outcome']:8} {row['seconds']:6.1f} s  {mutant.name}",
            flush=True,
        )
    text = report(rows, len(chosen))
    print(text)
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
