"""A rule set is refused for every mistake that can be seen before a document is read, all of them at once."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from codesieve.curation.corpus import predicate
from codesieve.curation.rules import load_rules, read_rules
from codesieve.curation.rules.check import GRAMMAR_GIVES, measured_in
from codesieve.curation.rules.ranges import domain_of
from codesieve.curation.rules.reason import can_be, interval
from codesieve.curation.rules.sql import parse_predicate
from codesieve.curation.rules.tree import text_of
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.signals.signal import Signal
from codesieve.strict import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

DECLARED = {column.name: column for column in (*IDENTITY, *SIGNALS)}
COLUMNS = [*DECLARED, "step_errors"]


def rule(fires: str, **more: Any) -> dict[str, Any]:
    return {"name": "r", "version": 1, "languages": "all", "fires": fires, "why": "a test", **more}


def problems(tmp_path: Path, *rules: dict[str, Any]) -> list[str]:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "description": "d", "rules": list(rules)}))
    return [str(problem) for problem in read_rules(str(path), COLUMNS)[1]]


def signal(name: str, dtype: pl.DataType, values: str) -> Signal:
    return Signal(name, dtype, "unit", values, "meaning", "own", "text")


MISTAKES = [
    # names
    ("max_line_lenght > 1000", {}, 'unknown column "max_line_lenght" (did you mean "max_line_length"?)'),
    ("line_count > 1", {"languages": ["pythn"]}, 'unknown language "pythn" (did you mean "python"?)'),
    ("line_count > 1", {"except": ["markdwn"]}, 'unknown language "markdwn" (did you mean "markdown"?)'),
    ("line_count > 1", {"languages": ["c"], "except": ["go"]}, "except: go: not among its languages anyway"),
    # values
    ("content_type = 'librari'", {}, 'content_type is never "librari" (did you mean "library"?)'),
    ("gate = 'x'", {}, 'gate is never "x"'),
    ("language = 'pythn'", {}, 'language is never "pythn" (did you mean "python"?)'),
    ("kind IN ('code', 'txt')", {}, 'kind is never "txt" (did you mean "text"?)'),
    ("kind <> 'cod'", {}, 'kind is never "cod" (did you mean "code"?)'),
    # types
    ("line_count", {}, "is a number, not a statement"),
    ("language", {}, "is a string, not a statement"),
    ("LENGTH(path)", {}, "is UInt32, not a statement"),
    ("line_count > '5'", {}, "compares a number with a string (line_count is UInt32)"),
    ("language > 5", {}, "compares a string with a number (language is String)"),
    ("path IN (1, 2)", {}, "compares a string with a number (path is String)"),
    ("is_generated > 1", {}, "compares a statement with a number (is_generated is Boolean)"),
    ("is_generated = 'yes'", {}, "compares a statement with a string"),
    ("is_generated AND line_count", {}, "line_count: is a number, not a statement"),
    ("NOT word_count", {}, "NOT word_count: is a number, not a statement"),
    ("path + 1 > 2", {}, "calculates with a string"),
    ("line_count LIKE 'a%'", {}, "LIKE is for strings"),
    # traps
    ("assert_count / line_count > 0.4", {}, "divides by what can be 0"),
    ("line_count % word_count = 0", {}, "divides by what can be 0"),
    ("line_count - import_count < 5", {}, "counts wrap round below 0"),
    ("path LIKE '%_test.go'", {}, "stands for any character"),
    ("RANDOM() < 0.8", {}, "RANDOM(…) is not among the functions of rules"),
    ("line_count > AVG(line_count)", {}, "AVG(…) is not among the functions of rules"),
    ("SUM(line_count) OVER (ORDER BY path) > 1", {}, "is not among the functions of rules"),
    ("path > CURRENT_DATE", {}, "CURRENT_DATE differs from run to run"),
    ("is_generated IS TRUE", {}, "COALESCE"),
    ("line_count >", {}, "not a valid SQL predicate"),
    # never, always
    ("alphabetic_fraction > 1", {}, "this rule can never fire (alphabetic_fraction is 0..1)"),
    ("digit_fraction < 0", {}, "this rule can never fire"),
    ("mixed_indentation_fraction > 0.5", {}, "this rule can never fire (mixed_indentation_fraction is 0..0.5)"),
    ("uniform >= 1", {}, "this rule can never fire"),
    ("alphabetic_fraction * 2 > 3", {}, "this rule can never fire"),
    ("line_count >= 0", {}, "this rule fires on every document (line_count is 0 and up)"),
    ("TRUE", {}, "this rule fires on every document (it names no column)"),
    ("word_count > 0 AND word_count < 1", {}, "can never fire: its parts exclude each other"),
    ("line_count BETWEEN 20 AND 10", {}, "can never fire"),
    ("is_test AND NOT is_test", {}, "can never fire"),
    ("gate IS NULL AND gate = 'empty'", {}, "can never fire"),
    ("line_count > 5 AND (line_count < 3 OR line_count = 4)", {}, "can never fire"),
    ("digit_fraction > 0.2 OR digit_fraction <= 0.2", {}, "fires on every document"),
    ("line_count > 5 OR alphabetic_fraction > 25", {}, "alphabetic_fraction > 25: this part never holds"),
    ("line_count > 5 AND size_bytes >= 0", {}, "size_bytes >= 0: this part always holds"),
    ("language LIKE 'zz%'", {}, "this rule can never fire"),
    ("digit_fraction NOT IN (1, NULL)", {}, "this rule can never fire"),
    # languages
    ("function_count = 0", {"languages": ["json"]}, "function_count is always null in its languages"),
    ("function_count = 0", {"languages": ["json", "c"]}, "can never fire in json: no function_count there"),
    ("syntax_error_count > 0", {"languages": ["roff", "c"]}, "can never fire in roff: no syntax_error_count there"),
    ("docstring_fraction > 0.5", {"languages": ["python", "go"]}, "can never fire in go: no docstring_fraction there"),
    ("language = 'json' AND function_count = 0", {}, "can never fire: its parts exclude each other"),
    ("language = 'go'", {"languages": ["python"]}, "this rule can never fire"),
]  # fmt: skip


@pytest.mark.parametrize(("fires", "more", "message"), MISTAKES, ids=[f"{m[0]} {m[1] or ''}" for m in MISTAKES])
def test_a_mistake_is_found_and_says_where(tmp_path: Path, fires: str, more: dict[str, Any], message: str) -> None:
    found = problems(tmp_path, rule(fires, **more))
    assert any(message in problem for problem in found), found
    assert all(problem.startswith(f'{tmp_path}/mine.yaml: rule "r": ') for problem in found)


GOOD = [
    ("max_line_length > 1000 OR mean_line_length > 100", {"except": ["html"]}),
    ("word_count > 0 AND word_count < 10", {}),
    ("assert_count > 0.4 * line_count", {}),
    ("line_count < import_count + 5", {}),
    ("CAST(line_count AS DOUBLE) - import_count < 5", {}),
    ("alphabetic_fraction < 0.5 * (1 - whitespace_fraction)", {}),
    ("alphabetic_fraction / 2 > 0.4", {}),
    ("ENDS_WITH(path, '_test.go') AND uniform < 0.8", {"languages": ["go"]}),
    ("COALESCE(is_generated, TRUE)", {}),
    ("gate IS NULL OR gate = 'empty'", {}),
    ("function_count = 0", {}),
    ("NOT REGEXP_LIKE(path, '(?i)readme') AND path LIKE '%.txt'", {"languages": ["text"]}),
    ("language NOT IN ('c', 'go')", {}),
    ("CASE WHEN is_test THEN line_count ELSE word_count END > 5", {}),
    ("path = 'SUM(x) OVER'", {}),
]


@pytest.mark.parametrize(("fires", "more"), GOOD, ids=[g[0] for g in GOOD])
def test_what_can_fire_is_let_through(tmp_path: Path, fires: str, more: dict[str, Any]) -> None:
    assert problems(tmp_path, rule(fires, **more)) == []


def test_an_exception_of_every_language_is_refused(tmp_path: Path) -> None:
    from codesieve.curation.languages import UNKNOWN, languages

    found = problems(tmp_path, rule("line_count > 1", **{"except": [*languages(), UNKNOWN]}))
    assert any("leaves no language" in problem for problem in found)


def test_every_run_refuses_a_set_with_all_its_problems_at_once(tmp_path: Path) -> None:
    bad = [rule("line_count", name="one"), rule("gate = 'x'", name="two"), rule("digit_fraction > 2", name="three")]
    problems(tmp_path, *bad)
    with pytest.raises(ConfigError) as error:
        load_rules(str(tmp_path / "mine.yaml"), COLUMNS)
    lines = str(error.value).split("\n")
    assert len(lines) == 3
    assert all(f'rule "{name}"' in line for name, line in zip(("one", "two", "three"), lines, strict=True))


def test_a_column_that_no_table_declares_is_only_checked_for_its_name(tmp_path: Path) -> None:
    assert problems(tmp_path, rule("step_errors IS NOT NULL")) == []


@pytest.mark.parametrize("column", [*IDENTITY, *SIGNALS], ids=lambda column: column.name)
def test_the_range_of_every_column_is_in_words_that_the_checks_read(column: Signal) -> None:
    domain = domain_of(column)
    if column.dtype.is_numeric():
        assert domain.pieces
        assert domain.bounds()[0] >= 0
    if column.dtype == pl.Boolean:
        assert domain.names == {True, False}
    if " | " in column.range:
        assert domain.names


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(pl.Float64(), "a share"), (pl.UInt32(), "any"), (pl.Boolean(), "yes or no"), (pl.String(), "a|b"), (pl.UInt32(), "")],
)  # fmt: skip
def test_a_table_entry_in_other_words_is_refused(dtype: pl.DataType, words: str) -> None:
    with pytest.raises(ValueError, match="range"):
        domain_of(signal("x", dtype, words))


def test_ranges_are_read() -> None:
    assert domain_of(signal("x", pl.Float64(), "0..0.5")).bounds() == (0, 0.5)
    assert domain_of(signal("x", pl.Float64(), "0 up to 1")).bounds()[1] < 1
    assert domain_of(signal("x", pl.UInt32(), "1 and up, or null")).bounds() == (1, float("inf"))
    assert domain_of(signal("x", pl.String(), "a | b-c | d, or null")).names == {"a", "b-c", "d"}


def test_what_a_signal_needs_is_a_key_of_the_syntax_table() -> None:
    from codesieve.curation.signals.grammars import LanguageSyntax

    for name, keys in GRAMMAR_GIVES.items():
        assert DECLARED[name].step == "syntax", name
        assert set(keys) <= set(LanguageSyntax.model_fields), name


SNIPPETS = {"python": "x = 1\n", "json": '{"a": 1}\n', "html": "<p>x</p>\n", "shell": "x=1\n", "css": "a {}\n", "roff": ".TH x\n"}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), SNIPPETS.items(), ids=SNIPPETS)
def test_a_signal_that_is_said_to_be_null_is_null(language: str, text: str) -> None:
    from codesieve.curation.signals.syntax import measure_syntax

    measured = measure_syntax(text.encode(), "x", language) or {}
    for column in SIGNALS:
        if column.step == "syntax" and not measured_in(column.name, language):
            assert measured.get(column.name) is None, column.name


# --- the reasoning, against Polars

NUMBERS = {"n": (pl.UInt32(), "0 and up"), "f": (pl.Float64(), "0..1"), "m": (pl.UInt32(), "1 and up")}
OTHERS = {"b": (pl.Boolean(), "true | false"), "s": (pl.String(), "x | y | z")}
TABLE = {name: signal(name, *how) for name, how in {**NUMBERS, **OTHERS}.items()}
BOX = {name: domain_of(column) for name, column in TABLE.items()}
CONSTANTS = st.sampled_from(["0", "1", "2", "5", "0.5", "0.2", "7"])

number = st.recursive(
    st.one_of(st.sampled_from(list(NUMBERS)), CONSTANTS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(list(NUMBERS)), CONSTANTS).map(lambda t: f"COALESCE({t[0]}, {t[1]})"),
        st.sampled_from(["(1 - f)", "f / 2", "CAST(n AS DOUBLE)"]),
    ),
    max_leaves=3,
)
statement = st.recursive(
    st.one_of(
        st.tuples(number, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), number).map(" ".join),
        st.tuples(st.sampled_from(list(NUMBERS)), CONSTANTS, CONSTANTS).map(lambda t: f"{t[0]} BETWEEN {t[1]} AND {t[2]}"),
        st.tuples(st.sampled_from(list(NUMBERS)), st.sampled_from(["", "NOT "]), CONSTANTS, CONSTANTS).map(
            lambda t: f"{t[0]} {t[1]}IN ({t[2]}, {t[3]})"
        ),
        st.tuples(st.sampled_from([*TABLE]), st.sampled_from(["", "NOT "])).map(lambda t: f"{t[0]} IS {t[1]}NULL"),
        st.sampled_from(["b", "s = 'x'", "s <> 'y'", "s IN ('x', 'z')", "s NOT IN ('x')", "b = TRUE", "s LIKE 'x%'"]),
        st.sampled_from(["COALESCE(b, TRUE)", "COALESCE(b, FALSE)", "TRUE"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        inner.map(lambda part: f"NOT {part}"),
    ),
    max_leaves=5,
)  # fmt: skip


def rows() -> pl.DataFrame:
    """Every value that matters, with every other one."""
    values = {"n": [None, 0, 1, 2, 5, 8], "f": [None, 0.0, 0.2, 0.5, 0.7, 1.0], "m": [None, 1, 2, 6],
              "b": [None, True, False], "s": [None, "x", "y", "z"]}  # fmt: skip
    frame = pl.DataFrame({"one": [1]})
    for name, column in TABLE.items():
        frame = frame.join(pl.DataFrame({name: pl.Series(values[name], dtype=column.dtype)}), how="cross")
    return frame


ROWS = rows()


@settings(max_examples=100, deadline=None)
@given(statement)
def test_what_is_proved_impossible_never_happens(text: str) -> None:
    tree = parse_predicate(text)
    assert tree is not None, text
    true = ROWS.select(predicate(text, TABLE)).to_series()
    false = ROWS.select(predicate(f"NOT ({text})", TABLE)).to_series()
    assert can_be(tree, True, BOX) or not true.any(), text
    assert can_be(tree, False, BOX) or not false.any(), text


@settings(max_examples=40, deadline=None)
@given(statement)
def test_a_tree_written_out_again_means_the_same(text: str) -> None:
    tree = parse_predicate(text)
    assert tree is not None
    assert ROWS.select(predicate(text_of(tree), TABLE)).equals(ROWS.select(predicate(text, TABLE)))


def test_bounds_of_sums_and_products() -> None:
    tree = parse_predicate("2 * f + 1")
    assert tree is not None
    low, high = interval(tree, BOX)
    assert low == pytest.approx(1)
    assert high == pytest.approx(3)
