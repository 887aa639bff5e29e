"""Syntax signals: one parse with tree-sitter and one query a document.

Comes in: text, path, language and gate. Goes out: the columns of `SYNTAX_SIGNALS`; null for gated documents, for
languages without a grammar and, column by column, where a language has no such thing (JSON has no functions). A syntax
error is not a verdict: 43 % of real C files hold ERROR nodes because of macros, so the signal is the share of bytes.

Nodes are captured, counted and dropped; none is visited in Python. Their byte ranges go to three kernels: one for what
follows from ranges alone, one that reads the code between comments and strings (identifiers are not captured, which
would cost as much as all other captures together, but are its words less the grammar's keywords), one that reads the
comments and strings. A child process does it (`apart`), since no parser can be trusted with every text. Price over a
bare parse: the query 0.30 to 0.40 (0.23 for the walk alone, whatever it captures), the rest 0.13 to 0.18.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tree_sitter import Node

from ...strict import ConfigError, nearest
from ..apart import Apart
from ..languages import languages
from ..steps import documents, with_outcomes
from .grammars import DOCSTRINGS, Grammar, grammar, syntax_file
from .parsing import find_errors, parse
from .signal import Signal, dtypes

MAX_ERROR_CHILDREN = 5_000
"""A query over an ERROR node with n bare tokens takes n² steps: 30 ms at 5,000, 20 minutes at 1,000,000."""

IDENTIFIER_BYTES = 8_192
"""Identifiers are counted in the first 8 kB of code, strings and comments left out: vocabulary grows with length, so it
can only be compared at one length, and the price is bounded. Half of all files are shorter."""


def _syntax(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str = "own") -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "syntax")


Row = tuple[int | float | str | None, ...]

_COUNT, _SHARE = pl.UInt32(), pl.Float64()

SYNTAX_SIGNALS: tuple[Signal, ...] = (
    _syntax("parsed_as", pl.String(), "name", "a language, or null", "the grammar of the tree: .h may be C or C++"),
    _syntax("node_count", _COUNT, "nodes", "1 and up", "all nodes of the tree"),
    _syntax(
        "syntax_error_fraction",
        _SHARE,
        "of bytes",
        "0..1",
        "in outermost ERROR nodes; a MISSING token counts as one byte",
        "Seed-Coder (tree-sitter); own measure",
    ),
    _syntax("syntax_error_count", _COUNT, "nodes", "0 and up", "outermost ERROR nodes and MISSING tokens"),
    _syntax("largest_syntax_error_bytes", _COUNT, "bytes", "0 and up", "of the largest ERROR node"),
    _syntax("function_count", _COUNT, "nodes", "0 and up", "functions, methods, lambdas", "OpenCoder"),
    _syntax("class_count", _COUNT, "nodes", "0 and up", "classes, structs, interfaces, enums, traits", "OpenCoder"),
    _syntax("longest_function_lines", _COUNT, "lines", "0 and up", "first to last line; 0 without functions"),
    _syntax("branch_count", _COUNT, "nodes", "0 and up", "conditions, loops, cases, handlers", "McCabe 1976, adapted"),
    _syntax("call_count", _COUNT, "nodes", "0 and up", "calls and constructions"),
    _syntax("import_count", _COUNT, "nodes", "0 and up", "imports and includes", "OpenCoder"),
    _syntax("assert_count", _COUNT, "words", "0 and up", "that assert, outside comments and strings", "OpenCoder"),
    _syntax(
        "comment_fraction",
        _SHARE,
        "of bytes",
        "0..1",
        "in comments and docstrings",
        "StarCoder (0.01 to 0.8); NeMo Curator",
    ),
    _syntax("docstring_fraction", _SHARE, "of bytes", "0..1", "in docstrings (Python)", "NeMo Curator"),
    _syntax("string_fraction", _SHARE, "of bytes", "0..1", "in string literals, without docstrings", "OpenCoder"),
    _syntax("longest_string_bytes", _COUNT, "bytes", "0 and up", "the longest string literal, docstrings aside"),
    _syntax(
        "placeholder_comment_count",
        _COUNT,
        "words",
        "0 and up",
        "TODO, FIXME, XXX, `your code here` in comments",
        "OpenCoder",
    ),
    _syntax(
        "identifier_count",
        _COUNT,
        "words",
        "0 and up",
        f"neither keywords nor numbers, begin in the first {IDENTIFIER_BYTES} bytes outside comments and strings",
    ),
    _syntax("distinct_identifier_count", _COUNT, "words", "0 and up", "different ones among them"),
    _syntax("mean_identifier_length", _SHARE, "bytes", "1 and up", "over the different ones"),
    _syntax(
        "single_letter_identifier_fraction",
        _SHARE,
        "of words",
        "0..1",
        "of the different identifiers",
        "OpenCoder (names), own measure",
    ),
    _syntax(
        "max_nesting_depth",
        _COUNT,
        "nodes",
        "0 and up",
        "functions, classes and branches inside each other; an `else if` is as deep as its `if`",
    ),
    _syntax("median_function_lines", _SHARE, "lines", "1 and up", "of functions; null without any"),
    _syntax("p90_function_lines", _SHARE, "lines", "1 and up", "nearest rank; null without functions"),
    _syntax("longest_class_lines", _COUNT, "lines", "0 and up", "first to last line; 0 without classes"),
    _syntax(
        "mean_cyclomatic_complexity",
        _SHARE,
        "branches",
        "1 and up",
        "(branches + functions) / functions; null without functions",
        "McCabe 1976, adapted",
    ),
    _syntax("literal_fraction", _SHARE, "of bytes", "0..1", "in strings, docstrings aside, and numbers"),
    _syntax(
        "top_level_fraction",
        _SHARE,
        "of bytes",
        "0..1",
        "outside functions, classes, imports and comments, white space aside",
    ),
    _syntax(
        "commented_out_code_fraction",
        _SHARE,
        "of comment bytes",
        "0..1",
        "in lines that read as code, docstrings and documentation comments aside; null without comments",
    ),
    _syntax("print_count", _COUNT, "words", "0 and up", "that print, outside comments and strings", "OpenCoder"),
    _syntax("return_count", _COUNT, "words", "0 and up", "`return` outside comments and strings", "OpenCoder"),
    _syntax("pass_count", _COUNT, "words", "0 and up", "`pass` outside comments and strings (Python)", "OpenCoder"),
    _syntax(
        "assignment_count",
        _COUNT,
        "signs",
        "0 and up",
        "`=` and the like outside comments and strings; neither comparisons nor named arguments",
        "OpenCoder",
    ),
    _syntax(
        "literal_assignment_count",
        _COUNT,
        "signs",
        "0 and up",
        "of a name to one string, number or word like `true`",
        "OpenCoder",
    ),
    _syntax(
        "trivial_function_count",
        _COUNT,
        "nodes",
        "0 and up",
        "functions whose body is nothing or one return, raise, throw, pass or `...`",
        "OpenCoder",
    ),
    _syntax("main_count", _COUNT, "nodes", "0 and up", "functions named main (C family)", "OpenCoder"),
    _syntax("preprocessor_line_fraction", _SHARE, "of lines", "0..1", "of directives (C family)", "OpenCoder"),
    _syntax(
        "long_string_line_fraction",
        _SHARE,
        "of lines",
        "0..1",
        "with a string of more than 20 words, docstrings aside",
        "OpenCoder",
    ),
    _syntax(
        "long_string_word_fraction",
        _SHARE,
        "of bytes",
        "0..1",
        "in words over 20 bytes that are no URL, inside strings, docstrings aside",
        "OpenCoder",
    ),
    _syntax(
        "visible_text_fraction",
        _SHARE,
        "of bytes",
        "0..1",
        "between tags (HTML, XML)",
        "StarCoder: at least 0.2 and 100 characters",
    ),
)


class SyntaxSignals:
    """Step: adds `SYNTAX_SIGNALS`.

    Args:
        unparsed: languages that are left without them.

    Raises:
        ConfigError: if one of them is no language.
    """

    name = "syntax"
    requires: tuple[str, ...] = ("text", "path", "language", "gate")
    provides: Mapping[str, pl.DataType] = dtypes(SYNTAX_SIGNALS)

    def __init__(self, unparsed: Sequence[str] = ()):
        for language in unparsed:
            if language not in languages():
                raise ConfigError(f'unparsed_languages: unknown language "{language}"{nearest(language, languages())}')
        self._measure = Apart(partial(_row, frozenset(unparsed)))

    def setup(self) -> None:
        """Load the table and the kernels, which the child then has; grammars load when a document needs them."""
        from .kernels import code, comments, spans  # noqa: F401

        syntax_file()

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the syntax columns."""
        as_bytes = batch.with_columns(pl.col("text").cast(pl.Binary))
        # A document that is not parsed need not be sent.
        text = pl.when(pl.col("gate").is_null()).then("text")
        outcomes = self._measure(documents(as_bytes.with_columns(text), self.requires))
        return with_outcomes(batch, self.name, outcomes, self.provides)


