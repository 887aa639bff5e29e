"""What came in, what stands against what, and what went out: the counting parts of the page.

In: `summary.json`, the run's config and the scan. Every number that the summary has is taken from it; the scan adds
only what it does not hold: the bytes of skips, where the rejected documents went (each to one cause, so that the parts
add up to the whole), and how much of one rule's bytes another rule stands against as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ..config import SelectionConfig
from ..curation.select import where
from ..curation.shards import shard_paths
from ..curation.split import HELDOUT

NOT_SAMPLED = "not_sampled"
OVERLAP_RULES = 8
NEAR_DUPLICATES = {"near_duplicate_of", "near_duplicate_count", "near_duplicate_similarity"}
CONTAMINATION = {"contaminated_by", "contamination_overlap"}

Part = Literal["in", "skipped", "annotated", "rejected", "selected"]


@dataclass(frozen=True)
class Step:
    """One row of the funnel."""

    part: Part
    label: str
    documents: int
    bytes: int


@dataclass(frozen=True)
class Overlap:
    """For rules by bytes: `shares[i][j]` of the bytes that rule i stands against, rule j stands against as well."""

    names: list[str]
    shares: list[list[float]]


def funnel(run: Path, summary: Mapping[str, Any], chosen: SelectionConfig, frame: pl.LazyFrame) -> list[Step]:
    """From files to the selection. Rejected documents are counted once, under the first cause that holds."""
    return [
        Step("in", "files in", summary["files_in"], summary["bytes_in"]),
        *_skips(run, summary["documents_skipped"]),
        Step("annotated", "annotated", summary["documents_annotated"], summary["bytes_annotated"]),
        *_rejected(chosen, frame),
        Step("selected", "selected", summary["documents_selected"], summary["bytes_selected"]),
    ]


def overlap(frame: pl.LazyFrame, reasons: Sequence[Mapping[str, Any]]) -> Overlap | None:
    """Pairwise, for the rules that stand against most bytes; None where no two rules meet."""
    names = [row["reason"] for row in reasons[:OVERLAP_RULES]]
    total = {row["reason"]: row["bytes"] for row in reasons}
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return None
    fired = [pl.col("reasons").list.contains(name) for name in names]
    both = [pl.col("size_bytes").filter(fired[i] & fired[j]).sum().alias(f"{i} {j}") for i, j in pairs]
    found = frame.filter(pl.col("reason_count") > 1).select(both).collect().row(0, named=True)
    if not any(found.values()):
        return None
    shares = [[1.0] * len(names) for _ in names]
    for i, j in pairs:
        shares[i][j] = found[f"{i} {j}"] / max(1, total[names[i]])
        shares[j][i] = found[f"{i} {j}"] / max(1, total[names[j]])
    return Overlap(names, shares)


def step_errors(frame: pl.LazyFrame) -> list[tuple[str, int]]:
    """`step: Type` and the number of documents, most frequent first."""
    error = pl.col("step_errors").explode().str.extract(r"^([^:]*: [^:]*)", 1)
    table = (
        frame.select(error.alias("error"))
        .filter(pl.col("error").is_not_null())
        .group_by("error")
        .len()
        .sort(["len", "error"], descending=[True, False])
        .collect()
    )
    return list(table.iter_rows())


def _skips(run: Path, skipped: Mapping[str, int]) -> list[Step]:
    paths = shard_paths(run / "skipped")
    sizes: dict[str, int] = {}
    if paths:
        reason = pl.col("reason").str.split(":").list.first().alias("reason")
        table = pl.scan_parquet(paths).group_by(reason).agg(pl.col("size_bytes").sum()).collect()
        sizes = dict(table.iter_rows())
    steps = [Step("skipped", reason, files, sizes.get(reason, 0)) for reason, files in skipped.items()]
    return sorted(steps, key=lambda step: (-step.documents, step.label))


def _rejected(chosen: SelectionConfig, frame: pl.LazyFrame) -> list[Step]:
    columns = frame.collect_schema().names()
    causes = _causes(chosen, columns)
    first = pl.coalesce(pl.when(holds).then(pl.lit(label)) for label, holds in causes)
    table = (
        frame.filter(~where(chosen, columns))
        .group_by(first.alias("cause"))
        .agg(pl.len(), pl.col("size_bytes").sum())
        .collect()
    )
    found = {label: (documents, size) for label, documents, size in table.iter_rows()}
    return [Step("rejected", label, *found[label]) for label, _ in causes if label in found]


def _causes(chosen: SelectionConfig, columns: Sequence[str]) -> list[tuple[str, pl.Expr]]:
    """Label and condition; the last one always holds. A cause that the predicate does not look at is not one."""
    causes = [("held out", pl.col("split") == HELDOUT)] if "split" in columns else []
    if chosen.control_of:
        return [*causes, ("dropped at random", pl.lit(True))]
    used = set(pl.sql_expr(chosen.where).meta.root_names())
    if used & {"reason_count", "reasons"}:
        causes += [
            ("one rule", pl.col("reason_count") == 1),
            ("several rules", pl.col("reason_count") > 1),
        ]
    if used & {"duplicate_of", "duplicate_count"}:
        causes.append(("copies", pl.col("duplicate_of").is_not_null()))
    if used & NEAR_DUPLICATES:
        causes.append(("near copies", pl.col("near_duplicate_of").is_not_null()))
    if used & CONTAMINATION:
        causes.append(("benchmark items", pl.col("contaminated_by").list.len() > 0))
    if used & {"verified", "verification"}:
        causes.append(("failed verification", ~pl.col("verified").fill_null(True)))
    scored = used & {"quality_raw", "quality_probability", "quality_percentile"}
    explained = {"reason_count", "reasons", "duplicate_of", "duplicate_count", "verified", "verification", "kind"}
    explained |= NEAR_DUPLICATES | CONTAMINATION
    rest = "low quality score" if scored and used <= scored | explained else "other conditions"
    return [*causes, (rest, pl.lit(True))]
