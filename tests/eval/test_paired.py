"""Statistics of two models on the same items, against formulas, exact enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from codesieve.eval.paired import (
    benjamini_hochberg,
    bootstrap_interval,
    by_cluster,
    holm,
    mcnemar,
    paired,
    pass_at_k_by_item,
    sign_flip,
    single,
    tango,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

Values = np.ndarray


def binary(random: np.random.Generator, items: int, falls: float, rises: float) -> tuple[Values, Values]:
    """0/1 answers of two models; so many of the items change sides, on average."""
    drawn = random.random(items)
    baseline = (random.random(items) < 0.3).astype(float)
    baseline[drawn < rises] = 0
    baseline[(drawn >= rises) & (drawn < rises + falls)] = 1
    other = baseline.copy()
    other[drawn < rises + falls] = 1 - other[drawn < rises + falls]
    return baseline, other


def one_each(items: int) -> Values:
    return np.arange(items)


def test_mcnemar_is_the_exact_binomial_test_of_the_items_that_changed() -> None:
    for better, worse in itertools.product(range(12), repeat=2):
        exact, mid = mcnemar(better, worse)
        if better + worse:
            assert exact == pytest.approx(stats.binomtest(better, better + worse, 0.5).pvalue)
        assert mid <= exact <= 1


def test_mcnemar_gives_the_published_values() -> None:
    # Fagerland, Lydersen and Laake 2013, table 4: airway hyper-responsiveness, 1 and 7 discordant children.
    exact, mid = mcnemar(1, 7)
    assert exact == pytest.approx(0.0703, abs=5e-5)
    assert mid == pytest.approx(0.0391, abs=5e-5)


def test_the_sign_flip_test_of_0_1_answers_is_mcnemars() -> None:
    for better, worse in ((5, 1), (9, 2), (7, 7), (0, 6)):
        differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * 30)
        assert sign_flip(differences) == pytest.approx(mcnemar(better, worse)[0])


def test_the_exact_sign_flip_test_is_scipys() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 9)
    found = stats.permutation_test(
        (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(differences) == pytest.approx(found.pvalue)


def test_random_sign_patterns_agree_with_all_of_them() -> None:
    differences = np.random.default_rng(3).normal(0.35, 1, 18)
    patterns = np.array(list(itertools.product([1, -1], repeat=18)), dtype=np.int8)
    exact = float((np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12).mean())
    assert sign_flip(differences, seed=1) == pytest.approx(exact, abs=0.012)


@pytest.mark.parametrize(("better", "worse", "items"), [(12, 2, 50), (5, 1, 164), (0, 8, 100), (30, 30, 500)])
def test_tangos_interval_ends_where_the_score_test_does(better: int, worse: int, items: int) -> None:
    # The restricted estimate is found here by maximising the likelihood itself.
    def score(difference: float) -> float:
        def loss(fallen: float) -> float:
            parts = (
                (better, fallen + difference),
                (worse, fallen),
                (items - better - worse, 1 - 2 * fallen - difference),
            )
            return -sum(number * math.log(chance) for number, chance in parts if number)

        low, high = max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9
        fallen = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        variance = items * (2 * fallen + difference - difference**2)
        return float((better - worse - items * difference) / math.sqrt(variance))

    low, high = tango(better, worse, items)
    assert score(low) == pytest.approx(1.959964, abs=1e-3)
    assert score(high) == pytest.approx(-1.959964, abs=1e-3)


def test_no_change_at_all_still_has_an_interval() -> None:
    low, high = tango(0, 0, 164)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.96**2 / (164 + 1.96**2), abs=1e-3)
    still = np.tile([0.0, 0.35], 30)
    several = paired(still, still, one_each(60))
    assert (several.interval, several.p) == ("none moved", 1.0)
    assert several.low is not None and several.high is not None and -0.07 < several.low < 0 < several.high < 0.07


def test_holm_and_benjamini_hochberg_give_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = [0.01, 0.04, 0.03, 0.005]
    assert benjamini_hochberg(found) == pytest.approx(list(stats.false_discovery_control(found, method="bh")))
    assert holm([]) == [] == benjamini_hochberg([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_only_raise_and_keep_the_order(p: list[float]) -> None:
    adjusted, discovered = holm(p), benjamini_hochberg(p)
    for one, strict, loose in zip(p, adjusted, discovered, strict=True):
        assert one <= loose + 1e-12 <= strict + 2e-12 <= 1 + 3e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_a_single_proportion_has_wilsons_interval() -> None:
    values = np.array([1.0] * 8 + [0.0] * 156)
    found = single(values, one_each(164))
    # statsmodels.stats.proportion.proportion_confint(8, 164, method="wilson")
    assert (found.low, found.high) == pytest.approx((0.024922, 0.093290), abs=2e-5)
    assert found.interval == "wilson"
    # 40 items of one source, all wrong, say less than 40 sources would.
    together = single(np.zeros(40), np.repeat(np.arange(4), 10))
    assert together.high is not None and together.high > 0.4


def test_pass_at_k_is_the_mean_over_items_and_refuses_too_few_samples() -> None:
    assert pass_at_k_by_item([20, 10, 5], [1, 1, 0], 5) == pytest.approx([0.25, 0.5, 0.0])
    with pytest.raises(ValueError, match="pass@10 needs at least 10 samples"):
        pass_at_k_by_item([20, 5], [1, 1], 10)


def test_the_difference_of_bits_per_byte_is_the_ratio_of_sums() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(100, 9000, 60).astype(float)
    first, second = 3 * sizes, 3 * sizes - 0.05 * sizes * random.random(60)
    found = paired(first, second, np.arange(60) // 3, sizes=sizes)
    assert found.difference == pytest.approx((second.sum() - first.sum()) / sizes.sum())
    assert found.low is not None and found.high is not None and found.low < found.difference < found.high < 0
    # The two halves as languages of the same weight, however many bytes they have.
    strata = np.arange(60) % 2
    equal = paired(first, second, np.arange(60) // 3, sizes=sizes, strata=strata).difference
    halves = [(second[strata == k].sum() - first[strata == k].sum()) / sizes[strata == k].sum() for k in (0, 1)]
    assert equal == pytest.approx(np.mean(halves))


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_items_changes_no_bit_and_swapping_models_changes_the_sign(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random(30), random.random(30)
    clusters = random.integers(0, 9, 30)
    order = random.permutation(30)
    found = paired(first, second, clusters, replicates=50)
    assert found == paired(first[order], second[order], clusters[order], replicates=50)
    swapped = paired(second, first, clusters, replicates=50)
    assert swapped.difference == pytest.approx(-found.difference)
    assert swapped.p == pytest.approx(found.p)


def test_clusters_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    first = np.repeat(random.random(12), 40)
    second = np.repeat(np.clip(first[::40] + random.normal(0, 0.2, 12), 0, 1), 40)
    apart = paired(first, second, one_each(480))
    together = paired(first, second, np.repeat(np.arange(12), 40))
    assert together.standard_error > 5 * apart.standard_error
    assert together.p > apart.p


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="other: item 1 is nan"):
        paired(np.zeros(2), np.array([0, np.nan]), one_each(2))
    with pytest.raises(ValueError, match=r"score 3.0, not in \[0, 1\]"):
        paired(np.zeros(2), np.array([0, 3.0]), one_each(2))
    with pytest.raises(ValueError, match="must have one length"):
        paired(np.zeros(2), np.zeros(3), one_each(2))
    alone = paired(np.zeros(5), np.array([0, 0, 1, 1, 1.0]), np.zeros(5))
    assert alone.low is None and "one cluster" in str(alone.problem)


# --- coverage by simulation: a 95 % interval holds the truth in 93 to 97 of 100 cases ------------------------------

SIMULATIONS = 500


@pytest.mark.parametrize(("falls", "rises"), [(0.05, 0.08), (0.1, 0.1), (0.02, 0.06)])
def test_the_score_interval_of_164_answers_covers(falls: float, rises: float) -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(3 * SIMULATIONS):
        first, second = binary(random, 164, falls, rises)
        low, high = tango(int((second > first).sum()), int((second < first).sum()), 164)
        hits += low <= rises - falls <= high
    assert 0.93 <= hits / (3 * SIMULATIONS) <= 0.97


def sampled(random: np.random.Generator) -> tuple[Values, Values, Values, Values | None]:
    """164 problems, 20 answers each, the same true rates."""
    rates = random.beta(0.4, 1.2, 164)
    return random.binomial(20, rates) / 20, random.binomial(20, rates) / 20, one_each(164), None


def in_clusters(random: np.random.Generator) -> tuple[Values, Values, Values, Values | None]:
    """100 problems with one to many items each, whose answers depend on the problem."""
    clusters = np.repeat(np.arange(100), random.geometric(0.1, 100))
    rates = random.beta(1, 1, 100)[clusters]
    return *((random.random(len(rates)) < rates).astype(float) for _ in range(2)), clusters, None  # type: ignore[return-value]


def in_bytes(random: np.random.Generator) -> tuple[Values, Values, Values, Values | None]:
    """240 documents of unequal length."""
    sizes = np.exp(random.normal(7, 0.8, 240))
    return 3 * sizes, 3 * sizes + sizes * random.normal(0, 0.1, 240), one_each(240), sizes


@pytest.mark.parametrize("draw", [sampled, in_clusters, in_bytes])
def test_the_bootstrap_interval_covers(draw) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(3)
    hits = 0
    for number in range(SIMULATIONS):
        first, second, clusters, sizes = draw(random)
        groups = by_cluster(second - first, np.ones(len(first)) if sizes is None else sizes, clusters)
        low, high = bootstrap_interval(groups, 0.95, number, replicates=400)
        hits += low <= 0 <= high
    assert 0.93 <= hits / SIMULATIONS <= 0.97


def test_ten_clusters_cover_almost_as_well_where_plain_percentiles_do_not() -> None:
    random = np.random.default_rng(5)
    wide = plain = 0
    for number in range(SIMULATIONS):
        groups = by_cluster(random.normal(0, 1, 10), np.ones(10), one_each(10))
        low, high = bootstrap_interval(groups, 0.95, number, replicates=400)
        wide += low <= 0 <= high
        drawn = groups.sums[random.integers(0, 10, (400, 10)), 0].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
    assert 0.93 <= wide / SIMULATIONS <= 0.97
    assert plain / SIMULATIONS < 0.92


def test_the_tests_keep_their_level() -> None:
    random = np.random.default_rng(9)
    exact = flips = 0
    for number in range(SIMULATIONS):
        first, second = binary(random, 164, 0.06, 0.06)
        exact += mcnemar(int((second > first).sum()), int((second < first).sum()))[0] <= 0.05
        one, other, clusters, _ = sampled(random)
        flips += sign_flip(by_cluster(other - one, np.ones(164), clusters).contributions(), number, 400) <= 0.05
    assert exact / SIMULATIONS <= 0.06
    assert 0.03 <= flips / SIMULATIONS <= 0.07


def test_a_difference_of_the_smallest_detectable_size_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(2)
    found = detectable = 0.0
    runs = 250
    for number in range(runs):
        rates = random.beta(0.8, 1.2, 164)
        first = random.binomial(20, rates) / 20
        shift = 0.045
        second = random.binomial(20, np.clip(rates + shift * rates * (1 - rates) / 0.16, 0, 1)) / 20
        result = paired(first, second, one_each(164), replicates=200, seed=number)
        detectable += (result.smallest_detectable or 0) / runs
        found += (result.p <= 0.05) / runs
    # The mean of rates (1 − rates) is 0.16 for this Beta, so 0.045 is the true difference.
    expected = stats.norm.sf(1.96 - 2.80 * shift / detectable)
    assert found == pytest.approx(expected, abs=0.08)
