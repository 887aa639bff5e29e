"""What a run says about itself while it trains: one JSON line a step in `metrics.jsonl`, one a validation in
`validation.jsonl`, and both as Parquet when it has ended.

The fields of time (`tokens_per_second`, `mfu`, `wait_fraction`) are the only ones that differ between two runs of one
configuration on one machine. A run that is killed leaves at most a torn last line, which readers leave out; a resumed
run first cuts off what lies behind the step that it resumes at.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import polars as pl

from ..files import replacing, write_atomic

TYPES: dict[str, type[pl.DataType]] = {
    "loss": pl.Float64,
    "grad_norm": pl.Float64,
    "mfu": pl.Float64,
    "wait_fraction": pl.Float64,
    "bits_per_byte": pl.Float64,
}
"""Of columns that a whole file may have as null."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One optimiser step.

    tokens_seen: of the run, this step included. loss: nats per target token; null if not finite. losses and
    losses_by_objective: the same per stream and per objective, null where the step has no target of it. targets: tokens
    that count in the loss. grad_norm: before clipping. skipped: the step changed nothing (not finite, or a spike).
    mfu: 0 to 1; null where the device's peak is not known. wait_fraction: share of the step spent waiting for data.
    """

    step: int
    stage: str
    tokens_seen: int
    loss: float | None
    losses: Mapping[str, float | None]
    losses_by_objective: Mapping[str, float | None]
    targets: int
    learning_rate: float
    grad_norm: float | None
    skipped: bool
    tokens_per_second: float
    mfu: float | None
    wait_fraction: float


@dataclass(frozen=True, kw_only=True)
class ValidationMetrics:
    """Bits per byte on held-out documents after step `step`, all and by stream; null if not finite."""

    step: int
    tokens_seen: int
    bits_per_byte: float | None
    by_stream: Mapping[str, float | None]


def write_step(file: TextIO, metrics: StepMetrics | ValidationMetrics) -> None:
    """Append one line."""
    file.write(json.dumps(dataclasses.asdict(metrics), allow_nan=False) + "\n")


def read_metrics(path: Path) -> pl.DataFrame:
    """All lines of either file, one row each; mappings are structs. A torn last line is left out."""
    data = b"".join(_whole_lines(path))
    if not data:
        return pl.DataFrame()
    table = pl.read_ndjson(data, infer_schema_length=None)
    return table.with_columns(pl.col(name).cast(dtype) for name, dtype in TYPES.items() if name in table.columns)


def truncate_metrics(path: Path, first_step: int) -> None:
    """Cut off the lines of `first_step` and later, and a torn one; a run that resumes there writes them again."""
    if path.exists():
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] < first_step]
        write_atomic(path, b"".join(kept))


def finish_metrics(folder: Path) -> None:
    """Write each JSONL file of the folder as Parquet beside it."""
    for path in (folder / "metrics.jsonl", folder / "validation.jsonl"):
        if path.exists() and not (table := read_metrics(path)).is_empty():
            with replacing(path.with_suffix(".parquet")) as temporary:
                table.write_parquet(temporary)


def scalars(metrics: StepMetrics | ValidationMetrics) -> dict[str, float]:
    """What loggers draw: every number that there is, under `train/` or `validation/`, of mappings one a key."""
    prefix = "train" if isinstance(metrics, StepMetrics) else "validation"
    flat: dict[str, float] = {}
    for field, value in dataclasses.asdict(metrics).items():
        values: Mapping[str, Any] = (
            {f"{field}/{key}": each for key, each in value.items()} if isinstance(value, Mapping) else {field: value}
        )
        flat |= {
            f"{prefix}/{name}": float(each)
            for name, each in values.items()
            if name != "step" and isinstance(each, int | float)
        }
    return flat


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def losses_by_stream(
    names: Sequence[str], row_streams: Sequence[str], losses_BT: np.ndarray, valid_BT: np.ndarray
) -> dict[str, float | None]:
    """Mean loss per valid target of every stream's rows."""
    number = {name: index for index, name in enumerate(names)}
    groups_B = np.array([number[stream] for stream in row_streams], dtype=np.int64)
    return _means(names, np.broadcast_to(groups_B[:, None], losses_BT.shape), losses_BT, valid_BT)


def losses_by_objective(
    names: Sequence[str], objectives_BT: np.ndarray, losses_BT: np.ndarray, valid_BT: np.ndarray
) -> dict[str, float | None]:
    """Mean loss per valid target of every objective; `objectives_BT` holds indices into `names`."""
    return _means(names, objectives_BT, losses_BT, valid_BT)


def _means(
    names: Sequence[str], groups_BT: np.ndarray, losses_BT: np.ndarray, valid_BT: np.ndarray
) -> dict[str, float | None]:
    groups_N = groups_BT[valid_BT].astype(np.int64)
    counts = np.bincount(groups_N, minlength=len(names))
    sums = np.bincount(groups_N, weights=losses_BT[valid_BT], minlength=len(names))
    return {
        name: finite(float(total) / int(count)) if count else None
        for name, total, count in zip(names, sums, counts, strict=True)
    }


def _whole_lines(path: Path) -> Iterable[bytes]:
    """All lines, with their ends; the last one may lack its end, and is left out where it lacks more."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
            elif line.endswith(b"}") and line.count(b"{") == line.count(b"}"):
                yield line + b"\n"
