"""A run that lies where nobody may write is evaluated, recorded from and chosen all the same."""

import errno
import os
import pathlib

import pytest

from robo_rl import locks
from robo_rl.workflow import choose
from robo_rl.workflow import evaluate as evaluating
from robo_rl.workflow.evaluate import evaluate
from robo_rl.workflow.export import export
from robo_rl.workflow.record import record
from robo_rl.workflow.run import load_run
from robo_rl.workflow.train import train

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(datasets, tmp_path, monkeypatch):
    """A run of a few updates, within which no folder can be made."""
    path = tmp_path / "read-only" / "run"
    train(datasets("Pointed"), "td3bc", steps=4, batch_size=8, option=("actor.hidden=8",), out=path)
    make = pathlib.Path.mkdir

    def refusing(self, *args, **named):
        if path in self.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        make(self, *args, **named)

    monkeypatch.setattr(locks.pathlib.Path, "mkdir", refusing)
    return path


def _there(path):
    return sorted(str(each) for each in path.rglob("*"))


def test_evaluating_and_recording_leave_a_run_alone_that_cannot_be_written(run, monkeypatch):
    before = _there(run)
    assert len(evaluate(run, episodes=2, workers=0).episodes.returns) == 2
    assert len(evaluate(run, episodes=2, workers=0, step=4).episodes.returns) == 2
    assert record(run, "probe/again-v0", episodes=2, workers=0).episodes == 2
    setting, told = load_run(run).env, evaluate(run, episodes=2, workers=0).episodes
    # Here: workers do not know this environment, which a test registered.
    monkeypatch.setattr(evaluating, "evaluate_policy", lambda folder, *_: folder.stat() and told)
    assert choose.episodes_of(run, setting, 2, 0, workers=1) == told
    assert _there(run) == before


def test_an_export_into_it_is_refused_in_words(run):
    with pytest.raises(OSError, match="choose a folder that you may write to"):
        export(run)
