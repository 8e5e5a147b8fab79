import numpy as np
import pytest

from robo_rl.judge import critics
from robo_rl.runs.directory import RunDirectory
from robo_rl.workflow import report
from robo_rl.workflow.run import Run

RISES_AND_FALLS = np.concatenate([np.linspace(0.0, 10.0, 11), np.linspace(9.5, 4.0, 9)])


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", {"kind": "offline", "agent": "cql", "keep": 9})


def _log(run, prefixes=("",)):
    for number, q in enumerate(RISES_AND_FALLS, start=1):
        values = dict.fromkeys(critics.PROBED, 0.1) | {"probe_data_q": q, "probe_target_std": 2.0}
        named = {f"{prefix}{name}": value for prefix in prefixes for name, value in values.items()}
        run.metrics.write(100 * number, {"loss": 1.0, **values, **named})
    run.metrics.close()


def test_the_report_names_the_verdict_and_shows_its_curves_once(run):
    _log(run)
    assert report.report(run.path) == run.path / "report.html"
    page = (run.path / "report.html").read_text()
    assert "Do the critics fit?" in page
    assert "overfitting" in page
    assert page.count("<svg") == len(critics.PROBED) + 1  # and the loss


def test_the_checkpoint_to_take_is_named_where_it_is_kept(run):
    _log(run)
    (text,) = report.verdicts(Run(run))
    assert "none is kept: train again for 1100 steps (--steps)" in text
    for step in (500, 1000, 1500):
        run.save(step, {"x": np.ones(1)})
    (text,) = report.verdicts(Run(run))
    assert f"robo-rl export {run.path} --step 1000" in text


def test_every_seed_has_its_own_verdict(run):
    _log(run, ("seed0/", "seed1/"))
    texts = report.verdicts(Run(run))
    assert [text.partition(":")[0] for text in texts] == ["critics of seed0", "critics of seed1"]
    report.report(run.path)
    assert (run.path / "report.html").read_text().count("<svg") == len(critics.PROBED) + 1


def test_a_run_that_watched_no_critics_is_reported_without_a_verdict(run):
    run.metrics.write(10, {"loss": 1.0})
    run.metrics.close()
    assert report.verdicts(Run(run)) == []
    report.report(run.path)
    assert "Do the critics fit?" not in (run.path / "report.html").read_text()
