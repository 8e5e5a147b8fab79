import pytest

from robo_rl.runs import report


def test_a_page_holds_everything_it_shows(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\x00\x01not really a film")
    blocks = [
        report.table(["what", "value"], [["success", 0.81], ["episodes", 100]]),
        report.line_chart(
            [report.Curve("q", [0, 1], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5])], "x", "y"
        ),
        report.bar_chart([report.Bar("clean", 0.8, 0.7, 0.87)], "success"),
        report.video(clip),
    ]
    report.write_page(tmp_path / "report.html", "Title", "Lead", [("Part", blocks)])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "0.81" in page
    assert ">100<" in page
    assert 'src="data:video/mp4;base64,' in page
    assert 'src="http' not in page
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_text_is_escaped():
    assert "<script>" not in report.paragraph("<script>") + report.table(["<script>"], [["<b>"]])


def test_metric_curves_skip_what_was_not_logged():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": 1.0}]
    (curve,) = report.metric_curves(rows, ["loss", "absent"])
    assert list(curve.x) == [1, 3]
    assert list(curve.y) == [2.0, 1.0]


def test_an_interval_that_touches_its_value_can_be_drawn():
    assert "<svg" in report.bar_chart([report.Bar("none", 0.0, 0.0, 0.037)], "success")


@pytest.mark.parametrize(("value", "shown"), [(0.123456, "0.123"), (123456.0, "123456"), (7, "7")])
def test_numbers_are_short_and_aligned(value, shown):
    assert f'<td class="num">{shown}</td>' in report.table(["x"], [[value]])
