"""Documents as token ids on disk: encoded once, memory-mapped by every run after that.

A store is a folder with `tokens.bin` (the ids of all documents one after another, uint16 where the vocabulary fits),
`documents.parquet` (one row a document: id, stream, language, offset and tokens in `tokens.bin`, bytes of its text; row
order = input order) and `store.json` (what it was made from). No special token is stored: `rows.py` adds the
end-of-text token where a window reaches it. Encoding costs about 1 s of one core per 1 M tokens and is skipped when the
store that is there has the fingerprint that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from ..files import read_json, replacing_folder, write_json
from .tokenizer import encode

SCHEMA = {
    "id": pl.String,
    "stream": pl.String,
    "language": pl.String,
    "offset": pl.Int64,
    "tokens": pl.Int64,
    "bytes": pl.Int64,
}
COLUMNS = ("id", "text", "stream", "language")
FORMAT = 1
ENCODE_BYTES = 4_000_000
"""Text in one call to the tokenizer: enough for its threads, and its bookkeeping stays below 0.5 GB."""


@dataclass(frozen=True)
class TokenStore:
    """An opened store. `tokens` is a read-only memory map; `documents` is described in `SCHEMA`."""

    folder: Path
    documents: pl.DataFrame
    tokens: np.ndarray
    vocab_size: int
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Map the store in `folder`.

        Raises:
            ValueError: if there is none, or its files do not belong together.
        """
        if not (folder / "store.json").is_file():
            raise ValueError(f"{folder}: no token store there (store.json is missing); make one with build_store")
        facts = read_json(folder / "store.json")
        if facts["format"] != FORMAT:
            raise ValueError(f"{folder}/store.json: format {facts['format']}, this version reads {FORMAT}; rebuild it")
        documents = pl.read_parquet(folder / "documents.parquet")
        path, dtype = folder / "tokens.bin", np.dtype(facts["dtype"])
        expected = facts["tokens"] * dtype.itemsize
        if path.stat().st_size != expected or documents.height != facts["documents"]:
            raise ValueError(
                f"{folder}: store.json says {facts['documents']} documents and {expected} bytes of tokens, found "
                f"{documents.height} and {path.stat().st_size}; delete the folder and build it again"
            )
        tokens = np.memmap(path, dtype, mode="r") if expected else np.zeros(0, dtype)
        return cls(folder, documents, tokens, facts["vocab_size"], facts["fingerprint"])


def build_store(
    batches: Iterable[pl.DataFrame],
    tokenizer: Tokenizer,
    folder: Path,
    fingerprint: str,
    progress: Callable[[float], None] | None = None,
) -> TokenStore:
    """Encode `batches` (columns `COLUMNS`) into `folder`, or open what is there if its fingerprint is the same.

    Args:
        fingerprint: hash of all that decides the content: tokenizer, documents and their order.
        progress: called with the bytes of text encoded since the last call.

    Raises:
        ValueError: if a batch lacks a column or holds a null, or two documents have the same id.
    """
    if (folder / "store.json").is_file() and read_json(folder / "store.json").get("fingerprint") == fingerprint:
        return TokenStore.open(folder)
    vocab_size = tokenizer.get_vocab_size()
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    with replacing_folder(folder) as temporary:
        tables = [pl.DataFrame(schema=SCHEMA)]
        offset = 0
        with (temporary / "tokens.bin").open("wb") as file:
            for batch in _small(batches):
                ids = encode(tokenizer, batch["text"].to_list())
                lengths = np.array([len(part) for part in ids], dtype=np.int64)
                for part in ids:
                    file.write(part.astype(dtype).tobytes())
                tables.append(_table(batch, lengths, offset))
                offset += int(lengths.sum())
                if progress:
                    progress(float(tables[-1]["bytes"].sum()))
        documents = pl.concat(tables)
        if documents["id"].n_unique() != documents.height:
            twice = documents.filter(pl.col("id").is_duplicated())["id"][0]
            raise ValueError(f"document {twice} comes more than once; ids must be unique in a token store")
        documents.write_parquet(temporary / "documents.parquet")
        write_json(
            temporary / "store.json",
            {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "vocab_size": vocab_size,
                "dtype": dtype.str,
                "documents": documents.height,
                "tokens": offset,
                "bytes": int(documents["bytes"].sum()),
            },
        )
    return TokenStore.open(folder)


def _small(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of about `ENCODE_BYTES` of text, checked."""
    for batch in batches:
        _check(batch)
        size_bytes = batch["text"].str.len_bytes().to_numpy()
        group = (np.cumsum(size_bytes) - size_bytes) // ENCODE_BYTES
        for rows in np.split(np.arange(batch.height), np.flatnonzero(np.diff(group)) + 1):
            if len(rows):
                yield batch[int(rows[0]) : int(rows[-1]) + 1]


def _check(batch: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in batch.columns]
    if missing:
        raise ValueError(f"token store: column {missing[0]!r} is missing; the batch has {', '.join(batch.columns)}")
    for name in COLUMNS:
        if batch[name].null_count():
            row = batch[name].is_null().arg_true()[0]
            raise ValueError(f"token store: null {name} in row {row}, document {batch['id'][row]}")


def _table(batch: pl.DataFrame, lengths: np.ndarray, offset: int) -> pl.DataFrame:
    return batch.select(
        "id",
        "stream",
        "language",
        pl.Series("offset", offset + np.cumsum(lengths) - lengths),
        pl.Series("tokens", lengths),
        pl.col("text").str.len_bytes().cast(pl.Int64).alias("bytes"),
    ).cast(SCHEMA)  # type: ignore[arg-type]
