"""Our annotation inside datatrove's pipelines: `Annotate` measures Documents, `Keep` filters them by predicate.

Comes in: datatrove Documents from any of its readers. Goes out: the same Documents in the same order, with signals,
reasons and scores in their metadata under the names that `codesieve signals` prints; text and ids are not touched.
Documents are collected to batches of `batch_bytes`, so the columnar steps run as fast as in our own stage; the way
through Documents adds 0.1 ms each, Keep 0.01. Duplicates and percentiles need all documents at once: they are layers
of a run, not columns that a step on a stream can give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.typeshelper import StatHints

from ..config import AnnotateConfig
from ..strict import ConfigError
from .corpus import predicate
from .faults import apply_step, set_up
from .languages import HEAD_BYTES, identify, kind_of, languages
from .rules import RuleSet, RulesStep, load_rules
from .schema import IDENTITY, SIGNALS
from .signals.pipeline import standard_steps
from .steps import STEP_ERRORS, Step, check, with_errors

BATCH_DOCUMENTS = 10_000
"""At most this many documents wait for their batch to fill, however small they are."""

FOUND = ("kind", "language", "size_bytes", "content_hash")
"""Identity that we find out; a document's own `kind` and `language` come first where they are given."""

ADDED: Mapping[str, pl.DataType] = {
    "reasons": pl.List(pl.String()),
    "reason_count": pl.UInt16(),
    "quality_raw": pl.Float32(),
    "quality_probability": pl.Float32(),
    STEP_ERRORS: pl.List(pl.String()),
}
"""What Annotate's steps behind the signals add, so that Keep knows it without them."""

_DTYPES: dict[str, pl.DataType] = {column.name: column.dtype for column in (*IDENTITY, *SIGNALS)}
_SURROGATES = re.compile("[\ud800-\udfff]")


