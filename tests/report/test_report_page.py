"""The page says what the run's files say, shows untrusted text as text, loads nothing, and is the same every time."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from codesieve.curation.rules.compare import compare_rules, comparison_path
from codesieve.curation.rules.layers import load_rules_for
from codesieve.eval.decisions.record import table
from codesieve.files import write_json
from codesieve.report.comparisons import read_comparisons
from codesieve.report.data import read_run
from codesieve.report.page import write_report
from codesieve.strict import ConfigError

DECIMAL = re.compile(r"[+-]?\d+\.\d{2,}")


class Page(HTMLParser):
    """The tables of a page by their label: rows of cells as (text, values of its `<data>` elements)."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tables: dict[str, list[list[tuple[str, list[float]]]]] = {}
        self.text = ""
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self._label: str | None = None
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.references += [
            str(found[name]) for name in ("src", "href", "xlink:href", "data", "action") if name in found
        ]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if found.get("role") == "region" and found.get("class") == "scroll":
            self._label = str(found["aria-label"])
            self.tables[self._label] = []
        if self._label is None:
            return
        if tag == "tr":
            self.tables[self._label].append([])
        if tag in ("td", "th"):
            self.tables[self._label][-1].append(("", []))
            self._cell = True
        if tag == "data" and self._cell:
            self.tables[self._label][-1][-1][1].append(float(str(found["value"])))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        if tag == "table":
            self._label = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._label and self._cell:
            text, values = self.tables[self._label][-1][-1]
            self.tables[self._label][-1][-1] = (text + data, values)

    def row(self, table: str, name: str) -> list[tuple[str, list[float]]]:
        """The row whose first cell reads so."""
        return next(row for row in self.tables[table] if row and row[0][0].strip() == name)


