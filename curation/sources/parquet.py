"""Parquet tables: a row group, or a part of a large one, is an entry; its needed columns are read in batches.

Parquet has no index of rows, so a later part of a row group decodes the earlier ones again: a part is PIECE_BYTES,
which for a row group of 1 GB costs decoding it eight times over, a tenth of what its annotation takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...config import SourceConfig
from ...strict import ConfigError
from .documents import Document
from .listing import Entry, Listing, Skip, text_of
from .remote import Found, open_file
from .rows import documents_of_rows, needed, options_of
from .vocabulary import Preset

PIECE_BYTES = 64_000_000
BATCH_BYTES = 8_000_000
MAX_BATCH_ROWS = 8_192

BLOB_BYTES = 10_000
"""What a row is taken for that only names its text; the files of The Stack v2 hold about that on average. It decides
how many rows make a piece, nothing else."""


def list_parquet(config: SourceConfig, file: Found, preset: Preset | None = None, folder: str = "") -> Listing:
    """The row groups of a file, cut where they are large.

    Raises:
        ConfigError: if it is no readable Parquet file, or a column is missing.
    """
    listing = Listing()
    try:
        with open_file(file.file, config.storage) as handle:
            metadata = pq.ParquetFile(handle).metadata
            known = list(metadata.schema.to_arrow_schema().names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f'source "{config.name}": {file.file}: not a readable Parquet file ({_words(error)}); '
            "get it anew, or leave it out"
        ) from error
    options = options_of(config, file.file, known, preset, folder)
    text = options["columns"].get("text")
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        size = _size(metadata.row_group(group), text) if text else rows * BLOB_BYTES
        pieces = max(1, min(rows, -(-size // PIECE_BYTES)))
        for piece in range(pieces):
            start, stop = rows * piece // pieces, rows * (piece + 1) // pieces
            if stop == start:
                continue
            listing.entries.append(
                Entry(
                    source=config.name,
                    file=file.file,
                    path=f"{text_of(file.name)}#{first + start + 1}",
                    size_bytes=size // pieces,
                    repository="",
                    kind=config.kind,
                    form="parquet",
                    key=f"{group}:{start}:{stop}:{first}",
                    options=options,
                )
            )
        first += rows
    if not first:
        listing.skips.append(Skip(config.name, text_of(file.name), "empty", file.size_bytes))
    return listing


def read_row_groups(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    """The documents in row groups of one file."""
    file = entries[0].file
    with open_file(file, (entries[0].options or {}).get("storage")) as handle:
        try:
            table = pq.ParquetFile(handle, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file}: cannot be opened any more: {error}") from error
        for entry in entries:
            group, start, stop, first = (int(part) for part in entry.key.split(":"))
            rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * (stop - start) // max(1, entry.size_bytes)))
            for number, batch in _batches(table, file, group, rows, entry.options or {}):
                low, high = max(start - number, 0), min(stop - number, batch.num_rows)
                if low < high:
                    taken = batch.slice(low, high - low).to_pylist()
                    numbered = [(first + number + low + 1 + index, row) for index, row in enumerate(taken)]
                    yield from documents_of_rows(entry, numbered)
                if number + batch.num_rows >= stop:
                    break


def _batches(
    table: pq.ParquetFile, file: str, group: int, rows: int, options: Mapping[str, Any]
) -> Iterator[tuple[int, Any]]:
    """(number of its first row in the group, batch)."""
    known = table.schema_arrow.names
    columns = [name if name in known else name.split(".")[0] for name in needed(options)]
    number = 0
    try:
        for batch in table.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
            yield number, batch
            number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file}: row group {group} cannot be read ({_words(error)}); "
            "get the file anew, or leave it out with `exclude`"
        ) from error


def _size(group: Any, column: str) -> int:
    """Bytes of a column in a row group, not compressed; of a field, those of all its column."""
    chunks = (group.column(index) for index in range(group.num_columns))
    wanted = (column, column.split(".", maxsplit=1)[0])
    return sum(
        int(chunk.total_uncompressed_size)
        for chunk in chunks
        if chunk.path_in_schema in wanted or chunk.path_in_schema.split(".")[0] in wanted
    )


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
