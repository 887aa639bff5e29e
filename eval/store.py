"""Scored items on disk: one row an item and model, from which every metric and every decision is computed.

`items.parquet` holds no times and no paths, so the same model scored twice gives the same bytes. `collect` reads the
evaluations of many models into one frame with the columns `arm` and `seed` in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..files import replacing
from ..strict import nearest

ITEMS: dict[str, pl.DataType] = {
    "task": pl.String(),
    "item": pl.String(),
    "cluster": pl.String(),
    "stream": pl.String(),
    "language": pl.String(),
    "nats": pl.Float64(),
    "bytes": pl.Int64(),
    "outcome": pl.String(),
    "answer": pl.String(),
    "sandbox_level": pl.Int8(),
}
"""Columns of an item: document id or problem name; the family whose items are not independent; −log p over `bytes`
bytes of UTF-8 (likelihood tasks); outcome (`scored`, or the judge's word), answer and sandbox level (code tasks)."""

ITEMS_FILE = "items.parquet"


def write_items(folder: Path, items: pl.DataFrame) -> None:
    """Write `items` as `items.parquet`, in a fixed row order."""
    ordered = items.select(pl.col(name).cast(dtype) for name, dtype in ITEMS.items()).sort("task", "stream", "item")
    with replacing(folder / ITEMS_FILE) as temporary:
        ordered.write_parquet(temporary, compression="zstd")


def read_items(folder: Path) -> pl.DataFrame:
    """The items of one model.

    Raises:
        FileNotFoundError: if the folder holds no finished evaluation.
        ValueError: if the file has other columns than items have.
    """
    path = folder / ITEMS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate the model first")
    items = pl.read_parquet(path)
    if dict(items.schema) != ITEMS:
        raise ValueError(f"{path}: columns are {dict(items.schema)}, expected {ITEMS}")
    return items


def collect(evals: Path, arms: Sequence[str], seeds: Sequence[int]) -> pl.DataFrame:
    """Items of every arm and seed from `evals/<arm>-<seed>/`, in that order.

    Raises:
        FileNotFoundError: if one is missing; the message names the nearest that is there.
    """
    frames = []
    for arm in arms:
        for seed in seeds:
            folder = evals / f"{arm}-{seed}"
            if not folder.is_dir():
                there = [path.name for path in evals.iterdir()] if evals.is_dir() else []
                raise FileNotFoundError(f"{folder}: no such evaluation{nearest(folder.name, there)}")
            names = pl.lit(arm).alias("arm"), pl.lit(seed, dtype=pl.Int64).alias("seed")
            frames.append(read_items(folder).select(*names, pl.all()))
    return pl.concat(frames)
