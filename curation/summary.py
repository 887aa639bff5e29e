"""The numbers of a run: the funnel, what each reason stands against, and the languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..config import SelectionConfig
from .annotate import Annotated
from .corpus import scan
from .select import where
from .steps import STEP_ERRORS


def summarise(
    run: Path,
    name: str,
    annotated: Annotated,
    chosen: SelectionConfig,
    selections: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What came in, what went out and why not, as plain data for `summary.json`."""
    frame = scan(run)
    total = frame.select(pl.len(), pl.col("size_bytes").sum()).collect().row(0)
    row = next(row for row in selections if row["selection"] == chosen.name)
    errors = frame.select((pl.col(STEP_ERRORS).list.len() > 0).sum()).collect().item()
    return {
        "name": name,
        "files_in": annotated.files_in,
        "documents_in": total[0] + sum(annotated.skipped.values()),
        "documents_annotated": total[0],
        "documents_selected": row["documents"],
        "documents_rejected": row["documents_rejected"],
        "documents_skipped": annotated.skipped,
        "documents_with_step_errors": errors,
        "bytes_in": annotated.bytes_in,
        "bytes_annotated": total[1],
        "bytes_selected": row["bytes"],
        "selection": chosen.name,
        "selections": list(selections),
        "reasons": reason_counts(frame),
        "languages": language_counts(frame, where(chosen, frame.collect_schema().names())),
    }


def reason_counts(frame: pl.LazyFrame) -> list[dict[str, Any]]:
    """Per reason: documents and bytes it stands against, and those that it alone stands against."""
    size = pl.col("size_bytes")
    alone = pl.col("reason_count") == 1
    return (
        frame.filter(pl.col("reason_count") > 0)
        .select("reasons", "reason_count", "size_bytes")
        .explode("reasons")
        .group_by(pl.col("reasons").alias("reason"))
        .agg(
            pl.len().alias("documents"),
            size.sum().alias("bytes"),
            alone.sum().alias("documents_alone"),
            size.filter(alone).sum().alias("bytes_alone"),
        )
        .sort(["bytes", "reason"], descending=[True, False])
        .collect()
        .to_dicts()
    )


def language_counts(frame: pl.LazyFrame, chosen: pl.Expr) -> list[dict[str, Any]]:
    """Per language: documents and bytes in, and selected."""
    return (
        frame.group_by("language")
        .agg(
            pl.len().alias("documents"),
            pl.col("size_bytes").sum().alias("bytes"),
            chosen.sum().alias("documents_selected"),
            pl.col("size_bytes").filter(chosen).sum().alias("bytes_selected"),
        )
        .sort(["bytes", "language"], descending=[True, False])
        .collect()
        .to_dicts()
    )
