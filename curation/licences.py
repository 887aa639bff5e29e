"""Licences: which one a text is, whether an expression is permissive, and which one each document is under.

`licence_of` names a licence text by the phrases of `configs/licences.yaml`. `classify` reads SPDX expressions with the
package `license-expression`, whose index has a category for each licence: of `OR` the most permissive side counts, of
`AND` the least. `licences` makes the layer, by the precedence of The Stack v2 (section 2): what the source states about
the repository; else the document's own SPDX tag; else all licence texts of the nearest folder above it that has any. A
tag that is less permissive than what the repository states wins, because it speaks of this very file; a more permissive
one does not free it. Unknown texts make a folder `other` only where nothing known stands beside them.

Price: joins over (source, repository, folder), one for each level of folders; no loop over documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ..strict import CONFIGS, Config, ConfigError, fingerprint, parse, read_yaml

LicenceClass = Literal["permissive", "copyleft", "other", "none"]

COLUMNS = ("id", "source", "repository", "path", "license", "spdx_identifier", "is_licence_text", "licence_of_text")

LAYER: Mapping[str, pl.DataType] = {
    "licence_detected": pl.String(),
    "licence_class": pl.String(),
    "licence_from": pl.String(),
}

UNKNOWN_TEXT = "LicenseRef-unknown"

_FREEDOM = ("permissive", "copyleft", "other")
_WORDS = re.compile(r"[a-z0-9]+(?:\.[0-9]+)*")
# Notices list the licences of what is bundled elsewhere.
_NOT_OF_FOLDER = r"(?i)(?:^|/)[^/]*(?:notice|third[-_]?part)[^/]*$"
_FILED = r"(?i)(?:^|/)licen[cs]es$"
_PLACE = ["source", "repository", "folder"]


class _Text(Config):
    spdx: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()


class _File(Config):
    texts: tuple[_Text, ...]
    spellings: dict[str, tuple[str, ...]]
    nothing: tuple[str, ...]
    classes: dict[Literal["permissive", "copyleft"], tuple[str, ...]]


class _Table:
    def __init__(self, file: _File, path: Path):
        self.texts = file.texts
        self.spellings = {spelling: spdx for spdx, spellings in file.spellings.items() for spelling in spellings}
        self.nothing = frozenset(file.nothing)
        self.classes = {category: of for of, categories in file.classes.items() for category in categories}
        for text in file.texts:
            for phrase in (*text.has, *text.lacks):
                if phrase != _words(phrase):
                    raise ConfigError(f'{path}: {text.spdx}: "{phrase}" must be words: "{_words(phrase)}"')


def licence_of(text: str) -> str | None:
    """The SPDX identifier of the licence that begins first in `text`; null if the table knows none in it."""
    words = _words(text)
    found = []
    for rank, licence in enumerate(_table().texts):
        places = [words.find(phrase) for phrase in licence.has]
        if min(places) >= 0 and not any(phrase in words for phrase in licence.lacks):
            found.append((places[0], rank, licence.spdx))
    return min(found)[2] if found else None


def normalise(stated: str | None) -> str | None:
    """An SPDX expression from what a source states: a known spelling replaced, null where it says nothing.

    What is no SPDX expression is kept as it is.
    """
    stated = (stated or "").strip()
    if stated.lower() in _table().nothing:
        return None
    stated = _table().spellings.get(stated.lower(), stated)
    for expression in (stated, stated.replace("/", " OR ")):  # Cargo's old way of writing OR
        parsed = _parsed(expression)
        if parsed is not None:
            return str(parsed)
    return stated


def classify(expression: str | None) -> LicenceClass:
    """The class of an SPDX expression: `OR` takes the most permissive side, `AND` the least.

    An unknown licence, or what is no expression, is `other`; null is `none`.
    """
    if expression is None:
        return "none"
    parsed = _parsed(expression)
    return "other" if parsed is None else _class(parsed)


def licences(frame: pl.LazyFrame) -> pl.DataFrame:
    """`id` and the columns of `LAYER`, in the order of `frame`, which needs the columns `COLUMNS`."""
    table = frame.select(COLUMNS).collect()
    folder = (
        pl.when(pl.col("path").str.contains("/")).then(pl.col("path").str.replace(r"/[^/]*$", "")).otherwise(pl.lit(""))
    )
    table = table.select(
        "id",
        "source",
        "repository",
        folder.alias("folder"),
        pl.col("license").replace_strict(_mapped(table["license"], normalise), return_dtype=pl.String).alias("stated"),
        pl.col("spdx_identifier")
        .replace_strict(_mapped(table["spdx_identifier"], normalise), return_dtype=pl.String)
        .alias("tag"),
        pl.when(pl.col("is_licence_text").fill_null(False) & ~pl.col("path").str.contains(_NOT_OF_FOLDER))
        .then(pl.col("licence_of_text").fill_null(UNKNOWN_TEXT))
        .alias("is"),
    )
    table = table.join(_by_folder(table), on=_PLACE, how="left", nulls_equal=True, maintain_order="left")
    named = pl.concat([table[column] for column in ("stated", "tag", "above")])
    classes = _mapped(named, classify)
    freedom = {expression: _FREEDOM.index(of) for expression, of in classes.items() if of != "none"}
    stated, tag = (
        pl.col(column).replace_strict(freedom, default=None, return_dtype=pl.Int8) for column in ("stated", "tag")
    )
    wins = pl.col("tag").is_not_null() & (pl.col("stated").is_null() | (tag > stated))
    detected = pl.when(wins).then("tag").otherwise(pl.coalesce("stated", "tag", "above"))
    source = (
        pl.when(wins)
        .then(pl.lit("file"))
        .when(pl.col("stated").is_not_null())
        .then(pl.lit("repository"))
        .when(pl.col("above").is_not_null())
        .then(pl.lit("folder"))
    )
    return table.select(
        "id",
        detected.alias("licence_detected"),
        detected.replace_strict({**classes, None: "none"}, return_dtype=pl.String).alias("licence_class"),
        source.alias("licence_from"),
    )


def made_from() -> dict[str, Any]:
    """What the layer depends on besides the documents."""
    return {"version": 1, "table": fingerprint(read_yaml(CONFIGS / "licences.yaml"))}


def _by_folder(table: pl.DataFrame) -> pl.DataFrame:
    """source, repository, folder, `above`: the expression of the nearest folder from there upwards with a text."""
    texts = table.filter(pl.col("is").is_not_null()).select(
        "source", "repository", pl.col("folder").str.replace(_FILED, ""), "is"
    )
    unions = texts.group_by(_PLACE).agg(pl.col("is").unique().sort())
    known = pl.col("is").list.filter(pl.element() != UNKNOWN_TEXT)
    unions = unions.with_columns(
        pl.when(known.list.len() > 0).then(known).otherwise("is").list.join(" AND ").alias("above")
    )
    unions = unions.select(*_PLACE, "above").rename({"folder": "at"})
    pending = table.select(_PLACE).unique(maintain_order=True).with_columns(pl.col("folder").alias("at"))
    done: list[pl.DataFrame] = []
    while pending.height:
        joined = pending.join(unions, on=["source", "repository", "at"], how="left", nulls_equal=True)
        is_over = pl.col("above").is_not_null() | (pl.col("at") == "")
        done.append(joined.filter(is_over).select(*_PLACE, "above"))
        parent = (
            pl.when(pl.col("at").str.contains("/")).then(pl.col("at").str.replace(r"/[^/]*$", "")).otherwise(pl.lit(""))
        )
        pending = joined.filter(~is_over).select(*_PLACE, parent.alias("at"))
    return pl.concat(done) if done else pending.select(*_PLACE, pl.lit(None, dtype=pl.String).alias("above"))


def _mapped(values: pl.Series, function: Any) -> dict[str | None, Any]:
    """What `function` says of each different value."""
    return {value: function(value) for value in values.unique(maintain_order=True).to_list()}


def _class(parsed: Any) -> LicenceClass:
    licensing = _licensing()
    if isinstance(parsed, licensing.OR | licensing.AND):
        sides = [_FREEDOM.index(_class(side)) for side in parsed.args]
        return _FREEDOM[min(sides) if isinstance(parsed, licensing.OR) else max(sides)]  # type: ignore[return-value]
    # An exception lets one do more than its licence does, so the licence decides.
    symbol = getattr(parsed, "license_symbol", parsed)
    return _classes().get(symbol.key.lower(), "other")


def _parsed(expression: str) -> Any:
    from license_expression import ExpressionError

    try:
        return _licensing().parse(expression, simple=True)
    except (ExpressionError, AttributeError, TypeError):  # its parser fails in these ways on other texts
        return None


@cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@cache
def _index() -> list[dict[str, Any]]:
    from license_expression import get_license_index

    return [licence for licence in get_license_index() if licence.get("spdx_license_key")]


@cache
def _classes() -> dict[str, LicenceClass]:
    classes: dict[str, LicenceClass] = {}
    for licence in _index():
        for key in (licence["spdx_license_key"], *licence.get("other_spdx_license_keys", ())):
            classes[key.lower()] = _table().classes.get(licence["category"], "other")
    return classes


def load_table(path: Path) -> _Table:
    """The table in the YAML file.

    Raises:
        ConfigError: if it is not of the right form, or a phrase could never be found.
    """
    return _Table(parse(_File, read_yaml(path), where=str(path)), path)


@cache
def _table() -> _Table:
    return load_table(CONFIGS / "licences.yaml")


def _words(text: str) -> str:
    return " ".join(_WORDS.findall(text.lower()))