def _row(unparsed: frozenset[str], source: bytes | None, path: str, language: str, gate: str | None) -> Row | None:
    if source is None or gate is not None or language in unparsed:
        return None
    measured = measure_syntax(source, path, language)
    return None if measured is None else tuple(measured.get(signal.name) for signal in SYNTAX_SIGNALS)


def measure_syntax(source: bytes, path: str, language: str) -> dict[str, Any] | None:
    """Name → value for one document; None without a grammar. A name that is absent is null.

    Raises:
        TimeoutError: if the parse does not end.
    """
    chosen = grammar(language)
    if chosen is None:
        return None
    root = parse(chosen.parser, source).root_node
    errors = find_errors(root)
    other = _retried_as(path, language, errors.bytes, len(source))
    if other:
        other_root = parse(other.parser, source).root_node
        other_errors = find_errors(other_root)
        if other_errors.bytes < errors.bytes:
            chosen, root, errors = other, other_root, other_errors
    size = len(source)
    measured: dict[str, Any] = {
        "parsed_as": chosen.language,
        "node_count": root.descendant_count,
        "syntax_error_fraction": min(errors.bytes / size, 1.0) if size else None,
        "syntax_error_count": errors.count,
        "largest_syntax_error_bytes": errors.largest,
    }
    if errors.widest <= MAX_ERROR_CHILDREN:
        found = chosen.cursor.captures(root)
        measured |= _counts(chosen, found) | _texts(chosen, found, source)
    return measured


