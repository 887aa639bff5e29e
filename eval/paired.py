"""Two models on the same items: the difference, its interval, whether it may be chance, and what could be seen at all.

In: one score (or nats and bytes) an item and model, and the cluster of each item: items of one cluster are not
independent and are drawn together. Out: a `Paired`. Every difference here is a sum over clusters divided by a fixed
sum of sizes, so means of items, pass@k and bits per byte are treated alike.

Method. One 0/1 answer each, every item on its own: exact McNemar test, and Tango's score interval. All else: sign-flip
permutation by cluster (exact up to 2^16 patterns), and a percentile bootstrap by cluster. Its levels are widened as
Student's t asks for (Hesterberg 2015), with the effective number of clusters: the bootstrap's spread is short by
(n − 1) / n and knows no t. Of 95 % intervals for 10 documents of very unequal length 98 % held the truth so, 86 % with
plain percentiles, 82 % with BCa; for 240 documents 95 %, for 164 problems with 20 answers each 95 %.
Price: 10,000 replicates over 164 problems take 0.05 s, over 3,610 documents 1 s. Training runs are not the sample here
but items; `statistics.py` has the other question, and says why they are two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from .power import detectable_by_mcnemar
from .statistics import POWER, critical, pass_at_k, wilson

REPLICATES = 10_000
"""Bootstrap replicates, and random sign patterns: a p-value of 0.05 is then known to ±0.004."""

MAX_EXACT = 16
"""Clusters whose difference is not zero, up to which all 2^n sign patterns are tried."""

_CHUNK = 200_000  # drawn numbers at a time: they stay in the processor's cache, which makes it four times as fast

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Other model minus baseline.

    Attributes:
        low, high: interval of this one comparison; None where it cannot be computed, and `problem` says why.
        p: two-sided, of the named test.
        mid_p: of McNemar; less conservative, not used for verdicts.
        standard_error: over clusters.
        clusters, moved: how many there are, and how many have a difference.
        better, worse: items whose value rose, and fell.
        smallest_detectable: true difference that this design would have found with a probability of 80 %.
        sampling_share: part of the variance that comes from few samples an item; None with one sample.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    mid_p: float | None
    test: Literal["mcnemar", "sign-flip"]
    interval: Literal["score", "bootstrap", "none moved"] | None
    standard_error: float
    items: int
    clusters: int
    moved: int
    better: int
    worse: int
    smallest_detectable: float | None
    sampling_share: float | None
    problem: str | None = None


def paired(
    baseline: Array,
    other: Array,
    clusters: Sequence[Any] | NDArray[Any],
    *,
    sizes: Array | None = None,
    strata: Sequence[Any] | NDArray[Any] | None = None,
    sampling_variance: float | None = None,
    confidence: float = 0.95,
    comparisons: int = 1,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Paired:
    """Compare two models on the same items.

    Args:
        baseline, other: a value an item: a score in [0, 1] if there are no sizes, else what is summed (bits).
        clusters: of each item.
        sizes: what the sum is divided by (bytes); the value is then a ratio of sums and has no bounds.
        strata: the ratio is taken in each and averaged (languages that count the same); default: one for all.
        sampling_variance: of the difference, from drawing few samples of each item; None if unknown.
        confidence: of the interval.
        comparisons: how many are read together; for what could be detected, not for the interval.
        seed: of the bootstrap and of the random sign patterns.
        replicates: of both.

    Raises:
        ValueError: if the arrays do not fit together or hold what is no number.
    """
    _check(baseline, other, clusters, sizes)
    bounded = sizes is None
    weights = np.ones(len(baseline)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    groups = by_cluster(np.asarray(other - baseline, dtype=np.float64), weights, clusters, strata)
    difference = groups.value()
    count, moved = len(groups.sums), int(np.any(groups.sums != 0, axis=1).sum())
    risen, fallen = int((other > baseline).sum()), int((other < baseline).sum())
    one_answer = bounded and count == len(baseline) and bool(np.isin([baseline, other], (0.0, 1.0)).all())
    error = groups.standard_error()
    p, mid_p = mcnemar(risen, fallen) if one_answer else (sign_flip(groups.contributions(), seed, replicates), None)
    low = high = detectable = None
    interval: Literal["score", "bootstrap", "none moved"] | None = None
    problem = None
    if count < 2:
        problem = "one cluster of items: the noise between clusters cannot be measured"
    elif one_answer:
        interval, (low, high) = "score", tango(risen, fallen, len(baseline), confidence)
        # What changed sides besides the difference; of the difference only what is beyond doubt is taken off.
        certain = max(low, -high, 0.0)
        churn = (risen + fallen) / len(baseline) - certain
        detectable = detectable_by_mcnemar(len(baseline), churn, 1 - (1 - confidence) / comparisons, POWER)
    elif moved == 0:
        if bounded:
            interval, high = "none moved", 1 - ((1 - confidence) / 2) ** (1 / count)
            low, detectable = -high, high
        else:
            problem = "no item differs at all: is it the same model?"
    else:
        interval, (low, high) = "bootstrap", bootstrap_interval(groups, confidence, seed, replicates)
        freedom = groups.effective() - 1
        scale = critical(confidence, comparisons, freedom) + float(stats.t.ppf(POWER, freedom))
        detectable = scale * error
    share = None if sampling_variance is None or error == 0 else min(1.0, sampling_variance / error**2)
    return Paired(
        difference=difference,
        low=low,
        high=high,
        p=p,
        mid_p=mid_p,
        test="mcnemar" if one_answer else "sign-flip",
        interval=interval,
        standard_error=error,
        items=len(baseline),
        clusters=count,
        moved=moved,
        better=risen,
        worse=fallen,
        smallest_detectable=detectable,
        sampling_share=share,
        problem=problem,
    )


@dataclass(frozen=True)
class Single:
    """One model alone; `interval` says how the ends were found, None if they cannot be."""

    value: float
    low: float | None
    high: float | None
    interval: Literal["wilson", "bootstrap"] | None


def single(
    values: Array,
    clusters: Sequence[Any] | NDArray[Any],
    *,
    sizes: Array | None = None,
    strata: Sequence[Any] | NDArray[Any] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Single:
    """A model's value: Wilson for 0/1 answers to items on their own, else the bootstrap by cluster."""
    _check(values, values, clusters, sizes)
    weights = np.ones(len(values)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    groups = by_cluster(np.asarray(values, dtype=np.float64), weights, clusters, strata)
    value, count = groups.value(), len(groups.sums)
    if sizes is None and bool(np.isin(values, (0.0, 1.0)).all()) and (count == len(values) or np.ptp(values) == 0):
        # All right or all wrong: redrawing cannot show another outcome, and a cluster says no more than one item.
        low, high = wilson(round(value * count), count, confidence)
        return Single(value, low, high, "wilson")
    if count < 2:
        return Single(value, None, None, None)
    return Single(value, *bootstrap_interval(groups, confidence, seed, replicates), "bootstrap")


@dataclass(frozen=True)
class Groups:
    """Sums and sizes, cluster × stratum."""

    sums: Array
    sizes: Array

    def value(self) -> float:
        """Ratio of the sums in each stratum, and the mean of the strata."""
        return float((self.sums.sum(axis=0) / self.sizes.sum(axis=0)).mean())

    def contributions(self) -> Array:
        """What each cluster adds to the value."""
        return np.asarray((self.sums / self.sizes.sum(axis=0)).mean(axis=1), dtype=np.float64)

    def effective(self) -> float:
        """Clusters of equal size whose variance would be known as well (Satterthwaite): few large ones decide."""
        weights = (self.sizes / self.sizes.sum(axis=0)).mean(axis=1)
        return max(2.0, float(np.square(weights).sum() ** 2 / (weights**4).sum()))

    def standard_error(self) -> float:
        """Linearised (the ratio's usual one), over clusters; 0 if there is only one."""
        count = len(self.sums)
        if count < 2:
            return 0.0
        ratio = self.sums.sum(axis=0) / self.sizes.sum(axis=0)
        residuals = ((self.sums - ratio * self.sizes) / self.sizes.sum(axis=0)).mean(axis=1)
        return float(math.sqrt(count / (count - 1) * np.square(residuals).sum()))


def by_cluster(
    values: Array,
    sizes: Array,
    clusters: Sequence[Any] | NDArray[Any],
    strata: Sequence[Any] | NDArray[Any] | None = None,
) -> Groups:
    """Values and sizes summed by cluster, in the order of the clusters' names: row order changes no bit."""
    row, names = _positions(clusters)
    column, kinds = _positions(np.zeros(len(values)) if strata is None else strata)
    order = np.lexsort((sizes, values, column, row))
    shape = (len(names), len(kinds))
    sums, totals = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (row[order], column[order]), values[order])
    np.add.at(totals, (row[order], column[order]), sizes[order])
    return Groups(sums, totals)


