"""JSONL tables: one object a line, plain or behind gzip, bzip2, xz or zstd.

A local file without compression is cut into ranges of lines; finding them costs one pass at the speed of the disk, and
gives every line its number. Anything else is one stream, read once and in batches, which makes one shard of any length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

from ...config import SourceConfig
from ...strict import ConfigError
from .documents import Document
from .listing import Entry, Listing, Skip, text_of
from .members import BROKEN, is_of_connection, words
from .remote import Found, is_url, open_file
from .rows import documents_of_rows, options_of
from .streams import COMPRESSIONS, compression_of, decompressed
from .vocabulary import Preset

_NAMES = (".jsonl", ".ndjson")
SUFFIXES = (*_NAMES, *(name + suffix for name in (*_NAMES, ".json") for suffix in COMPRESSIONS))
"""`.json.gz` holds lines by custom (C4, Dolma); `.json` does not."""

PIECE_BYTES = 16_000_000
BATCH_BYTES = 4_000_000
MAX_BATCH_ROWS = 1_024

PEEK_LINES = 1_000
PEEK_BYTES = 8_000_000
"""What the columns are found in: so many lines, at most so long."""


def list_jsonl(config: SourceConfig, file: Found, preset: Preset | None = None, folder: str = "") -> Listing:
    """The ranges of a file, or all of it.

    Raises:
        ConfigError: if its first lines hold no object, or lack a column that is named.
    """
    known, lines = _peek(config, file)
    if not lines:
        return Listing([], [Skip(config.name, text_of(file.name), "empty", file.size_bytes)])
    if not known:
        raise ConfigError(f'source "{config.name}": {file.file}: none of the first {lines} lines is a JSON object')
    options = options_of(config, file.file, known, preset, folder)
    return Listing(
        [
            Entry(
                source=config.name,
                file=file.file,
                path=f"{text_of(file.name)}#{line}",
                size_bytes=(stop if stop >= 0 else file.size_bytes) - start,
                kind=config.kind,
                form="jsonl",
                key=f"{start}:{stop}:{line}",
                options=options,
            )
            for start, stop, line in _pieces(file)
        ],
        [],
    )


def read_lines(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    """The documents in ranges of lines of one file; a broken line is a skip with its number."""
    file = entries[0].file
    options = entries[0].options or {}
    for entry in entries:
        start, stop, line = (int(part) for part in entry.key.split(":"))
        with open_file(file, options.get("storage")) as raw, decompressed(raw, file) as stream:
            if start:
                stream.seek(start)
            yield from _rows(entry, stream, stop - start if stop >= 0 else -1, line)


def _rows(entry: Entry, stream: IO[bytes], size: int, line: int) -> Iterator[Document | Skip]:
    """Rows in batches; at the end of a broken stream what came before it is kept."""
    max_bytes = int((entry.options or {})["max_bytes"])
    file = entry.path.rpartition("#")[0]
    batch: list[tuple[int, dict[str, Any]]] = []
    waiting = 0
    broken: Skip | None = None
    lines = _lines(stream, size, max_bytes)
    while True:
        try:
            data = next(lines, None)
        except BROKEN as error:
            if is_of_connection(entry.file, error):
                raise
            broken = Skip(entry.source, file, f"broken_stream: after line {line - 1}: {words(error)}", entry.size_bytes)
            data = None
        if data is None:
            break
        row = _parsed(data, max_bytes)
        if isinstance(row, str):
            if row:
                yield Skip(entry.source, f"{file}#{line}", row, len(data))
        else:
            batch.append((line, row))
            waiting += len(data)
        line += 1
        if waiting > BATCH_BYTES or len(batch) >= MAX_BATCH_ROWS:
            yield from documents_of_rows(entry, batch)
            batch, waiting = [], 0
    yield from documents_of_rows(entry, batch)
    if broken:
        yield broken


def _lines(stream: IO[bytes], size: int, max_bytes: int) -> Iterator[bytes]:
    """Lines of the next `size` bytes (-1: of all); of one over the limit only its beginning, a byte over the limit."""
    done = 0
    while size < 0 or done < size:
        data = stream.readline(max_bytes + 1)
        if not data:
            return
        done += len(data)
        rest = data
        while not rest.endswith(b"\n") and len(rest) > 0 and len(data) > max_bytes:
            rest = stream.readline(1 << 20)
            done += len(rest)
        yield data


def _parsed(data: bytes, max_bytes: int) -> dict[str, Any] | str:
    """The object in a line, or the reason why there is none; an empty line has an empty reason."""
    if len(data) > max_bytes:
        return "over_max_file_bytes"
    if not data.strip():
        return ""
    try:
        row = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "bad_line: not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"bad_line: {error}"
    return row if isinstance(row, dict) else f"bad_line: not an object but {type(row).__name__}"


def _pieces(file: Found) -> Iterator[tuple[int, int, int]]:
    """(first byte, byte behind the last, number of the first line); a stream is one piece that ends at -1."""
    if is_url(file.file) or compression_of(file.name):
        yield 0, -1, 1
        return
    start, line = 0, 1
    with open_file(file.file) as handle:
        while start < file.size_bytes:
            count, left = 0, PIECE_BYTES
            while left > 0 and (block := handle.read(min(left, 1 << 20))):
                count += block.count(b"\n")
                left -= len(block)
            while rest := handle.readline(1 << 20):
                if rest.endswith(b"\n"):
                    count += 1
                    break
            stop = min(handle.tell(), file.size_bytes)
            yield start, stop, line
            if handle.tell() >= file.size_bytes:
                return
            start, line = stop, line + count


def _peek(config: SourceConfig, file: Found) -> tuple[list[str], int]:
    """The keys of the first objects, in their order, and how many lines were looked at."""
    known: dict[str, None] = {}
    lines = seen = 0
    try:
        with open_file(file.file, config.storage) as raw, decompressed(raw, file.name) as stream:
            for data in _lines(stream, PEEK_BYTES, config.max_file_bytes):
                row = _parsed(data, config.max_file_bytes)
                if isinstance(row, dict):
                    known.update(dict.fromkeys(row))
                lines += 1
                seen += len(data)
                if lines >= PEEK_LINES or seen >= PEEK_BYTES:
                    break
    except FileNotFoundError:
        raise
    except BROKEN as error:
        if not known:
            raise ConfigError(f'source "{config.name}": {file.file}: cannot be read: {words(error)}') from error
    return list(known), lines
