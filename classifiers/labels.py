"""Weak labels as data: SQL predicates that say which documents are good or bad examples.

A label set is one YAML file (`configs/labels/`): `positive` and `negative` predicates over the annotated columns, each
with a name and a reason, and the corruptions that turn positives into further negatives. Two facts about the whole
repository may be used beside the columns: `has_tests` and `is_typed`. A document that any negative predicate names is
negative; of the others, one that a positive predicate names is positive; the rest has no label. Exact copies count
once. Only light columns are read; texts come later, of the chosen documents only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field, model_validator

from ..curation.corpus import predicate
from ..curation.split import TRAIN
from ..strict import Config, ConfigError, Fraction, Name, nearest, parse, read_yaml, resolve
from .corruption import CORRUPTIONS

MAXIMUM_BYTES = 1_000_000
"""Longer documents get no label: their window says no more, and all chosen texts are in memory at once."""

FACTS = ("has_tests", "is_typed")
"""Columns that `label` computes for each repository; a document without a repository has neither."""

FACTS_FROM = ("repository", "path", "is_test")
IDENTITY = ("id", "language", "repository", "size_bytes", "content_hash")


class LabelRule(Config):
    """One predicate and why it speaks for its side."""

    name: Name
    where: str = Field(min_length=1, description="Polars SQL predicate over annotated columns, has_tests and is_typed")
    why: str = Field(min_length=1)


class CorruptionMix(Config):
    """Which corruptions are used, and how many of the negatives they may make up."""

    share: Annotated[Fraction, Field(le=0.5)] = Field(0.0, description="of the negatives in training; at most half")
    trained: tuple[str, ...] = Field((), description="make negatives for training, and are audited")
    audited: tuple[str, ...] = Field((), description="never seen in training, only audited")

    @model_validator(mode="after")
    def _known(self) -> CorruptionMix:
        for name in (*self.trained, *self.audited):
            if name not in CORRUPTIONS:
                known = ", ".join(CORRUPTIONS)
                raise ValueError(f'unknown corruption "{name}"{nearest(name, CORRUPTIONS)}; known: {known}')
        if self.share and not self.trained:
            raise ValueError("a share of corruptions needs `trained` corruptions")
        return self


class LabelSet(Config):
    """A named set of label predicates."""

    name: Name
    version: int = Field(ge=1)
    description: str
    positive: tuple[LabelRule, ...] = Field(min_length=1)
    negative: tuple[LabelRule, ...] = Field(min_length=1)
    corruptions: CorruptionMix = Field(default_factory=CorruptionMix)

    @model_validator(mode="after")
    def _names_differ(self) -> LabelSet:
        names = [rule.name for rule in (*self.positive, *self.negative)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"label names must differ; twice: {', '.join(twice)}")
        return self


def load_labels(name_or_path: str) -> tuple[LabelSet, Path]:
    """The label set of that name in `configs/labels/`, or at that path, and where it was found.

    Raises:
        ConfigError: naming the file and the nearest known name or key.
    """
    path = resolve(name_or_path, "labels")
    return parse(LabelSet, read_yaml(path), where=str(path)), path


def label(frame: pl.LazyFrame, labels: LabelSet, where: str, place: str = "labels") -> pl.DataFrame:
    """All labelled documents, sorted by id: `id`, `language`, `family`, `size_bytes`, `positive`, `rules`.

    `rules` lists the predicates of the document's side that named it. Where `frame` has a column `split`, only rows
    in training are looked at; where it has `duplicate_of`, copies are left out.

    Args:
        frame: documents with the annotated columns; `text` is not read.
        labels: the predicates.
        where: SQL predicate over the same columns: which documents may have a label.
        place: what error messages name: the label set's file.

    Raises:
        ConfigError: if a predicate does not parse, or names an unknown column (with the nearest name).
    """
    columns = frame.collect_schema().names()
    for column in (*IDENTITY, *FACTS_FROM):
        if column not in columns:
            raise ConfigError(f'{place}: labels need the column "{column}"{nearest(column, columns)}')
    known = [*columns, *FACTS]
    allowed = predicate(where, columns, place="classifier: where") & (pl.col("size_bytes") <= MAXIMUM_BYTES)
    if "duplicate_of" in columns:
        allowed &= pl.col("duplicate_of").is_null()
    sides = {
        side: [predicate(rule.where, known, f'{place}: {side} "{rule.name}"').alias(rule.name) for rule in rules]
        for side, rules in (("positive", labels.positive), ("negative", labels.negative))
    }
    used = _columns_used([allowed, *sides["positive"], *sides["negative"]])
    light = [*IDENTITY, *FACTS_FROM, *(c for c in ("family", "split") if c in columns), *used]
    rows = frame.select(c for c in dict.fromkeys(light) if c not in FACTS)
    table = _with_facts((rows.filter(pl.col("split") == TRAIN) if "split" in columns else rows).collect())
    _check_types(table, [*sides["positive"], *sides["negative"]], place)
    positive, negative = (_fired(sides[side]).alias(side) for side in ("positive", "negative"))
    return (
        table.filter(allowed)
        .select("id", "language", _family(columns), "size_bytes", "content_hash", positive, negative)
        .with_columns((pl.col("negative").list.len() == 0).alias("is_positive"))
        .with_columns(pl.when("is_positive").then("positive").otherwise("negative").alias("rules"))
        .filter(pl.col("rules").list.len() > 0)
        .sort("id")
        .unique("content_hash", keep="first", maintain_order=True)
        .unique("id", keep="first", maintain_order=True)
        .select("id", "language", "family", "size_bytes", pl.col("is_positive").alias("positive"), "rules")
    )


def rule_counts(table: pl.DataFrame, labels: LabelSet) -> dict[str, int]:
    """Predicate → labelled documents that it named, in the order of the label set, zeros included."""
    counted = table.explode("rules")["rules"].value_counts()
    counts = dict(zip(counted["rules"], counted["count"], strict=True))
    return {rule.name: counts.get(rule.name, 0) for rule in (*labels.positive, *labels.negative)}


def columns_of(where: str, place: str) -> tuple[str, ...]:
    """The columns that a SQL predicate reads, sorted.

    Raises:
        ConfigError: if it does not parse.
    """
    try:
        return tuple(sorted(set(pl.sql_expr(where).meta.root_names())))
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(f"{place}: {where}: not a valid SQL predicate: {str(error).splitlines()[0]}") from error


def _columns_used(expressions: Iterable[pl.Expr]) -> list[str]:
    return sorted({column for expression in expressions for column in expression.meta.root_names()})


def _with_facts(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with `has_tests` and `is_typed` of each document's repository."""
    stubs = pl.col("path").str.contains(r"(^|/)py\.typed$|\.pyi$|\.d\.ts$")
    facts = table.group_by("repository").agg(
        pl.col("is_test").fill_null(False).any().alias("has_tests"), stubs.fill_null(False).any().alias("is_typed")
    )
    known = pl.col("repository").fill_null("") != ""
    return table.join(facts, on="repository", how="left", nulls_equal=True, maintain_order="left").with_columns(
        (pl.col(fact) & known).alias(fact) for fact in FACTS
    )


def _check_types(table: pl.DataFrame, predicates: Sequence[pl.Expr], place: str) -> None:
    for expression in predicates:
        try:
            dtype = table.head(1).select(expression).dtypes[0]
        except pl.exceptions.PolarsError as error:
            raise ConfigError(f'{place}: "{expression.meta.output_name()}": {str(error).splitlines()[0]}') from error
        if dtype != pl.Boolean:
            raise ConfigError(f'{place}: "{expression.meta.output_name()}": gives {dtype}, not true or false')


def _family(columns: Sequence[str]) -> pl.Expr:
    """The family that the run split by, else the repository; a document without one is a family of its own."""
    family = pl.col("family" if "family" in columns else "repository").fill_null("")
    return pl.when(family != "").then(family).otherwise("id:" + pl.col("id")).alias("family")


def _fired(predicates: Sequence[pl.Expr]) -> pl.Expr:
    """Names of the predicates that hold, as the list column of their side."""
    side = [pl.when(expression).then(pl.lit(expression.meta.output_name())) for expression in predicates]
    return pl.concat_list(side).list.drop_nulls()
