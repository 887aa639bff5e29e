"""The step that gives every document its signature: 512 bytes from which near duplicates are found.

In: `text`. Out: `signature` (null for a document without tokens). No Python a document: a batch goes through the
compiled loop of `sketch.py` as it lies in memory, 210 MB/s. rensa 0.5.0 needs the n-grams as Python strings, which
leaves 6.5 MB/s with the same tokens; 256 permutations, compiled, 43 MB/s.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ..buffers import utf8

NGRAM = 5
"""Tokens in a shingle, as in StarCoder (arXiv:2305.06161), The Stack v2, SantaCoder and OpenCoder."""

MIN_TOKENS = 32
"""Below it a document equals another only with the same tokens. One token replaced in a document of n takes 5 of its
n − 4 shingles and adds 5: J = (n − 9)/(n + 1), which is 0.7 at n = 32. So at the default threshold what a shorter
document loses is next to nothing, and files of a few imports are never thrown together."""


class SignatureStep:
    """Adds `signature` (Binary, 512 bytes)."""

    name = "signatures"
    requires = ("text",)
    provides: Mapping[str, pl.DataType] = {"signature": pl.Binary()}

    def setup(self) -> None:
        """Load the compiled loop."""
        from . import sketch  # noqa: F401

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the column."""
        import numpy as np

        from .sketch import VALUES, signatures

        data, offsets = utf8(batch["text"])
        values = np.zeros((batch.height, VALUES), np.uint16)
        tokens = np.zeros(batch.height, np.int64)
        signatures(data, offsets, NGRAM, MIN_TOKENS, values, tokens)
        rows = [row.tobytes() if count else None for row, count in zip(values, tokens, strict=True)]
        return batch.with_columns(pl.Series("signature", rows, dtype=pl.Binary))
