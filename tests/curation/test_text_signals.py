"""Text signals: each number against a plain implementation on characters, on any text."""

import base64
import math
import random
import re

import polars as pl
import pytest
from codesieve.curation.signals.text import TEXT_SIGNALS, TextSignals, measure_text
from hypothesis import example, given
from hypothesis import strategies as st

SPACE = " \t\n\f\v"
NAMES = [signal.name for signal in TEXT_SIGNALS if signal.name != "uniform"]
ANY_TEXT = st.one_of(st.text(), st.text(alphabet="ab1 \t\n\r\f\v\0\x1b_}é文\u2028\u00a0\ufffd٣", max_size=200))


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Loading the kernel is not part of any test's time."""
    TextSignals().setup()


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
        "median_line_length": quantile(0.5, list(map(len, lines))),
        "p90_line_length": quantile(0.9, list(map(len, lines))),
        "uppercase_word_fraction": share(
            sum(word.upper() == word != word.lower() for word in map(only_ascii, words)), len(words)
        ),
    }


def quantile(share: float, lengths: list[int]) -> int:
    return sorted(lengths)[math.ceil(share * len(lengths)) - 1] if lengths else 0


def only_ascii(word: str) -> str:
    return "".join(character for character in word if character.isascii())


@given(ANY_TEXT)
@example("")
@example("\n")
@example("\t")
@example("a\r\nb\rc\n\n")
@example("\ta\n  b\n\t\n  ")
@example("\t\r\f\f")
def test_every_number_equals_its_definition(text: str) -> None:
    expected = plainly(text)
    assert {name: measure(text)[name] for name in expected} == pytest.approx(expected, nan_ok=False)


def test_form_feeds_and_unicode_separators_end_no_line() -> None:
    assert measure("a\fb\vc\x1cd\u2028e\x85f")["line_count"] == 1


def test_lengths_count_characters_not_bytes() -> None:
    measured = measure("文文文\né\n")
    assert (measured["max_line_length"], measured["longest_token_length"], measured["character_count"]) == (3, 3, 6)


def test_an_empty_document_has_counts_of_zero_and_no_shares() -> None:
    measured = measure("")
    assert {name for name, value in measured.items() if value is None} == {
        signal.name for signal in TEXT_SIGNALS if signal.dtype == pl.Float64() and signal.name != "uniform"
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
    batch = pl.DataFrame({"text": ["é = 1\n", "", None], "content_hash": ["ff", "80" + "0" * 30, None]})
    step = TextSignals()
    step.setup()
    result = step(batch)
    assert result.select(batch.columns).equals(batch)
    assert dict(result.drop(batch.columns).schema) == dict(step.provides)
    assert result["character_count"].to_list() == [6, 0, 0]


def test_a_document_of_a_slice_is_measured_like_alone() -> None:
    batch = pl.DataFrame({"text": ["x" * 9, "a b\n", "", "é\r\n", "y"], "content_hash": ["0"] * 5})
    whole = TextSignals()(batch).slice(1, 3)
    assert TextSignals()(batch.slice(1, 3)).equals(whole)
    assert TextSignals()(batch.clear()).height == 0


def test_uniform_is_the_content_hash_as_a_number() -> None:
    hashes = ["0" * 32, "8" + "0" * 31, "c" + "0" * 31, "f" * 32, "", None]
    batch = pl.DataFrame({"text": ["x"] * 6, "content_hash": hashes})
    assert TextSignals()(batch)["uniform"].to_list() == [0.0, 0.5, 0.75, 1 - 2**-52, None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0xFF a\n", 4 / 5),
        ("deadbeef1 face 1234 12ab\n", 13 / 21),
        ("0x 0xg12 abc1 x0x1\n", 4 / 15),
        ("call(0x1f,beef00)\n", 10 / 17),
    ],
)
def test_hexadecimal_words_have_digits_and_letters_or_a_prefix(text: str, expected: float) -> None:
    assert measure(text)["hexadecimal_word_fraction"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("see https://a.org/b?c=d. now", 20),
        ("www.a.org (ftp://b)", 17),
        ('<a href="http://a.b">x</a>', 25),
        ("awww.a.b nohttp://x a < b and c > d", 0),
        ("<br\n>", 0),
        ("é <é> <p>é</p>", 7),
        ("https://é.org", 13),
        ("<a<a<a", 0),
    ],
)
def test_links_are_addresses_and_tags(text: str, linked: int) -> None:
    assert measure(text)["link_fraction"] == pytest.approx(linked / len(text))


def test_lines_that_trail_off_are_counted() -> None:
    text = "a...\nb…  \n[Read More]\n\nc..\nmore\n"
    assert measure(text)["ellipsis_line_fraction"] == pytest.approx(3 / 6)


def test_quantiles_of_very_long_lines_are_exact() -> None:
    text = "".join("é" * length + "\r\n" for length in (1, 5000, 3000, 2, 4000, 6000, 7000, 2048, 9000, 8000))
    assert (measure(text)["median_line_length"], measure(text)["p90_line_length"]) == (4000, 8000)
