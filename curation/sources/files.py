"""The reader of listed files: bytes → documents in batches, with everything that is not a document a named skip.

Text is UTF-8; a byte-order mark is dropped, undecodable bytes become U+FFFD (the signal `replacement_fraction` counts
them). A file with a NUL byte in its head is binary and skipped by name. Skips go to one small Parquet file a unit,
written before the unit's shard, so a finished shard has its skips beside it.
"""

from __future__ import annotations

import email.parser
import email.policy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ..languages import identify, kind_of
from ..schema import IDENTITY
from ..shards import shard_name, write_shard
from .listing import Skip
from .problems import parse_problem

IDENTITY_SCHEMA: dict[str, pl.DataType] = {column.name: column.dtype for column in IDENTITY}
SKIP_SCHEMA: dict[str, Any] = {"source": pl.String, "path": pl.String, "reason": pl.String, "size_bytes": pl.Int64}

HEAD_BYTES = 8_000
"""git's own heuristic: a NUL in the first 8,000 bytes makes a file binary."""


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
        rows: list[dict[str, Any]] = []
        size = 0
        yielded = False
        for entry in unit["files"]:
            for row in _documents(entry, skips):
                if rows and size + row["size_bytes"] > self.batch_bytes:
                    yield _batch(rows)
                    yielded, rows, size = True, [], 0
                rows.append(row)
                size += row["size_bytes"]
        write_skips(self.skip_folder / shard_name(unit["index"]), skips)
        if rows or not yielded:
            yield _batch(rows)


def write_skips(path: Path, skips: list[Skip]) -> None:
    """One row a skip: source, path, reason, size_bytes."""
    write_shard(path, [pl.DataFrame([vars(skip) for skip in skips], schema=SKIP_SCHEMA)], {})


def document(entry: Mapping[str, Any], text: str, *, path: str, language: str, kind: str, extra: str) -> dict[str, Any]:
    """One identity row. The id hashes source, path, revision and content, so it is stable from run to run."""
    data = text.encode("utf-8", "replace")
    content_hash = xxhash.xxh3_128_hexdigest(data)
    key = "\0".join((entry["source"], path, entry["revision"], content_hash))
    return {
        "id": xxhash.xxh3_128_hexdigest(key.encode("utf-8", "replace")),
        "text": text,
        "source": entry["source"],
        "kind": kind,
        "language": language,
        "path": path,
        "repository": entry["repository"],
        "revision": entry["revision"],
        "license": entry["license"],
        "size_bytes": len(data),
        "content_hash": content_hash,
        "extra": extra,
    }


def _documents(entry: Mapping[str, Any], skips: list[Skip]) -> Iterator[dict[str, Any]]:
    try:
        data = Path(entry["file"]).read_bytes()
    except OSError as error:
        skips.append(_skip(entry, f"unreadable: {error.strerror}"))
        return
    if b"\0" in data[:HEAD_BYTES]:
        skips.append(_skip(entry, "binary"))
        return
    text = data.decode("utf-8-sig", "replace")
    if entry["form"] == "problems":
        yield from _problems(entry, text, skips)
        return
    if entry["form"] == "metadata":
        text, language = _description(text), "text"
        if not text.strip():
            skips.append(_skip(entry, "no_description"))
            return
    else:
        language = identify(entry["path"], data[:HEAD_BYTES])
    kind = entry["kind"] or kind_of(language)
    yield document(entry, text, path=entry["path"], language=language, kind=kind, extra="{}")


def _problems(entry: Mapping[str, Any], text: str, skips: list[Skip]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{entry['path']}:{number}"
        try:
            problem = parse_problem(line, where)
        except ValueError as error:
            skips.append(Skip(entry["source"], where, f"bad_problem: {error}", len(line)))
            continue
        yield document(
            entry,
            problem["text"],
            path=f"{entry['path']}#{problem['name']}",
            language="python",
            kind="synthetic",
            extra=problem["extra"],
        )


def _description(text: str) -> str:
    """The body of a METADATA file: the package's long description."""
    message = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(text)
    return str(message.get_payload() or message.get("Description") or "")


def _batch(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=IDENTITY_SCHEMA)


def _skip(entry: Mapping[str, Any], reason: str) -> Skip:
    return Skip(entry["source"], entry["path"], reason, entry["size_bytes"])
