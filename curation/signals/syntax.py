"""Syntax signals: one parse with tree-sitter and one query a document.

Comes in: text, path, language and gate. Goes out: the columns of `SYNTAX_SIGNALS`; null for gated documents, for
languages without a grammar and, column by column, where a language has no such thing (JSON has no functions). A syntax
error is not a verdict: 43 % of real C files hold ERROR nodes because of macros, so the signal is the share of bytes.

Nodes are captured, counted and dropped; none is visited in Python. Identifiers are not captured (that costs as much as
all other captures together) but split from the text outside comments and strings, less the grammar's keywords.
Price over a bare parse: the query a third (a quarter for the walk alone, whatever it captures), the rest a sixth.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import polars as pl
from tree_sitter import Node

from ..steps import map_documents
from .grammars import DOCSTRINGS, Grammar, HintedPattern, grammar, syntax_file
from .parsing import find_errors, parse
from .signal import Signal, dtypes

MAX_ERROR_CHILDREN = 5_000
"""A query over an ERROR node with n bare tokens takes n² steps: 30 ms at 5,000, 20 minutes at 1,000,000."""

IDENTIFIER_BYTES = 8_192
"""Identifiers are counted in the first 8 kB of code, strings and comments left out: vocabulary grows with length, so it
can only be compared at one length, and the price is bounded. Half of all files are shorter."""

_WORD = bytes(byte if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") else ord(" ") for byte in range(256))
_BELOW_LETTERS = b":"
"""Sorts behind all digits and before letters, underscore and everything beyond ASCII."""


def _syntax(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str = "own") -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "syntax")


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
        f"neither keywords nor numbers, in the first {IDENTIFIER_BYTES} bytes outside comments and strings",
    ),
    _syntax("distinct_identifier_count", _COUNT, "words", "0 and up", "different ones among them"),
    _syntax("mean_identifier_length", _SHARE, "bytes", "1 and up", "over the different ones"),
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
    """Step: adds `SYNTAX_SIGNALS`."""

    name = "syntax"
    requires: tuple[str, ...] = ("text", "path", "language", "gate")
    provides: Mapping[str, pl.DataType] = dtypes(SYNTAX_SIGNALS)

    def setup(self) -> None:
        """Load the table; grammars load when the first document needs them."""
        syntax_file()

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the syntax columns."""
        as_bytes = batch.with_columns(pl.col("text").cast(pl.Binary))
        measured = map_documents(as_bytes, self.name, _row, self.requires, self.provides)
        return measured.with_columns(batch["text"])


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


def _row(source: bytes, path: str, language: str, gate: str | None) -> Sequence[Any] | None:
    measured = None if gate is not None else measure_syntax(source, path, language)
    return None if measured is None else tuple(measured.get(signal.name) for signal in SYNTAX_SIGNALS)


def _retried_as(path: str, language: str, error_bytes: int, size_bytes: int) -> Grammar | None:
    """The other grammar that a header full of errors is tried with."""
    retry = syntax_file().retry
    is_candidate = language == retry.language and path.lower().endswith(retry.extension)
    return grammar(retry.as_) if is_candidate and error_bytes > retry.above * size_bytes else None


def _counts(grammar: Grammar, found: Mapping[str, list[Node]]) -> dict[str, int]:
    names = {
        "function_count": "functions",
        "class_count": "classes",
        "branch_count": "branches",
        "call_count": "calls",
        "import_count": "imports",
    }
    counts = {name: len(found.get(capture, ())) for name, capture in names.items() if capture in grammar.captures}
    if "functions" in grammar.captures:
        lengths = (node.end_point[0] - node.start_point[0] + 1 for node in found.get("functions", ()))
        counts["longest_function_lines"] = max(lengths, default=0)
    return counts


