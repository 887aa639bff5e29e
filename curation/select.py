"""Selections: a SQL predicate over annotated columns and layers, and the corpus shards it gives.

Documents that are held out never enter a selection. A control is a random drop that keeps as many bytes of each
language as the selection it controls; it is a boolean layer, so it is a predicate like any other. Nothing is lost:
selected + rejected = annotated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ..config import SelectionConfig
from ..files import TEMPORARY, replacing_folder, write_atomic, write_json
from ..strict import ConfigError
from .corpus import predicate, scan, scan_shards
from .shards import write_shard
from .sources.remote import file_system, is_url, upload
from .split import TRAIN

SHARD_BYTES = 64_000_000
STRATUM = ("source", "kind", "language")
"""What a control matches in bytes."""


def where(selection: SelectionConfig, columns: Sequence[str]) -> pl.Expr:
    """The selection as an expression that is never null; held-out documents are outside it."""
    text = f'"control_{selection.name}"' if selection.control_of else selection.where
    chosen = predicate(text, columns, place=f'selection "{selection.name}"')
    return chosen & (pl.col("split") == TRAIN) if "split" in columns else chosen


def controls(frame: pl.LazyFrame, selections: Sequence[SelectionConfig], seed: int) -> pl.DataFrame:
    """`id` and one boolean `control_<name>` for every control among `selections`, in the order of `frame`.

    In each stratum documents are taken in the order of a hash of their id until the bytes of the controlled selection
    are reached; the document that crosses the mark is taken when that comes nearer to it.
    """
    columns = frame.collect_schema().names()
    by_name = {selection.name: selection for selection in selections}
    wanted = [selection for selection in selections if selection.control_of]
    chosen = {s.name: where(by_name[str(s.control_of)], columns).alias(s.name) for s in wanted}
    pool = (pl.col("split") == TRAIN) if "split" in columns else pl.lit(True)
    table = frame.select("id", *STRATUM, "size_bytes", pool.alias("pool"), *chosen.values()).collect()
    # Ids may repeat between sources' copies; the row makes the order total.
    keys = pl.Series("key", [xxhash.xxh3_64_intdigest(i.encode(), seed=seed) for i in table["id"]], dtype=pl.UInt64)
    table = table.with_columns(keys).with_row_index("row")
    result = table.select("id")
    for selection in wanted:
        size = pl.col("size_bytes").filter("pool")
        target = (pl.col("size_bytes").filter(pl.col(selection.name))).sum().over(STRATUM)
        ranked = (
            table.filter("pool")
            .with_columns(target.alias("target"))
            .sort("key", "row")
            .with_columns(size.cum_sum().over(STRATUM).alias("reached"))
            .with_columns((pl.col("reached") - pl.col("size_bytes") / 2 < pl.col("target")).alias("in"))
        )
        kept = set(ranked.filter("in")["row"].to_list())
        result = result.with_columns(
            pl.Series(f"control_{selection.name}", [row in kept for row in range(table.height)], dtype=pl.Boolean)
        )
    return result


def funnel(frame: pl.LazyFrame, selections: Sequence[SelectionConfig]) -> list[dict[str, Any]]:
    """Documents and bytes in, selected and rejected, of every selection."""
    columns = frame.collect_schema().names()
    expressions = []
    for selection in selections:
        chosen = where(selection, columns)
        expressions += [
            chosen.sum().alias(f"documents {selection.name}"),
            pl.col("size_bytes").filter(chosen).sum().alias(f"bytes {selection.name}"),
        ]
    row = frame.select(pl.len(), pl.col("size_bytes").sum().alias("bytes"), *expressions).collect().row(0, named=True)
    return [
        {
            "selection": selection.name,
            "where": f"control of {selection.control_of}" if selection.control_of else selection.where,
            "documents": row[f"documents {selection.name}"],
            "bytes": row[f"bytes {selection.name}"],
            "documents_rejected": row["len"] - row[f"documents {selection.name}"],
            "bytes_rejected": row["bytes"] - row[f"bytes {selection.name}"],
        }
        for selection in selections
    ]


def write_corpus(
    run: Path,
    selection: SelectionConfig,
    out: Path | str,
    facts: Mapping[str, Any],
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Write the selected documents as `<source>-00000.parquet` … with manifest and dataset card; returns the manifest.

    Shards hold every column but the step errors. A folder appears when it is complete. To a URL the finished files are
    copied one by one, the manifest last. `facts` (rule set, versions, fingerprint) go into the manifest.

    Raises:
        ConfigError: if the selection is empty, or the URL cannot be written to.
    """
    if not is_url(str(out)):
        return _write_folder(run, selection, Path(out), facts, progress)
    file_system(str(out))  # a protocol that is not there is said before the work
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=run) as temporary:
        folder = Path(temporary) / "corpus"
        manifest = _write_folder(run, selection, folder, facts, progress)
        upload(folder, str(out))
    return manifest