def _retried_as(path: str, language: str, error_bytes: int, size_bytes: int) -> Grammar | None:
    """The other grammar that a header full of errors is tried with."""
    retry = syntax_file().retry
    is_candidate = language == retry.language and path.lower().endswith(retry.extension)
    return grammar(retry.as_) if is_candidate and error_bytes > retry.above * size_bytes else None


def _counts(grammar: Grammar, found: Mapping[str, list[Node]]) -> dict[str, Any]:
    names = {
        "function_count": "functions",
        "class_count": "classes",
        "branch_count": "branches",
        "call_count": "calls",
        "import_count": "imports",
    }
    counts: dict[str, Any] = {
        name: len(found.get(capture, ())) for name, capture in names.items() if capture in grammar.captures
    }
    if "operators" in grammar.captures:
        counts["branch_count"] += len(found.get("operators", ()))
    if "branch_count" in counts and counts.get("function_count"):
        counts["mean_cyclomatic_complexity"] = 1 + counts["branch_count"] / counts["function_count"]
    return counts


def _texts(grammar: Grammar, found: Mapping[str, list[Node]], source: bytes) -> dict[str, Any]:
    """What follows from the ranges of the nodes and the bytes in and between them."""
    from .kernels import code, comments, spans

    groups = [found.get(name, ()) for name in spans.GROUPS]
    starts = _ints([node.start_byte for nodes in groups for node in nodes])
    ends = _ints([node.end_byte for nodes in groups for node in nodes])
    bounds = _ints([0, *accumulate(map(len, groups))])
    text = np.frombuffer(source, np.uint8)
    words = grammar.words
    placeholders, wanted = words.placeholders, words.patterns
    from_ranges, hidden, functions = spans.measure_spans(text, starts, ends, bounds)
    from_hidden = comments.measure_hidden(text, hidden, placeholders.blob, placeholders.rows, placeholders.begins)
    numbers = dict(zip(spans.NUMBERS + comments.NUMBERS, from_ranges.tolist() + from_hidden.tolist(), strict=True))
    texts = _from_ranges(grammar, numbers, len(source))
    if grammar.entry.identifiers:
        from_code = code.measure_code(
            text,
            hidden,
            functions,
            words.keys,
            words.flags,
            wanted.blob,
            wanted.rows,
            wanted.begins,
            words.style,
            IDENTIFIER_BYTES,
        )
        numbers |= zip(code.NUMBERS, from_code.tolist(), strict=True)
        texts |= _from_code(grammar, numbers, len(source))
    return texts


