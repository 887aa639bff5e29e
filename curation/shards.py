"""Shards: Parquet files that are whole or absent, and that say what they were made from.

`write_shard` writes under a temporary name, syncs and renames. The footer carries the schema version, the fingerprint
of the configuration, the unit of work, the rule-set hash where there is one, and the columns' order; `footer` reads it
without touching the data. A shard that is there with the right footer is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import replacing

SCHEMA_VERSION = "1"
PREFIX = "codesieve."
COMPRESSION_LEVEL = 3
"""zstd; measured ratio 4.2 at 231 MB/s, against 3.8 at 313 for level 1 and 4.8 at 64 for level 9."""

DISTINCT = frozenset({"id", "text", "content_hash"})
"""No dictionary and no statistics for columns whose values differ: shards are written 20 % faster and are as large, and
writing a document of 100 MB takes 0.1 GB instead of 0.7 (the statistics keep copies of the least and the greatest)."""


class BrokenShardError(ValueError):
    """A Parquet file that cannot be read; the message names it and says what to do."""


def shard_name(index: int) -> str:
    """`00042.parquet`; the same in `annotated/` and in every layer."""
    return f"{index:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder in order; temporary files are not among them."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def write_shard(path: Path, batches: Iterable[pl.DataFrame], footer: Mapping[str, str]) -> int:
    """Write batches (all of one schema, at least one) as one shard; returns the number of rows.

    The rows of a batch become a row group, so that readers can stream; an empty batch only gives the columns.
    """
    rows = 0
    metadata = {f"{PREFIX}{key}": value for key, value in {"schema_version": SCHEMA_VERSION, **footer}.items()}
    with replacing(path) as temporary:
        writer: pq.ParquetWriter | None = None
        try:
            for batch in batches:
                table = batch.to_arrow(compat_level=pl.CompatLevel.oldest())
                if writer is None:
                    repeating = _repeating(table.schema)
                    writer = pq.ParquetWriter(
                        temporary,
                        table.schema,
                        compression="zstd",
                        compression_level=COMPRESSION_LEVEL,
                        use_dictionary=repeating,
                        write_statistics=repeating,
                        store_schema=False,
                    )
                    writer.add_key_value_metadata(metadata)
                if batch.height:  # an empty row group makes `datasets` stumble
                    writer.write_table(table.cast(writer.schema))
                rows += batch.height
                del batch, table  # or it stays in memory while the next one is made
        except OSError as error:
            if error.filename is None and error.errno:  # pyarrow does not say which file
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            raise
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise ValueError(f"{path}: a shard needs at least one batch")
    return rows


def footer(path: Path) -> dict[str, str]:
    """What `write_shard` was told, without the prefix.

    Raises:
        BrokenShardError: if the file is not whole Parquet.
    """
    metadata = _open(path).metadata.metadata or {}
    return {
        key.decode().removeprefix(PREFIX): value.decode()
        for key, value in metadata.items()
        if key.decode().startswith(PREFIX)
    }


def row_count(path: Path) -> int:
    """Rows of a shard, from its footer."""
    return int(_open(path).metadata.num_rows)


def column_names(path: Path) -> list[str]:
    """Columns of a shard, from its footer."""
    return list(_open(path).schema_arrow.names)


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """The shard's row groups as batches."""
    file = _open(path)
    for index in range(file.num_row_groups):
        frame = pl.from_arrow(file.read_row_group(index, columns=columns))
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _repeating(schema: pa.Schema) -> list[str]:
    """The columns that get a dictionary and statistics, by Parquet's paths."""
    return [
        f"{field.name}.list.element"
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        else field.name
        for field in schema
        if field.name not in DISTINCT
    ]


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BrokenShardError(
            f"{path}: not a readable Parquet file ({error}); delete it and run again to make it anew"
        ) from error
