"""Workers make their work once, answer in order, and run no script twice."""

import functools
import operator
import os
import subprocess
import sys

import pytest

from robo_rl.workers import pool

STILL = """
class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        return self.observation_space.sample() * 0, 1.0, False, False, {}
"""
SCRIPT = f"""
import functools, operator
import gymnasium
import robo_rl
from robo_rl.workers import pool

print("begun", flush=True)
with pool(2, functools.partial(functools.partial, operator.add, 10)) as workers:
    print(list(workers.map(range(4))))


{STILL}

gymnasium.register("Still-v0", entry_point=Still, max_episode_steps=3)
gymnasium.register("beside/Still-v0", entry_point="beside:Still", max_episode_steps=3)
for name in ("Still-v0", "beside/Still-v0"):
    print(robo_rl.record("random", "still/random-v0", env=name, episodes=3, overwrite=True).steps)
"""


def test_the_work_is_made_once_a_worker_and_results_keep_the_order_of_the_items():
    with pool(2, functools.partial(functools.partial, operator.mul, 3)) as workers:
        assert list(workers.map(range(5))) == [0, 3, 6, 9, 12]
        assert workers.submit(7).result() == 21


def test_work_that_cannot_be_made_fails_where_its_first_result_is_read():
    begin = functools.partial(operator.truediv, 1, 0)
    with pool(1, begin) as workers, pytest.raises(ZeroDivisionError):
        workers.submit(1).result()


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "beside.py").write_text(f"import gymnasium\n{STILL}")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "datasets")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["begun", "[10, 11, 12, 13]", "9", "9"]
