"""From estimates to a verdict in words, by a rule that is fixed before anything is trained.

With Δ = the metric (bits per byte, or error rate) of the arm minus the baseline's, its simultaneous interval
[low, high], and a margin m:

- **reject**: low > +m (worse than the baseline by more than the margin), or the arm is worse than its random drop
  (low > 0 against the control);
- **adopt**: high < −m, and high < 0 against a random drop matched to this arm, and no guardrail is significantly worse
  by more than its own margin;
- **equivalent**: −m < low and high < +m;
- **undecided**: everything else, with the reason and what would decide it.

The rule is symmetric in the baseline: if all differences change sign, adopt becomes reject and equivalent stays. It is
not symmetric in the control: an arm must beat it to be adopted, and falls if it does not even reach it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..statistics import Estimate, critical, satterthwaite

Word = Literal["baseline", "control", "adopt", "reject", "equivalent", "undecided"]

MAX_SEEDS = 64
"""More seeds than this are not proposed: at some point another design is cheaper."""


@dataclass(frozen=True)
class Verdict:
    """The word, why, and how many seeds in all would probably decide it (undecided only; None: not by seeds)."""

    word: Word
    reason: str
    seeds_needed: int | None = None


@dataclass(frozen=True)
class Guardrail:
    """A stream or language that must not get significantly worse by more than its margin."""

    name: str
    estimate: Estimate
    margin: float

    @property
    def is_breached(self) -> bool:
        return self.estimate.low is not None and self.estimate.low > self.margin


def judge(
    against_baseline: Estimate,
    against_control: Estimate | None,
    margin: float,
    guardrails: Sequence[Guardrail] = (),
    unmatched: str | None = None,
) -> Verdict:
    """The verdict on one arm.

    Args:
        against_baseline: arm − baseline.
        against_control: arm − control; None if the decision has no control.
        margin: smallest difference that matters, in the unit of the metric.
        guardrails: arm − baseline elsewhere.
        unmatched: why the control is not a fair one for this arm; it then cannot support an adoption.
    """
    low, high = against_baseline.low, against_baseline.high
    if low is None or high is None:
        return Verdict("undecided", against_baseline.problem or "no interval")
    if low > margin:
        return Verdict("reject", f"worse than {against_baseline.baseline} by at least {low:.4f}")
    if against_control is not None and against_control.low is not None and against_control.low > 0:
        return Verdict("reject", f"worse than the random drop {against_control.baseline}: the choice itself does harm")
    if high < -margin:
        return _better(against_baseline, against_control, guardrails, unmatched)
    if -margin < low and high < margin:
        return Verdict("equivalent", f"the whole interval lies within ±{margin:.4f}; take the simpler one")
    return _open(against_baseline, margin)


def seeds_needed(estimate: Estimate, distance: float) -> int | None:
    """Smallest number of seeds whose half-width would be below `distance`, if all noise stays as it was measured.

    None if the noise between document families alone is too much, or more than MAX_SEEDS were needed.
    """
    if estimate.seed_variance is None or estimate.cluster_variance is None or distance <= 0:
        return None
    per_seed = estimate.seed_variance * estimate.seeds
    for seeds in range(estimate.seeds + 1, MAX_SEEDS + 1):
        seed_variance = per_seed / seeds
        freedom = satterthwaite(seed_variance, seeds - 1, estimate.cluster_variance, estimate.effective_clusters - 1)
        error = math.sqrt(seed_variance + estimate.cluster_variance)
        if critical(estimate.confidence, estimate.comparisons, freedom) * error < distance:
            return seeds
    return None


def _better(
    against_baseline: Estimate,
    against_control: Estimate | None,
    guardrails: Sequence[Guardrail],
    unmatched: str | None,
) -> Verdict:
    """Better than the baseline by more than the margin; does it deserve to be adopted?"""
    gain = f"better than {against_baseline.baseline} by at least {-(against_baseline.high or 0.0):.4f}"
    if unmatched:
        return Verdict("undecided", f"{gain}, but {unmatched}")
    if against_control is None:
        reason = f"{gain}; no random drop was trained, so dropping as such may be what helps"
    elif against_control.high is None:
        return Verdict("undecided", f"{gain}, but no interval against the random drop: {against_control.problem}")
    elif against_control.high >= 0:
        more = seeds_needed(against_control, -against_control.difference)
        return Verdict(
            "undecided",
            f"{gain}, but not shown to beat the random drop {against_control.baseline} "
            f"({_interval(against_control)}): dropping as such may be what helps{_outlook(more, against_control)}",
            more,
        )
    else:
        reason = f"{gain}, and better than the random drop {against_control.baseline} ({_interval(against_control)})"
    breached = [guardrail for guardrail in guardrails if guardrail.is_breached]
    if breached:
        worse = ", ".join(f"{each.name} ({_interval(each.estimate)})" for each in breached)
        return Verdict("undecided", f"{reason}; but significantly worse on {worse}")
    return Verdict("adopt", reason)


def _open(estimate: Estimate, margin: float) -> Verdict:
    """The interval is too wide for any word: say what would narrow it enough."""
    # Outside the margin the interval must clear it, inside it must fit.
    more = seeds_needed(estimate, abs(abs(estimate.difference) - margin))
    reason = f"the interval {_interval(estimate)} is neither beyond nor within ±{margin:.4f}"
    return Verdict("undecided", reason + _outlook(more, estimate), more)


def _outlook(seeds: int | None, estimate: Estimate) -> str:
    if seeds is None:
        return f"; seeds alone will not decide it (up to {MAX_SEEDS}): hold out more families, or accept no difference"
    return f"; {seeds} seeds would decide it if the difference is what it seems (there are {estimate.seeds})"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.difference:+.4f}"
    return f"{estimate.difference:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"
