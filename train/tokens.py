"""Documents as token ids on disk: encoded once, memory-mapped by every run after that.

A store is a folder with `tokens.bin` (the ids of all documents one after another, uint16 where the vocabulary fits),
`documents.parquet` (one row a document: `SCHEMA` and the further columns of the input; row order = input order) and
`store.json` (what it was made from). No special token is stored: `rows.py` adds the end of text where a window reaches
it. Two batches are encoded at a time, so that all cores have work while one is read, written, or down to its longest
document: on two cores that is worth nothing, on sixteen the rest would take half as long as the encoding. Encoding
costs about 2.5 s of one core per 1 M tokens and is skipped when the store that is there was made of the same.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from ..files import read_json, replacing_folder, write_json
from ..strict import fingerprint as hash_of
from .sentinels import Sentinels, vocabulary_size
from .tokenizer import encode

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "stream": pl.String(),
    "language": pl.String(),
    "score": pl.Float32(),
    "offset": pl.Int64(),
    "tokens": pl.Int64(),
    "bytes": pl.Int64(),
}
"""Columns of `TokenStore.documents`. Offset and tokens are in `tokens.bin`, bytes those of the text; only `score` may
be null."""

COLUMNS = ("id", "text", "stream", "language")
OWN = ("offset", "tokens", "bytes")
FORMAT = 2
ENCODE_BYTES = 4_000_000
"""Text in one call to the tokenizer: enough for its threads, and its bookkeeping stays below 0.5 GB."""

AT_A_TIME = 2


@dataclass(frozen=True)
class TokenStore:
    """An opened store. `tokens` is a read-only memory map; `documents` is described in `SCHEMA`.

    `end_of_text` is the id that ends a document, `tokenizer` the hash of the tokenizer.
    """

    folder: Path
    documents: pl.DataFrame
    tokens: np.ndarray
    vocab_size: int
    fingerprint: str
    end_of_text: int = 0
    tokenizer: str = ""

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Map the store in `folder`.

        Raises:
            ValueError: if there is none, or its files do not belong together.
        """
        if not (folder / "store.json").is_file():
            raise ValueError(f"{folder}: no token store there (store.json is missing); make one with build_store")
        facts = read_json(folder / "store.json")
        if facts.get("format") != FORMAT:
            raise ValueError(
                f"{folder}/store.json: format {facts.get('format')}, this version reads {FORMAT}; "
                "delete the folder and build it again"
            )
        try:
            documents = pl.read_parquet(folder / "documents.parquet")
            dtype = np.dtype(facts["dtype"])
            found_bytes = (folder / "tokens.bin").stat().st_size
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"{folder}: not a whole token store ({error}); build it again") from error
        expected_bytes = facts["tokens"] * dtype.itemsize
        if found_bytes != expected_bytes or documents.height != facts["documents"]:
            raise ValueError(
                f"{folder}: store.json says {facts['documents']} documents and {expected_bytes} bytes of tokens, found "
                f"{documents.height} and {found_bytes}; delete the folder and build it again"
            )
        offsets = documents["tokens"].cum_sum() - documents["tokens"]
        if not (documents["offset"] == offsets).all() or documents["tokens"].sum() != facts["tokens"]:
            raise ValueError(f"{folder}: documents.parquet is not that of tokens.bin; delete it, build it again")
        tokens = np.memmap(folder / "tokens.bin", dtype, mode="r") if expected_bytes else np.zeros(0, dtype)
        names = ("vocab_size", "fingerprint", "end_of_text", "tokenizer")
        return cls(folder, documents, tokens, **{name: facts[name] for name in names})


