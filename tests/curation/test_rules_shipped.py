"""Every rule of every set that comes with codesieve can fire, and none fires on clean documents."""

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from codesieve.curation.languages import UNKNOWN, kind_of, languages
from codesieve.curation.rules import Rule, RuleSet, RulesStep, fires, load_rules, rule_sets
from codesieve.curation.rules.check import measured_in
from codesieve.curation.rules.ranges import domain_of
from codesieve.curation.rules.sql import parse_predicate
from codesieve.curation.rules.tree import Literal, nodes
from codesieve.curation.schema import IDENTITY, SIGNALS

COLUMNS = {column.name: column for column in (*IDENTITY, *SIGNALS)}
SETS = {name: load_rules(name, COLUMNS) for name in rule_sets()}
RULES = [(name, rule) for name, found in SETS.items() for rule in found.rules]
TRIES = 1500

PATHS = ("src/main.py", "pkg/parser_test.go", "include/table.h", "docs/notes.txt", "data/words.txt")

CLEAN: dict[str, Any] = {
    "character_count": 3200, "size_bytes": 3200, "line_count": 100, "max_line_length": 96, "mean_line_length": 31.0,
    "blank_line_fraction": 0.1, "duplicate_line_fraction": 0.05, "word_count": 420, "mean_word_length": 6.1,
    "longest_token_length": 40, "alphabetic_fraction": 0.62, "alphanumeric_fraction": 0.65, "digit_fraction": 0.03,
    "whitespace_fraction": 0.22, "compression_ratio": 0.5, "median_line_length": 30, "p90_line_length": 70,
    "top_2gram_fraction": 0.02, "top_3gram_fraction": 0.02, "top_4gram_fraction": 0.02, "distinct_word_fraction": 0.55,
    "top_word_fraction": 0.05, "top_two_word_fraction": 0.08, "word_entropy": 4.6, "uniform": 0.9,
    "content_type": "library", "node_count": 800, "function_count": 6, "class_count": 1, "longest_function_lines": 20,
    "branch_count": 14, "call_count": 60, "import_count": 5, "assert_count": 2, "comment_fraction": 0.15,
    "string_fraction": 0.08, "longest_string_bytes": 50, "placeholder_comment_count": 1, "identifier_count": 300,
    "distinct_identifier_count": 80, "mean_identifier_length": 8.0, "visible_text_fraction": 0.5,
    "assignment_count": 20, "return_count": 7, "print_count": 1, "main_count": 1,
}  # fmt: skip
"""A usual module of 100 lines with one TODO; what is not named here is 0, false or null."""


def clean(language: str, path: str = "src/module") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        nothing = {pl.Boolean(): False, pl.String(): "" if column.step == "reader" else None}.get(column.dtype, 0)
        is_null = column.step == "syntax" and not measured_in(name, language)
        row[name] = None if is_null else CLEAN.get(name, nothing)
    named = "README.txt" if language == "text" else path
    return {**row, "language": language, "kind": kind_of(language), "path": named}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={name: column.dtype for name, column in COLUMNS.items()})


def languages_of(rule: Rule) -> list[str]:
    wanted = rule.languages or (*languages(), UNKNOWN)
    return [language for language in wanted if language not in rule.except_]


def values_of(name: str, rule: Rule) -> list[Any]:
    """Values of a column that can matter: its bounds, the rule's numbers and what is beside them."""
    column = COLUMNS[name]
    domain = domain_of(column)
    if domain.names is not None:
        return sorted(domain.names, key=str)
    if domain.pieces is None:
        return list(PATHS)
    tree = parse_predicate(rule.fires)
    assert tree is not None
    numbers = {0.0, 1.0, *domain.bounds()}
    for node in nodes(tree):
        if isinstance(node, Literal) and isinstance(node.value, float):
            numbers |= {node.value, node.value - 1, node.value + 1, node.value * 0.9, node.value * 1.1, node.value * 20}
    low, high = domain.bounds()
    inside = sorted({number for number in numbers if low <= number <= min(high, 4e9)})
    return sorted({int(number) for number in inside}) if domain.integer else inside


