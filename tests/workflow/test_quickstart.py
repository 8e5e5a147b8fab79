import json
import math
import pathlib

import pytest

from robo_rl.workflow import quickstart


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """The whole path at a reduced budget, in real processes."""
    out = tmp_path_factory.mktemp("run") / "quickstart"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", "unused")  # restored afterwards
        assert quickstart.run(out, seed=3, budget_name="smoke") == 0
    return out


def test_the_summary_has_every_figure(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for name in (
        "dataset.episodes",
        "dataset.transitions",
        "offline.success",
        "offline.ci95",
        "gap.success",
        "gap.ci95",
        "online.success",
        "online.ci95",
        "online.env_steps",
        "deployed.success",
        "deployed.violations",
        "unfiltered.violations",
        "deployed.rate_hz",
        "deployed.deadline_misses",
        "watchdog.stop_ms",
        "wall_s",
    ):
        value = summary
        for part in name.split("."):
            value = value[part]
        assert value is not None, name
    assert summary["dataset"]["episodes"] == 12
    assert summary["online"]["env_steps"] == 600


def test_the_arm_stops_and_no_command_is_beyond_a_limit(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert all(math.isfinite(ms) and ms < 1000 for ms in summary["watchdog"]["stop_ms"].values())
    assert summary["commands_beyond_limits"] == 0


def test_the_report_is_one_whole_page(finished):
    page = (finished / "report.html").read_text()
    assert page.endswith("</html>")
    assert "Distance to the keep-out region" in page
    assert 'src="http' not in page


def test_the_exported_policy_and_the_recordings_are_kept(finished):
    assert (finished / "policy" / "policy.json").exists()
    recordings = {path.name for path in (finished / "recordings").glob("*.mcap")}
    assert recordings == {"deployed.mcap", "unfiltered.mcap"}


def test_an_earlier_run_is_moved_aside(tmp_path):
    earlier = tmp_path / "quickstart"
    earlier.mkdir()
    (earlier / "summary.json").write_text("{}")
    fresh = quickstart._fresh(earlier)
    assert list(fresh.iterdir()) == []
    assert (tmp_path / "quickstart-1" / "summary.json").read_text() == "{}"
