"""What an item is worth under a metric: the values that are averaged, compared and drawn again.

In: the items of one task and stream of one model (`store.ITEMS`), and a metric's name. Out: one row an item (item,
cluster, language, value, size, samples, variance): a score in [0, 1] of size 1, or bits over bytes. Samples of an item
become one value first, so an item that was sampled more often does not weigh more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from ..strict import ConfigError, nearest
from .normalisation import NORMALISATIONS, choice_correct
from .paired import pass_at_k_by_item

BY_KIND = {
    "bits_per_byte": ("bits_per_byte",),
    "choice": ("accuracy", *(f"accuracy_{name}" for name in NORMALISATIONS), "bits_per_byte"),
    "generate_match": ("exact_match", "f1"),
    "code": ("pass_at_1",),
    "infill": ("pass_at_1",),
    "judge": ("win_rate",),
}
"""Kind of task → metrics, the first one its usual one; code and infilling have every pass_at_<k>."""

LIKELIHOOD_STREAMS = ("gold", "choice", "text")
"""Streams that are one text; of any other one the languages count the same, as in `metrics`."""

Unit = Literal["points", "bits/byte"]


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        by_language: the languages of the items have the same weight.
    """

    name: str
    higher_is_better: bool
    unit: Unit
    by_language: bool = False


def measure_of(name: str, kind: str, stream: str) -> Measure:
    """The metric `name` of a task of this kind.

    Raises:
        ConfigError: if the task has no such metric.
    """
    known = BY_KIND[kind]
    if name not in known and not (kind in {"code", "infill"} and re.fullmatch(r"pass_at_[1-9]\d*", name)):
        raise ConfigError(
            f'a task of kind "{kind}" has no metric "{name}"{nearest(name, known)}; it has: {", ".join(known)}'
        )
    if name == "bits_per_byte":
        return Measure(name, False, "bits/byte", stream not in LIKELIHOOD_STREAMS)
    return Measure(name, True, "points")


def usual_metric(kind: str, facts: Mapping[str, Any]) -> str:
    """The metric that stands for a task, from what `evaluation.json` says of it."""
    if kind == "generate_match":
        return str(facts.get("metric", "exact_match"))
    return BY_KIND[kind][0]


def item_values(items: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """One row an item, sorted by item; answers without a score (null) are left out.

    Raises:
        ValueError: if a likelihood is no number, or an item has fewer than k samples.
    """
    if measure.unit == "bits/byte":
        broken = items.filter(~pl.col("nats").is_finite().fill_null(False))
        if not broken.is_empty():
            row = broken.row(0, named=True)
            raise ValueError(f"task {row['task']}, item {row['item']}: nats is {row['nats']}, not a number")
        return items.sort("item").select(
            *_NAMES,
            (pl.col("nats") / math.log(2)).alias("value"),
            pl.col("bytes").cast(pl.Float64).alias("size"),
            pl.lit(1, pl.Int64).alias("samples"),
            pl.lit(None, pl.Float64).alias("variance"),
        )
    if measure.name.startswith("accuracy_"):
        normalisation = measure.name.removeprefix("accuracy_")
        scores = [choice_correct(json.loads(text), normalisation) for text in items["detail"]]
        items = items.with_columns(pl.Series("score", scores, dtype=pl.Float64))
    grouped = (
        items.drop_nulls("score")
        .group_by("item")
        .agg(
            pl.col("cluster").first(),
            pl.col("language").first(),
            pl.col("score").mean().alias("value"),
            pl.lit(1.0).alias("size"),
            pl.len().cast(pl.Int64).alias("samples"),
            (pl.col("score").var() / pl.len()).alias("variance"),
            pl.col("score").eq(1).sum().alias("correct"),
        )
        .sort("item")
    )
    k = int(measure.name.removeprefix("pass_at_")) if measure.name.startswith("pass_at_") else 1
    if k > 1:
        values = pass_at_k_by_item(grouped["samples"].to_list(), grouped["correct"].to_list(), k)
        # How far few samples move the estimate of pass@k is not known in closed form.
        grouped = grouped.with_columns(pl.Series("value", values), pl.lit(None, pl.Float64).alias("variance"))
    return grouped.select(*_NAMES, "value", "size", "samples", "variance")


def mean_of_seeds(values: list[pl.DataFrame]) -> pl.DataFrame:
    """Item by item the mean over seeds; all have the same items."""
    if len(values) == 1:
        return values[0]
    columns = {
        name: np.mean([each[name].to_numpy() for each in values], axis=0) for name in ("value", "samples", "variance")
    }
    return values[0].with_columns(
        pl.Series("value", columns["value"]),
        pl.Series("samples", columns["samples"] * len(values)).cast(pl.Int64),
        pl.Series("variance", columns["variance"] / len(values), nan_to_null=True),
    )


_NAMES = ("item", "cluster", "language")
