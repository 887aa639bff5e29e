"""Text signals: each number against a plain implementation on characters, on any text."""

import base64
import random
import re

import polars as pl
import pytest
from codesieve.curation.signals.text import TEXT_SIGNALS, TextSignals, measure_text
from hypothesis import example, given
from hypothesis import strategies as st

SPACE = " \t\n\f\v"
NAMES = [signal.name for signal in TEXT_SIGNALS]
ANY_TEXT = st.one_of(st.text(), st.text(alphabet="ab1 \t\n\r\f\v\0\x1b_}é文\u2028\u00a0\ufffd٣", max_size=200))


def measure(text: str) -> dict[str, float | int | None]:
    return dict(zip(NAMES, measure_text(text.encode()), strict=True))


def plainly(text: str) -> dict[str, float | int | None]:
    """The definitions, one character at a time."""
    text = re.sub("\r\n?", "\n", text)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    words = [word for word in re.split(f"[{SPACE}]", text) if word]
    visible = ["".join(c for c in line if c not in SPACE) for line in lines]
    long = [line for line in visible if len(line.encode()) > 2]
    tabs, spaces = sum(line.startswith("\t") for line in lines), sum(line.startswith("  ") for line in lines)
    # A line of one tab at the very end of the text is too short to be an indented line.
    tabs -= bool(lines and lines[-1] == "\t" and not text.endswith("\n"))
    digits = sum(c in "0123456789" for c in text)
    controls = sum((c < " " and c not in SPACE) or c == "\x7f" for c in text)

    def share(count: float, of: float = len(text)) -> float | None:
        return count / of if of else None

    return {
        "character_count": len(text),
        "line_count": len(lines),
        "max_line_length": max(map(len, lines), default=0),
        "mean_line_length": share(sum(map(len, lines)), len(lines)),
        "blank_line_fraction": share(visible.count(""), len(lines)),
        "duplicate_line_fraction": (1 - len(set(long)) / len(long) if long else 0.0) if lines else None,
        "mixed_indentation_fraction": (min(tabs, spaces) / (tabs + spaces) if tabs + spaces else 0.0)
        if lines
        else None,
        "word_count": len(words),
        "mean_word_length": share(sum(map(len, words)), len(words)),
        "longest_token_length": max(map(len, words), default=0),
        "alphabetic_fraction": share(sum(c.isalpha() for c in text)),
        "alphanumeric_fraction": share(sum(c.isalpha() for c in text) + digits),
        "digit_fraction": share(digits),
        "whitespace_fraction": share(sum(c in SPACE for c in text)),
        "non_ascii_fraction": share(sum(c > "\x7f" for c in text)),
        "replacement_fraction": share(text.count("\ufffd")),
        "control_character_count": controls,
        "nul_count": text.count("\0"),
    }


@given(ANY_TEXT)
@example("")
@example("\n")
@example("\t")
@example("a\r\nb\rc\n\n")
@example("\ta\n  b\n\t\n  ")
@example("\t\r\f\f")
def test_every_number_equals_its_definition(text: str) -> None:
    measured = measure(text)
    measured.pop("compression_ratio")
    assert measured == pytest.approx(plainly(text), nan_ok=False)


def test_a_text_of_many_pieces_is_measured_like_one_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["alpha", "b1", "  indent", "\ttab", "longer_word_than_others", "é文", "", "x" * 300]
    text = "\n".join(random.Random(0).choices(words, k=1000))
    whole = measure(text)
    monkeypatch.setattr("codesieve.curation.signals.text.PIECE_BYTES", 100)
    assert measure(text) == whole


def test_form_feeds_and_unicode_separators_end_no_line() -> None:
    assert measure("a\fb\vc\x1cd\u2028e\x85f")["line_count"] == 1


def test_lengths_count_characters_not_bytes() -> None:
    measured = measure("文文文\né\n")
    assert (measured["max_line_length"], measured["longest_token_length"], measured["character_count"]) == (3, 3, 6)


def test_an_empty_document_has_counts_of_zero_and_no_shares() -> None:
    measured = measure("")
    assert {name for name, value in measured.items() if value is None} == {
        signal.name for signal in TEXT_SIGNALS if signal.dtype == pl.Float64()
    }
    assert {value for value in measured.values() if value is not None} == {0}


def test_repetition_compresses_and_randomness_does_not() -> None:
    noise = base64.b64encode(random.Random(0).randbytes(6000)).decode()
    code = "".join(f"def function_{i}(argument):\n    return argument + {i}\n" for i in range(100))
    ratios = [measure(text)["compression_ratio"] for text in ("x = 1\n" * 1000, code, noise)]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.02 < 0.3 < 0.9 < ratios[2]


def test_one_line_of_twenty_megabytes_is_measured() -> None:
    measured = measure("x" * 20_000_000)
    assert measured["max_line_length"] == measured["longest_token_length"] == 20_000_000


def test_the_step_adds_its_columns_and_leaves_the_text_as_it_was() -> None:
    batch = pl.DataFrame({"id": ["1", "2"], "text": ["é = 1\n", ""], "path": ["a", "b"]})
    step = TextSignals()
    result = step(batch)
    assert result.select(batch.columns).equals(batch)
    assert {name: result.schema[name] for name in NAMES} == dict(step.provides)
