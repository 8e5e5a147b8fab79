"""Pages and README say what is there: commands that parse, links that lead somewhere, all names."""

import pathlib
import re
import shlex

import pytest

import robo_rl
from robo_rl.launch import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
_COMMAND = re.compile(r"^\s*(?:\$ )?robo-rl (.+?)(?:\s+#.*)?$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_of_a_page_parses(page):
    for line in _COMMAND.findall(page.read_text(encoding="utf-8")):
        if "COMMAND" in line or "--help" in line:
            continue
        cli.parse(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_of_a_page_leads_to_a_file(page):
    made = {ROOT / "docs" / "reference" / "cli.md"}  # when the site is built
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        outside = not (ROOT / "LICENSE").exists() and target.parent == ROOT
        assert target.exists() or target in made or outside, link


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_reference_names_all_of_the_library():
    page = (ROOT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")
    named = set(re.findall(r"robo_rl\.(\w+)$", page, re.MULTILINE))
    assert named == set(robo_rl.__all__) - {"__version__"}


def test_the_version_stands_in_one_place():
    cited = (ROOT / "CITATION.cff") if (ROOT / "CITATION.cff").exists() else None
    if cited is not None:  # the wheel is tested from a folder without it
        assert f"version: {robo_rl.__version__}\n" in cited.read_text(encoding="utf-8")


def test_the_eight_lines_of_the_readme_run_as_a_script_of_their_own(run_script):
    (lines,) = re.findall(
        r"## Eight lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len(lines.strip().splitlines()) == 8
    record = 'robo_rl.record("random", "hopper/mixed-v0", env="Hopper-v5", episodes=8, workers=0)\n'
    script = lines.replace("50_000", "4").replace("(run))", "(run, episodes=2))", 1)
    assert run_script(f"import robo_rl\n{record}{script}print(action.shape)\n")[-1] == "(3,)"
