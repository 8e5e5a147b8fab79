"""Benchmarks go on working with what they measure: each is imported, one goes its whole way."""

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
ELSEWHERE = ("mutation", "peer_worker", "d3rlpy_worker", "qp_solvers", "matmuls")
"""Those that run with packages of other environments."""
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ELSEWHERE)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_finds_all_that_it_imports(name):
    importlib.import_module(f"benchmarks.{name}")


def test_ogbenchs_tasks_are_learned_offline_then_online_and_judged(tmp_path, monkeypatch):
    from benchmarks import ogbench_tasks

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    budget = ogbench_tasks.Budget(
        steps=10, rows=400, width=8, depth=1, seeds=2, episodes=1, online_steps=4
    )
    case = ogbench_tasks.Case("cube-single-2", "fql", budget, tmp_path, workers=0)
    case.run()
    assert sorted(case.shares("offline")) == ["0", "1"]
    assert all(episodes == 1 for _, episodes in case.shares("online")["0"])
    case.run()  # what is done is not done again
