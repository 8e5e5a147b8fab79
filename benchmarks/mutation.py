"""How many small faults the tests catch: a sample of mutants by cosmic-ray.

    make mutation
    make mutation ARGS="--count 60 --rooms agents envs --seed 1"

makes an environment for cosmic-ray and coverage and goes on where an earlier call stopped. A mutant
is one changed operator, comparison, number, constant, decorator, loop or exception of one file,
written into a copy of the tree. First all tests run once, a file at a time, and coverage notes
which test runs which line, in child processes too. A mutant meets the tests that run its line, the
quickest first, until one fails or `--budget` seconds are spent; what runs while a module is
imported (defaults, tables) belongs to every test that runs anything of the module.

cosmic-ray makes the mutants and is not asked to run them: it has one command for all. mutmut 3 runs
the tests in forks of one process, which JAX's threads do not survive.
"""

import argparse
import ast
import collections
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import cosmic_ray.plugins
import coverage
import coverage.exceptions
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROOMS = ("agents", "robo_rl/learn", "robo_rl/data", "hardware", "envs")
"""Folders of mutants."""
COPIED = (
    *("robo_rl", "agents", "envs", "hardware", "launch", "tests", "examples", "benchmarks", "docs"),
    *("pyproject.toml", "README.md", "Makefile"),
)
GENERAL = ("tests/test_defaults.py",)
"""Look at what all modules define, without running any of it."""
SLACK_S = 60.0
CAUGHT = ("failed", "time")
START_S = 6.0
"""What a pytest takes before its first test, about."""
COVERAGE = """
[run]
context = ${MUTATION_TEST-}
data_file = {data}
parallel = true
concurrency = thread, multiprocessing
source =
    {tree}/robo_rl
    {tree}/agents
    {tree}/hardware
    {tree}/envs
"""
PLUGIN = """
import os
import coverage
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    os.environ["MUTATION_TEST"] = item.nodeid
    coverage.Coverage.current().switch_context(item.nodeid)
    yield
    coverage.Coverage.current().switch_context("")
"""
CHILD = "import coverage\n\ncoverage.process_startup()\n"


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


class Tree:
    """A copy of the sources that may be changed, and the tests that run on it."""

    def __init__(self, folder: pathlib.Path, python: str, tool: pathlib.Path, threads: int):
        self.path, self._python, self._tool = folder, python, tool
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_build")
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            else:
                shutil.copyfile(ROOT / name, folder / name)
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

    def test(self, tests: list[str], limit_s: float) -> tuple[str, float, str]:
        """passed, failed or time, the seconds that it took, and what failed."""
        outcome, seconds, output = self._pytest(["-m", "pytest"], [*tests, "-x"], limit_s, {})
        told = [row for row in output.splitlines() if row.startswith(("FAILED", "ERROR"))]
        return outcome, seconds, (told or [""])[0][:200]

    def covered(self, file: str) -> dict[str, Any]:
        """What the tests of a file run: outcome, seconds by test, and tests by file and line."""
        with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
            place = pathlib.Path(scratch)
            config, data = place / "coveragerc", place / "data"
            config.write_text(
                COVERAGE.replace("{tree}", str(self.path)).replace("{data}", str(data))
            )
            (place / "mutation_contexts.py").write_text(PLUGIN)
            (place / "sitecustomize.py").write_text(CHILD)
            env = {
                "PYTHONPATH": os.pathsep.join([str(self.path), scratch, str(self._tool)]),
                "COVERAGE_PROCESS_START": str(config),
            }
            # The process itself is measured by its sitecustomize, as its children are.
            runner = ["-m", "pytest", "-p", "mutation_contexts"]
            listed = [file, "--durations=0", "--durations-min=0", "-v"]
            outcome, _, output = self._pytest(runner, listed, 1800.0, env)
            return {"outcome": outcome, "tests": _seconds(output), "lines": self._lines(data)}

    def _lines(self, data: pathlib.Path) -> dict[str, dict[str, list[str]]]:
        whole = coverage.CoverageData(str(data.with_name("whole")))
        for part in sorted(data.parent.glob("data.*")):
            one = coverage.CoverageData(str(part))
            with contextlib.suppress(coverage.exceptions.CoverageException):  # cut by a kill
                one.read()
                whole.update(one)
        found = {}
        for name in whole.measured_files():
            path = pathlib.Path(name).relative_to(self.path).as_posix()
            contexts = whole.contexts_by_lineno(name)
            found[path] = {
                str(line): sorted({part for each in tests for part in each.split("|") if part})
                for line, tests in contexts.items()
            }
        return found

    def _pytest(
        self, runner: list[str], arguments: list[str], limit_s: float, env: dict[str, str]
    ) -> tuple[str, float, str]:
        command = [self._python, *runner, "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
        command += ["-m", "not learning", "--no-header", *arguments]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.path,
            env={**self._env, **env},
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
        outcome = "passed" if process.returncode in (0, 5) else "failed"
        return outcome, time.monotonic() - began, output


_DURATION = re.compile(r"^ *([\d.]+)s (?:setup|call|teardown) +(.+)$", re.MULTILINE)


def _seconds(output: str) -> dict[str, float]:
    """Of each test, from pytest's `--durations=0`: set-up and end belong to it."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for took, test in _DURATION.findall(output):
        seconds[test.strip()] += float(took)
    return dict(seconds)


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


class Cover:
    """Which tests run which lines of the unchanged tree."""

    def __init__(self, tree: Tree, ledger: Ledger):
        self.seconds: dict[str, float] = {}
        self._lines: dict[str, dict[int, set[str]]] = {}
        sources = hashlib.sha256()
        for room in ("robo_rl", *ROOMS):
            for path in sorted((ROOT / room).rglob("*.py")):
                sources.update(path.read_bytes())
        self.version = sources.hexdigest()[:12]
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            file = path.relative_to(ROOT).as_posix()
            if "learning/" not in file:
                self._add(self._covered(tree, ledger, file))

    def tests_of(self, mutant: Mutant, budget_s: float) -> list[str]:
        """Those that run the statement of a mutant, the quickest first."""
        lines = self._lines.get(mutant.path, {})
        if _while_imported(mutant):  # the test that happens to import it first says nothing
            tests = set().union(*lines.values(), self._of_files(mutant))
        else:
            tests = set().union(*(lines[line] for line in _statement(mutant) if line in lines))
        chosen, spent = [], 0.0
        for test in sorted(tests, key=lambda test: self.seconds.get(test, 0.0)):
            spent += self.seconds.get(test, 0.0)
            if spent > budget_s and chosen:
                break
            chosen.append(test)
        return chosen

    def _of_files(self, mutant: Mutant) -> set[str]:
        """Tests of the file that is named after a mutant's, and of what holds for all files."""
        files = (f"test_{pathlib.Path(mutant.path).stem}.py", *GENERAL)
        return {test for test in self.seconds if test.partition("::")[0].endswith(files)}

    def _covered(self, tree: Tree, ledger: Ledger, file: str) -> dict[str, Any]:
        digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:12]
        name = f"unchanged {file} {digest} {self.version}"
        if name not in ledger.known:
            found = ledger.add(name, **tree.covered(file))
            print(f"{found['outcome']:8} {len(found['tests']):4} tests of {file}", flush=True)
        return ledger.known[name]

    def _add(self, found: dict[str, Any]) -> None:
        if found["outcome"] != "passed":
            return
        self.seconds |= found["tests"]
        for path, lines in found["lines"].items():
            known = self._lines.setdefault(path, collections.defaultdict(set))
            for line, tests in lines.items():
                known[int(line)] |= set(tests)


