"""What a benchmark can show, against simulation and the figures that were computed before this module was written."""

from typing import Any

import numpy as np
import pytest
from codesieve.eval.paired import mcnemar
from codesieve.eval.power import (
    bernoulli_variance,
    detectable_by_mcnemar,
    detectable_by_samples,
    detectable_unpaired,
    make_plan,
    mcnemar_power,
)
from codesieve.strict import ConfigError


@pytest.mark.parametrize(
    ("items", "rate", "points"),
    [(164, 0.05, 9.0), (164, 0.2, 13.6), (164, 0.5, 15.2), (500, 0.2, 7.6), (1000, 0.2, 5.3), (3610, 0.05, 1.6)],
)
def test_unpaired_differences_are_those_of_two_proportions(items: int, rate: float, points: float) -> None:
    found = detectable_unpaired(items, rate)
    assert found is not None and 100 * found == pytest.approx(points, abs=0.1)


@pytest.mark.parametrize(
    ("items", "churn", "points"),
    [(164, 0.05, 8.5), (164, 0.1, 10.5), (164, 0.2, 13.0), (500, 0.05, 4.0), (500, 0.1, 5.0), (500, 0.2, 7.0)],
)
def test_greedy_answers_need_what_the_exact_test_needs(items: int, churn: float, points: float) -> None:
    # The figures are on a grid of half points, rounded up.
    found = detectable_by_mcnemar(items, churn)
    assert found is not None and np.ceil(200 * found) / 2 == points


def test_the_power_of_mcnemar_is_that_of_simulated_answers() -> None:
    random = np.random.default_rng(0)
    drawn = random.multinomial(164, [0.05, 0.14, 0.81], size=4000)
    pairs, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    rejected = sum(
        count for (falls, rises), count in zip(pairs, counts, strict=True) if mcnemar(rises, falls)[0] <= 0.05
    )
    assert mcnemar_power(164, 0.1, 0.09) == pytest.approx(rejected / 4000, abs=0.02)
    assert mcnemar_power(164, 0.1, 0.0) <= 0.05


@pytest.mark.parametrize(("items", "points"), [(164, (9.0, 4.0, 1.9, 0.9)), (500, (5.0, 2.2, 1.1, 0.5))])
def test_more_samples_remove_the_noise_of_sampling(items: int, points: tuple[float, ...]) -> None:
    # Problems with Beta(0.2, 0.8) rates; the figures were simulated, hence the tolerance for the first.
    spread = bernoulli_variance(0.2, 1.0)
    for samples, expected in zip((1, 5, 20, 100), points, strict=True):
        assert 100 * detectable_by_samples(items, samples, spread) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(("items", "points"), [(164, 2.2), (664, 1.1)])
def test_a_floor_remains_where_the_models_differ_by_item(items: int, points: float) -> None:
    spread = bernoulli_variance(0.2, 1.0)
    assert 100 * detectable_by_samples(items, 10**9, spread, scatter=0.1) == pytest.approx(points, abs=0.05)


def test_the_plan_says_what_is_enough() -> None:
    found = make_plan(2.0, 0.2)
    humaneval, mbpp = found.rows[:2]
    assert humaneval.samples_needed is None  # the floor of 2.2 points
    assert mbpp.samples_needed == 11
    spread = bernoulli_variance(0.2, 1.0)
    assert detectable_by_samples(500, 11, spread, 0.1) <= 0.02 < detectable_by_samples(500, 10, spread, 0.1)
    for samples, needed in found.items_sampled.items():
        assert needed is not None
        assert detectable_by_samples(needed, samples, spread, 0.1) <= 0.02
        assert detectable_by_samples(int(0.99 * needed), samples, spread, 0.1) > 0.02
    assert found.items_greedy is not None and found.items_unpaired is not None
    assert found.items_greedy < found.items_unpaired


def test_the_table_has_a_row_a_size_and_marks_what_is_enough() -> None:
    rows = make_plan(2, 0.2).table()
    assert [row["items"] for row in rows] == ["164", "500", "1,000", "3,610", "for 2"]
    assert rows[0]["samples for 2"] == "never"
    assert rows[1]["20 samples"] == "1.7*" and rows[0]["20 samples"] == "2.9 "
    one = make_plan(2, 0.2, items=(164,), samples=(20,)).table()
    assert len(one) == 2 and list(one[0]) == ["items", "unpaired", "greedy", "20 samples", "samples for 2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detect": 0}, "detect 0"),
        ({"detect": 85}, "below 80"),
        ({"rate": 1.0}, "rate 1"),
        ({"items": (1,)}, "items"),
        ({"samples": (0,)}, "samples"),
        ({"churn": 1.0}, "churn"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(**{"detect": 2.0, **arguments})
