"""For tests that race for one folder, or kill who makes it: `race FOLDER`, or `kill FOLDER N`."""

import os
import pathlib
import random
import signal
import sys
import time

from robo_rl.runs.directory import RunDirectory

CONFIG = {"kind": "offline", "keep": 2}


def race(folder: pathlib.Path) -> None:
    """Make a run of each name that is read, as soon as it is read, and say what came of it."""
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            RunDirectory.create(folder / line.strip(), {**CONFIG, "pid": os.getpid()})
            print(f"got it {os.getpid()}", flush=True)
        except OSError as error:
            print(f"{type(error).__name__}: {error}", flush=True)


def kill(folder: pathlib.Path, count: int) -> None:
    """Kill `count` children while they make a run and begin it; say what each left behind."""
    rng = random.Random()
    whole = _seconds_of_a_start(folder)
    for number in range(count):
        path = folder / f"run-{number}"
        child = os.fork()
        if not child:
            _start(path)
            time.sleep(60.0)
        time.sleep(rng.uniform(0.0, 1.3 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not path.exists():
            print("nothing", flush=True)
            continue
        run = RunDirectory.open(path)
        run.metrics.rewind(0, -1)  # what resuming does where there is no checkpoint
        filled = (path / "teacher" / "policy.json").read_text(encoding="utf-8") == "{}"
        print(f"resumes {filled} {run.config['keep']} {run.environment()['python']}", flush=True)
        run.close()


def _seconds_of_a_start(folder: pathlib.Path) -> float:
    began = time.monotonic()
    child = os.fork()
    if not child:
        _start(folder / "first")
        os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - began


def _start(path: pathlib.Path) -> None:
    def fill(folder: pathlib.Path) -> None:
        (folder / "teacher").mkdir()
        (folder / "teacher" / "policy.json").write_text("{}", encoding="utf-8")

    run = RunDirectory.create(path, CONFIG, fill=fill)
    for step in range(3):
        run.metrics.write(step, {"loss": 1.0})
        run.note_timing({"step": step})


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[2])
    race(place) if sys.argv[1] == "race" else kill(place, int(sys.argv[3]))
