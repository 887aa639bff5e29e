"""The numbers behind a decision: proportions, bits per byte, and the paired difference of two arms.

In: scored items of several models (columns arm, seed, item, cluster, language, nats, bytes). Out: an `Estimate` of
arm − baseline in bits per byte, with an interval over seeds *and* documents.

Method. The difference of one seed is micro within a language (sum of nats over sum of bytes), with the languages
weighted equally; the point is the mean over seeds. Its variance is the variance between seeds over their number plus
the cluster-bootstrap variance of the seed-averaged contributions over document families (families are resampled, with
everything that belongs to them). The noise that both parts see is counted twice: the interval errs on the wide side.
It uses Student's t with Satterthwaite's degrees of freedom and is simultaneous by Bonferroni over the comparisons of
one decision. Price: a bootstrap of 4,000 replicates over 100 families takes about 30 ms.

Beside this there is `paired.py`, because the questions are two. A decision asks whether a way to choose data is better,
so the noise that counts is mostly that of training again: seeds are the sample, they are paired (the same seed trains
both arms), and with one seed there is no interval at all. `eval compare` asks whether one trained model is better than
another on a benchmark: items are the sample, scores are often 0 or 1 (McNemar, Wilson, pass@k), and seeds, where there
are several, are a second interval that need not be paired. An estimate of one cannot stand for the other's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

REPLICATES = 4000
"""Bootstrap replicates: the standard error is then known to 1.1 % of itself, 1 / sqrt(2 * 4000)."""

POWER = 0.8
"""The share of runs that would find a difference of the size called smallest detectable; the usual convention."""

_CHUNK = 500  # replicates at a time: 500 × 10,000 families of float64 is 40 MB

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """The paired difference arm − baseline in bits per byte; negative means that the arm is better.

    Attributes:
        arm_mean, baseline_mean: bits per byte, mean over seeds.
        low, high: simultaneous interval; None where it cannot be computed, and `problem` says why.
        seed_variance, cluster_variance: the two parts of the squared standard error.
        seed_sd: standard deviation over seeds of the paired difference.
        arm_sd, baseline_sd: standard deviation over seeds of each arm alone (what an unpaired comparison would face).
        pairing_correlation: of the two arms over seeds; what pairing gained.
        smallest_detectable: true difference that this design would have found with a probability of 80 %.
        effective_clusters: the number of families of equal size that would weigh as these do.
    """

    arm: str
    baseline: str
    difference: float
    low: float | None
    high: float | None
    confidence: float
    comparisons: int
    arm_mean: float
    baseline_mean: float
    by_seed: tuple[float, ...]
    seeds: int
    clusters: int
    effective_clusters: float
    documents: int
    languages: tuple[str, ...]
    seed_variance: float | None
    cluster_variance: float | None
    degrees_of_freedom: float | None
    seed_sd: float | None
    arm_sd: float | None
    baseline_sd: float | None
    pairing_correlation: float | None
    smallest_detectable: float | None
    problem: str | None = None

    @property
    def standard_error(self) -> float | None:
        if self.seed_variance is None or self.cluster_variance is None:
            return None
        return math.sqrt(self.seed_variance + self.cluster_variance)


def bits_per_byte(nats: float, size_bytes: float) -> float:
    """Nats over `size_bytes` bytes of UTF-8 as bits per byte."""
    if size_bytes <= 0:
        raise ValueError(f"bits per byte of {size_bytes} bytes is undefined")
    return nats / (math.log(2) * size_bytes)


def wilson(passed: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); it keeps its promise near 0 and 1, where p ± 1.96 se is ± 0."""
    if not 0 <= passed <= trials or trials == 0:
        raise ValueError(f"{passed} of {trials} is not a proportion")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = passed / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the bound is exact; the difference of two roundings would leave ±1e-17.
    return (0.0 if passed == 0 else centre - half, 1.0 if passed == trials else centre + half)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Probability that k of the samples, drawn without replacement, hold a correct one (Chen et al. 2021, unbiased).

    Raises:
        ValueError: if there are fewer than k samples; the estimate does not exist then.
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples} samples")
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of a problem, there are {samples}")
    if samples - correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - correct + 1, samples + 1)))