def _texts(grammar: Grammar, found: Mapping[str, list[Node]], source: bytes) -> dict[str, Any]:
    spans = {name: _outermost(found.get(name, ())) for name in grammar.captures & _SPANS}
    share = {name: (sum(where.ends) - sum(where.starts)) / (len(source) or 1) for name, where in spans.items()}
    comments, strings, docstrings = (spans.get(name, _NOWHERE) for name in ("comments", "strings", DOCSTRINGS))
    texts: dict[str, Any] = {}
    if DOCSTRINGS in share:
        texts["docstring_fraction"] = share[DOCSTRINGS]
    if "comments" in share:
        texts["comment_fraction"] = share["comments"] + share.get(DOCSTRINGS, 0.0)
        pieces = [source[start:end] for start, end in zip(*comments, strict=True)]
        texts["placeholder_comment_count"] = _count_matches(grammar.placeholders, b"\n".join(pieces))
    if "strings" in share:
        texts["string_fraction"] = share["strings"] - share.get(DOCSTRINGS, 0.0)
        others = set(docstrings.starts)
        lengths = [end - start for start, end in zip(*strings, strict=True) if start not in others]
        texts["longest_string_bytes"] = max(lengths, default=0)
    if "visible_text" in share:
        texts["visible_text_fraction"] = share["visible_text"]
    if grammar.has_identifiers:
        words = b" ".join(_without(source, comments, strings)).translate(_WORD)
        texts |= _identifiers(words[:IDENTIFIER_BYTES].split(), grammar.keywords)
        texts["assert_count"] = _count_words(grammar.assertions, words)
    return texts


class _Spans(NamedTuple):
    """Byte ranges, as their starts and their ends."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]


_NOWHERE = _Spans((), ())
_SPANS = frozenset({"comments", "strings", DOCSTRINGS, "visible_text"})


def _identifiers(words: Iterable[bytes], keywords: frozenset[bytes]) -> dict[str, Any]:
    identifiers = [word for word in words if word > _BELOW_LETTERS and word not in keywords]
    distinct = set(identifiers)
    return {
        "identifier_count": len(identifiers),
        "distinct_identifier_count": len(distinct),
        "mean_identifier_length": sum(map(len, distinct)) / len(distinct) if distinct else None,
    }


def _outermost(nodes: Iterable[Node]) -> _Spans:
    """Where the nodes are that are in no other one, in order; nodes of a tree are nested or disjoint."""
    ranges = [node.byte_range for node in nodes]
    if not ranges:
        return _NOWHERE
    starts, ends = zip(*ranges, strict=True)
    if all(map(operator.le, ends, starts[1:])):  # disjoint and in order, as nearly always
        return _Spans(starts, ends)
    outermost: list[tuple[int, int]] = []
    last = 0
    for start, end in sorted(ranges, key=lambda span: (span[0], -span[1])):
        if start >= last:
            outermost.append((start, end))
            last = end
    return _Spans(*zip(*outermost, strict=True))


def _without(source: bytes, *hidden: _Spans) -> list[bytes]:
    """What is between the spans."""
    starts = sorted(chain.from_iterable(spans.starts for spans in hidden))
    ends = sorted(chain.from_iterable(spans.ends for spans in hidden))
    return [source[start:end] for start, end in zip((0, *ends), (*starts, len(source)), strict=True)]


def _count_matches(wanted: HintedPattern, text: bytes) -> int:
    """Matches in `text`; the pattern is tried only if one of its hints is there, which costs a fifth."""
    if not any(hint in text for hint in wanted.hints):
        return 0
    return sum(1 for _ in wanted.pattern.finditer(text))


def _count_words(wanted: HintedPattern, words: bytes) -> int:
    """Words that match; `words` are separated by spaces, and only those that hold a hint are looked at."""
    found = set()
    for hint in wanted.hints:
        position = words.find(hint)
        while position != -1:
            start = words.rfind(b" ", 0, position) + 1
            end = words.find(b" ", position)
            end = len(words) if end == -1 else end
            if wanted.pattern.fullmatch(words, start, end):
                found.add(start)
            position = words.find(hint, end)
    return len(found)