def firing_row(rule: Rule) -> dict[str, Any] | None:
    """A row with possible values on which the rule fires, found by trying."""
    used = [name for name in pl.sql_expr(rule.fires).meta.root_names() if name != "language"]
    random = np.random.default_rng(0)
    choices = [values_of(name, rule) for name in used]
    every = list(itertools.islice(itertools.product(*choices), TRIES + 1))
    if len(every) > TRIES:
        every = [tuple(values[random.integers(len(values))] for values in choices) for _ in range(TRIES)]
    spoken = languages_of(rule)
    rows = []
    for number, values in enumerate(every * max(1, -(-60 // len(every)))):
        language = spoken[number % len(spoken)]
        row = {
            name: None if COLUMNS[name].step == "syntax" and not measured_in(name, language) else value
            for name, value in zip(used, values, strict=True)
        }
        rows.append({"language": language, **row})
    table = pl.DataFrame(rows, schema={name: COLUMNS[name].dtype for name in ("language", *used)})
    found = table.filter(fires(rule, table.columns))
    if not found.height:
        return None
    row = found.row(0, named=True)
    return {**clean(row["language"]), **row}


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[f"{name}-{rule.name}" for name, rule in RULES])
def test_every_rule_fires_on_a_row_that_can_exist(name: str, rule: Rule) -> None:
    row = firing_row(rule)
    assert row is not None, f"{name}: {rule.name} is dead: {rule.fires}"
    assert rule.name in RulesStep(SETS[name])(frame([row]))["reasons"][0]


@pytest.mark.parametrize(
    "dead",
    [
        {"fires": "line_count > 5 AND line_count < 3"},
        {"fires": "alphabetic_fraction > 1"},
        {"fires": "function_count > 3", "languages": ["json"]},
        {"fires": "ENDS_WITH(path, '.neverheard')"},
    ],
    ids=lambda dead: dead["fires"],
)
def test_a_dead_rule_is_found_out(dead: dict[str, Any]) -> None:
    rule = Rule.model_validate({"name": "dead", "version": 1, "languages": "all", "why": "a test", **dead})
    assert firing_row(rule) is None


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[f"{name}-{rule.name}" for name, rule in RULES])
def test_no_rule_fires_on_a_clean_document_of_its_languages(name: str, rule: Rule) -> None:
    wanted = languages_of(rule) if rule.languages else ["python", "c", "java"]
    table = frame([clean(language) for language in wanted])
    assert table.filter(fires(rule, table.columns)).height == 0


@pytest.mark.parametrize("name", SETS)
def test_a_set_says_why_each_rule_is_there(name: str) -> None:
    found = SETS[name]
    assert found.name == name
    assert len(found.description) > 40
    assert all(len(rule.why) > 15 for rule in found.rules)


@pytest.mark.parametrize("name", SETS)
def test_null_never_fires_a_rule(name: str) -> None:
    nothing = frame([dict.fromkeys(COLUMNS)])
    assert RulesStep(SETS[name])(nothing)["reasons"].to_list() == [[]]


# --- what was corrected in RefineCode's rules


def reasons(rules: RuleSet, **values: Any) -> list[str]:
    language = values.get("language", "python")
    return RulesStep(rules)(frame([{**clean(language), **values}]))["reasons"].to_list()[0]


def measured(text: str, language: str, path: str) -> dict[str, Any]:
    """The row of a document as it is really measured."""
    from codesieve.config import AnnotateConfig
    from codesieve.curation.signals.pipeline import standard_steps

    row = {**dict.fromkeys(("id", "source", "repository", "revision", "license", "extra"), ""),
           "text": text, "path": path, "language": language, "kind": kind_of(language),
           "size_bytes": len(text.encode()), "content_hash": "f" * 32}  # fmt: skip
    batch = pl.DataFrame([row])
    for step in standard_steps(AnnotateConfig()):
        step.setup()
        batch = step(batch)
    return batch.row(0, named=True)


def reasons_of_text(text: str, language: str = "python", path: str = "src/module.py") -> list[str]:
    row = {key: value for key, value in measured(text, language, path).items() if key in COLUMNS}
    return RulesStep(SETS["refinecode"])(frame([row]))["reasons"].to_list()[0]


BODY = "".join(f"def step_{n}(value):\n    total = value * {n}\n    total += 1\n    total -= value\n    return total\n\n\n"
               for n in range(2, 8))  # fmt: skip


def test_words_inside_other_words_do_not_count() -> None:
    traps = "".join(f"footprint_{n} = password_{n}(important_{n}, asserted_{n})\n" for n in range(40))
    assert not {"prints", "pass_lines", "imports", "assertions"} & set(reasons_of_text(BODY + traps))


@pytest.mark.parametrize(
    ("line", "reason"),
    [("print(value)", "prints"), ("import os", "imports"), ("assert value", "assertions"), ("if value: pass", "pass_lines")],
)  # fmt: skip
def test_the_words_themselves_do(line: str, reason: str) -> None:
    assert reason in reasons_of_text(f"value = 1\n{line}\n" * 40)


def test_one_todo_in_a_short_file_does_not_drop_it() -> None:
    assert "placeholders" not in reasons_of_text("# TODO: a name\n" + BODY)
    assert "placeholders" in reasons_of_text("# TODO: fill in\nx = 1\n" * 10)


def test_the_word_generate_does_not_make_a_file_generated() -> None:
    assert "generated" not in reasons_of_text('"""Generate a report of the generated totals."""\n' + BODY)
    assert "generated" in reasons_of_text("# This file was automatically generated by a tool.\n" + BODY)


@pytest.mark.parametrize("language", ["go", "c#", "java", "python", "javascript"])
def test_no_variables_fires_in_every_language_that_it_names(language: str) -> None:
    assert "no_variables" in reasons(SETS["refinecode"], language=language, assignment_count=0)
    assert "no_variables" not in reasons(SETS["refinecode"], language=language, assignment_count=1)


def test_modern_javascript_parses() -> None:
    text = "class Point {\n  #x = 1;\n  read() {\n    return this?.#x ?? 10_000n;\n  }\n}\n" * 4
    assert "syntax_error_javascript" not in reasons_of_text(text, "javascript", "src/point.mjs")
    assert "syntax_error_javascript" in reasons_of_text("class { ) +\n" * 10, "javascript", "src/point.mjs")


def test_lots_are_drawn_by_content_so_that_a_verdict_is_the_same_each_time() -> None:
    rules = SETS["refinecode"]
    for uniform, fired in ((0.0, True), (0.79, True), (0.8, False), (0.99, False)):
        got = reasons(rules, language="go", path="a/b_test.go", uniform=uniform)
        assert ("go_tests" in got) is fired
    assert "go_tests" not in reasons(rules, language="go", path="a/latest.go", uniform=0.0)


def test_headers_are_exempt_from_the_share_of_preprocessor_lines() -> None:
    rules = SETS["refinecode"]
    assert "preprocessor" in reasons(rules, language="c", path="src/a.c", preprocessor_line_fraction=0.9)
    assert "preprocessor" not in reasons(rules, language="c", path="src/a.h", preprocessor_line_fraction=0.9)


def test_data_and_html_have_their_own_rules() -> None:
    rules = SETS["refinecode"]
    assert "long_data" in reasons(rules, language="json", character_count=6000)
    assert "long_data" not in reasons(rules, language="python", character_count=6000)
    assert "mostly_strings" not in reasons(rules, language="shell", string_fraction=0.9)
    assert "assertions" not in reasons(rules, language="go", assert_count=90)
    assert "repeated_ngrams_of_text" in reasons(rules, language="html", duplicate_7gram_fraction=0.65)
    assert "repeated_7grams" not in reasons(rules, language="python", duplicate_7gram_fraction=0.65)