@pytest.fixture(scope="session")
def curated_page(curated: Path) -> Page:
    return Page((curated / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def full_page(full: Path) -> Page:
    return Page((full / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def summary(curated: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((curated / "summary.json").read_text(encoding="utf-8"))
    return found


def numbers(page: Page, table_name: str, row: str) -> list[float]:
    return [value for _, values in page.row(table_name, row) for value in values]


def test_the_funnel_shows_the_numbers_of_the_summary(curated_page: Page, summary: dict[str, Any]) -> None:
    funnel = "The funnel in numbers"
    assert numbers(curated_page, funnel, "files in") == [summary["files_in"], summary["bytes_in"]]
    assert numbers(curated_page, funnel, "annotated") == [summary["documents_annotated"], summary["bytes_annotated"]]
    assert numbers(curated_page, funnel, "selected") == [summary["documents_selected"], summary["bytes_selected"]]
    assert summary["documents_skipped"]
    for reason, files in summary["documents_skipped"].items():
        assert numbers(curated_page, funnel, f"− skipped: {reason}")[0] == files


def test_rejected_and_selected_add_up_to_what_was_annotated(curated: Path, full: Path) -> None:
    for run in (curated, full):
        steps = read_run(run).steps
        annotated = next(step for step in steps if step.part == "annotated")
        rest = [step for step in steps if step.part in {"rejected", "selected"}]
        assert len(rest) > 2
        assert sum(step.documents for step in rest) == annotated.documents
        assert sum(step.bytes for step in rest) == annotated.bytes


def test_rules_languages_and_selections_show_the_numbers_of_the_summary(
    curated_page: Page, summary: dict[str, Any]
) -> None:
    assert len(summary["reasons"]) >= 3
    for row in summary["reasons"]:
        documents, alone, size, size_alone = (
            row["documents"], row["documents_alone"], row["bytes"], row["bytes_alone"],
        )  # fmt: skip
        expected = [documents, alone, documents - alone, size, size_alone, size - size_alone]
        assert numbers(curated_page, "Rules in numbers", row["reason"]) == expected
    for row in summary["languages"]:
        expected = [row["documents"], row["documents_selected"], row["bytes"], row["bytes_selected"]]
        assert numbers(curated_page, "Languages", row["language"]) == expected
    for row in summary["selections"]:
        assert numbers(curated_page, "All selections", row["selection"]) == [row["documents"], row["bytes"]]


def test_the_decision_is_the_record_to_the_digit(full: Path, full_page: Page) -> None:
    record = json.loads((full / "decisions" / "filter.json").read_text(encoding="utf-8"))
    markdown = (full / "decisions" / "filter.md").read_text(encoding="utf-8")
    assert record["conclusion"] in full_page.text
    assert record["winner"] == "rules"
    for row in table(record):
        cells = [text for text, _ in full_page.row("The arms of the decision filter", row["arm"])]
        assert cells[2] == f"{row['keep_percent']:.1f}"
        assert cells[3] == f"{row['mean']:.4f}"
        assert row["verdict"] in cells[6]
        assert row["reason"] in full_page.text or row["verdict"] in {"baseline", "control"}
    for shown in set(DECIMAL.findall(markdown)):
        assert shown in full_page.text, f"{shown} is in the Markdown record and not on the page"
    for line in record["invalidated_if"]:
        assert line in full_page.text


def test_code_problems_are_shown_with_their_interval_and_the_sandbox_level(full_page: Page) -> None:
    row = [text for text, _ in full_page.row("Code problems", "rules")]
    assert row == ["rules", "3", "15", "20.0 %", "7.0–45.2 %", "3"]


def test_the_classifiers_card_is_shown_with_its_caveats(full: Path, full_page: Page) -> None:
    card = json.loads((full / "classifiers" / "quality" / "card.json").read_text(encoding="utf-8"))
    for name, row in {"all, within language": card["audit"]["within_language"], **card["audit"]["languages"]}.items():
        cells = [text for text, _ in full_page.row("The classifier against length alone", name)]
        low, high = row["auc_interval"]
        assert cells[3] == f"{row['auc']:.3f} [{low:.3f}, {high:.3f}]"
        assert cells[4] == f"{row['length_auc']:.3f}"
    assert len(card["caveats"]) > 2
    for line in card["caveats"]:
        assert line in full_page.text


def test_text_of_documents_paths_and_questions_is_escaped(full_page: Page) -> None:
    assert "script" not in full_page.tags
    assert "<script" not in full_page.html.lower()
    assert "&lt;script&gt;document.title" in full_page.html
    assert "<script>alert(1)&.py" in full_page.text
    assert "Do the rules & the <b>drop</b> differ?" in full_page.text


def test_hidden_characters_of_documents_are_made_visible(full_page: Page) -> None:
    assert "\u202e" not in full_page.html
    assert "[U+202E]" in full_page.text


def test_nothing_is_loaded_from_elsewhere(full_page: Page) -> None:
    assert full_page.references
    assert all(reference.startswith("#") for reference in full_page.references), full_page.references
    assert {"script", "img", "link", "iframe", "object", "embed"}.isdisjoint(full_page.tags)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full_page.html))
    assert "default-src 'none'" in full_page.html


def test_the_same_run_gives_the_same_bytes_in_another_process(full: Path) -> None:
    code = "import sys; from pathlib import Path; from codesieve.report.page import write_report; write_report(Path(sys.argv[1]))"
    before = (full / "report.html").read_bytes()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(full)], check=True, env=environment)
    assert (full / "report.html").read_bytes() == before


def test_parts_that_a_run_does_not_have_are_left_out(curated_page: Page, full_page: Page) -> None:
    for part in ("decision", "scores", "training"):
        assert part in full_page.ids
        assert part not in curated_page.ids
        assert f"#{part}" not in curated_page.references


def test_ids_are_unique_and_references_to_them_resolve(full_page: Page) -> None:
    assert len(full_page.ids) == len(set(full_page.ids))
    assert {reference.removeprefix("#") for reference in full_page.references} <= set(full_page.ids)
    labels = set(re.findall(r'aria-labelledby="([^"]*)"', full_page.html))
    assert labels <= set(full_page.ids)
    assert {"header", "main", "nav", "footer"} <= full_page.tags


def test_the_page_stays_small(full: Path) -> None:
    assert (full / "report.html").stat().st_size < 1_500_000


@pytest.fixture(scope="module")
def bare_page(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The same run after its rule set changed, without the classifier's card, and decided without intervals."""
    run = tmp_path_factory.mktemp("bare") / "run"
    shutil.copytree(full, run)
    text = (run / "run.yaml").read_text(encoding="utf-8")
    hash_then = yaml.safe_load(text)["rule_set"]["hash"]
    (run / "run.yaml").write_text(text.replace(hash_then, "0" * 32), encoding="utf-8")
    (run / "classifiers" / "quality" / "card.json").unlink()
    record = json.loads((run / "decisions" / "filter.json").read_text(encoding="utf-8"))
    for arm in record["arms"]:
        for estimate in filter(None, (arm["against_baseline"], arm["against_control"])):
            estimate.update(difference=0.0, low=None, high=None)
    record["margin"]["value"] = 0.0
    write_json(run / "decisions" / "filter.json", record)
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_rule_set_that_changed_since_the_run_is_not_used_to_explain_it(full_page: Page, bare_page: Page) -> None:
    assert "(version 1)" in full_page.text
    assert "has changed since this run" in bare_page.text
    assert "(version 1)" not in bare_page.text


def test_scores_of_a_classifier_that_was_trained_elsewhere_are_shown_without_its_card(bare_page: Page) -> None:
    assert "scores" in bare_page.ids
    assert "The classifier against length alone" not in bare_page.tables


def test_a_decision_without_intervals_is_shown_as_such(bare_page: Page) -> None:
    cells = [text for text, _ in bare_page.row("The arms of the decision filter", "rules")]
    assert cells[4:6] == ["+0.0000 [no interval]", "+0.0000 [no interval]"]


def test_importing_the_page_does_not_import_matplotlib() -> None:
    code = "import sys, codesieve.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_is_no_finished_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run\.yaml here"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


# --- rule sets compared


@pytest.fixture(scope="module")
def compared(curated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(curated, folder)
    found = compare_rules(folder, *(load_rules_for(folder, name) for name in ("stack-v2", "codesieve")), documents=6)
    write_report(folder)
    return folder, found


@pytest.fixture(scope="module")
def compared_page(compared: tuple[Path, dict]) -> Page:
    return Page((compared[0] / "report.html").read_text(encoding="utf-8"))


def test_totals_and_agreement_are_those_of_the_file(compared_page: Page, compared: tuple[Path, dict]) -> None:
    found = compared[1]
    for each in found["sets"]:
        wanted = ("rules", "documents_kept", "documents_removed", "bytes_kept", "bytes_removed")
        assert numbers(compared_page, "What stack-v2 and codesieve remove", each["name"]) == [
            each[key] for key in wanted
        ]
    table = "Agreement of stack-v2 and codesieve"
    documents, size = (found["agreement"][unit] for unit in ("documents", "bytes"))
    for word, keys in (("keeps", ("both_keep", "only_b_removes")), ("removes", ("only_a_removes", "both_remove"))):
        shown = numbers(compared_page, table, f"stack-v2 {word}")
        assert shown == [*(documents[key] for key in keys), *(size[key] for key in keys)]
    assert f"{found['agreement']['kappa_documents']:.3f} by documents" in compared_page.text


def test_every_rule_that_fired_has_a_row_and_the_others_are_named(
    compared_page: Page, compared: tuple[Path, dict]
) -> None:
    rows = {
        (row[0][0], row[1][0]): [int(value) for _, values in row[2:] for value in values]
        for row in compared_page.tables["Rules of stack-v2 and codesieve"][1:]
    }
    for row in compared[1]["rules"]:
        if row["documents"]:
            keys = [f"{unit}{what}" for unit in ("documents", "bytes") for what in ("", "_alone", "_also_other_set")]
            assert rows.pop((row["set"], row["rule"])) == [row[key] for key in keys]
        else:
            assert f"{row['set']}: {row['rule']}" in compared_page.text
    assert not rows


def test_documents_on_which_they_disagree_are_shown_with_their_reasons(
    compared_page: Page, compared: tuple[Path, dict]
) -> None:
    rows = compared_page.tables["Where stack-v2 and codesieve disagree"][1:]
    assert len(rows) == len(compared[1]["disagreements"]) > 0
    for shown, row in zip(rows, compared[1]["disagreements"], strict=True):
        assert shown[3][0] == {"a": "stack-v2", "b": "codesieve"}[row["removed_by"]]
        assert shown[4][0] == ", ".join(row[f"reasons_{row['removed_by']}"])


def test_the_chart_says_what_each_set_removes_by_language(compared_page: Page, compared: tuple[Path, dict]) -> None:
    assert "Bytes removed by stack-v2 and by codesieve" in compared_page.html
    assert "comparison-0-wide" in compared_page.html
    assert len(compared_page.ids) == len(set(compared_page.ids))
    assert "script" not in compared_page.tags


def test_a_run_without_comparisons_has_no_section(curated: Path) -> None:
    assert "comparisons-heading" not in (curated / "report.html").read_text(encoding="utf-8")


def test_a_name_in_a_comparison_is_text_on_the_page(compared: tuple[Path, dict], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(compared[0], folder)
    path = comparison_path(folder, "stack-v2", "codesieve")
    values = json.loads(path.read_text(encoding="utf-8"))
    values["disagreements"][0]["path"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(values), encoding="utf-8")
    write_report(folder)
    shown = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in shown.tags
    assert "<script>alert(1)</script>" in shown.text


def test_a_file_of_another_form_does_not_take_the_page_down(tmp_path: Path) -> None:
    (tmp_path / "comparisons").mkdir()
    (tmp_path / "comparisons" / "old.json").write_text('{"sets": []}', encoding="utf-8")
    assert read_comparisons(tmp_path) == []
