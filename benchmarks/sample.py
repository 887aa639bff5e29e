"""What the benchmarks measure: a sample of real files, as identity rows, and as Parquet shards of it.

A path is a folder of Parquet files with text, path and language (what `corpus.py` makes), or a plain folder of files.
Without a path it is the corpus of `corpus.py` if it was built (`CODESIEVE_CORPUS` says where), else the standard
library of the running interpreter and the packages beside it. Files are taken whole, in the order of a hash of their
name, so that a sample is the same every time and a larger one holds the smaller; then they are put in order of name.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import xxhash
from codesieve.config import AnnotateConfig
from codesieve.curation.languages import HEAD_BYTES, identify, kind_of
from codesieve.curation.schema import IDENTITY
from codesieve.curation.shards import read_batches, shard_name, write_shard
from codesieve.curation.signals.grammars import grammar

CORPUS_VARIABLE = "CODESIEVE_CORPUS"
DEFAULT_CORPUS = Path("runs/benchmark-corpus/corpus")
SCHEMA: dict[str, pl.DataType] = {column.name: column.dtype for column in IDENTITY}
MAX_FILE_BYTES = AnnotateConfig().max_parse_bytes
BATCH_BYTES = 4_000_000
"""Text in one batch: between the 1 MB that a cache holds and the 8 MB that annotation takes."""


class SampleReader:
    """Reader of a stage: the row groups of one shard of a sample."""

    columns = tuple(SCHEMA)

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        """The batches of `unit["file"]`."""
        yield from read_batches(Path(unit["file"]))


def default_paths() -> list[Path]:
    """What is measured when nothing is named."""
    corpus = Path(os.environ.get(CORPUS_VARIABLE, DEFAULT_CORPUS))
    if any(corpus.glob("*.parquet")):
        return [corpus]
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]


def sample(
    paths: Sequence[Path],
    most_bytes: int,
    *,
    languages: Sequence[str] = (),
    parsed_only: bool = True,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> pl.DataFrame:
    """Identity rows of about `most_bytes` of text.

    Args:
        paths: folders.
        most_bytes: the file that crosses the mark is the last.
        languages: only these.
        parsed_only: only languages that have a grammar.
        max_file_bytes: larger files are left out.

    Raises:
        SystemExit: if there is nothing to measure.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        is_parquet = any(path.glob("*.parquet"))
        rows += _of_parquet(path, most_bytes, languages) if is_parquet else _of_folder(path, max_file_bytes)
    rows = [
        row
        for row in rows
        if 0 < row["size_bytes"] <= max_file_bytes
        and (not languages or row["language"] in languages)
        and (not parsed_only or grammar(row["language"]))
    ]
    chosen: list[dict[str, Any]] = []
    total = 0
    for row in sorted(rows, key=lambda row: (_key(row["path"]), row["path"])):
        if total >= most_bytes:
            break
        total += row["size_bytes"]
        chosen.append(row)
    if not chosen:
        raise SystemExit(f"{', '.join(map(str, paths))}: no files to measure")
    return pl.DataFrame([_identity(row) for row in sorted(chosen, key=lambda row: row["path"])], schema=SCHEMA)


def batches(frame: pl.DataFrame, most_bytes: int = BATCH_BYTES) -> Iterator[pl.DataFrame]:
    """The frame in batches of about `most_bytes` of text."""
    group = (frame["size_bytes"].cum_sum() - frame["size_bytes"]) // most_bytes
    yield from frame.with_columns(group.alias("group")).partition_by("group", maintain_order=True, include_key=False)


def write_shards(frame: pl.DataFrame, folder: Path, shards: int = 1) -> list[Path]:
    """The frame as shards of equal text; a batch is a row group."""
    size = int(frame["size_bytes"].sum()) // shards + 1
    paths = []
    for index, part in enumerate(batches(frame, size)):
        paths.append(folder / shard_name(index))
        write_shard(paths[-1], batches(part), {})
    return paths


def by_language(frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Language → documents and bytes, the largest first."""
    table = frame.group_by("language").agg(pl.len().alias("documents"), pl.col("size_bytes").sum().alias("bytes"))
    rows = table.sort(["bytes", "language"], descending=[True, False]).to_dicts()
    return {row.pop("language"): row for row in rows}


def _of_parquet(folder: Path, most_bytes: int, languages: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the shards, no more than could be needed: twice `most_bytes` by hash before anything is filtered."""
    wanted = pl.col("language").is_in(list(languages)) if languages else pl.lit(True)
    light = [
        pl.read_parquet(path, columns=["path", "language", "text"])
        .filter(wanted)
        .select("path", pl.col("text").str.len_bytes().alias("size"), pl.lit(str(path)).alias("file"))
        for path in sorted(folder.glob("*.parquet"))
    ]
    table = pl.concat(light)
    keys = pl.Series("key", [_key(path) for path in table["path"]], dtype=pl.UInt64)
    table = table.with_columns(keys).sort("key").filter(pl.col("size").cum_sum() <= 2 * most_bytes + MAX_FILE_BYTES)
    rows: list[dict[str, Any]] = []
    for (file,), part in table.group_by("file", maintain_order=True):
        frame = pl.read_parquet(str(file), columns=["path", "language", "text"]).filter(wanted)
        found = frame.filter(pl.col("path").is_in(part["path"].implode()))
        rows += [{**row, "size_bytes": len(row["text"].encode())} for row in found.to_dicts()]
    return rows


def _of_folder(root: Path, max_file_bytes: int) -> Iterable[dict[str, Any]]:
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if not path.suffix or "__pycache__" in parts or "site-packages" in parts or not path.is_file():
            continue
        if not 0 < path.stat().st_size <= max_file_bytes:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            name = f"{root.name}/{path.relative_to(root)}".encode("utf-8", "backslashreplace").decode()
            text = data.decode("utf-8", "replace")
            language = identify(name, data[:HEAD_BYTES])
            yield {"path": name, "language": language, "text": text, "size_bytes": len(text.encode())}


def _key(path: str) -> int:
    return xxhash.xxh3_64_intdigest(path.encode())


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    content = xxhash.xxh3_128_hexdigest(row["text"].encode())
    identity = xxhash.xxh3_128_hexdigest(f"{row['path']}\0{content}".encode())
    known = {"id": identity, "content_hash": content, "kind": kind_of(row["language"]), "extra": "{}", **row}
    known |= {"source": "benchmark", "repository": row["path"].partition("/")[0]}
    return {name: known.get(name, "") for name in SCHEMA}
