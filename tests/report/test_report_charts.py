"""Charts: colours from the page, text as text, the same bytes, and no trace in matplotlib's settings."""

import re

import matplotlib
from codesieve.report.charts import funnel_chart, languages_chart, training_chart
from codesieve.report.counts import Step
from codesieve.report.svg import ROLES, SETTINGS
from codesieve.report.training import Curve

STEPS = [
    Step("in", "files in", 1000, 5_000_000),
    Step("skipped", "not_sampled", 600, 90_000_000),
    *(Step("skipped", f"reason {number}", 20 - number, 10) for number in range(7)),
    Step("annotated", "annotated", 290, 4_000_000),
    Step("rejected", "several rules", 90, 1_000_000),
    Step("selected", "selected", 200, 3_000_000),
]


def test_a_chart_has_the_colours_of_the_page_and_text_that_can_be_read() -> None:
    chart = funnel_chart(STEPS)
    for svg in (str(chart.wide), str(chart.narrow)):
        assert "var(--kept)" in svg
        assert not any(sentinel in svg for sentinel in ROLES)
        assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("#000000", "")), "a colour that the page does not decide"
        assert re.search(r"<text[^>]*>several rules|<text[^>]*>− several rules", svg)
        assert "DejaVu" not in svg
        assert "xmlns" not in svg
        assert "<title" in svg


def test_files_that_were_not_sampled_are_not_in_the_picture_and_rare_skips_are_one_row() -> None:
    svg = str(funnel_chart(STEPS).wide)
    assert "not_sampled" not in svg
    assert ">files in the sample<" in svg
    assert ">400<" in svg
    assert ">− other skips<" in svg
    assert ">− reason 3<" not in svg


def test_drawing_twice_gives_the_same_bytes_whatever_the_user_has_set() -> None:
    rows = [{"language": "c & <c++>", "bytes": 1000, "bytes_selected": 10}]
    before = languages_chart(rows)
    matplotlib.rcParams["font.size"] = 30
    try:
        assert languages_chart(rows) == before
        assert matplotlib.rcParams["font.size"] == 30
    finally:
        matplotlib.rcParams["font.size"] = matplotlib.rcParamsDefault["font.size"]
    assert "c &amp; &lt;c++&gt;" in before.wide
    assert "svg.hashsalt" in SETTINGS


def test_a_name_with_dollars_is_text_and_not_mathematics() -> None:
    curve = Curve("$x^2$ arm", 2, [1e3, 2e3], [3.0, 2.0], [2.9, 1.9], [3.1, 2.1])
    assert "$x^2$ arm" in training_chart([curve]).wide
