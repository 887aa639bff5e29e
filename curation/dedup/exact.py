"""Exact duplicates: documents with the same content hash, over all shards of a run.

One document of each cluster is kept, by a declared order: outside vendored folders first, then the shortest path,
then the path itself — the copy nearest to where it is maintained. The others point at it in `duplicate_of`. Only ids
and hashes are held in memory, and of repeated contents the paths.
"""

from __future__ import annotations

import polars as pl

COLUMNS = ("id", "content_hash", "is_vendored", "path")


def exact_duplicates(frame: pl.LazyFrame) -> pl.DataFrame:
    """`id`, `duplicate_of` (id of the kept copy, null for that copy itself), `duplicate_count` (size of the cluster).

    Rows keep the order of `frame`, which needs the columns `COLUMNS`.
    """
    table = frame.select("id", "content_hash").collect()
    repeated = table.filter(pl.col("content_hash").is_duplicated())["content_hash"].unique()
    order = ["content_hash", "is_vendored", "path_length", "path", "row"]
    clusters = (
        frame.select(COLUMNS)
        .with_row_index("row")
        .filter(pl.col("content_hash").is_in(repeated.implode()))
        .with_columns(pl.col("path").str.len_bytes().alias("path_length"))
        .collect()
        .sort(order, nulls_last=True)
        .group_by("content_hash", maintain_order=True)
        .agg(pl.col("id").first().alias("kept"), pl.len().cast(pl.UInt32).alias("duplicate_count"))
    )
    joined = table.join(clusters, on="content_hash", how="left", maintain_order="left")
    return joined.select(
        "id",
        pl.when(pl.col("kept") != pl.col("id")).then("kept").otherwise(None).alias("duplicate_of"),
        pl.col("duplicate_count").fill_null(1),
    )
