"""Training curves: the mean over seeds of the loss of each arm, and its range, thinned to what a screen can show."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POINTS = 60
"""Points a curve; single steps of 2,000 tokens differ by more than arms do, so each point is a mean of steps."""

SKIPPED_FRACTION = 0.05
"""Of the run: the fall from a random start would leave no room on the scale for anything else."""


@dataclass(frozen=True)
class Curve:
    """Loss in nats per token after `tokens` training tokens."""

    arm: str
    seeds: int
    tokens: list[float]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def curves(models: Path, arms: Sequence[str]) -> list[Curve]:
    """One curve an arm that has metrics, in the order of `arms`."""
    found = []
    for arm in arms:
        seeds = [_read(path) for path in sorted((models / arm).glob("*/metrics.jsonl"))]
        if seeds:
            found.append(_curve(arm, [seed for seed in seeds if seed]))
    return found


def _read(path: Path) -> list[tuple[int, float]]:
    """(tokens, loss) of each step; NaN where the loss was not finite."""
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry: dict[str, Any] = json.loads(line)
        points.append((entry["tokens_seen"], math.nan if entry["loss"] is None else entry["loss"]))
    return points


def _curve(arm: str, seeds: Sequence[Sequence[tuple[int, float]]]) -> Curve:
    """The seeds took the same steps unless a run was cut short; then the common part is shown."""
    common = min(len(seed) for seed in seeds)
    tokens = np.array([point[0] for point in seeds[0][:common]], dtype=np.float64)
    losses = np.array([[point[1] for point in seed[:common]] for seed in seeds], dtype=np.float64)
    first = int(np.searchsorted(tokens, SKIPPED_FRACTION * tokens[-1]))
    parts = [
        part
        for part in np.array_split(np.arange(first, common), min(POINTS, common - first))
        if np.isfinite(losses[:, part]).any(axis=1).all()
    ]
    means = np.stack([np.nanmean(losses[:, part], axis=1) for part in parts], axis=1)
    return Curve(
        arm=arm,
        seeds=len(seeds),
        tokens=[float(tokens[part[-1]]) for part in parts],
        mean=[float(x) for x in means.mean(axis=0)],
        lowest=[float(x) for x in means.min(axis=0)],
        highest=[float(x) for x in means.max(axis=0)],
    )
