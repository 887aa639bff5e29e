"""Scored items on disk: one row an answer to an item, from which every metric and every decision is computed.

`items.parquet` holds no times and no paths, so the same model scored twice gives the same bytes. `collect` reads the
evaluations of many models into one frame with the columns `arm` and `seed` in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..files import replacing
from ..strict import nearest

ITEMS: dict[str, pl.DataType] = {
    "task": pl.String(),
    "item": pl.String(),
    "sample": pl.Int32(),
    "cluster": pl.String(),
    "stream": pl.String(),
    "language": pl.String(),
    "nats": pl.Float64(),
    "bytes": pl.Int64(),
    "score": pl.Float64(),
    "outcome": pl.String(),
    "prompt": pl.String(),
    "answer": pl.String(),
    "detail": pl.String(),
    "sandbox_level": pl.Int8(),
    "judge": pl.String(),
}
"""Columns of an item.

item, sample: document id or name of the item, and the number of the answer to it. cluster: items that are not
independent of each other share it. stream: of a held-out document, else the kind of the task. nats, bytes: −log p over
so many bytes of UTF-8 (likelihood). score: 1 right, 0 wrong, or a share (F1, half a win). outcome: `scored`, `right`,
`wrong`, `win`, `tie`, `loss`, `unparsed`, or the word of the judge of programs. prompt, answer: what the model saw and
said. detail: JSON. sandbox_level, judge: how a program was run, and whether the judge was `apart` from it or `weak`.
"""

ITEMS_FILE = "items.parquet"

EVALUATION_FILE = "evaluation.json"
"""What is said of them: metrics, facts of the tasks, settings."""

WHOLE_STREAMS = ("text",)
"""Streams that are sampled and averaged as one; in all others every language counts the same."""


def items_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as items; columns that a row lacks are null, and `sample` is 0."""
    return pl.DataFrame(
        {name: [row.get(name, 0 if name == "sample" else None) for row in rows] for name in ITEMS}, schema=ITEMS
    )


def write_items(folder: Path, items: pl.DataFrame) -> None:
    """Write `items` as `items.parquet`, in a fixed row order."""
    ordered = items.select(pl.col(name).cast(dtype) for name, dtype in ITEMS.items())
    ordered = ordered.sort("task", "stream", "item", "sample")
    with replacing(folder / ITEMS_FILE) as temporary:
        ordered.write_parquet(temporary, compression="zstd")


def read_items(folder: Path) -> pl.DataFrame:
    """The items of one model.

    Raises:
        FileNotFoundError: if the folder holds no finished evaluation.
        ValueError: if the file cannot be read, or has other columns than items have.
    """
    path = folder / ITEMS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate the model first")
    try:
        items = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: cannot be read: {why}; evaluate again, the answers are taken from records.jsonl"
        ) from error
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