def paired_difference(
    items: pl.DataFrame,
    arm: str,
    baseline: str,
    *,
    confidence: float = 0.95,
    comparisons: int = 1,
    languages_equal: bool = True,
    seed: int = 0,
) -> Estimate:
    """Bits per byte of `arm` minus `baseline` over the scored items of both.

    Args:
        items: columns arm, seed, task, item, cluster, language, nats, bytes; likelihood items only.
        arm: the arm that is judged.
        baseline: what it is compared with.
        confidence: of all comparisons of the decision together.
        comparisons: how many intervals the decision reads (Bonferroni).
        languages_equal: every language has the same weight; False: one micro average over all items.
        seed: of the bootstrap.

    Raises:
        ValueError: if the two arms were not scored on the same bytes of the same items with the same seeds.
    """
    sums = _sums(items, arm, baseline, languages_equal)
    by_seed_arm, by_seed_baseline = sums.by_seed(sums.arm_nats), sums.by_seed(sums.baseline_nats)
    by_seed = by_seed_arm - by_seed_baseline
    seeds, clusters, effective = len(by_seed), len(sums.sizes), sums.effective_clusters()
    problem = _no_interval(seeds, clusters)
    seed_variance = float(np.var(by_seed, ddof=1)) / seeds if seeds > 1 else None
    cluster_variance = _cluster_variance(sums, effective, seed) if clusters > 1 else None
    low = high = freedom = detectable = None
    difference = float(by_seed.mean())
    if seed_variance is not None and cluster_variance is not None:
        freedom = satterthwaite(seed_variance, seeds - 1, cluster_variance, effective - 1)
        error = math.sqrt(seed_variance + cluster_variance)
        half = critical(confidence, comparisons, freedom) * error
        low, high = difference - half, difference + half
        detectable = half + float(stats.t.ppf(POWER, freedom)) * error
    return Estimate(
        arm=arm,
        baseline=baseline,
        difference=difference,
        low=low,
        high=high,
        confidence=confidence,
        comparisons=comparisons,
        arm_mean=float(by_seed_arm.mean()),
        baseline_mean=float(by_seed_baseline.mean()),
        by_seed=tuple(float(value) for value in by_seed),
        seeds=seeds,
        clusters=clusters,
        effective_clusters=effective,
        documents=sums.documents,
        languages=sums.languages,
        seed_variance=seed_variance,
        cluster_variance=cluster_variance,
        degrees_of_freedom=freedom,
        seed_sd=_sd(by_seed),
        arm_sd=_sd(by_seed_arm),
        baseline_sd=_sd(by_seed_baseline),
        pairing_correlation=_correlation(by_seed_arm, by_seed_baseline),
        smallest_detectable=detectable,
        problem=problem,
    )


def critical(confidence: float, comparisons: int, freedom: float) -> float:
    """Two-sided quantile of Student's t, so that `comparisons` intervals hold together with `confidence`."""
    return float(stats.t.ppf(1 - (1 - confidence) / (2 * comparisons), freedom))


def satterthwaite(first: float, first_freedom: float, second: float, second_freedom: float) -> float:
    """Degrees of freedom of the sum of two variance estimates (Satterthwaite 1946); at least 1."""
    total = first + second
    if total == 0:
        return max(1.0, min(first_freedom, second_freedom))
    share = first / total
    return max(1.0, 1 / (share**2 / max(first_freedom, 1.0) + (1 - share) ** 2 / max(second_freedom, 1.0)))


@dataclass(frozen=True)
class _Sums:
    """Nats (seed × cluster × stratum) of both arms, and bytes (cluster × stratum)."""

    arm_nats: Array
    baseline_nats: Array
    sizes: Array
    documents: int
    languages: tuple[str, ...]

    def by_seed(self, nats: Array) -> Array:
        """Bits per byte of each seed: micro in a stratum, the mean of the strata."""
        per_stratum = nats.sum(axis=1) / (math.log(2) * self.sizes.sum(axis=0))
        return np.asarray(per_stratum.mean(axis=1), dtype=np.float64)

    def effective_clusters(self) -> float:
        """Kish's number: 1 / sum of squared weights, where a cluster weighs what its bytes weigh in the mean."""
        weights = (self.sizes / self.sizes.sum(axis=0)).mean(axis=1)
        return float(1.0 / np.square(weights).sum())


