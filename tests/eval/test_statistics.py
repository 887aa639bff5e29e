"""Statistics against scipy, published tables, exact enumeration and simulation."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from codesieve.eval.statistics import (
    bits_per_byte,
    critical,
    paired_difference,
    pass_at_k,
    satterthwaite,
    wilson,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats


@pytest.mark.parametrize(
    ("passed", "trials", "low", "high"),
    [
        (8, 164, 2.5, 9.3),  # HumanEval at a pass rate of about 5 %
        (0, 164, 0.0, 2.3),
        (81, 263, 25.53, 36.62),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_wilson_intervals_are_those_of_published_tables(passed: int, trials: int, low: float, high: float) -> None:
    found = wilson(passed, trials)
    digits = 1 if trials == 164 else 2
    assert (round(100 * found[0], digits), round(100 * found[1], digits)) == (low, high)


@given(trials=st.integers(1, 300), data=st.data())
def test_wilson_equals_scipy(trials: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, trials))
    expected = stats.binomtest(passed, trials).proportion_ci(0.95, method="wilson")
    assert wilson(passed, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of 0"):
        wilson(0, 0)


@given(samples=st.integers(1, 9), data=st.data())
def test_pass_at_k_equals_the_enumeration_of_all_subsets(samples: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    subsets = list(itertools.combinations(range(samples), k))
    hits = sum(any(sample < correct for sample in subset) for subset in subsets)
    assert pass_at_k(samples, correct, k) == pytest.approx(hits / len(subsets), abs=1e-12)


def test_pass_at_k_without_k_samples_does_not_exist() -> None:
    assert pass_at_k(20, 1, 10) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="pass@10 needs at least 10 samples of a problem, there are 5"):
        pass_at_k(5, 5, 10)


def test_bits_per_byte_of_uniform_bytes_is_eight() -> None:
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="0 bytes"):
        bits_per_byte(1.0, 0)


def frame(
    difference: np.ndarray, size: np.ndarray | None = None, languages: int = 1, base: float | np.ndarray = 3.0
) -> pl.DataFrame:
    """Items of the arms `a` and `b`, a family a document; `difference` and `base`: bits per byte, seed × document."""
    seeds, documents = difference.shape
    sizes = np.full(documents, 1000) if size is None else size
    seed, document = (index.ravel() for index in np.indices((seeds, documents)))
    base = np.broadcast_to(base, difference.shape)

    def arm(name: str, bits: np.ndarray) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "arm": [name] * bits.size,
                "seed": seed,
                "task": ["heldout"] * bits.size,
                "item": [f"d{each}" for each in document],
                "cluster": [f"f{each:03}" for each in document],
                "language": [f"l{each % languages}" for each in document],
                "nats": bits.ravel() * sizes[document] * math.log(2),
                "bytes": sizes[document],
            }
        )

    return pl.concat([arm("a", base + difference), arm("b", base)])


def test_without_noise_between_documents_the_interval_is_that_of_a_t_test_over_seeds() -> None:
    by_seed = np.array([-0.021, -0.034, -0.012, -0.029])
    found = paired_difference(frame(np.tile(by_seed[:, None], 40)), "a", "b")
    expected = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found.degrees_of_freedom == pytest.approx(3, abs=1e-3)
    assert found.by_seed == pytest.approx(by_seed)
    assert found.seed_sd == pytest.approx(by_seed.std(ddof=1))


def test_without_noise_between_seeds_the_interval_is_that_of_a_t_test_over_families() -> None:
    by_document = np.random.default_rng(3).normal(-0.03, 0.05, 60)
    found = paired_difference(frame(np.tile(by_document, (4, 1))), "a", "b")
    expected = stats.ttest_1samp(by_document, 0)
    assert found.difference == pytest.approx(by_document.mean())
    # 4,000 replicates know a standard error to 1.1 %; four of those.
    assert found.standard_error == pytest.approx(by_document.std(ddof=1) / math.sqrt(60), rel=0.045)
    assert found.degrees_of_freedom == pytest.approx(59)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.001)


def test_the_bootstrap_over_unequal_families_agrees_with_scipys_bootstrap_of_the_ratio() -> None:
    random = np.random.default_rng(5)
    size = random.integers(500, 1500, 50)
    difference = random.normal(0, 0.05, 50)
    found = paired_difference(frame(np.tile(difference, (2, 1)), size), "a", "b")
    expected = stats.bootstrap(
        (difference * size, size),
        lambda bits, sizes, axis: bits.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        random_state=np.random.default_rng(1),
        method="percentile",
    ).standard_error
    effective = size.sum() ** 2 / np.square(size).sum()
    assert found.effective_clusters == pytest.approx(effective)
    assert found.standard_error == pytest.approx(expected * math.sqrt(effective / (effective - 1)), rel=0.05)


def test_a_95_percent_interval_covers_the_truth_under_random_seeds_and_families() -> None:
    """Random effects of 4 seeds, 60 families and their interaction; nominal 95 %, at least 92 % of 200 must cover."""
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        difference = (
            -0.02 + random.normal(0, 0.012, (4, 1)) + random.normal(0, 0.05, (1, 60)) + random.normal(0, 0.05, (4, 60))
        )
        found = paired_difference(frame(difference, random.integers(500, 1500, 60), languages=3), "a", "b")
        assert found.low is not None and found.high is not None
        covered += found.low <= -0.02 <= found.high
    assert covered / 200 >= 0.92
    assert covered < 200  # an interval that always covers is too wide to decide anything


def test_languages_weigh_the_same_whatever_their_bytes() -> None:
    items = frame(np.tile([0.0, 0.3], (2, 10)), size=np.tile([9000, 1000], 10), languages=2)
    assert paired_difference(items, "a", "b").difference == pytest.approx(0.15)
    assert paired_difference(items, "a", "b", languages_equal=False).difference == pytest.approx(0.03)


def test_documents_of_one_family_are_one_piece_of_evidence() -> None:
    random = np.random.default_rng(2)
    shared = np.repeat(random.normal(0, 0.05, 12), 10)  # 12 families of 10 documents that all behave alike
    items = frame(np.tile(shared, (2, 1)))
    alone = paired_difference(items, "a", "b")
    family = pl.col("item").str.strip_prefix("d").cast(pl.Int64) // 10
    together = paired_difference(items.with_columns(family.cast(pl.String).alias("cluster")), "a", "b")
    assert together.clusters == 12
    assert together.standard_error is not None and alone.standard_error is not None
    assert together.standard_error > 2.5 * alone.standard_error  # sqrt(10) = 3.2 in the limit


def test_a_language_of_a_single_family_widens_the_interval_and_breaks_nothing() -> None:
    items = frame(np.random.default_rng(8).normal(0, 0.05, (4, 31)))
    lonely = pl.when(pl.col("item") == "d30").then(pl.lit("cython")).otherwise("language").alias("language")
    with_it, without = (
        paired_difference(each, "a", "b")
        for each in (items.with_columns(lonely), items.filter(pl.col("item") != "d30"))
    )
    assert with_it.languages == ("cython", "l0")
    assert with_it.low is not None and with_it.high is not None
    assert without.low is not None and without.high is not None
    assert with_it.high - with_it.low > without.high - without.low
    assert with_it.effective_clusters < 5  # half of the mean hangs on one family


def test_more_comparisons_widen_the_interval_by_bonferroni() -> None:
    items = frame(np.random.default_rng(0).normal(0, 0.05, (4, 30)))
    one, five = (paired_difference(items, "a", "b", comparisons=count) for count in (1, 5))
    assert one.degrees_of_freedom == five.degrees_of_freedom
    assert one.high is not None and five.high is not None and one.degrees_of_freedom is not None
    ratio = (five.high - five.difference) / (one.high - one.difference)
    expected = stats.t.ppf(0.995, one.degrees_of_freedom) / stats.t.ppf(0.975, one.degrees_of_freedom)
    assert ratio == pytest.approx(expected)
    assert critical(0.95, 1, 1e9) == pytest.approx(1.959964, abs=1e-5)


def test_satterthwaite_of_two_equal_samples_is_welchs() -> None:
    first, second = [1.0, 2.0, 4.0, 3.0], [2.0, 9.0, 4.0, 7.0, 5.0]
    expected = stats.ttest_ind(first, second, equal_var=False).df
    assert satterthwaite(np.var(first, ddof=1) / 4, 3, np.var(second, ddof=1) / 5, 4) == pytest.approx(expected)


def test_pairing_is_reported_against_the_noise_of_each_arm_alone() -> None:
    shared = np.array([[-0.03], [0.02], [0.04], [-0.01]])
    own = np.array([[0.001], [-0.001], [0.002], [-0.002]])
    found = paired_difference(frame(np.tile(own, 20), base=3.0 + np.tile(shared, 20)), "a", "b")
    assert found.pairing_correlation == pytest.approx(np.corrcoef((shared + own)[:, 0], shared[:, 0])[0, 1])
    assert found.arm_sd is not None and found.seed_sd is not None
    assert found.arm_sd > 10 * found.seed_sd


def test_one_seed_or_one_family_has_a_difference_but_no_interval_and_says_why() -> None:
    one_seed = paired_difference(frame(np.full((1, 5), -0.1)), "a", "b")
    assert (one_seed.difference, one_seed.low, one_seed.high) == (pytest.approx(-0.1), None, None)
    assert "one seed" in str(one_seed.problem)
    one_family = paired_difference(frame(np.full((4, 1), -0.1)), "a", "b")
    assert one_family.low is None
    assert "one document family" in str(one_family.problem)


def test_a_true_difference_of_the_smallest_detectable_size_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(4)
    found = []
    for _ in range(120):
        noise = random.normal(0, 0.05, (1, 60)) + random.normal(0, 0.01, (4, 1))
        estimate = paired_difference(frame(noise), "a", "b")
        assert estimate.smallest_detectable is not None and estimate.low is not None
        found.append(estimate.low + estimate.smallest_detectable > 0)
    assert 0.7 < np.mean(found) < 0.95


def test_arms_that_were_scored_on_different_things_are_not_compared() -> None:
    items = frame(np.zeros((2, 5)))
    lacking = items.filter(~((pl.col("arm") == "a") & (pl.col("item") == "d3") & (pl.col("seed") == 1)))
    with pytest.raises(ValueError, match="seed 1, item d3: not scored for arm a"):
        paired_difference(lacking, "a", "b")
    other = items.with_columns(pl.when(pl.col("arm") == "a").then(999).otherwise(pl.col("bytes")).alias("bytes"))
    with pytest.raises(ValueError, match="999 bytes were scored for a, 1000 for b; with different tokenizers"):
        paired_difference(other, "a", "b")
    with pytest.raises(ValueError, match='no scored items of arm "c"'):
        paired_difference(items, "c", "b")
    broken = items.with_columns(pl.when(pl.col("item") == "d2").then(math.nan).otherwise(pl.col("nats")).alias("nats"))
    with pytest.raises(ValueError, match="arm a, seed 0, item d2: nats is nan"):
        paired_difference(broken, "a", "b")


differences = st.lists(st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6), min_size=2, max_size=4).map(np.array)


@settings(max_examples=25, deadline=None)
@given(difference=differences, shift=st.floats(0, 3))
def test_a_constant_added_to_both_arms_changes_nothing(difference: np.ndarray, shift: float) -> None:
    plain = paired_difference(frame(difference), "a", "b")
    shifted = paired_difference(frame(difference, base=3.0 + shift), "a", "b")
    assert (plain.difference, plain.low, plain.high) == pytest.approx(
        (shifted.difference, shifted.low, shifted.high), abs=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(difference=differences)
def test_exchanging_the_arms_changes_the_sign_and_nothing_else(difference: np.ndarray) -> None:
    there = paired_difference(frame(difference), "a", "b")
    back = paired_difference(frame(difference), "b", "a")
    assert there.low is not None and there.high is not None
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-there.difference, -there.high, -there.low), abs=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(difference=differences, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(difference: np.ndarray, order: object) -> None:
    items = frame(difference, languages=2)
    rows = list(range(items.height))
    order.shuffle(rows)  # type: ignore[attr-defined]
    assert paired_difference(items[rows], "a", "b") == paired_difference(items, "a", "b")
