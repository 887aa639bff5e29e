"""How a classifier scored the documents: distributions, its card, and documents at the ends and in the middle."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

BINS = 25
MAX_GROUPS = 6
MIN_DOCUMENTS = 40
"""A histogram of fewer says nothing; the largest group is shown whatever its size."""

PROBABILITY = "quality_probability"


@dataclass(frozen=True)
class Distribution:
    """Shares of a group's documents in BINS equal bins over 0..1."""

    name: str
    documents: int
    shares: list[float]


def distributions(frame: pl.LazyFrame, by: str) -> list[Distribution]:
    """Of the largest groups of the column `by`, by scored documents."""
    bin_number = (pl.col(PROBABILITY) * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
    table = (
        frame.filter(pl.col(PROBABILITY).is_not_null())
        .group_by(pl.col(by).alias("group"), bin_number.alias("bin"))
        .len()
        .collect()
    )
    totals = table.group_by("group").agg(pl.col("len").sum()).sort(["len", "group"], descending=[True, False])
    found: list[Distribution] = []
    for name, total in totals.head(MAX_GROUPS).iter_rows():
        if found and total < MIN_DOCUMENTS:
            break
        counts = dict(table.filter(pl.col("group") == name).select("bin", "len").iter_rows())
        found.append(Distribution(name, total, [counts.get(index, 0) / total for index in range(BINS)]))
    return found