class Annotate(PipelineStep):  # type: ignore[misc]
    """Puts signals, reasons and scores into the metadata of each document.

    A document that makes a step fail has None there and the error in `step_errors`; the pipeline goes on.

    Args:
        config: of the steps, as in a recipe; its `rules` is not read here.
        rules: name or path of a rule set, or the set itself; None for no reasons.
        steps: more steps, run after the others: `classifiers.step.ScoreStep(folder)` adds a classifier's scores.
        path_key: metadata that holds the file's path inside its repository; names and folders are signals.
        language_key: metadata that holds the language by Linguist's name, in any case; where it is missing or None the
            language is found by path and content, and with `language_key=None` always.
        prefix: put before every name that is added, where other metadata has the same names.

    Raises:
        ConfigError: if the steps do not fit together, or the rule set is not there.
    """

    type = "ANNOTATE"
    name = "codesieve"

    def __init__(
        self,
        config: AnnotateConfig | None = None,
        rules: str | Path | RuleSet | None = "codesieve",
        steps: Sequence[Step] = (),
        path_key: str = "path",
        language_key: str | None = "language",
        prefix: str = "",
    ):
        super().__init__()
        self.config = config or AnnotateConfig()
        self.path_key, self.language_key, self.prefix = path_key, language_key, prefix
        self.steps = standard_steps(self.config)
        columns = [*(column.name for column in IDENTITY), STEP_ERRORS]
        if rules is not None:
            known = check(self.steps, columns)
            self.steps.append(RulesStep(rules if isinstance(rules, RuleSet) else load_rules(str(rules), known)))
        self.steps += steps
        check(self.steps, columns)

    @property
    def provides(self) -> dict[str, pl.DataType]:
        """What is added to the metadata, and its types."""
        added = {name: _DTYPES[name] for name in FOUND}
        for step in self.steps:
            added |= step.provides
        return {self.prefix + name: dtype for name, dtype in {**added, STEP_ERRORS: pl.List(pl.String())}.items()}

    def schema(self, **metadata: pa.DataType) -> pa.Schema:
        """For `ParquetWriter(…, expand_metadata=True, schema=…)`: text, id, the document's own `metadata`, and ours."""
        empty = pl.DataFrame(schema=self.provides).to_arrow(compat_level=pl.CompatLevel.oldest())
        own = {"text": pa.large_string(), "id": pa.string(), **metadata}
        for name in (*metadata, self.path_key, self.language_key):
            if name is not None and name not in empty.column_names:
                own.setdefault(name, pa.string())
        return pa.schema([*own.items(), *((field.name, field.type) for field in empty.schema if field.name not in own)])

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Datatrove's entry point."""
        set_up(self.steps)
        for documents, rows in self._batches(data or ()):
            with self.track_time("batch"):
                self._annotate(documents, rows)
            for document in documents:
                self.stat_update(StatHints.total)
                if document.metadata[self.prefix + STEP_ERRORS]:
                    self.stat_update(STEP_ERRORS)
                if isinstance(document.text, str):
                    self.update_doc_stats(document)
                yield document

    def _batches(self, data: Iterable[Document]) -> Iterator[tuple[list[Document], list[dict[str, Any]]]]:
        documents: list[Document] = []
        rows: list[dict[str, Any]] = []
        size = 0
        for document in data:
            row = self._row(document)
            if documents and (size + row["size_bytes"] > self.config.batch_bytes or len(documents) >= BATCH_DOCUMENTS):
                yield documents, rows
                documents, rows, size = [], [], 0
            documents.append(document)
            rows.append(row)
            size += row["size_bytes"]
        if documents:
            yield documents, rows

    def _row(self, document: Document) -> dict[str, Any]:
        """Identity of a document. Lone surrogates, which no UTF-8 can hold, are measured as U+FFFD."""
        text = _valid(document.text) if isinstance(document.text, str) else ""
        data = text.encode()
        path = _valid(str(document.metadata.get(self.path_key) or ""))
        language = _language(document.metadata.get(self.language_key) if self.language_key else None)
        language = language or identify(path, data[:HEAD_BYTES])
        row = {name: _valid(str(document.metadata.get(name) or "")) for name in ("source", *_OPTIONAL)}
        return {
            **row,
            "id": _valid(str(document.id)),
            "text": text,
            "kind": _valid(str(document.metadata.get("kind") or kind_of(language))),
            "language": language,
            "path": path,
            "size_bytes": len(data),
            "content_hash": xxhash.xxh3_128_hexdigest(data),
            "extra": "{}",
        }

    def _annotate(self, documents: Sequence[Document], rows: Sequence[Mapping[str, Any]]) -> None:
        batch = pl.DataFrame(rows, schema={column.name: column.dtype for column in IDENTITY})
        no_text = [
            None if isinstance(document.text, str) else f"text: {type(document.text).__name__}, not a string"
            for document in documents
        ]
        batch = with_errors(batch, no_text)
        for step in self.steps:
            batch = apply_step(step, batch)
        names = self.provides
        added = batch.select(pl.col(name.removeprefix(self.prefix)).alias(name) for name in names)
        # These two a document may bring itself; they are measured as given. Any other such name means something else.
        own = {"kind", self.language_key}
        for document, values in zip(documents, added.iter_rows(named=True), strict=True):
            taken = next((name for name in document.metadata if name in names and name not in own), None)
            if taken is not None:
                raise ConfigError(
                    f'document {document.id}: its metadata has "{taken}" already; '
                    'give Annotate a prefix, as in prefix="codesieve_"'
                )
            document.metadata.update(values)


_OPTIONAL = ("repository", "revision", "license")


