"""Training rows: pieces of documents packed one after another, cut at row ends, nothing lost and nothing twice.

A row belongs to one stream of one stage and holds `sequence_length` positions of that stream's sequence. Every piece is
a segment of its own: positions start at 0 and attention stays inside. A causal piece that a row end cuts goes on in the
next row as a new segment; the last token before the cut still has its target, so in a causal run every token of a
window but its first is a target exactly once. The only padding is what an objective leaves over of the room that was
kept for it: end-of-text without target, in the segment. The price of a cut is context: the first tokens after it see
less of their document than they could.

Row r is a pure function of (store, documents, stages, weights, seed, r). Stages that select the same documents by
`where` continue one sequence; a stage with another `where` has an order of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from .config import InfillObjective, Objective, TrainConfig
from .infill import CharacterSplit
from .mixture import place
from .objectives import check_sentinels, objective_name, transform
from .order import CAUSAL, Piece
from .sentinels import Sentinels
from .stages import all_objectives, build_stages, report
from .tokens import TokenStore

IGNORED = -100
"""Target that counts for nothing; the value that PyTorch and transformers use."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    tokens_BT, targets_BT: int64. positions_BT: int32, from 0 in each segment. begins_BT, ends_BT: int32, the columns
    `begins <= key < ends` that a token sees. objectives_BT: int8, number in `Rows.objective_names` of the token's
    piece. `streams[b]` names the stream of row b.
    """

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    positions_BT: np.ndarray
    begins_BT: np.ndarray
    ends_BT: np.ndarray
    objectives_BT: np.ndarray
    streams: tuple[str, ...]


class Rows:
    """The rows of one arm: which tokens are in row number r, for every r."""

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        config: TrainConfig,
        weights: Mapping[str, float],
        seed: int,
        sentinels: Sentinels,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Sort the arm's documents into stages and streams.

        Args:
            documents: rows of `store.documents` that the arm selects.
            weights: share of the tokens per stream, for stages that give none; a stream that is not named is not
                used. Empty: every stream as much as it has.
            tokenizer: of the store; needed by infilling with `split: character` only.

        Raises:
            ValueError: for weights or a predicate that cannot be met, sentinels or a tokenizer that an objective
                lacks, documents that do not fill one step, or more than `max_epochs`.
        """
        self._tokens, self._length = np.asarray(store.tokens), config.sequence_length
        self._sentinels, self._end_of_text = sentinels, sentinels.end_of_text
        self._offsets = store.documents["offset"].to_numpy()
        self._lengths = store.documents["tokens"].to_numpy()
        self.objectives = all_objectives(config)
        check_sentinels(self.objectives, sentinels)
        names = [objective_name(objective) for objective in self.objectives]
        self.objective_names = tuple(dict.fromkeys(names))
        self._names = [self.objective_names.index(name) for name in names]
        self._split = _character_split(self.objectives, tokenizer)
        selected = _selected(documents, store.documents.height)
        chosen = store.documents[selected].with_columns(row=pl.Series(selected, dtype=pl.Int64))
        self.empty_documents = int((chosen["tokens"] == 0).sum())
        self._stages = build_stages(
            chosen.filter(pl.col("tokens") > 0),
            store.documents["stream"].unique().to_list(),
            config,
            weights,
            seed,
            self.objectives,
            len(sentinels.masks),
        )
        self._firsts = [stage.first for stage in self._stages]
        self.stream_names = tuple(sorted({name for stage in self._stages for name in stage.orders}))
        self.rows = self._stages[-1].first + self._stages[-1].rows

    def stage_of(self, row: int) -> int:
        """Number of the stage that row number `row` belongs to."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row}: the run has {self.rows}")
        return bisect_right(self._firsts, row) - 1

    def stream_of(self, row: int) -> str:
        """Name of the stream that row number `row` belongs to."""
        stage = self._stages[self.stage_of(row)]
        return place(row - stage.first, stage.shares)[0]

    def batch(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count`."""
        shape = (count, self._length)
        tokens, targets = np.empty(shape, np.int64), np.full(shape, IGNORED, np.int64)
        begins, objectives = np.empty(shape, np.int32), np.zeros(shape, np.int8)
        columns = np.arange(self._length, dtype=np.int32)
        ends = np.tile(columns + 1, (count, 1))
        streams = []
        for b in range(count):
            stage = self._stages[self.stage_of(first + b)]
            stream, index = place(first + b - stage.first, stage.shares)
            streams.append(stream)
            column = 0
            for piece in stage.orders[stream].pieces(index):
                end = column + piece.room
                begins[b, column:end] = column
                prefix = self._write(piece, tokens[b, column:end], targets[b, column:end])
                if piece.objective != CAUSAL:
                    objectives[b, column:end] = self._names[piece.objective]
                    ends[b, column : column + prefix] = column + prefix
                column = end
        return Batch(tokens, targets, columns - begins, begins, ends, objectives, tuple(streams))

    def report(self) -> dict[str, Any]:
        """What the run reads: tokens, epochs and shares by stage and stream, and how often documents come."""
        return {**report(self._stages, self._length), "empty_documents": self.empty_documents}

    def _write(self, piece: Piece, tokens: np.ndarray, targets: np.ndarray) -> int:
        """Put a piece into its part of a row; gives the length of its bidirectional prefix."""
        if piece.objective == CAUSAL:
            self._write_raw(piece, tokens, targets)
            return 0
        raw = np.empty(piece.end - piece.begin, dtype=np.int64)
        following = np.full(len(raw), IGNORED)
        self._write_raw(piece, raw, following)
        ends_document = piece.end > self._lengths[piece.row]
        objective = self.objectives[piece.objective]
        item = transform(objective, raw, ends_document, piece.key, self._sentinels, self._split)
        size = len(item.tokens)
        tokens[:size], tokens[size:] = item.tokens, self._end_of_text
        np.copyto(targets[: size - 1], item.tokens[1:], where=item.is_target[1:])
        if piece.continues:
            targets[size - 1] = following[-1]
        return item.prefix

    def _write_raw(self, piece: Piece, tokens: np.ndarray, targets: np.ndarray) -> None:
        """The piece's tokens and what follows each of them, end-of-text included."""
        offset, length, size = int(self._offsets[piece.row]), int(self._lengths[piece.row]), len(tokens)
        end = piece.end + piece.continues
        ids = self._tokens[offset + piece.begin : offset + min(end, length)]
        tokens[: len(ids)] = ids[:size]
        targets[: len(ids) - 1] = ids[1:]
        if end > length:
            if len(ids) < size:
                tokens[len(ids)] = self._end_of_text
            if len(ids) > 0:
                targets[len(ids) - 1] = self._end_of_text


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


def _character_split(objectives: Iterable[Objective], tokenizer: Tokenizer | None) -> CharacterSplit | None:
    """What infilling between characters needs, or None where nobody asks for it."""
    if not any(isinstance(objective, InfillObjective) and objective.split == "character" for objective in objectives):
        return None
    if tokenizer is None:
        raise ValueError("infill with split: character needs the tokenizer of the store; give it, or split: token")
    return CharacterSplit(tokenizer)