@functools.cache
def _syntax(path: str) -> ast.Module:
    """Of a file as it is."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _while_imported(mutant: Mutant) -> bool:
    """Whether the place of a mutant is in no function's body."""
    return not any(
        node.body[0].lineno <= mutant.line <= (node.end_lineno or 0)
        for node in ast.walk(_syntax(mutant.path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def _statement(mutant: Mutant) -> range:
    """Lines of the innermost statement around a mutant, down to it."""
    first = mutant.line
    starts = [
        node.lineno
        for node in ast.walk(_syntax(mutant.path))
        if isinstance(node, ast.stmt) and node.lineno <= mutant.line <= (node.end_lineno or 0)
    ]
    return range(max(starts, default=first), first + 1)


def judge(
    tree: Tree, ledger: Ledger, cover: Cover, mutant: Mutant, budget_s: float
) -> dict[str, Any]:
    """Run the tests of a mutant's line on it, until one fails."""
    tests = cover.tests_of(mutant, budget_s)
    texts = hashlib.sha256("".join(tests).encode()).hexdigest()[:12]
    known = ledger.known.get(mutant.name)
    if known is not None and (known["outcome"] in CAUGHT or known["texts"] == texts):
        return known  # a survivor is tried again by other tests
    original = (ROOT / mutant.path).read_text(encoding="utf-8")
    text = changed(mutant)
    assert text is not None
    diff = difflib.unified_diff(
        original.splitlines(), text.splitlines(), mutant.path, mutant.path, "", "", 2, ""
    )
    outcome, seconds, told = "untested", 0.0, ""
    if tests:
        target = tree.path / mutant.path
        target.write_text(text, encoding="utf-8")
        usual_s = START_S + sum(cover.seconds.get(test, 0.0) for test in tests)
        try:
            outcome, seconds, told = tree.test(tests, 3.0 * usual_s + SLACK_S)
        finally:
            target.write_text(original, encoding="utf-8")
    return ledger.add(
        mutant.name,
        outcome=outcome,
        seconds=seconds,
        told=told,
        tests=tests[:20],
        texts=texts,
        diff="\n".join(list(diff)[2:]),
    )


def report(rows: dict[str, dict[str, Any]], wanted: int) -> str:
    """Survivors with their changes, then the shares by room, then the whole."""
    lines = []
    for name, row in rows.items():
        if row["outcome"] not in CAUGHT:
            tests = " ".join(row["tests"][:5]) or "none runs it"
            lines.append(f"\nSURVIVED {name}\n  tests: {tests}\n{row['diff']}")
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
    parser.add_argument("--budget", type=float, default=90.0, help="seconds of tests a mutant")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after; 0: never")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="that the tests run by")
    tool = pathlib.Path(sys.prefix) / "coverage"
    parser.add_argument("--coverage", type=pathlib.Path, default=tool, help="folder that has it")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutation")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = sample(options.rooms, options.count, options.seed)
    ledger = Ledger(folder / "results.jsonl")
    tree = Tree(folder / "tree", options.python, options.coverage.resolve(), options.threads)
    cover = Cover(tree, ledger)
    began, rows = time.monotonic(), {}
    for number, mutant in enumerate(chosen, 1):
        late = options.minutes and time.monotonic() - began > 60.0 * options.minutes
        if late and mutant.name not in ledger.known:
            continue
        row = rows[mutant.name] = judge(tree, ledger, cover, mutant, options.budget)
        print(
            f"{number:3}/{len(chosen)} {row['outcome']:8} {row['seconds']:6.1f} s  {mutant.name}",
            flush=True,
        )
    text = report(rows, len(chosen))
    print(text)
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
