"""The page of evaluations: what is on it, that answers cannot act on it, and that it works in a real browser."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Browser
from codesieve.eval.comparison import compare
from codesieve.eval.evaluations import read_models
from codesieve.report import evaluation_items
from codesieve.report.evaluation_items import shown, task_items
from codesieve.report.evaluation_page import write_evaluation_page
from codesieve.report.forest import forest_chart, forest_rows
from made_evaluations import Row, documents, problems, write_evaluation

EVIL = "</code></pre></script><script>document.title = 'run'</script><img src=x onerror=alert(1)>"
OVERRIDE = "\u202e"
TASKS = {
    "humaneval": {"kind": "code", "of": 164, "reference_pass_rate": 1.0},
    "heldout": {"kind": "bits_per_byte"},
    "dolly": {"kind": "judge", "judge": "judge-model"},
}
SUITE = {
    "to-code-or-not": {
        "title": "to-code-or-not (6 of 15 tasks)",
        "groups": {
            "reasoning": {"title": "reasoning (6 of 11)", "mean": None, "mean_of_available": 0.5, "missing": ["sciq"]},
            "code": {"title": "code", "mean": 0.25, "mean_of_available": 0.25, "missing": []},
        },
        "averages": {"all": None},
    }
}
HABITS = {"win_rate": 0.55, "length_controlled": None, "tie_rate": 0.2, "first_position_rate": 0.6,
          "longer_wins_rate": 0.7, "unparsable_share": 0.0}  # fmt: skip


def judged(wins: int) -> list[Row]:
    return [
        {"task": "dolly", "item": f"p{number}", "cluster": f"p{number}", "stream": "judge", "language": "text",
         "score": float(number < wins), "outcome": "win" if number < wins else "loss", "prompt": "Why?",
         "answer": "Because.", "detail": json.dumps({"ab": "first", "other": EVIL})}
        for number in range(20)
    ]  # fmt: skip


def evaluation(folder: Path, right: int, nats: float, wins: int) -> Path:
    code = problems(lambda item, _: item < right)
    code[0] |= {"answer": EVIL + OVERRIDE, "prompt": EVIL, "detail": json.dumps({"error": EVIL})}
    code[163] |= {"outcome": "timeout"}
    code[7] |= {"item": EVIL, "judge": "weak"}
    rows = [*code, *documents(lambda item: nats + item), *judged(wins)]
    metrics = {"dolly": {"judge": HABITS}}
    return write_evaluation(folder / "eval", rows, TASKS, suites=SUITE, metrics=metrics)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("evaluations")
    return [
        evaluation(base / "base", 30, 900, 8),
        evaluation(base / "new", 45, 901, 9),
        evaluation(base / "third", 24, 890, 8),
    ]


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> Path:
    return write_evaluation_page(folders, folders[0].parents[1] / "compare.html", replicates=500)


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_page_says_what_was_measured_and_what_came_of_it(text: str) -> None:
    plain = html.unescape(re.sub(r"<[^>]+>", "", text))
    for expected in (
        "base · new · third", "to-code-or-not (6 of 15 tasks)", "reasoning (6 of 11)", "(0.5000)", "sciq",
        "18.3 % [13.1, 24.9]", "sandbox level 3, 1 item judged weakly", "references pass 100 %", "temperature 0.0",
        "easily missed at this size", "60.0 %", "humaneval, answers by outcome", "8 clusters",
        "One training run each",
    ):  # fmt: skip
        assert expected in plain, expected
    assert text.count("<section") == 6


def test_the_same_evaluations_give_the_same_bytes(folders: list[Path], page: Path, tmp_path: Path) -> None:
    assert write_evaluation_page(folders, tmp_path / "again.html", replicates=500).read_bytes() == page.read_bytes()


def test_what_models_wrote_cannot_act(text: str) -> None:
    assert "<script" not in text
    assert "onerror=alert(1)>" not in text
    assert text.count("&lt;script&gt;") > 4
    assert OVERRIDE not in text and "[U+202E]" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_nothing_is_loaded(text: str) -> None:
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', text) == []
    assert "url(http" not in text and "@import" not in text


def test_one_model_alone_has_a_page_without_differences(folders: list[Path], tmp_path: Path) -> None:
    alone = write_evaluation_page(folders[:1], tmp_path / "one.html").read_text(encoding="utf-8")
    assert "<title>base · codesieve evaluation</title>" in alone
    assert 'id="differences"' not in alone and 'name="by-c"' not in alone
    assert "Against" not in alone


def test_answers_that_nobody_judged_have_a_page_too(folders: list[Path], tmp_path: Path) -> None:
    rows = [{**row, "score": None, "outcome": "answered", "detail": None} for row in judged(0)]
    facts = {"dolly": {"kind": "judge", "judge": None}}
    metrics = {"dolly": {"judge": {"answered": 20, "items": 20}}}
    bare = write_evaluation(tmp_path / "bare" / "eval", rows, facts, metrics=metrics)
    alone = write_evaluation_page([bare], tmp_path / "bare.html").read_text(encoding="utf-8")
    assert "no score" in alone and "Because." in alone
    both = write_evaluation_page([bare, folders[0]], tmp_path / "both.html", replicates=50).read_text(encoding="utf-8")
    assert "is not compared with" in both and 'id="differences"' not in both


def test_of_a_large_task_every_kind_of_item_is_shown(folders: list[Path]) -> None:
    comparison = compare(folders[:2], replicates=50)
    task = next(each for each in comparison["tasks"] if each["task"] == "humaneval")
    section = task_items(read_models(folders[:2]), task, most=12)
    assert (len(section.items), section.count) == (12, 164)
    assert {item.change for item in section.items} == {"better", "same"}
    assert {word for item in section.items for word in item.outcomes} == {"passed", "wrong", "timeout"}
    assert section.by_change["better"] == 15


def test_several_answers_are_cut_to_some_of_every_outcome(tmp_path: Path) -> None:
    folder = write_evaluation(
        tmp_path / "many", problems(lambda _, sample: sample == 9, items=3, samples=12), {"humaneval": {"kind": "code"}}
    )
    comparison = compare([folder], replicates=50)
    (item, *_) = task_items(read_models([folder]), comparison["tasks"][0]).items
    ((_, answers, number),) = item.models
    assert number == 12
    assert [answer.sample for answer in answers] == [0, 1, 2, 9]
    assert answers[-1].outcome == "passed"


def test_long_texts_keep_their_ends() -> None:
    found = shown("a" * 3000 + "\n" + "b" * 3000)
    assert len(found) < evaluation_items.MAX_CHARACTERS + 100
    assert found.startswith("aaa") and found.endswith("bbb") and "2,001 characters left out" in found


def test_the_forest_has_a_row_a_difference_and_says_it_in_words(folders: list[Path]) -> None:
    comparison = compare(folders, replicates=200)
    found = forest_rows(comparison)
    assert [row.label for row in found["bits/byte"]] == ["heldout/text · new", "heldout/text · third"]
    assert {row.label: row.word for row in found["points"]}["humaneval · new"] == "better"
    chart = forest_chart("forest", comparison)
    for drawing in (chart.wide, chart.narrow):
        assert "heldout/text · third" in drawing and "var(--kept)" in drawing
        assert "humaneval · new: +9.1 [" in drawing  # the title, for who cannot see it
    with pytest.raises(ValueError, match="at least two models"):
        forest_chart("forest", compare(folders[:1], replicates=50))


# --- in a browser ------------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium runs this")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


def visible_items(browser: Browser) -> Any:
    return browser.value("[...document.querySelectorAll('.item')].filter(each => each.checkVisibility()).length")


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1200, "dark")])
def test_the_page_fits_is_silent_and_runs_nothing(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") == "base · new · third · codesieve evaluation"
    methods = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    assert [event for event in browser.events if event.get("method") in methods] == []
    requested = [
        e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"
    ]
    assert requested == [page.as_uri()]
    outside = browser.value(
        """[...document.querySelectorAll('.chart svg text')].filter(text => {
            const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
            return box.width > 0 && (box.left < frame.left - 2 || box.right > frame.right + 2);
        }).map(text => text.textContent)"""
    )
    assert outside == []


@needs_chromium
def test_items_are_filtered_from_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1200, "light")
    every = visible_items(browser)
    assert every == 100 + 40 + 20
    browser.value("document.querySelector('#o-any').focus()")
    chosen = "document.querySelector('input[name=by-o]:checked + label').textContent"
    while browser.value(chosen) != "timeout":
        for kind in ("rawKeyDown", "keyUp"):
            browser.send(
                "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
            )
        assert browser.value(chosen) != "any", "went round without finding the option"
    assert visible_items(browser) == 1
    said = browser.value("[...document.querySelectorAll('.none')].filter(each => each.checkVisibility()).length")
    assert said == 2  # the two other tasks have no timeout, and say so


@needs_chromium
def test_filters_of_task_and_change_go_together(browser: Browser, page: Path) -> None:
    browser.open(page, 1200, "light")
    choose = """((name, text) => [...document.querySelectorAll(`input[name=${name}] + label`)]
        .find(each => each.textContent === text).click())"""
    browser.value(f"{choose}('by-t', 'dolly')")
    assert visible_items(browser) == 20
    browser.value(f"{choose}('by-c', 'better')")
    assert visible_items(browser) == 1
    browser.value(f"{choose}('by-c', 'worse')")
    assert visible_items(browser) == 0
    assert browser.value("document.querySelector('.task.t0 .none').checkVisibility()") is True
