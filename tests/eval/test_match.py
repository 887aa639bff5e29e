"""Answers that are compared: extraction, normalisation, exact match and F1."""

import pytest
from codesieve.eval.kinds.match import best_score, extract, f1, normalise
from codesieve.eval.tasks.schema import MatchTask
from hypothesis import given
from hypothesis import strategies as st

SQUAD = ("lower", "articles", "punctuation", "whitespace")


def config(**fields):
    return MatchTask.model_validate(
        {"kind": "generate_match", "name": "t", "data": {"files": ["t.jsonl"]}, "prompt": "{question}", **fields}
    )


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("The  Beatles!", SQUAD, "beatles"),
        ("an apple, a day", SQUAD, "apple day"),
        ("U.S.", SQUAD, "us"),
        ("theatre", SQUAD, "theatre"),
        ("The  Beatles!", ("whitespace",), "The Beatles!"),
        ("$1,234.50", ("number",), "1234.5"),
        ("1000", ("number", *SQUAD), "1000"),
        ("3.0.", ("number",), "3"),
        ("-0.50 ", ("number",), "-0.5"),
        ("about 3", ("number", *SQUAD), "about 3"),
        ("Infinity", ("number", "lower"), "infinity"),
        ("1e3", ("number",), "1000"),
        ("-0", ("number",), "0"),
        ("0.00", ("number",), "0"),
        ("1e1000000", ("number", "lower"), "1e1000000"),
        ("1e-1000000", ("number",), "1e-1000000"),
        ("123456789012345678901234567890123.10", ("number",), "123456789012345678901234567890123.1"),
        ("9" * 5000, ("number",), "9" * 5000),
    ],
)
def test_texts_are_normalised_as_in_the_scripts_of_squad(text, steps, expected) -> None:
    assert normalise(text, steps) == expected


@given(st.text(alphabet="0123456789.-+eE,$% ", max_size=30))
def test_no_answer_that_looks_like_a_number_ends_the_evaluation(text) -> None:
    once = normalise(text, ("number",))
    assert normalise(once, ("number",)) == once


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text) -> None:
    # Taking an article out can make another one; SQuAD's script goes through once, and so do we.
    steps = ("lower", "punctuation", "whitespace")
    once = normalise(text, steps)
    assert normalise(once, steps) == normalise(normalise(once, steps), steps)


def test_the_last_hit_of_the_first_pattern_that_hits_is_the_answer() -> None:
    patterns = (r"#### (-?[\d.,]+)", r"(-?\d+)")
    assert extract("so 3\n#### 12\nand then #### 13", patterns) == "13"
    assert extract("it is 3, no, 4", patterns) == "4"
    assert extract("I do not know", patterns) == ""
    assert extract("  all of it\n", ()) == "all of it"


def test_any_right_answer_counts() -> None:
    task = config()
    assert best_score("14 December 1972 UTC", ["December 1972", "14 december 1972 utc"], task) == 1
    assert best_score("1972", ["December 1972"], task) == 0
    assert best_score("1972", ["December 1972"], config(metric="f1")) == pytest.approx(2 / 3)
    assert best_score("42", ["42.0"], config(normalise=["number"])) == 1


def test_f1_counts_a_repeated_word_as_often_as_both_have_it() -> None:
    assert f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert f1("", "") == 1
    assert f1("", "a") == 0