def _ints(values: list[int]) -> NDArray[np.int64]:
    """An array of them; by way of `array` because numpy takes three times as long over a list of Python's integers."""
    return np.frombuffer(array("q", values), np.int64) if values else np.empty(0, np.int64)


def _from_ranges(grammar: Grammar, numbers: Mapping[str, float], size: int) -> dict[str, Any]:
    captures = grammar.captures
    some = size or 1
    lines = numbers["line_count"] or 1
    texts: dict[str, Any] = {}
    if DOCSTRINGS in captures:
        texts["docstring_fraction"] = numbers["docstring_bytes"] / some
    if "comments" in captures:
        texts["comment_fraction"] = (numbers["comment_bytes"] + numbers["docstring_bytes"]) / some
        texts["placeholder_comment_count"] = int(numbers["placeholder_count"])
        if grammar.entry.identifiers and numbers["comment_bytes"]:
            texts["commented_out_code_fraction"] = numbers["commented_out_bytes"] / numbers["comment_bytes"]
    if "strings" in captures:
        texts["string_fraction"] = (numbers["string_bytes"] - numbers["docstring_bytes"]) / some
        texts["longest_string_bytes"] = int(numbers["longest_string_bytes"])
        texts["long_string_line_fraction"] = min(numbers["long_string_lines"] / lines, 1.0)
        texts["long_string_word_fraction"] = numbers["long_word_bytes"] / some
    if "visible_text" in captures:
        texts["visible_text_fraction"] = numbers["visible_bytes"] / some
    if "functions" in captures:
        texts["longest_function_lines"] = int(numbers["longest_function_lines"])
        if numbers["longest_function_lines"]:
            texts["median_function_lines"] = numbers["median_function_lines"]
            texts["p90_function_lines"] = numbers["p90_function_lines"]
        if "branches" in captures:
            texts["max_nesting_depth"] = int(numbers["max_nesting_depth"])
        if "comments" in captures:
            texts["top_level_fraction"] = numbers["top_level_bytes"] / some
    if "classes" in captures:
        texts["longest_class_lines"] = int(numbers["longest_class_lines"])
    return texts


def _from_code(grammar: Grammar, numbers: Mapping[str, float], size: int) -> dict[str, Any]:
    entry = grammar.entry
    counts = ["identifier_count", "distinct_identifier_count"]
    counts += ["assert_count"] if grammar.assertions else []
    counts += ["print_count"] if entry.prints else []
    counts += ["return_count"] if entry.returns else []
    counts += ["pass_count"] if entry.passes else []
    counts += ["assignment_count", "literal_assignment_count"] if entry.assignments else []
    counts += ["main_count"] if entry.mains else []
    counts += ["trivial_function_count"] if entry.bodies else []
    texts: dict[str, Any] = {name: int(numbers[name]) for name in counts}
    distinct = numbers["distinct_identifier_count"]
    if distinct:
        texts["mean_identifier_length"] = numbers["distinct_identifier_bytes"] / distinct
        texts["single_letter_identifier_fraction"] = numbers["single_letter_count"] / distinct
    if "strings" in grammar.captures:
        strings = numbers["string_bytes"] - numbers["docstring_bytes"]
        texts["literal_fraction"] = (strings + numbers["number_bytes"]) / (size or 1)
    if entry.preprocessor:
        texts["preprocessor_line_fraction"] = numbers["preprocessor_lines"] / (numbers["line_count"] or 1)
    return texts
