"""Learning rate as a closed form of tokens seen: no state, the same whatever the size of a step.

All schedules rise linearly over the first `warmup_fraction` of the run and end at `final_learning_rate_fraction` of the
peak. Between: `cosine` (half a cosine), `linear`, or `wsd` (warmup, stable, decay: flat, then linear over the last
`decay_fraction`; Hu et al. 2024, MiniCPM).
"""

from __future__ import annotations

import math

from .config import TrainConfig


def learning_rate(config: TrainConfig, tokens_seen: int, total_tokens: int) -> float:
    """Rate of the step that ends at `tokens_seen`: positive in the first step, the final rate in the last."""
    peak, final = config.learning_rate, config.learning_rate * config.final_learning_rate_fraction
    warmup = config.warmup_fraction * total_tokens
    if tokens_seen < warmup:
        return peak * tokens_seen / warmup
    begin = max(warmup, (1 - config.decay_fraction) * total_tokens) if config.schedule == "wsd" else warmup
    if tokens_seen <= begin or begin >= total_tokens:
        return peak
    progress = (tokens_seen - begin) / (total_tokens - begin)
    if config.schedule == "cosine":
        return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
    return peak + (final - peak) * progress
