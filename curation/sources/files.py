"""The reader of a listing's units: entries → documents in batches, with everything that is not one a named skip.

Entries of one form that lie in one file and follow each other are opened together, so that an archive, a repository or
a table is opened once a unit. Skips go to one small Parquet file a unit, written before the unit's shard, so a
finished shard has its skips beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from ..schema import IDENTITY
from ..shards import shard_name, write_shard
from .documents import Document, description_of, documents_of, skip
from .git import read_blobs
from .jsonl import read_lines
from .listing import Entry, Skip
from .parquet import read_row_groups
from .problems import problems_of
from .remote import is_url, read_file
from .tars import read_tar
from .zips import read_zip

IDENTITY_SCHEMA: dict[str, pl.DataType] = {column.name: column.dtype for column in IDENTITY}
SKIP_SCHEMA: dict[str, Any] = {"source": pl.String, "path": pl.String, "reason": pl.String, "size_bytes": pl.Int64}

Opener = Callable[[Sequence[Entry]], Iterator[Document | Skip]]
"""Documents and skips of entries that lie in one file, in their order."""


def whole_files(of: Callable[[Entry, bytes], Iterator[Document | Skip]]) -> Opener:
    """An opener for entries that are files of their own."""

    def opened(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
        for entry in entries:
            try:
                data = read_file(entry.file, (entry.options or {}).get("storage"))
            except OSError as error:
                if is_url(entry.file) and not isinstance(error, FileNotFoundError | PermissionError):
                    raise  # a connection that broke says nothing about the file: the next start reads it again
                yield skip(entry, f"unreadable: {error.strerror or error}")
                continue
            yield from of(entry, data)

    return opened


OPENERS: dict[str, Opener] = {
    "file": whole_files(documents_of),
    "metadata": whole_files(description_of),
    "problems": whole_files(problems_of),
    "git": read_blobs,
    "zip": read_zip,
    "tar": read_tar,
    "parquet": read_row_groups,
    "jsonl": read_lines,
}
"""`Entry.form` → how it is opened."""


class FilesReader:
    """Reads the units that `listing.units` makes.

    Args:
        batch_bytes: text in one batch; a longer document is a batch of its own.
        skip_folder: where the skips of each unit go.
    """

    columns = tuple(IDENTITY_SCHEMA)

    def __init__(self, batch_bytes: int, skip_folder: Path):
        self.batch_bytes = batch_bytes
        self.skip_folder = skip_folder

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        """Batches of documents in listing order."""
        skips: list[Skip] = []
        rows: list[Document] = []
        size = 0
        yielded = False
        for found in _opened([Entry(**entry) for entry in unit["files"]]):
            if isinstance(found, Skip):
                skips.append(found)
                continue
            if rows and size + found["size_bytes"] > self.batch_bytes:
                yield _batch(rows)
                yielded, rows, size = True, [], 0
            rows.append(found)
            size += found["size_bytes"]
        write_skips(self.skip_folder / shard_name(unit["index"]), skips)
        if rows or not yielded:
            yield _batch(rows)


def write_skips(path: Path, skips: list[Skip]) -> None:
    """One row a skip: source, path, reason, size_bytes."""
    write_shard(path, [pl.DataFrame([vars(skip) for skip in skips], schema=SKIP_SCHEMA)], {})


def _opened(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    for (form, _), together in groupby(entries, key=lambda entry: (entry.form, entry.file if entry.key else "")):
        yield from OPENERS[form](list(together))


def _batch(rows: list[Document]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=IDENTITY_SCHEMA)
