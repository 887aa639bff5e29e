"""The n-gram kernel against plain counting, and the kernels on disks that cannot be written."""

import math
import os
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from codesieve.curation.signals.text import NGRAM_BYTES, TEXT_SIGNALS, TextSignals, measure_text
from hypothesis import example, given
from hypothesis import strategies as st

NAMES = [signal.name for signal in TEXT_SIGNALS if signal.name != "uniform"]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Loading the kernel is not part of any test's time."""
    TextSignals().setup()


def measure(text: str) -> dict[str, float | int | None]:
    return dict(zip(NAMES, measure_text(text.encode()), strict=True))


def words_of(text: str) -> list[str]:
    bare = "".join(
        c.lower() if c.isascii() else c for c in text if c not in string.punctuation and (c >= " " or c.isspace())
    )
    return [word for word in bare.replace("\x7f", "").split() if word]


def plainly(words: list[str]) -> dict[str, float | None]:
    """The definitions, with lists and dictionaries."""
    total = sum(map(len, words))
    found: dict[str, float | None] = {}
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n <= 4:
            (gram, count), *_ = Counter(grams).most_common(1) or [((), 0)]
            found[f"top_{n}gram_fraction"] = min(sum(map(len, gram)) * count / total, 1) if count > 1 else 0
        else:
            inside = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
            found[f"duplicate_{n}gram_fraction"] = sum(len(words[i]) for i in inside) / total if total else 0
    counts = sorted(Counter(words).values(), reverse=True)
    shares = [count / len(words) for count in counts]
    found["distinct_word_fraction"] = len(counts) / len(words) if words else None
    found["top_word_fraction"] = sum(shares[:1]) if words else None
    found["top_two_word_fraction"] = sum(shares[:2]) if words else None
    found["word_entropy"] = -sum(share * math.log(share) for share in shares) if words else None
    return found


@given(st.lists(st.sampled_from(["a", "B", "é", "a.", "_", "word", "文"]), max_size=60).map(" ".join))
@example("a a a a a a a a a a a a")
@example(" ".join("abcdefghijkl" * 3))
@example("x y " * 8 + "y x " * 8)
def test_repetition_equals_its_definition(text: str) -> None:
    expected = plainly(words_of(text))
    measured = measure(text + "\n")
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_repetition_is_counted_by_hand() -> None:
    found = measure("one two three four five six. one two, THREE four five")
    assert found["top_2gram_fraction"] == pytest.approx(2 * 6 / 41)
    assert found["duplicate_5gram_fraction"] == pytest.approx(19 / 41)
    assert found["duplicate_6gram_fraction"] == 0
    assert found["distinct_word_fraction"] == pytest.approx(6 / 11)
    assert found["top_two_word_fraction"] == pytest.approx(4 / 11)


def test_words_far_into_a_document_make_no_n_grams() -> None:
    start = "".join(f"w{i} " for i in range(NGRAM_BYTES))[:NGRAM_BYTES] + " "
    assert measure(start + "again " * 5000)["top_2gram_fraction"] == 0
    assert measure(start[: NGRAM_BYTES // 2] + "again " * 5000)["top_2gram_fraction"] > 0.3


def test_a_document_of_many_short_words_is_measured_to_its_limit() -> None:
    assert measure("a " * NGRAM_BYTES)["top_word_fraction"] == 1
    assert measure("a\n" * 300_000)["line_count"] == 300_000


PROGRAM = """
from codesieve.curation.compiled import compiled
import numba
@compiled(numba.int64(numba.int64))
def twice(number):
    return 2 * number
print(twice(21))
"""


def run(program: Path, home: Path) -> subprocess.CompletedProcess[str]:
    # Numba finds the user's cache folder by these variables.
    environment = {k: v for k, v in os.environ.items() if k not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    return subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_kernel_works_where_no_cache_folder_can_be_written(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    # A file where numba wants a folder: also root cannot write there.
    (tmp_path / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    done = run(program, tmp_path / "home")
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
