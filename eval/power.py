"""Before GPU time is spent: how many items and samples would show a difference, and what a benchmark can show at all.

In: a difference in points, and what is known beforehand: the baseline's rate, how different the items are, how much
the two models differ beyond the shift. Out: a `Plan`. Differences are found with 80 % power at a two-sided level of
5 % unless said otherwise.

Models of noise.
- Unpaired, one answer an item: two proportions (Fleiss); what tools that print two standard errors can see.
- Paired, one greedy answer an item: items change sides in both directions (churn, together) even if nothing has
  improved; exact McNemar test, its power computed exactly.
- Paired, m samples an item: an item is passed with a probability drawn from a Beta distribution with the mean `rate`
  and the sum of parameters `concentration` (1: most items are nearly always or nearly never passed). The two models'
  probabilities scatter around the shift by `scatter`; no number of samples removes that, only items do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import optimize, stats

from ..strict import ConfigError
from .statistics import POWER

ITEMS = (164, 500, 1000, 3610)
"""HumanEval; MBPP's test part; a common cut; Natural Questions' open development part."""

SAMPLES = (1, 5, 20, 100)

MAX_NEEDED = 10_000_000
"""More items or samples than this are not proposed."""


@dataclass(frozen=True)
class PlanRow:
    """What a benchmark of that many items can show; differences are shares (0.02 is two points).

    Attributes:
        unpaired: smallest difference found with one answer an item and no pairing; None: not even 1.
        greedy: the same, paired by item.
        sampled: the same, with so many samples an item.
        samples_needed: for the difference that was asked for; None: no number of samples is enough.
    """

    items: int
    unpaired: float | None
    greedy: float | None
    sampled: dict[int, float]
    samples_needed: int | None


@dataclass(frozen=True)
class Plan:
    """Answer to "what do I need to detect this?".

    Attributes:
        detect: the difference asked for, as a share.
        items_unpaired, items_greedy: items needed; None: more than `MAX_NEEDED`.
        items_sampled: samples an item → items needed.
    """

    detect: float
    rate: float
    churn: float
    scatter: float
    concentration: float
    confidence: float
    power: float
    rows: tuple[PlanRow, ...]
    items_unpaired: int | None
    items_greedy: int | None
    items_sampled: dict[int, int | None]

    def table(self) -> list[dict[str, Any]]:
        """Rows to print: smallest differences in points, those small enough marked `*`; last, the items needed."""
        wanted = f"{100 * self.detect:g}"
        sampled = {number: f"{number} sample{'s' if number > 1 else ''}" for number in self.items_sampled}
        rows = [
            {
                "items": f"{row.items:,}",
                "unpaired": self._points(row.unpaired),
                "greedy": self._points(row.greedy),
                **{name: self._points(row.sampled[number]) for number, name in sampled.items()},
                f"samples for {wanted}": _number(row.samples_needed, "never"),
            }
            for row in self.rows
        ]
        needed = {
            "items": f"for {wanted}",
            "unpaired": _number(self.items_unpaired, "–"),
            "greedy": _number(self.items_greedy, "–"),
            **{name: _number(self.items_sampled[number], "–") for number, name in sampled.items()},
            f"samples for {wanted}": "",
        }
        return [*rows, needed]

    def assumptions(self) -> list[str]:
        """What the columns mean, to be said with them."""
        return [
            f"points found with {100 * self.power:g} % power at {100 * (1 - self.confidence):.3g} %, two-sided; "
            f"*: at most {100 * self.detect:g}; last row: items needed",
            f"unpaired: one answer each, no pairing; rate {100 * self.rate:g} %",
            f"greedy: one answer each, paired, exact McNemar; {100 * self.churn:g} % of the items change sides anyway",
            f"samples: paired by item; items differ as Beta with mean {100 * self.rate:g} % and sum "
            f"{self.concentration:g}; the models' probabilities scatter by {100 * self.scatter:g} points",
            "never: no number of samples is enough, more items are",
        ]

    def _points(self, difference: float | None) -> str:
        if difference is None:
            return "–"
        mark = "*" if difference <= self.detect * (1 + 1e-9) else " "
        return f"{100 * difference:.1f}{mark}"


def make_plan(
    detect: float,
    rate: float = 0.2,
    *,
    items: Sequence[int] = ITEMS,
    samples: Sequence[int] = SAMPLES,
    churn: float = 0.1,
    scatter: float = 0.1,
    concentration: float = 1.0,
    confidence: float = 0.95,
    power: float = POWER,
) -> Plan:
    """What is needed to detect a difference of `detect` points.

    Args:
        detect: points, that is 2 for 22 % against 20 %.
        rate: of the baseline, in (0, 1).
        items: benchmark sizes, a row each.
        samples: answers an item, a column each.
        churn: share of items that change sides, both ways together, though nothing has improved.
        scatter: standard deviation of the two models' difference in an item's probability of being passed, around
            the shift; 0: sampling noise alone.
        concentration: sum of the Beta's parameters; small: items are nearly always or nearly never passed.
        confidence: 1 − the level of the test.
        power: probability of finding the difference.

    Raises:
        ConfigError: if a number is out of its range.
    """
    share = detect / 100
    _check(share, rate, items, samples, churn, scatter, concentration)
    spread = bernoulli_variance(rate, concentration)

    def sampled(number: int, count: int) -> float:
        return detectable_by_samples(count, number, spread, scatter, confidence, power)

    factor = (share / _factor(confidence, power)) ** 2
    rows = []
    for count in items:
        room = count * factor - scatter**2
        needed = math.ceil(2 * spread / room) if room > 0 else None
        rows.append(
            PlanRow(
                items=count,
                unpaired=detectable_unpaired(count, rate, confidence, power),
                greedy=detectable_by_mcnemar(count, churn, confidence, power),
                sampled={number: sampled(number, count) for number in samples},
                samples_needed=needed if needed is not None and needed <= MAX_NEEDED else None,
            )
        )
    return Plan(
        detect=share,
        rate=rate,
        churn=churn,
        scatter=scatter,
        concentration=concentration,
        confidence=confidence,
        power=power,
        rows=tuple(rows),
        items_unpaired=_items_needed(lambda n: detectable_unpaired(n, rate, confidence, power), share),
        items_greedy=_items_needed(lambda n: detectable_by_mcnemar(n, churn, confidence, power), share),
        items_sampled={number: _items_needed(partial(sampled, number), share) for number in samples},
    )


def bernoulli_variance(rate: float, concentration: float) -> float:
    """Mean of p (1 − p) over items whose p is Beta with this mean and sum of parameters."""
    return rate * (1 - rate) * concentration / (concentration + 1)


def detectable_by_samples(
    items: int, samples: int, spread: float, scatter: float = 0.0, confidence: float = 0.95, power: float = POWER
) -> float:
    """Smallest difference found, paired by item, with so many samples an item; `spread` is the mean of p (1 − p)."""
    return _factor(confidence, power) * math.sqrt((2 * spread / samples + scatter**2) / items)


def detectable_unpaired(items: int, rate: float, confidence: float = 0.95, power: float = POWER) -> float | None:
    """Smallest rise above `rate` found by comparing two proportions of so many items each (Fleiss 1981)."""

    def excess(difference: float) -> float:
        other, middle = rate + difference, rate + difference / 2
        null = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(2 * middle * (1 - middle))
        true = stats.norm.ppf(power) * math.sqrt(rate * (1 - rate) + other * (1 - other))
        return float(difference * math.sqrt(items) - null - true)

    most = 1 - rate
    return float(optimize.brentq(excess, 0.0, most)) if excess(most) > 0 else None


def detectable_by_mcnemar(items: int, churn: float, confidence: float = 0.95, power: float = POWER) -> float | None:
    """Smallest difference that the exact McNemar test finds; None if not even the largest is found.

    Half of `churn` falls, the other half rises, and the difference rises besides.
    """
    most = 1 - churn
    if mcnemar_power(items, churn, most, confidence) < power:
        return None
    # The power of a discrete test is not quite monotone; the bisection finds one crossing, which is within a step.
    return float(
        optimize.brentq(lambda d: mcnemar_power(items, churn, d, confidence) - power, 0.0, most, xtol=1e-5, rtol=1e-5)
    )


def mcnemar_power(items: int, churn: float, difference: float, confidence: float = 0.95) -> float:
    """Probability that the exact two-sided McNemar test rejects: a sum over how many items change sides."""
    moving = churn + difference
    if moving <= 0:
        return 0.0
    low, high = stats.binom.ppf([1e-9, 1 - 1e-9], items, min(moving, 1.0))
    moved = np.arange(int(low), int(high) + 1)
    chance = stats.binom.pmf(moved, items, min(moving, 1.0))
    # The least number of risen ones (or fallen ones) that rejects.
    least = stats.binom.isf((1 - confidence) / 2, moved, 0.5) + 1
    least = np.where(stats.binom.sf(least - 2, moved, 0.5) <= (1 - confidence) / 2, least - 1, least)
    rising = (churn / 2 + difference) / moving
    found = stats.binom.sf(least - 1, moved, rising) + stats.binom.cdf(moved - least, moved, rising)
    return float((chance * np.where(least <= moved, found, 0.0)).sum())


def _factor(confidence: float, power: float) -> float:
    """The difference over its standard error at which the power is reached."""
    return float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power))


def _number(number: int | None, otherwise: str) -> str:
    return otherwise if number is None else f"{number:,}"


def _items_needed(detectable: Callable[[int], float | None], share: float) -> int | None:
    """Smallest number of items whose detectable difference is at most `share`, to three digits."""

    def enough(count: int) -> bool:
        found = detectable(count)
        return found is not None and found <= share

    high = 8
    while not enough(high):
        high *= 2
        if high > MAX_NEEDED:
            return None
    low = high // 2
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(
    share: float,
    rate: float,
    items: Sequence[int],
    samples: Sequence[int],
    churn: float,
    scatter: float,
    concentration: float,
) -> None:
    wrong = {
        f"rate {rate:g}: give a share between 0 and 1": not 0 < rate < 1,
        f"detect {100 * share:g}: give points above 0 and below {100 * (1 - rate):g}": not 0 < share < 1 - rate,
        f"items {list(items)}: give numbers above 1": not items or min(items) < 2,
        f"samples {list(samples)}: give numbers above 0": not samples or min(samples) < 1,
        f"churn {churn:g}: give a share of at least 0 and below 1": not 0 <= churn < 1,
        f"scatter {scatter:g}: give a share of at least 0 and below 1": not 0 <= scatter < 1,
        f"concentration {concentration:g}: give a number above 0": not concentration > 0,
    }
    for message, applies in wrong.items():
        if applies:
            raise ConfigError(message)
