"""Training curves: the mean over seeds of the loss of each arm, and its range, thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ..train.metrics import read_metrics

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
        runs = [_read(path) for path in sorted((models / arm).glob("*/metrics.jsonl"))]
        if seeds := [run for run in runs if len(run)]:
            found.append(_curve(arm, seeds))
    return found


def _read(path: Path) -> np.ndarray:
    """(tokens, loss) of each step; NaN where the loss was not finite."""
    table = read_metrics(path)
    if table.is_empty():
        return np.zeros((0, 2))
    return table.select("tokens_seen", pl.col("loss").fill_null(float("nan"))).cast(pl.Float64).to_numpy()


def _curve(arm: str, seeds: Sequence[np.ndarray]) -> Curve:
    """The seeds took the same steps unless a run was cut short; then the common part is shown."""
    common = min(len(seed) for seed in seeds)
    tokens = seeds[0][:common, 0]
    losses = np.stack([seed[:common, 1] for seed in seeds])
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
