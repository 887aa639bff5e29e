"""Documents to look at: for each rule those that it alone stands against, what was kept, and a classifier's extremes.

The choice is a function of the documents: in the order of their ids, which are hashes, so it is a random one that stays
the same. Copies are shown once. Price: one scan of the small columns, one of the chosen documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ..curation.rules import Rule, explain
from .excerpts import Excerpt, body, head, longest_line

PER_RULE = 3
KEPT = 3
PER_PERCENTILE = 2
PERCENTILES = {"top": 0.99, "median": 0.5, "bottom": 0.01}
MAX_TEXT = 200_000
"""Characters of a document that are looked at; an excerpt is 20 lines, and some documents are 60 MB."""

LINE_SIGNALS = {"max_line_length", "longest_encoded_run"}
"""A rule that looks at these is best understood at the longest line."""


@dataclass(frozen=True)
class Sample:
    """A document to show. `numbers` are the signals that a rule looked at; `others` the other rules that fired."""

    id: str
    path: str
    source: str
    language: str
    size_bytes: int
    excerpt: Excerpt
    numbers: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def rule_samples(frame: pl.LazyFrame, rules: Mapping[str, Rule | None]) -> dict[str, list[Sample]]:
    """For each reason in `rules`; those that no other rule fired on come first. Without the rule, without numbers."""
    picked = (
        frame.filter(pl.col("reason_count") > 0)
        .select("id", "content_hash", "reasons", "reason_count")
        .explode("reasons")
        .filter(pl.col("reasons").is_in(list(rules)))
        .sort("reasons", pl.col("reason_count") > 1, "id")
        .unique(["reasons", "content_hash"], keep="first", maintain_order=True)
        .group_by("reasons", maintain_order=True)
        .head(PER_RULE)
        .collect()
    )
    documents = _documents(frame, picked["id"])
    samples: dict[str, list[Sample]] = {name: [] for name in rules}
    for reason, identifier in picked.select("reasons", "id").iter_rows():
        rule, row = rules[reason], documents[identifier]
        numbers = explain(rule, row) if rule else {}
        view = longest_line if numbers.keys() & LINE_SIGNALS else head
        others = tuple(other for other in row["reasons"] if other != reason)
        samples[reason].append(_sample(row, view, numbers, others))
    return samples


def kept_samples(frame: pl.LazyFrame, chosen: pl.Expr) -> list[Sample]:
    """One document of each of the largest selected languages, and more of them in turn; code comes before text."""
    kept = frame.filter(chosen).select("id", "language", "kind", "size_bytes").sort("id")
    picked = (
        kept.with_columns(
            pl.int_range(pl.len()).over("language").alias("turn"),
            (pl.col("kind") == "text").all().over("language").alias("is_text"),
            pl.col("size_bytes").sum().over("language").alias("language_bytes"),
        )
        .sort("turn", "is_text", "language_bytes", "id", descending=[False, False, True, False])
        .head(KEPT)
        .collect()
    )
    documents = _documents(frame, picked["id"])
    return [_sample(documents[identifier], body) for identifier in dict.fromkeys(picked["id"])]


def percentile_samples(frame: pl.LazyFrame, language: str) -> dict[str, list[Sample]]:
    """Documents of a language near the top, the median and the bottom percentile of the quality score."""
    scored = frame.filter((pl.col("language") == language) & pl.col("quality_percentile").is_not_null())
    columns = ["quality_percentile", "quality_probability"]
    table = scored.select("id", "content_hash", *columns).unique("content_hash", keep="first", maintain_order=True)
    small = table.collect()
    picked = {
        label: small.sort((pl.col("quality_percentile") - at).abs(), "id").head(PER_PERCENTILE)["id"].to_list()
        for label, at in PERCENTILES.items()
    }
    documents = _documents(frame, [identifier for ids in picked.values() for identifier in ids])
    return {
        label: [_sample(documents[i], body, {c: documents[i][c] for c in columns}) for i in ids]
        for label, ids in picked.items()
    }


def _documents(frame: pl.LazyFrame, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Id → all columns; the text cut to MAX_TEXT. Ids may repeat, the first row counts."""
    wanted = frame.filter(pl.col("id").is_in(list(ids))).with_columns(pl.col("text").str.head(MAX_TEXT))
    rows = wanted.unique("id", keep="first", maintain_order=True).collect()
    return {row["id"]: row for row in rows.iter_rows(named=True)}


def _sample(
    row: Mapping[str, Any],
    view: Callable[[str, str], Excerpt],
    numbers: Mapping[str, Any] | None = None,
    others: tuple[str, ...] = (),
) -> Sample:
    return Sample(
        id=row["id"],
        path=row["path"],
        source=row["source"],
        language=row["language"],
        size_bytes=row["size_bytes"],
        excerpt=view(row["text"], row["language"]),
        numbers=dict(numbers or {}),
        others=others,
    )
