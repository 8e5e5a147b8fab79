import re
import signal

import pytest

from robo_rl import agents, ends
from robo_rl.launch import cli, doctor
from robo_rl.learn import recipes
from robo_rl.workflow import gaps

COMMANDS = (
    ("quickstart",),
    ("data", "collect"),
    ("data", "record"),
    ("data", "import"),
    ("data", "check"),
    ("data", "list"),
    ("train",),
    ("finetune",),
    ("methods",),
    ("eval",),
    ("select",),
    ("export",),
    ("deploy",),
    ("twin",),
    ("resume",),
    ("report",),
    ("doctor",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse([*command, "--help"])
    assert ended.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"$ robo-rl {' '.join(command)}" in text


def test_an_unknown_command_is_answered_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse(["trian"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "quickstart" in shown.out + shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "no/such/run"],
        ["select", "no/such/run", "no/such/other"],
        ["export", "no/such/run"],
        ["resume", "no/such/run"],
        ["report", "no/such/run"],
        ["data", "check", "no/such-v0"],
        ["deploy", "no/such/policy"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_is_not_there_is_an_error_in_words(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setattr("sys.argv", ["robo-rl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "such" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


class _Interrupted:
    def run(self):
        raise ends.Terminated(signal.SIGTERM)


def test_an_interrupted_command_leaves_at_once(monkeypatch, capsys):
    """The interpreter's own end would pull XLA's client from under its compiler: it crashed."""
    left = []
    monkeypatch.setattr(cli, "parse", _Interrupted)
    monkeypatch.setattr(ends, "leave", left.append)
    with pytest.raises(SystemExit):
        cli.main()
    assert left == [143]
    assert capsys.readouterr().err == "ended by SIGTERM\n"


def test_the_help_of_finetune_names_real_recipes():
    known = cli.parse(["finetune", "x"]).recipe
    assert known in recipes.RECIPES
    assert recipes.RECIPES[known].agent in agents.AGENTS


def test_no_gap_is_no_change_and_a_full_gap_is_the_quickstarts():
    assert gaps.quickstart(0.0) is None
    full = gaps.quickstart(1.0)
    assert full is not None
    assert full["tool_offset_m"] == gaps.QUICKSTART.tool_offset_m
    half = gaps.quickstart(0.5)
    assert half is not None
    assert half["tool_offset_m"][1] == pytest.approx(full["tool_offset_m"][1] / 2)


def test_a_doctor_reports_a_failing_check_instead_of_failing(monkeypatch):
    def _broken() -> doctor.Condition:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(doctor, "_memory", _broken)
    monkeypatch.setattr(doctor, "_learner", _broken)
    findings = doctor.examine()
    assert sum("no such luck" in finding.found for finding in findings) == 2
    assert "FAIL" in doctor.render(findings)


def test_help_names_the_verbs_as_python_does(capsys):
    with pytest.raises(SystemExit):
        cli.parse(["--help"])
    assert "evaluate for eval, choose for select" in " ".join(capsys.readouterr().out.split())