def _sums(items: pl.DataFrame, arm: str, baseline: str, languages_equal: bool) -> _Sums:
    key = ["seed", "task", "item"]
    pairs = _side(items, arm, key).join(
        _side(items, baseline, key), on=key, how="full", suffix="_baseline", coalesce=True, validate="1:1"
    )
    _check_pairs(pairs, arm, baseline)
    stratum = pl.col("language") if languages_equal else pl.lit("all")
    pairs = pairs.with_columns(stratum.alias("stratum"))
    shape = tuple(pairs[column].n_unique() for column in ("seed", "cluster", "stratum"))
    where = tuple(_positions(pairs[column]) for column in ("seed", "cluster", "stratum"))
    arm_nats, baseline_nats, sizes = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(arm_nats, where, pairs["nats"].to_numpy())
    np.add.at(baseline_nats, where, pairs["nats_baseline"].to_numpy())
    np.add.at(sizes, where, pairs["bytes"].cast(pl.Float64).to_numpy())
    if not (sizes == sizes[:1]).all():
        raise ValueError(f"{arm} and {baseline}: the seeds were not scored on the same items")
    languages = tuple(pairs["language"].unique().sort().to_list())
    return _Sums(arm_nats, baseline_nats, sizes[0], pairs["item"].n_unique(), languages)


def _side(items: pl.DataFrame, arm: str, key: list[str]) -> pl.DataFrame:
    side = items.filter(pl.col("arm") == arm).sort(key)  # sorted: the same sums to the last bit in any row order
    if side.is_empty():
        raise ValueError(f'no scored items of arm "{arm}"; there are: {", ".join(items["arm"].unique().sort())}')
    broken = side.filter(~pl.col("nats").is_finite().fill_null(False))
    if not broken.is_empty():
        row = broken.row(0, named=True)
        raise ValueError(f"arm {arm}, seed {row['seed']}, item {row['item']}: nats is {row['nats']}, not a number")
    return side.select(*key, "cluster", "language", "nats", "bytes")


def _check_pairs(pairs: pl.DataFrame, arm: str, baseline: str) -> None:
    lonely = pairs.filter(pl.col("bytes").is_null() | pl.col("bytes_baseline").is_null())
    if not lonely.is_empty():
        row = lonely.row(0, named=True)
        missing = arm if row["bytes"] is None else baseline
        raise ValueError(
            f"seed {row['seed']}, item {row['item']}: not scored for arm {missing} ({lonely.height} such items); "
            "paired arms need the same seeds and the same held-out documents"
        )
    unequal = pairs.filter(pl.col("bytes") != pl.col("bytes_baseline"))
    if not unequal.is_empty():
        row = unequal.row(0, named=True)
        raise ValueError(
            f"item {row['item']}: {row['bytes']} bytes were scored for {arm}, {row['bytes_baseline']} for {baseline}; "
            "with different tokenizers cut documents by max_bytes, not by max_tokens"
        )


def _positions(values: pl.Series) -> NDArray[np.int64]:
    return values.rank("dense").to_numpy().astype(np.int64) - 1


def _cluster_variance(sums: _Sums, effective: float, seed: int) -> float:
    """Bootstrap variance over families of the seed-averaged difference, for the unequal sizes of few families."""
    nats = (sums.arm_nats - sums.baseline_nats).mean(axis=0) / math.log(2)
    clusters = len(sums.sizes)
    random = np.random.default_rng(seed)
    means = []
    for start in range(0, REPLICATES, _CHUNK):
        size = min(_CHUNK, REPLICATES - start)
        counts = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)
        with np.errstate(invalid="ignore"):
            per_stratum = (counts @ nats) / (counts @ sums.sizes)
        # A language whose families were all left out has no value in this replicate.
        means.append(np.nanmean(per_stratum, axis=1))
    # The bootstrap is short by (n − 1) / n; with unequal families n is their effective number.
    # Near one family there is no telling; the cap only avoids a division by zero, the t quantile is huge there anyway.
    return float(np.var(np.concatenate(means))) * effective / max(effective - 1, 0.1)


def _no_interval(seeds: int, clusters: int) -> str | None:
    if seeds < 2:
        return "one seed: the noise between training runs cannot be measured; train at least 2 seeds, better 4"
    if clusters < 2:
        return "one document family: the noise between families cannot be measured; hold out more families"
    return None


def _sd(values: Array) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _correlation(first: Array, second: Array) -> float | None:
    """None below three seeds (two always correlate by ±1) or without spread."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
