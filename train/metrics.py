"""What a run says about itself while it trains: one JSON line a step in `metrics.jsonl`.

The timing field is the only one that differs between two runs of the same configuration on one machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    loss: nats per target token; null if not finite. losses: the same per stream, null where the step has no row of it.
    grad_norm: before clipping. skipped: loss or gradient was not finite and the step changed nothing.
    """

    step: int
    tokens_seen: int
    loss: float | None
    losses: dict[str, float | None]
    learning_rate: float
    grad_norm: float | None
    skipped: bool
    tokens_per_second: float


def write_step(file: TextIO, metrics: StepMetrics) -> None:
    """Append one line."""
    file.write(json.dumps(dataclasses.asdict(metrics), allow_nan=False) + "\n")


def read_metrics(path: Path) -> pl.DataFrame:
    """All steps of a run, one row each; `losses` is a struct with one field a stream."""
    return pl.read_ndjson(path, infer_schema_length=None)


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def losses_by_stream(
    names: list[str], row_streams: tuple[str, ...], losses_BT: np.ndarray, valid_BT: np.ndarray
) -> dict[str, float | None]:
    """Mean loss per valid target of every stream's rows."""
    sums, counts = losses_BT.sum(1, dtype=np.float64), valid_BT.sum(1)
    means: dict[str, float | None] = {}
    for name in names:
        rows = [index for index, stream in enumerate(row_streams) if stream == name]
        count = int(counts[rows].sum())
        means[name] = finite(float(sums[rows].sum()) / count) if count else None
    return means
