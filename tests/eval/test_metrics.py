"""Metrics are functions of the items."""

import math

import polars as pl
import pytest
from codesieve.eval.metrics import metrics
from codesieve.eval.statistics import pass_at_k, wilson
from codesieve.eval.store import items_frame


def scored(item: str, stream: str, language: str, bits: float, size: int) -> dict:
    likelihood = {"nats": bits * size * math.log(2), "bytes": size, "outcome": "scored"}
    return {"task": "heldout", "item": item, "cluster": item, "stream": stream, "language": language, **likelihood}


def answer(item: str, sample: int, outcome: str, **fields) -> dict:
    where = {"task": "problems", "item": item, "cluster": item, "stream": "problems", "language": "python"}
    judged = {"score": float(outcome == "passed"), "outcome": outcome, "sandbox_level": 3, "judge": "apart"}
    return {**where, "sample": sample, **judged, **fields}


def test_code_is_the_mean_of_its_languages_and_text_is_one_stream() -> None:
    rows = [
        scored("a", "code", "python", 2.0, 900),
        scored("b", "code", "c", 4.0, 100),
        scored("c", "text", "text", 2.0, 900),
        scored("d", "text", "markdown", 4.0, 100),
    ]
    found = metrics(items_frame(rows))["heldout"]
    assert (found["code"]["bits_per_byte"], found["code"]["micro"]) == (pytest.approx(3.0), pytest.approx(2.2))
    assert found["text"]["bits_per_byte"] == pytest.approx(2.2)
    assert found["text"]["mean_of_languages"] == pytest.approx(3.0)
    assert found["code"]["languages"]["c"]["bytes"] == 100


def test_one_answer_each_gives_a_rate_with_a_wilson_interval_and_all_outcomes() -> None:
    outcomes = ["passed", "wrong", "wrong", "timeout", "empty"]
    rows = [answer(name, 0, outcome) for name, outcome in zip("abcde", outcomes, strict=True)]
    rows[4]["sandbox_level"] = None  # an empty answer is not run
    found = metrics(items_frame(rows))["problems"]["problems"]
    assert (found["pass_at_1"], found["pass_at_1_low"], found["pass_at_1_high"]) == (0.2, *wilson(1, 5))
    assert found["outcomes"] == {"passed": 1, "wrong": 2, "timeout": 1, "empty": 1}
    assert found["sandbox_level"] == 3


def test_several_answers_give_the_mean_over_items_of_the_unbiased_estimate() -> None:
    rows = [answer("a", n, "passed" if n < 3 else "wrong") for n in range(10)]
    rows += [answer("b", n, "passed" if n < 1 else "wrong", judge="weak") for n in range(10)]
    found = metrics(items_frame(rows), pass_at=(1, 5))["problems"]["problems"]
    assert found["pass_at_1"] == pytest.approx(0.2)
    assert found["pass_at_5"] == pytest.approx((pass_at_k(10, 3, 5) + pass_at_k(10, 1, 5)) / 2)
    assert found["pass_at_1_low"] <= 0.2 <= found["pass_at_1_high"]
    assert found["pass_at_1_high"] - found["pass_at_1_low"] >= 0.2 - 1e-9  # ten answers to an item are not ten items
    assert (found["problems"], found["samples"], found["judged_weakly"]) == (2, 20, 1)
    with pytest.raises(ValueError, match="pass@20 needs at least 20 samples"):
        metrics(items_frame(rows), pass_at=(20,))


def test_steps_of_difficulty_are_given_apart() -> None:
    rows = [answer("a", 0, "passed", language="easy"), answer("b", 0, "wrong", language="hard")]
    found = metrics(items_frame(rows))["problems"]["problems"]["languages"]
    assert found == {"easy": {"pass_at_1": 1.0, "items": 1}, "hard": {"pass_at_1": 0.0, "items": 1}}


def test_the_mean_of_an_empty_task_is_no_number() -> None:
    assert metrics(items_frame([])) == {}
    assert isinstance(items_frame([]), pl.DataFrame)
