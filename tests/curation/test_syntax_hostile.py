"""Input that breaks parsers: deep, wide, endless, torn or random text in any language."""

import argparse
import inspect
import time
from typing import Any

import polars as pl
import pytest
from codesieve.curation import apart
from codesieve.curation.signals import syntax
from codesieve.curation.signals.grammars import grammar, syntax_file
from codesieve.curation.signals.parsing import find_errors, parse
from codesieve.curation.signals.syntax import MAX_ERROR_CHILDREN, SYNTAX_SIGNALS, SyntaxSignals, measure_syntax
from codesieve.strict import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

GATE = {"gate": pl.String()}
LANGUAGES = sorted(syntax_file().languages)


def measure(text: str, language: str = "python", path: str = "a") -> dict[str, Any]:
    measured = measure_syntax(text.encode(), path, language)
    assert measured is not None
    return measured


DEEP = 5_000
NESTED = {
    "brackets": "(" * DEEP + ")" * DEEP,
    "open brackets": "([{" * DEEP,
    "closed brackets": ")" * DEEP,
    "conditions": "".join(" " * depth + "if x:\n" for depth in range(1000)),
    "braces": "if (x) {" * DEEP + "}" * DEEP,
    "tags": "<div>" * DEEP,
    "quotes": '"' * DEEP,
    "nothing": "",
    "NUL": "\0" * 100,
    "replacement": "\ufffd" * 1000,
    "one long line": "x = " + "1 + " * 50_000 + "1",
}


@pytest.mark.parametrize("language", ["python", "javascript", "c", "c++", "rust", "java", "go", "html", "json"])
@pytest.mark.parametrize("case", NESTED)
def test_no_nesting_breaks_a_parser(language: str, case: str) -> None:
    measured = measure(NESTED[case], language)
    share = measured["syntax_error_fraction"]
    assert (share is None) if case == "nothing" else 0 <= share <= 1


def test_a_wide_error_is_measured_but_not_queried() -> None:
    """A query over it would take 20 minutes for a megabyte."""
    started = time.process_time()
    measured = measure("(" * 1_000_000)
    assert time.process_time() - started < 10
    assert measured["syntax_error_fraction"] == 1
    assert "function_count" not in measured
    assert "function_count" in measure("(" * (MAX_ERROR_CHILDREN - 10))


def test_a_parse_that_does_not_end_is_stopped_and_the_parser_goes_on() -> None:
    java = grammar("java")
    assert java is not None
    # Stopped while it reads: behind the text's end, which a fast machine reaches soon, nothing could stop it.
    with pytest.raises(TimeoutError, match=r"stopped after 0\.001 s"):
        parse(java.parser, b"a<" * 100_000, max_seconds=0.001)
    tree = parse(java.parser, b"class A {}\n")
    assert (tree.root_node.type, tree.root_node.has_error) == ("program", False)


def test_a_stopped_parse_costs_only_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = b"a<" * 100_000
    monkeypatch.setattr(
        syntax, "parse", lambda parser, source: parse(parser, source, max_seconds=0.001 if source == slow else 5)
    )
    result = measured_batch("java", ["class A {}\n", slow.decode(), "class B {}\n"])
    assert result["class_count"].to_list() == [1, None, 1]
    assert [len(errors) for errors in result["step_errors"]] == [0, 1, 0]
    assert result["step_errors"][1][0].startswith("syntax: TimeoutError: parse stopped")


@pytest.mark.parametrize(("language", "text"), [("java", "a<" * 20_000), ("c", "a=>" * 5_000)])
def test_a_text_that_takes_all_memory_costs_only_itself(
    language: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery at the end of a text takes memory with the square of what is open there, and cannot be stopped."""
    monkeypatch.setattr(apart, "MEMORY_BYTES", 300_000_000)
    result = measured_batch(language, ["class A {};\n", text, "class B {};\n"])
    assert [len(errors) for errors in result["step_errors"]] == [0, 1, 0]
    assert "syntax: ChildProcessError: the process that measured it crashed" in result["step_errors"][1][0]
    assert result["node_count"].is_null().to_list() == [False, True, False]


def measured_batch(language: str, texts: list[str]) -> pl.DataFrame:
    batch = pl.DataFrame({"text": texts, "path": "a", "language": language, "gate": None}, schema_overrides=GATE)
    result = SyntaxSignals()(batch)
    assert result["text"].to_list() == texts
    return result


def test_a_language_can_be_left_unparsed() -> None:
    batch = pl.DataFrame(
        {"text": ["class A {}\n", "x = 1\n"], "path": ["A.java", "a.py"], "language": ["java", "python"]}
    )
    result = SyntaxSignals(unparsed=["java"])(batch.with_columns(gate=pl.lit(None, dtype=pl.String)))
    assert result["parsed_as"].to_list() == [None, "python"]
    with pytest.raises(ConfigError, match=r'unknown language "jav" .did you mean "java"'):
        SyntaxSignals(unparsed=["jav"])


def test_the_callback_gives_the_same_tree_as_the_plain_parse() -> None:
    source = inspect.getsource(argparse).encode()
    python = grammar("python")
    assert python is not None
    assert str(parse(python.parser, source).root_node) == str(python.parser.parse(source).root_node)


CODE_LIKE = st.lists(
    st.sampled_from(
        [*"(){}[]<>\"'`\\\n\t #/*;:,.=&|@%x1", "if ", "def ", "class ", "fn ", "<<E\n", "${", "/*", "*/", "é文", "\0"]
    ),
    max_size=150,
).map("".join)


@settings(max_examples=150)
@given(st.sampled_from(LANGUAGES), st.one_of(CODE_LIKE, st.text(max_size=100)))
def test_any_text_in_any_language_is_measured(language: str, text: str) -> None:
    measured = measure(text, language, "a.h")
    assert set(measured) <= {signal.name for signal in SYNTAX_SIGNALS}
    for name, value in measured.items():
        if name.endswith("_fraction"):
            assert value is None or 0 <= value <= 1, name


@given(CODE_LIKE)
def test_errors_are_found_where_a_full_walk_finds_them(text: str) -> None:
    python = grammar("python")
    assert python is not None
    root = parse(python.parser, text.encode()).root_node
    found: list[int] = []

    def walk(node: Any) -> None:
        if node.is_error or node.is_missing:
            found.append(max(node.end_byte - node.start_byte, 1))
        else:
            for child in node.children:
                walk(child)

    walk(root)
    errors = find_errors(root)
    assert (errors.count, errors.bytes, errors.largest) == (len(found), sum(found), max(found, default=0))
