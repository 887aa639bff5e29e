"""Percentiles within stratum: what selections cut at.

Raw scores have no absolute meaning, and one cut-off for all selects languages and kinds of file instead of quality. A
document's percentile is its place among the scored documents of its stratum (language × content type), as a fraction:
(number below + half of the ties) / number in the stratum. In a small stratum that says little, so there a document is
placed among all of its language, or, if that is small too, among all. Null stays null and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

STRATUM = ("language", "content_type")

MINIMUM = 30
"""Scored documents a stratum must have. With 30, one document is 3 percentiles, which a cut at the half can bear."""


def percentile(score: str, stratum: Sequence[str] = STRATUM, minimum: int = MINIMUM) -> pl.Expr:
    """The percentile of column `score` within `stratum`, an expression over all documents at once.

    Args:
        score: name of a numeric column; null and NaN give null.
        stratum: columns from the coarse to the fine; a small stratum falls back by dropping the last.
        minimum: scored documents that a stratum must have.

    Returns:
        Float32 in 0..1, null where the score is. Equal scores in a stratum get the same, a higher score in the same
        stratum never a lower one, and the order of rows does not matter.
    """
    value = pl.col(score).cast(pl.Float64).fill_nan(None)
    place = (value.rank("average") - 0.5) / value.count()
    result = place
    for depth in range(1, len(stratum) + 1):
        keys = list(stratum[:depth])
        result = pl.when(value.count().over(keys) >= minimum).then(place.over(keys)).otherwise(result)
    return pl.when(value.is_not_null()).then(result).cast(pl.Float32)


def percentiles(frame: pl.LazyFrame, name: str = "quality") -> pl.DataFrame:
    """`id` and `<name>_percentile` of all documents in row order: a layer made from the column `<name>_raw`."""
    table = frame.select("id", *STRATUM, f"{name}_raw").collect()
    return table.select("id", percentile(f"{name}_raw").alias(f"{name}_percentile"))
