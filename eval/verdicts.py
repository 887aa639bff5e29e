"""Better, worse, or no decision at this size: the word for two models on one task, why, and what would decide it.

A difference is real if its p-value, adjusted for how many are read together, is below the level, and its interval
leaves out 0, and, where models were trained with several seeds, the interval over seeds leaves it out as well. So the
larger of the two noises decides. "No decision" is not "no difference": the smallest difference that would have been
found is said with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from .measures import Measure
from .paired import Paired
from .statistics import POWER, critical

Word = Literal["better", "worse", "no decision"]

MAX_NEEDED = 1_000_000
"""More items or samples than this are not proposed."""


@dataclass(frozen=True)
class SeedSpread:
    """Noise between training runs: of the difference of two means over seeds.

    Attributes:
        seeds: of the model and of the baseline.
        sd: standard deviation between the seeds of one model, pooled over the models that have several.
        low, high: interval of the difference over seeds.
    """

    seeds: tuple[int, int]
    sd: float
    standard_error: float
    freedom: int
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Verdict:
    """The word, why, and what would decide it; None: not this alone, or it is decided.

    The needed numbers find the difference four times in five, if it is what it seems and all noise stays as it is.
    """

    word: Word
    reason: str
    items_needed: int | None = None
    samples_needed: int | None = None
    seeds_needed: int | None = None


def seed_spread(
    difference: float,
    ours: Sequence[float],
    baseline: Sequence[float],
    pooled: Sequence[Sequence[float]],
    confidence: float,
) -> SeedSpread | None:
    """The interval over seeds; None if neither model has several.

    Args:
        difference: of the means.
        ours, baseline: the metric of each seed.
        pooled: the metric by seed of every model of the comparison: a model with one seed is taken to vary like those.
        confidence: of the interval.
    """
    if len(ours) < 2 and len(baseline) < 2:
        return None
    several = [each for each in pooled if len(each) > 1]
    freedom = sum(len(each) - 1 for each in several)
    sd = math.sqrt(sum(float(np.var(each, ddof=1)) * (len(each) - 1) for each in several) / freedom)
    error = sd * math.sqrt(1 / len(ours) + 1 / len(baseline))
    half = critical(confidence, 1, freedom) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom)) if error > 0 else float(difference == 0)
    return SeedSpread((len(ours), len(baseline)), sd, error, freedom, difference - half, difference + half, p)


def judge(
    found: Paired,
    p_adjusted: float,
    measure: Measure,
    seeds: SeedSpread | None,
    *,
    samples: int,
    confidence: float,
    comparisons: int,
) -> Verdict:
    """The verdict on other − baseline.

    Args:
        found: over items.
        p_adjusted: the larger of the p-values over items and over seeds, adjusted.
        measure: says which direction is better.
        seeds: over seeds; None if there is one each.
        samples: answers an item; 1 if they cannot be had more of.
        confidence: 1 − the level.
        comparisons: differences read together.
    """
    shown = interval_text(found, measure)
    if found.low is None or found.high is None:
        return Verdict("no decision", f"{shown}: {found.problem}")
    over_seeds = seeds is not None and seeds.low <= 0 <= seeds.high
    if p_adjusted <= 1 - confidence and not found.low <= 0 <= found.high and not over_seeds:
        word: Word = "better" if (found.difference > 0) == measure.higher_is_better else "worse"
        return Verdict(word, f"{shown}, p {p_text(p_adjusted)}{_adjusted(comparisons)}")
    missed = (
        "even the largest difference could be missed"
        if found.smallest_detectable is None
        else f"differences below {amount_text(found.smallest_detectable, measure)} are easily missed at this size"
    )
    items, more_samples, more_seeds = needed(found, seeds, samples, confidence, comparisons)
    spread = ""
    if over_seeds and seeds is not None:
        spread = f"; between seeds it is [{signed_text(seeds.low, measure)}, {signed_text(seeds.high, measure)}]"
    reason = f"{shown}{spread}, p {p_text(p_adjusted)}{_adjusted(comparisons)}; {missed}"
    least_p = 2.0 ** (1 - found.moved)
    if found.moved and least_p > (1 - confidence) / comparisons:
        reason += f"; {found.moved} that differ are too few for any p below {least_p:.2g}"
    if found.difference != 0:
        reason += _outlook(items, more_samples, more_seeds)
    return Verdict("no decision", reason, items, more_samples, more_seeds)


def needed(
    found: Paired, seeds: SeedSpread | None, samples: int, confidence: float, comparisons: int
) -> tuple[int | None, int | None, int | None]:
    """Items, samples an item, and seeds a model that would decide it, each alone; None where it would not."""
    items = more_samples = more_seeds = None
    distance = abs(found.difference)
    if distance == 0 or found.clusters < 2:
        return None, None, None
    factor = critical(confidence, comparisons, found.clusters - 1) + float(stats.t.ppf(POWER, found.clusters - 1))
    target = (distance / factor) ** 2
    variance = found.standard_error**2
    if variance > target:
        items = _capped(found.items * variance / target)
        if found.sampling_share is not None and samples > 1:
            between = (1 - found.sampling_share) * variance
            if target > between:
                more_samples = _capped(samples * (variance - between) / (target - between))
    if seeds is not None and seeds.standard_error**2 > target:
        more_seeds = _capped(2 * seeds.sd**2 / target)
    return items, more_samples, more_seeds


def interval_text(found: Paired, measure: Measure) -> str:
    """`+3.1 points [+1.0, +5.2]`."""
    if found.low is None or found.high is None:
        return f"{signed_text(found.difference, measure)} {measure.unit}"
    ends = f"[{signed_text(found.low, measure)}, {signed_text(found.high, measure)}]"
    return f"{signed_text(found.difference, measure)} {measure.unit} {ends}"


def signed_text(value: float, measure: Measure) -> str:
    """A difference: points with one decimal, bits per byte with four."""
    return f"{100 * value:+.1f}" if measure.unit == "points" else f"{value:+.4f}"


def amount_text(value: float, measure: Measure) -> str:
    """The size of a difference, with its unit."""
    return f"{100 * value:.1f} points" if measure.unit == "points" else f"{value:.4f} bits/byte"


def p_text(p: float) -> str:
    """Three decimals, or how small it is."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _adjusted(comparisons: int) -> str:
    return f" (of {comparisons} comparisons)" if comparisons > 1 else ""


def _outlook(items: int | None, samples: int | None, seeds: int | None) -> str:
    ways = [
        f"{number:,} {what}"
        for number, what in ((items, "items"), (samples, "samples an item"), (seeds, "seeds a model"))
        if number is not None
    ]
    if not ways:
        return f"; fewer than {MAX_NEEDED:,} items would not decide it if the difference is what it seems"
    joined = " and " if seeds is not None and items is not None else " or "
    return f"; about {joined.join(ways)} would decide it if the difference is what it seems"


def _capped(number: float) -> int | None:
    return math.ceil(number) if number <= MAX_NEEDED else None
