"""Workers make their work once, answer in order, and run no script twice."""

import contextlib
import functools
import multiprocessing
import operator
import time

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


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path, run_script):
    (tmp_path / "beside.py").write_text(f"import gymnasium\n{STILL}")
    assert run_script(SCRIPT) == ["begun", "[10, 11, 12, 13]", "9", "9"]


def _sleeping():
    return _sleep


def _sleep(seconds):
    time.sleep(seconds)
    return seconds


def _sending():
    return b"x".__mul__


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_ends_work_that_is_under_way(error):
    with contextlib.suppress(error), pool(2, _sleeping) as workers:
        assert workers.submit(0.0).result() == 0.0
        for _ in range(4):
            workers.submit(60.0)
        began = time.monotonic()
        raise error
    assert time.monotonic() - began < 5.0
    assert multiprocessing.active_children() == []


def test_a_result_that_is_being_sent_is_sent_to_its_end():
    """A reader of half a message would wait for the rest of it."""
    for pause in (0.0, 0.005, 0.02):
        with contextlib.suppress(KeyboardInterrupt), pool(2, _sending) as workers:
            workers.submit(0).result()
            for _ in range(20):
                workers.submit(20_000_000)
            time.sleep(pause)
            raise KeyboardInterrupt
    assert multiprocessing.active_children() == []


def test_workers_that_are_only_beginning_are_ended_too():
    began = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), pool(2, functools.partial(time.sleep, 60)) as one:
        one.submit(0.0)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20.0
