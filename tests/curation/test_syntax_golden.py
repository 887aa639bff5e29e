"""Syntax signals of one small program a language, counted by hand: the table is `syntax_golden.yaml`."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from codesieve.curation.signals.grammars import syntax_file
from codesieve.curation.signals.syntax import measure_syntax

PROGRAMS: dict[str, dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("syntax_golden.yaml").read_text(encoding="utf-8")
)
NAMES = {
    "functions": "function_count",
    "classes": "class_count",
    "branches": "branch_count",
    "calls": "call_count",
    "imports": "import_count",
    "longest": "longest_function_lines",
    "longest_class": "longest_class_lines",
    "depth": "max_nesting_depth",
    "asserts": "assert_count",
    "prints": "print_count",
    "assignments": "assignment_count",
    "literals": "literal_assignment_count",
    "returns": "return_count",
    "passes": "pass_count",
    "trivial": "trivial_function_count",
    "mains": "main_count",
}
NO_PROGRAM = {"html", "css", "scss", "json", "json with comments", "toml", "xml", "svg"}


def size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def test_every_language_that_is_no_mere_markup_has_a_golden_program() -> None:
    assert set(PROGRAMS) == set(syntax_file().languages) - NO_PROGRAM
    assert len(PROGRAMS) >= 30


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_is_counted_as_by_hand(language: str) -> None:
    golden = PROGRAMS[language]
    source = golden["text"].encode()
    measured = measure_syntax(source, "a", language)
    assert measured is not None
    assert measured["syntax_error_count"] == golden.get("errors", 0)
    found = {name: measured.get(NAMES[name]) for name in golden["counts"] if name != "directives"}
    assert found == {name: value for name, value in golden["counts"].items() if name != "directives"}
    lines = golden["text"].count("\n")
    if "directives" in golden["counts"]:
        assert measured["preprocessor_line_fraction"] == pytest.approx(golden["counts"]["directives"] / lines)
    docstrings = size(golden.get("docstrings", []))
    assert measured["comment_fraction"] * len(source) == pytest.approx(size(golden["comments"]) + docstrings)
    if "strings" in golden:
        strings = size(golden["strings"]) + golden.get("string_prefixes", 0)
        assert measured["string_fraction"] * len(source) == pytest.approx(strings)
    else:
        assert "string_fraction" not in measured
    if "commented_out" in golden:
        out = size(golden["commented_out"]) / size(golden["comments"])
        assert measured["commented_out_code_fraction"] == pytest.approx(out)
    functions, branches = golden["counts"].get("functions"), golden["counts"].get("branches")
    if functions and branches is not None:
        assert measured["mean_cyclomatic_complexity"] == pytest.approx((functions + branches) / functions)