def bootstrap_interval(
    groups: Groups, confidence: float = 0.95, seed: int = 0, replicates: int = REPLICATES
) -> tuple[float, float]:
    """Percentile interval of the value, clusters redrawn; the levels are those of Student's t, not of the normal."""
    found = bootstrap(groups, seed, replicates)
    count = groups.effective()
    wide = float(stats.norm.cdf(-math.sqrt(count / (count - 1)) * critical(confidence, 1, count - 1)))
    low, high = np.nanquantile(found, [wide, 1 - wide])
    return float(low), float(high)


def bootstrap(groups: Groups, seed: int = 0, replicates: int = REPLICATES) -> Array:
    """The value in each replicate; a stratum whose clusters were all left out has no part in it."""
    both = np.concatenate([groups.sums, groups.sizes], axis=1)
    kinds, counts = np.unique(both, axis=0, return_counts=True)
    clusters, strata = len(both), groups.sums.shape[1]
    # Equal clusters are drawn together where they are many: 0/1 answers to thousands of questions have three kinds.
    # A draw of a kind costs as much as 30 draws of single clusters.
    are_few = 32 * len(kinds) <= clusters
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // (len(kinds) if are_few else clusters))
    values = []
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        if are_few:
            totals = random.multinomial(clusters, counts / clusters, size=size).astype(np.float64) @ kinds
        else:
            drawn = random.integers(0, clusters, size=(size, clusters), dtype=np.int32)
            totals = np.stack([column.take(drawn).sum(axis=1) for column in both.T], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = totals[:, :strata] / totals[:, strata:]
        values.append(ratios[:, 0] if strata == 1 else np.nanmean(ratios, axis=1))
    return np.concatenate(values)


def sign_flip(differences: Array, seed: int = 0, replicates: int = REPLICATES) -> float:
    """Two-sided p that the sum of the clusters' differences is 0, if each could as well have had the other sign.

    Exact (all patterns) up to `MAX_EXACT` differences that are not zero; else (1 + hits) / (1 + replicates), which
    keeps the level whatever the number of patterns (Phipson and Smyth 2010).
    """
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    scaled = moved / np.abs(moved).max()
    observed = abs(scaled.sum()) * (1 - 1e-9)  # the same sum in another order must count as reached
    if len(moved) <= MAX_EXACT:
        sums = np.zeros(1)
        for each in scaled:
            sums = np.concatenate([sums + each, sums - each])
        return float((np.abs(sums) >= observed).mean())
    random = np.random.default_rng(seed)
    hits = 0
    step = max(1, _CHUNK // len(moved))
    for start in range(0, replicates, step):
        bits = random.integers(0, 2, size=(min(step, replicates - start), len(moved)), dtype=np.int8)
        # A sum with random signs is 2 × (sum of the chosen) − sum.
        hits += int((np.abs(2 * (bits.astype(np.float64) @ scaled) - scaled.sum()) >= observed).sum())
    return (1 + hits) / (1 + replicates)


def mcnemar(better: int, worse: int) -> tuple[float, float]:
    """Exact two-sided p of McNemar's test, and mid-p, from the items that changed for the better and the worse."""
    moved, most = better + worse, max(better, worse)
    if moved == 0:
        return 1.0, 1.0
    exact = min(1.0, 2 * float(stats.binom.sf(most - 1, moved, 0.5)))
    mid = 2 * float(stats.binom.sf(most - 1, moved, 0.5)) - float(stats.binom.pmf(most, moved, 0.5))
    return exact, min(1.0, mid)


def tango(better: int, worse: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a difference of paired proportions (Tango 1998); not ± 0 when nothing changed."""
    if min(better, worse) < 0 or better + worse > items or items < 1:
        raise ValueError(f"{better} better and {worse} worse of {items} items")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    estimate = (better - worse) / items

    def score(difference: float) -> float:
        linear = -better - worse + (2 * items - better + worse) * difference
        constant = -worse * difference * (1 - difference)
        fallen = (math.sqrt(max(0.0, linear * linear - 8 * items * constant)) - linear) / (4 * items)
        variance = items * (2 * fallen + difference * (1 - difference))
        distance = better - worse - items * difference
        return distance / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, distance)

    def bound(sign: float) -> float:
        end = -sign
        if abs(estimate - end) < 1e-9:
            return end
        outer = end + sign * 1e-9
        if abs(score(outer)) < z:
            return end
        inner = estimate - sign * 1e-12
        return float(optimize.brentq(lambda d: score(d) - sign * z, *sorted((outer, inner)), xtol=1e-10))

    return bound(1.0), bound(-1.0)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: all decisions together are wrong with at most the level (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate([(len(p) - rank) * p[place] for rank, place in enumerate(order)])
    return _in_place(adjusted, order)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: of those below the level, at most that share is wrong on average (1995)."""
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.minimum.accumulate([len(p) / (len(p) - rank) * p[place] for rank, place in enumerate(order)])
    return _in_place(adjusted, order)


def pass_at_k_by_item(samples: Sequence[int], correct: Sequence[int], k: int) -> Array:
    """The unbiased estimate of each item; their mean is pass@k.

    Raises:
        ValueError: if an item has fewer than k samples.
    """
    known = {pair: pass_at_k(*pair, k) for pair in set(zip(samples, correct, strict=True))}
    return np.array([known[pair] for pair in zip(samples, correct, strict=True)])


def _positions(names: Sequence[Any] | NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    kinds, places = np.unique(np.asarray(names), return_inverse=True)
    return places.astype(np.int64), kinds


def _in_place(adjusted: Array, order: NDArray[Any]) -> list[float]:
    found = np.empty(len(order))
    found[order] = np.minimum(adjusted, 1.0)
    return [float(each) for each in found]


def _check(baseline: Array, other: Array, clusters: Sequence[Any] | NDArray[Any], sizes: Array | None) -> None:
    lengths = {len(baseline), len(other), len(clusters), len(baseline) if sizes is None else len(sizes)}
    if len(lengths) > 1 or not len(baseline):
        raise ValueError(f"baseline, other, clusters and sizes must have one length, at least 1; got {sorted(lengths)}")
    for name, values in (("baseline", baseline), ("other", other)):
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            raise ValueError(f"{name}: item {broken[0]} is {values[broken[0]]}, not a number")
        if sizes is None and len(outside := np.flatnonzero((values < 0) | (values > 1))):
            raise ValueError(f"{name}: item {outside[0]} has the score {values[outside[0]]}, not in [0, 1]")
    if sizes is not None and not (np.asarray(sizes) > 0).all():
        raise ValueError("sizes must be above 0")
