"""Learning rate as a closed form in tokens over the stages of a run: no state, the same whatever the size of a step.

A schedule spans the stage that begins it (the first of the run, or one that joins `fresh` or `anneal`) and all stages
after it that `continue`. `fresh` rises linearly over the first `warmup_fraction` of its span to its peak; `anneal`
starts at the rate that the step before it had. Both then go to their final rate: `cosine` (half a cosine), `linear`,
`wsd` (flat, then linear over the last `decay_fraction`; Hu et al. 2024, MiniCPM), or stay (`constant`). The rate is
that of the step's end: positive in the first step, final in the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import Shape, TrainConfig


@dataclass(frozen=True)
class Span:
    """One schedule: steps `[first, last)`; `peak` None is the rate of step `first - 1`."""

    first: int
    last: int
    peak: float | None
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
    reached = config.learning_rate
    for span in schedules:
        if step < span.last:
            return _rate(span, step, reached, config.step_tokens)
        reached = _rate(span, span.last - 1, reached, config.step_tokens)
    raise AssertionError("spans cover every step")


def spans(config: TrainConfig) -> list[Span]:
    """The schedules of a run, in order and without gaps."""
    found: list[Span] = []
    begin = 0
    for stage, steps in zip(config.resolved_stages(), config.stage_steps(), strict=True):
        end = begin + steps
        if found and stage.join == "continue":
            found[-1] = Span(**{**vars(found[-1]), "last": end})
        else:
            anneals = stage.join == "anneal"
            peak = None if anneals else stage.learning_rate or config.learning_rate
            fraction_of = config.learning_rate if peak is None else peak
            default_final = fraction_of * config.final_learning_rate_fraction
            warmup = config.warmup_fraction if stage.warmup_fraction is None else stage.warmup_fraction
            found.append(
                Span(
                    first=begin,
                    last=end,
                    peak=peak,
                    final=default_final if stage.final_learning_rate is None else stage.final_learning_rate,
                    shape=stage.schedule or ("linear" if anneals else config.schedule),
                    warmup_fraction=0.0 if anneals else warmup,
                    decay_fraction=config.decay_fraction if stage.decay_fraction is None else stage.decay_fraction,
                )
            )
        begin = end
    return found


def _rate(span: Span, step: int, reached: float, step_tokens: int) -> float:
    peak = reached if span.peak is None else span.peak
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
