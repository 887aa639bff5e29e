"""Training rows: windows of documents packed one after another, cut at row ends, nothing lost and nothing twice.

A row belongs to one stream and holds `sequence_length` tokens of that stream's sequence. Every piece of a document is a
segment of its own: positions start at 0, attention stays inside, and a target is the next token of the same window. A
window that a row end cuts goes on in the next row as a new segment; the last token before the cut still has its target,
so every token of a window but its first is a target exactly once. There is no padding. The price of the cut is context:
the first tokens after it see less of their document than they could.

Row r is a pure function of (store, documents, weights, seed, r).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ..strict import nearest
from .order import Piece, StreamOrder, document_hashes, integer_shares, place, placed
from .tokenizer import END_OF_TEXT_ID
from .tokens import TokenStore

IGNORED = -100
"""Target that counts for nothing; the value that PyTorch and transformers use."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step. `streams[b]` names the stream of row b."""

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    segments_BT: np.ndarray
    positions_BT: np.ndarray
    streams: tuple[str, ...]


class Rows:
    """The rows of one arm: which tokens are in row number r, for every r."""

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        weights: Mapping[str, float],
        seed: int,
        sequence_length: int,
        window_tokens: int,
    ) -> None:
        """Sort the arm's documents into streams.

        Args:
            documents: rows of `store.documents` that the arm selects.
            weights: share of the tokens per stream; a stream that is not named is not used. Empty: every stream as
                much as it has.

        Raises:
            ValueError: if a weighted stream does not exist or has no documents, or a weight is negative.
        """
        self._tokens, self._sequence_length = np.asarray(store.tokens), sequence_length
        selected = _selected(documents, store.documents.height)
        chosen = store.documents[selected].with_columns(row=pl.Series(selected))
        self.empty_documents = int((chosen["tokens"] == 0).sum())
        chosen = chosen.filter(pl.col("tokens") > 0)
        self._offsets = store.documents["offset"].to_numpy()
        self._lengths = store.documents["tokens"].to_numpy()
        names = _streams(weights, chosen["stream"].unique().to_list(), store.documents["stream"].unique().to_list())
        self.streams = {}
        for name in names:
            part = chosen.filter(pl.col("stream") == name)
            self.streams[name] = StreamOrder(
                part["row"].to_numpy().astype(np.int64),
                document_hashes(part["id"].to_list()),
                part["tokens"].to_numpy(),
                seed,
                window_tokens,
            )
        sizes = {name: float(order.epoch_tokens) for name, order in self.streams.items()}
        self.shares = integer_shares({name: weights[name] for name in names} if weights else sizes)

    def batch(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count`."""
        shape = (count, self._sequence_length)
        tokens, targets = np.empty(shape, np.int64), np.full(shape, IGNORED, np.int64)
        segments, positions = np.empty(shape, np.int32), np.empty(shape, np.int32)
        streams = []
        for b in range(count):
            stream, index = place(first + b, self.shares)
            streams.append(stream)
            begin = index * self._sequence_length
            column = 0
            for segment, piece in enumerate(self.streams[stream].pieces(begin, begin + self._sequence_length)):
                size = piece.end - piece.begin
                ids = self._read(piece)
                span = slice(column, column + size)
                tokens[b, span] = ids[:size]
                targets[b, column : column + len(ids) - 1] = ids[1:]
                segments[b, span] = segment
                positions[b, span] = np.arange(size)
                column += size
        return Batch(tokens, targets, segments, positions, tuple(streams))

    def tokens_seen(self, rows: int) -> dict[str, int]:
        """Tokens per stream in the first `rows` rows."""
        return {name: count * self._sequence_length for name, count in placed(rows, self.shares).items()}

    def _read(self, piece: Piece) -> np.ndarray:
        """The piece's tokens, and the one after it where the window goes on."""
        offset, length = self._offsets[piece.row], self._lengths[piece.row]
        end = piece.end + piece.continues
        ids = self._tokens[offset + piece.begin : offset + min(end, length)]
        return np.append(ids, END_OF_TEXT_ID) if end > length else ids


def _selected(documents: np.ndarray, available: int) -> np.ndarray:
    """The selection as sorted row numbers, each once."""
    selected = np.unique(documents)
    if not np.issubdtype(selected.dtype, np.integer):
        raise ValueError(
            f"documents: expected row numbers, got an array of {selected.dtype}; np.flatnonzero of a mask?"
        )
    if len(selected) and not 0 <= selected[0] <= selected[-1] < available:
        raise ValueError(f"documents: rows {selected[0]} to {selected[-1]}, but the store has {available}")
    return selected


def _streams(weights: Mapping[str, float], present: list[str], known: list[str]) -> list[str]:
    """Names of the streams that take part, sorted."""
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(
                f'weights: unknown stream "{name}"{nearest(name, known)}; the store has {", ".join(sorted(known))}'
            )
        if not 0 <= weight < float("inf"):
            raise ValueError(f'weights: stream "{name}" has weight {weight}; expected a number from 0 up')
        if weight > 0 and name not in present:
            raise ValueError(
                f'weights: stream "{name}" has weight {weight:g}, but the selection has no documents in it; '
                "drop the weight or widen the selection"
            )
    names = sorted(name for name, weight in weights.items() if weight > 0) if weights else sorted(present)
    if not names:
        raise ValueError("nothing to train on: no selected document has tokens, or every weight is 0")
    return names
