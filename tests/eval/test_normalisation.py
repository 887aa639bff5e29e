"""Which choice is preferred, by hand and against lm-evaluation-harness's formulas."""

from typing import Any

import numpy as np
import pytest
from codesieve.eval.normalisation import NORMALISATIONS, choice_correct, chosen
from codesieve.eval.tasks import schema
from hypothesis import given
from hypothesis import strategies as st

DETAIL: dict[str, Any] = {
    "nats": [6.0, 8.0, 9.0],
    "tokens": [2, 2, 4],
    "characters": [3, 10, 9],
    "bytes": [3, 10, 30],
    "unconditional": [7.0, 12.0, 9.5],
    "gold": [1],
}


@pytest.mark.parametrize(
    ("normalisation", "position"), [("raw", 0), ("tokens", 2), ("characters", 1), ("bytes", 2), ("pmi", 1)]
)
def test_each_normalisation_prefers_what_it_should(normalisation: str, position: int) -> None:
    assert chosen(DETAIL, normalisation) == position
    assert choice_correct(DETAIL, normalisation) == float(position == 1)


@given(st.lists(st.tuples(st.floats(-50, -0.1), st.integers(1, 30)), min_size=2, max_size=6))
def test_the_choice_is_that_of_lm_evaluation_harness(choices: list[tuple[float, int]]) -> None:
    # lm_eval/api/task.py, process_results: acc is argmax of the log-likelihoods, acc_norm of those over the lengths.
    likelihoods, lengths = np.array([each[0] for each in choices]), np.array([each[1] for each in choices])
    detail = {"nats": list(-likelihoods), "characters": [each[1] for each in choices], "gold": [0]}
    assert chosen(detail, "raw") == np.argmax(likelihoods)
    assert chosen(detail, "characters") == np.argmax(likelihoods / lengths)


def test_the_first_of_equal_choices_is_preferred() -> None:
    detail = DETAIL | {"nats": [5.0, 5.0, 5.0], "gold": [1]}
    assert choice_correct(detail, "raw") == 0.0
    assert choice_correct(detail | {"gold": [0]}, "raw") == 1.0


def test_any_of_several_right_choices_counts() -> None:
    assert choice_correct(DETAIL | {"gold": [0, 2]}, "raw") == 1.0


def test_what_cannot_be_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match="no unconditional prompt"):
        chosen(DETAIL | {"unconditional": None}, "pmi")
    with pytest.raises(ValueError, match="choice 1 has no characters"):
        chosen(DETAIL | {"characters": [1, 0, 2]}, "characters")
    with pytest.raises(ValueError, match="choice 2: nats is nan"):
        chosen(DETAIL | {"nats": [1.0, 2.0, float("nan")]}, "raw")
    with pytest.raises(ValueError, match='did you mean "characters"'):
        chosen(DETAIL, "character")


def test_the_names_are_those_of_task_files() -> None:
    assert NORMALISATIONS == schema.NORMALISATIONS