def build_store(
    batches: Iterable[pl.DataFrame],
    tokenizer: Tokenizer,
    folder: Path,
    fingerprint: str,
    progress: Callable[[float], None] | None = None,
) -> TokenStore:
    """Encode `batches` into `folder`, or open what is there if fingerprint and tokenizer are the same.

    Args:
        batches: with `COLUMNS`, where wanted `score` (a number or null), and any further columns of single values,
            which the store keeps; the same ones in every batch.
        fingerprint: hash of all that decides the content beside the tokenizer: documents, their columns and order.
        progress: called with the bytes of text encoded since the last call.

    Raises:
        ValueError: if a batch lacks a column, holds a null in one of `COLUMNS`, a nested column or others than the
            batch before; if two documents have the same id; if the tokenizer has no end of text.
        OSError: if the disk is full; what was in `folder` before is left as it was.
    """
    made_of = {"format": FORMAT, "fingerprint": fingerprint, "tokenizer": hash_of(tokenizer.to_str())}
    if (folder / "store.json").is_file():
        facts = read_json(folder / "store.json")
        if all(facts.get(name) == value for name, value in made_of.items()):
            return TokenStore.open(folder)
    end_of_text = Sentinels.of(tokenizer).end_of_text
    vocab_size = vocabulary_size(tokenizer)
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    with replacing_folder(folder) as temporary:
        tables: list[pl.DataFrame] = []
        offset = 0
        with (
            (temporary / "tokens.bin").open("wb") as file,
            contextlib.closing(_encoded(_small(batches), tokenizer)) as encoded,
        ):
            for batch, ids in encoded:
                lengths = np.array([len(part) for part in ids], dtype=np.int64)
                tables.append(_table(batch, lengths, offset))
                flat = np.concatenate([np.zeros(0, np.uint32), *ids])
                if len(flat) and flat.max() >= vocab_size:
                    raise ValueError(f"{folder}: id {flat.max()} from a tokenizer of {vocab_size} ids")
                _write(file, flat.astype(dtype), folder)
                offset += len(flat)
                if progress:
                    progress(float(tables[-1]["bytes"].sum()))
            os.fsync(file.fileno())
        documents = pl.concat(tables) if tables else pl.DataFrame(schema=SCHEMA)
        if documents["id"].n_unique() != documents.height:
            twice = documents.filter(pl.col("id").is_duplicated())["id"][0]
            raise ValueError(f"document {twice} comes more than once; ids must be unique in a token store")
        documents.write_parquet(temporary / "documents.parquet")
        write_json(
            temporary / "store.json",
            {
                **made_of,
                "vocab_size": vocab_size,
                "end_of_text": end_of_text,
                "dtype": dtype.str,
                "documents": documents.height,
                "tokens": offset,
                "bytes": int(documents["bytes"].sum()),
            },
        )
    return TokenStore.open(folder)


def _encoded(
    batches: Iterable[pl.DataFrame], tokenizer: Tokenizer
) -> Generator[tuple[pl.DataFrame, list[np.ndarray]], None, None]:
    """The batches in order, each with its documents' ids; `AT_A_TIME` are encoded while others are read and written."""

    def ids_of(batch: pl.DataFrame) -> list[np.ndarray]:
        return encode(tokenizer, batch["text"].to_list())

    waiting: deque[tuple[pl.DataFrame, Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(ids_of, batch)))
            if len(waiting) > AT_A_TIME:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


def _small(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of about `ENCODE_BYTES` of text, checked."""
    first: dict[str, pl.DataType] | None = None
    for batch in batches:
        columns = _check(batch)
        first = columns if first is None else first
        if columns != first:
            raise ValueError(f"token store: a batch has columns {columns}, the first one had {first}")
        size_bytes = batch["text"].str.len_bytes().to_numpy()
        group = (np.cumsum(size_bytes) - size_bytes) // ENCODE_BYTES
        borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), batch.height]
        for begin, end in itertools.pairwise(borders):
            yield batch[begin:end].select(*COLUMNS, _score(batch), *sorted(columns))


def _check(batch: pl.DataFrame) -> dict[str, pl.DataType]:
    """Names and types of the further columns of a batch that is as it should be."""
    missing = [name for name in COLUMNS if name not in batch.columns]
    if missing:
        raise ValueError(f"token store: column {missing[0]!r} is missing; the batch has {', '.join(batch.columns)}")
    for name in COLUMNS:
        if batch[name].null_count():
            row = batch[name].is_null().arg_true()[0]
            raise ValueError(f"token store: null {name} in row {row}, document {batch['id'][row]}")
    further = {name: dtype for name, dtype in batch.schema.items() if name not in (*COLUMNS, "score")}
    for name, dtype in further.items():
        if name in OWN:
            raise ValueError(f"token store: column {name!r} is the store's own; rename it in the batch")
        if dtype.is_nested() or dtype == pl.Object:
            raise ValueError(f"token store: column {name!r} is {dtype}; only columns of single values are kept")
    score = batch.schema.get("score", pl.Null())
    if not (score.is_numeric() or score == pl.Null):
        raise ValueError(f"token store: column 'score' is {score}; a number or null is expected")
    return further


def _score(batch: pl.DataFrame) -> pl.Expr:
    return (pl.col("score") if "score" in batch.columns else pl.lit(None)).cast(pl.Float32).alias("score")


def _table(batch: pl.DataFrame, lengths: np.ndarray, offset: int) -> pl.DataFrame:
    own = batch.with_columns(
        pl.Series("offset", offset + np.cumsum(lengths) - lengths, dtype=pl.Int64),
        pl.Series("tokens", lengths, dtype=pl.Int64),
        pl.col("text").str.len_bytes().cast(pl.Int64).alias("bytes"),
    )
    return own.select(*SCHEMA, pl.exclude("text", *SCHEMA)).cast(SCHEMA)  # type: ignore[arg-type]


def _write(file: Any, ids: np.ndarray, folder: Path) -> None:
    try:
        file.write(ids.tobytes())
        file.flush()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, no token store was written", str(folder)) from error