class Keep(BaseFilter):  # type: ignore[misc]
    """Drops the documents for whose metadata a predicate does not hold; null counts as false.

    The rejected go to `exclusion_writer` with their text and, as `filter_reason`, every part of the predicate (between
    its ANDs) that did not hold; statistics count `dropped_<reason>`.

    Args:
        where: Polars SQL over the names that `Annotate` adds, as in a selection.
        columns: other metadata that it may name, with types; `Annotate.provides` for more steps or a prefix.

    Raises:
        ConfigError: before a document is read, if `where` does not parse or names an unknown column (with the nearest
            name); at the first batch, if no document has a column that it names.
    """

    type = "FILTER"
    name = "codesieve keep"

    def __init__(
        self,
        where: str,
        exclusion_writer: Any = None,
        columns: Mapping[str, pl.DataType] | None = None,
        batch_size: int = 256,
    ):
        super().__init__(exclusion_writer, batch_size)
        known = {**_DTYPES, **ADDED, **(columns or {})}
        self.where = where
        self.parts = conjuncts(where)
        self.dtypes = {name: known[name] for name in _columns_of(where, known)}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """As `filter_batch`, for one document."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        """True, or False and why, for each document."""
        frame = pl.DataFrame([self._column(name, dtype, batch) for name, dtype in self.dtypes.items()])
        if not self.dtypes:
            frame = pl.DataFrame({"": [None] * len(batch)})
        names = [str(number) for number in range(len(self.parts))]
        parts = frame.select(
            predicate(self.where, frame.columns).alias("keep"),
            *(predicate(part, frame.columns).alias(name) for part, name in zip(self.parts, names, strict=True)),
        )
        if parts.height != len(batch):  # a predicate without columns is one value
            parts = pl.concat([parts] * len(batch))
        return [
            True
            if keep
            else (False, "; ".join(p for p, h in zip(self.parts, holds, strict=True) if not h) or self.where)
            for keep, *holds in parts.iter_rows()
        ]

    def _column(self, name: str, dtype: pl.DataType, batch: Sequence[Document]) -> pl.Series:
        if name in ("id", "text"):
            return pl.Series(name, [_valid(getattr(document, name)) for document in batch], dtype=dtype)
        if not any(name in document.metadata for document in batch):
            raise ConfigError(
                f'where: {self.where}: no document has "{name}" in its metadata (the first: {batch[0].id}); '
                "Annotate comes before Keep"
            )
        values = [document.metadata.get(name) for document in batch]
        try:
            return pl.Series(name, values, dtype=dtype)
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            return pl.Series(
                name, [_typed(value, dtype, name, d) for value, d in zip(values, batch, strict=True)], dtype
            )


def conjuncts(where: str) -> list[str]:
    """The parts between the outermost ANDs of a predicate; the whole where that is not sure."""
    parts, start, depth, between = [], 0, 0, False
    for token in _TOKENS.finditer(where):
        word = token.group().upper()
        depth += {"(": 1, "CASE": 1, ")": -1, "END": -1}.get(word, 0)
        if depth:
            continue
        if word == "OR":
            return [where]
        if word == "BETWEEN":
            between = True
        elif word == "AND" and between:
            between = False
        elif word == "AND":
            parts.append(where[start : token.start()].strip())
            start = token.end()
    parts.append(where[start:].strip())
    try:
        for part in parts:
            pl.sql_expr(part)
    except (pl.exceptions.PolarsError, TypeError):
        return [where]
    return parts


_TOKENS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\w+|[()]""")


def _columns_of(where: str, known: Mapping[str, pl.DataType]) -> list[str]:
    return list(dict.fromkeys(predicate(where, known, place="Keep: where").meta.root_names()))


def _typed(value: Any, dtype: pl.DataType, name: str, document: Document) -> Any:
    try:
        return pl.Series([value]).cast(dtype)[0]
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"document {document.id}: metadata {name}: {value!r} is not {dtype}") from error


def _language(given: Any) -> str | None:
    """Linguist writes `C++`, we write `c++`; a name that the table does not have stays as it is."""
    if not given:
        return None
    name = _valid(str(given))
    return name.lower() if name.lower() in languages() else name


def _valid(text: str) -> str:
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
