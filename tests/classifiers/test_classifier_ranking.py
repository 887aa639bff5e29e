import math

import numpy as np
import pytest
from codesieve.classifiers.ranking import auc, auc_intervals, auc_of_groups, wilson_upper
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

SCORED = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.booleans(), st.integers(0, 3), st.sampled_from("ab")),
    min_size=2,
    max_size=60,
)


@given(SCORED)
def test_auc_is_sklearns_with_ties_and_weights(scored: list[tuple[float, bool, int, str]]) -> None:
    score, positive, weights, _ = (np.array(column) for column in zip(*scored, strict=True))
    if (weights * positive).sum() and (weights * ~positive).sum():
        golden = roc_auc_score(positive, score, sample_weight=weights)
        assert auc(score, positive, weights.astype(float)) == pytest.approx(golden)
    else:
        assert math.isnan(auc(score, positive, weights.astype(float)))


@given(SCORED)
def test_auc_of_groups_counts_pairs_of_one_group(scored: list[tuple[float, bool, int, str]]) -> None:
    pairs = [(a[0] > b[0]) + (a[0] == b[0]) / 2 for a in scored for b in scored if a[1] and not b[1] and a[3] == b[3]]
    score, positive, _, groups = (np.array(column) for column in zip(*scored, strict=True))
    value = auc_of_groups(score, positive, groups)
    assert math.isnan(value) if not pairs else value == pytest.approx(sum(pairs) / len(pairs))


def test_a_group_that_only_tells_groups_apart_is_worth_nothing() -> None:
    groups = np.array(["a"] * 50 + ["b"] * 50)
    positive = np.concatenate([np.arange(50) < 40, np.arange(50) < 10])
    score = (groups == "a").astype(float)
    assert auc(score, positive) == pytest.approx(0.8)
    assert auc_of_groups(score, positive, groups) == pytest.approx(0.5)


def test_intervals_are_wider_when_documents_of_a_family_are_alike() -> None:
    generator = np.random.default_rng(0)
    family = np.repeat(np.arange(20), 20)
    positive = family % 2 == 0
    score = positive + generator.normal(0, 1, 20)[family] + generator.normal(0, 0.3, 400)
    groups = np.full(400, "python")
    by_family = auc_intervals([score, -score], positive, groups, family.astype(str), 0)
    by_document = auc_intervals([score, -score], positive, groups, np.arange(400).astype(str), 0)
    assert by_family is not None
    assert by_document is not None
    assert by_family[0][0].high - by_family[0][0].low > 2 * (by_document[0][0].high - by_document[0][0].low)


def test_a_better_score_has_a_lead_whose_interval_excludes_zero() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(300) % 2 == 0
    good, noise = positive + generator.normal(0, 0.5, 300), generator.normal(0, 1, 300)
    families, groups = (np.arange(300) % 30).astype(str), np.full(300, "c")
    found = auc_intervals([good, noise, -noise], positive, groups, families, 0)
    assert found is not None
    (first, *_), lead = found
    assert first.low < auc(good, positive) < first.high
    assert lead.low > 0.2
    assert found == auc_intervals([good, noise, -noise], positive, groups, families, 0)


def test_with_few_families_there_is_no_interval() -> None:
    positive = np.arange(40) % 2 == 0
    assert (
        auc_intervals([positive * 1.0, positive * 2.0], positive, np.full(40, "c"), (np.arange(40) % 4).astype(str), 0)
        is None
    )


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (17, 400)])
def test_wilsons_bound_is_scipys(successes: int, trials: int) -> None:
    golden = binomtest(successes, trials).proportion_ci(0.95, method="wilson").high
    assert wilson_upper(successes, trials) == pytest.approx(golden, abs=1e-6)


def test_nothing_tried_bounds_nothing() -> None:
    assert wilson_upper(0, 0) == 1.0
