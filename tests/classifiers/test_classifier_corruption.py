import random

import pytest
from codesieve.classifiers.corruption import CORRUPTIONS, corrupt
from hypothesis import given
from hypothesis import strategies as st

TEXT = '''import os


def total(values, start=0):
    """Sum of all values."""
    result = start  # running sum
    for value in values:
        result += value
    return result


def name():
    return "values # not a comment"
'''


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_a_function_of_seed_and_key(name: str) -> None:
    assert corrupt(name, TEXT, "python", 1, "a") == corrupt(name, TEXT, "python", 1, "a")
    assert corrupt(name, TEXT, "python", 1, "a") != TEXT


@pytest.mark.parametrize("name", ["truncate", "duplicate_blocks", "shuffle_lines"])
def test_another_key_gives_other_damage(name: str) -> None:
    assert len({corrupt(name, TEXT, "python", 1, str(key)) for key in range(5)}) > 1


@given(st.text(), st.sampled_from(sorted(CORRUPTIONS)), st.sampled_from(["python", "c", "html"]))
def test_no_text_makes_a_corruption_fail(text: str, name: str, language: str) -> None:
    assert isinstance(corrupt(name, text, language, 0, "k"), str)


def test_flattening_keeps_all_but_leading_space() -> None:
    flat = corrupt("flatten_indentation", TEXT, "python", 0, "k")
    assert flat.split("\n") == [line.lstrip() for line in TEXT.split("\n")]


def test_renaming_keeps_keywords_strings_and_comments() -> None:
    renamed = corrupt("rename_identifiers", TEXT, "python", 0, "k")
    assert "def b(c, d=0):" in renamed
    assert "for f in c:" in renamed
    assert "# running sum" in renamed
    assert '"values # not a comment"' in renamed
    assert "total" not in renamed


def test_minifying_removes_comments_and_docstrings_but_not_strings() -> None:
    small = corrupt("minify", TEXT, "python", 0, "k")
    assert "running" not in small
    assert "Sum of all" not in small
    assert '"values # not a comment"' in small
    assert small.count("\n") < 3


def test_c_directives_survive_minifying() -> None:
    assert "#include <a.h>" in corrupt("minify", "#include <a.h>\nint x; // gone\n/* gone */ int y;\n", "c", 0, "k")


def test_shuffling_and_duplicating_keep_the_number_of_lines() -> None:
    lines = TEXT.split("\n")
    assert sorted(corrupt("shuffle_lines", TEXT, "python", 0, "k").split("\n")) == sorted(lines)
    copied = corrupt("duplicate_blocks", TEXT, "python", 0, "k").split("\n")
    assert len(copied) == len(lines)
    assert len(set(copied)) < len(set(lines))


def test_truncation_is_a_prefix_of_a_third_to_two_thirds() -> None:
    for seed in range(20):
        cut = CORRUPTIONS["truncate"](TEXT, "python", random.Random(seed))
        assert TEXT.startswith(cut)
        assert 0.29 * len(TEXT) < len(cut) < 0.71 * len(TEXT)
