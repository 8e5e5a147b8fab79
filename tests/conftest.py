import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

# The suite runs one worker a core: threads inside of a worker would only get in each other's way.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite in the background, or under nohup, is started with these ignored.
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

_LONGEST, _REAL_TIME = ("test_quickstart.py", "test_contract.py"), "hardware"


@pytest.fixture
def quick_compile() -> Iterator[None]:
    """For single updates of tiny networks, which take far longer to optimise than to run."""
    import jax  # tests of rooms without JAX do not pay for it

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def run_script(tmp_path: pathlib.Path) -> Callable[[str], list[str]]:
    """Runs a text as a script of a user's, in a folder with datasets of its own; what it prints."""

    def run(text: str) -> list[str]:
        (tmp_path / "script.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "script.py"],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env={**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "datasets")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By file: the longest first, so that the other worker fills up meanwhile; real time last."""

    def rank(item: pytest.Item) -> int:
        return 0 if item.path.name in _LONGEST else 2 if item.path.parent.name == _REAL_TIME else 1

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_let_go():
    """After each file: a worker that keeps all of them grows by gigabytes, and XLA then crashes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