def _write_folder(
    run: Path,
    selection: SelectionConfig,
    folder: Path,
    facts: Mapping[str, Any],
    progress: Callable[[float], None] | None,
) -> dict[str, Any]:
    shards = scan_shards(run)
    columns = scan(run).collect_schema().names()
    chosen = where(selection, columns)
    sources = scan(run).filter(chosen).select(pl.col("source").unique().sort()).collect()["source"].to_list()
    if not sources:
        raise ConfigError(f'selection "{selection.name}": {selection.where}: selects no document')
    with replacing_folder(folder) as temporary:
        files: list[dict[str, Any]] = []
        for source in sources:
            wanted = chosen & (pl.col("source") == source)
            for index, parts in enumerate(_cut(shards, wanted, progress)):
                name = f"{source}-{index:05d}.parquet"
                rows = write_shard(temporary / name, parts, {"selection": selection.name, **_strings(facts)})
                size = sum(int(part["size_bytes"].sum()) for part in parts)
                files.append({"file": name, "source": source, "documents": rows, "text_bytes": size})
        manifest = {
            "selection": selection.name,
            "where": selection.where,
            "weights": selection.weights,
            "documents": sum(file["documents"] for file in files),
            "text_bytes": sum(file["text_bytes"] for file in files),
            "languages": _languages(run, chosen),
            "files": files,
            **facts,
        }
        write_json(temporary / "manifest.json", manifest)
        write_atomic(temporary / "README.md", dataset_card(manifest))
    return manifest


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """A Hugging Face dataset card: what is in it, how it was chosen, how to load it."""
    languages = "\n".join(
        f"| {row['language']} | {row['documents']:,} | {row['bytes'] / 1e6:,.2f} |" for row in manifest["languages"]
    )
    sources = sorted({file["source"] for file in manifest["files"]})
    configs = "\n".join(f"  - split: {source}\n    path: {source}-*.parquet" for source in sources)
    return f"""---
configs:
- config_name: default
  data_files:
{configs}
tags:
- code
---

# {manifest["selection"]}

{manifest["documents"]:,} documents, {manifest["text_bytes"] / 1e6:,.1f} MB of text, made with codesieve.

Selected by

```sql
{manifest["where"]}
```

over the annotated columns; what a column means: `codesieve signals`. Rule set: `{manifest.get("rule_set", "none")}`.
The licence of each document, where its origin states one, is in the column `license`.

```python
import datasets
datasets.load_dataset("parquet", data_files="*.parquet")
```

| language | documents | MB |
|---|---|---|
{languages}
"""


def _cut(
    shards: Mapping[str, pl.LazyFrame], wanted: pl.Expr, progress: Callable[[float], None] | None
) -> Iterator[list[pl.DataFrame]]:
    """The wanted rows in pieces of about SHARD_BYTES of text, in row order."""
    parts: list[pl.DataFrame] = []
    size = 0
    for done, frame in enumerate(shards.values(), start=1):
        part = frame.filter(wanted).drop("step_errors", strict=False).collect()
        if part.height:
            if parts and size + int(part["size_bytes"].sum()) > SHARD_BYTES:
                yield parts
                parts, size = [], 0
            parts.append(part)
            size += int(part["size_bytes"].sum())
        if progress:
            progress(done / len(shards))
    if parts:
        yield parts


def _languages(run: Path, chosen: pl.Expr) -> list[dict[str, Any]]:
    table = (
        scan(run)
        .filter(chosen)
        .group_by("language")
        .agg(pl.len().alias("documents"), pl.col("size_bytes").sum().alias("bytes"))
        .sort(["bytes", "language"], descending=[True, False])
        .collect()
    )
    return table.to_dicts()


def _strings(facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else repr(value) for key, value in facts.items()}
