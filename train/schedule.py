"""Learning rate as a closed form in tokens over the stages of a run: no state, the same whatever the size of a step.

A schedule spans the stage that begins it (the first of the run, or one that joins `fresh` or `anneal`) and all stages
after it that `continue`. `fresh` rises linearly over the first `warmup_fraction` of its span to its peak; `anneal`
starts at the rate that the step before it had. Both then go to their final rate: `cosine` (half a cosine), `linear`,
`wsd` (flat, then linear over the last `decay_fraction`; Hu et al. 2024, MiniCPM), or stay (`constant`). The final rate
of `fresh` is a fraction of its peak. That of `anneal` is zero where none is given: how far the schedule before it has
fallen is not known, so any fraction of a peak could be a rise. The rate is that of the step's end: positive in the
first step, final in the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # config.py asks here whether its stages make a schedule
    from .config import Shape, StageConfig, TrainConfig


@dataclass(frozen=True)
class Span:
    """One schedule: steps `[first, last)`, from `peak` to `final`."""

    first: int
    last: int
    peak: float
    final: float
    shape: Shape
    warmup_fraction: float
    decay_fraction: float


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of AdamW in step number `step`, from 0.

    Raises:
        ValueError: if the run has no such step.
    """
    schedules = spans(config)
    if not 0 <= step < schedules[-1].last:
        raise ValueError(f"step {step}: the run has the steps 0 to {schedules[-1].last - 1}")
    return next(_rate(span, step, config.step_tokens) for span in schedules if step < span.last)


def spans(config: TrainConfig) -> list[Span]:
    """The schedules of a run, in order and without gaps.

    Raises:
        ValueError: if a stage that anneals would rise, or begins at a rate of zero.
    """
    found: list[Span] = []
    begin = 0
    for stage, steps in zip(config.resolved_stages(), config.stage_steps(), strict=True):
        end = begin + steps
        if found and stage.join == "continue":
            found[-1] = replace(found[-1], last=end)
        elif stage.join == "anneal":
            reached = _rate(found[-1], begin - 1, config.step_tokens)
            found.append(_anneal(config, stage, begin, end, reached))
        else:
            found.append(_fresh(config, stage, begin, end))
        begin = end
    return found


def _fresh(config: TrainConfig, stage: StageConfig, first: int, last: int) -> Span:
    peak = stage.learning_rate or config.learning_rate
    final = stage.final_learning_rate
    return Span(
        first=first,
        last=last,
        peak=peak,
        final=peak * config.final_learning_rate_fraction if final is None else final,
        shape=stage.schedule or config.schedule,
        warmup_fraction=config.warmup_fraction if stage.warmup_fraction is None else stage.warmup_fraction,
        decay_fraction=config.decay_fraction if stage.decay_fraction is None else stage.decay_fraction,
    )


def _anneal(config: TrainConfig, stage: StageConfig, first: int, last: int, reached: float) -> Span:
    final = stage.final_learning_rate or 0.0
    if reached <= 0:
        raise ValueError(
            f'stage "{stage.name}": `join: anneal` starts at the rate that was reached, which is 0: it would learn '
            "nothing; end the schedule before it above 0 (final_learning_rate), or use `join: fresh`"
        )
    if final > reached * (1 + 1e-9):  # a rate that was reached by arithmetic may lie below itself by rounding
        raise ValueError(
            f'stage "{stage.name}": final_learning_rate {final:g} is above the rate that was reached, {reached:g}, and '
            "`join: anneal` falls; give a lower one or none (0), or use `join: fresh`"
        )
    return Span(
        first=first,
        last=last,
        peak=reached,
        final=final,
        shape=stage.schedule or "linear",
        warmup_fraction=0.0,
        decay_fraction=config.decay_fraction if stage.decay_fraction is None else stage.decay_fraction,
    )


def _rate(span: Span, step: int, step_tokens: int) -> float:
    peak = span.peak
    total, tokens = (span.last - span.first) * step_tokens, (step + 1 - span.first) * step_tokens
    warmup = span.warmup_fraction * total
    if tokens < warmup:
        return peak * tokens / warmup
    begin = max(warmup, (1 - span.decay_fraction) * total) if span.shape == "wsd" else warmup
    if span.shape == "constant" or tokens <= begin or begin >= total:
        return peak
    progress = (tokens - begin) / (total - begin)
    if span.shape == "cosine":
        return span.final + (peak - span.final) * (1 + math.cos(math.pi * progress)) / 2
    return peak + (span.final - peak) * progress
