"""Bits per byte on held-out documents while a run trains: chosen, encoded and laid out once, scored many times.

Every stream gives an equal share of `most_bytes`, documents in the order of a hash of their id, none more than a
sixteenth of the share. Their tokens fill rows one after another; a row's end cuts a document, and what follows sees
only itself. Every token is scored once, the first of a document from the end-of-text token, and the bytes are those of
the raw text, so models with different tokenizers compare. Attention is causal for every model: one that was trained
with bidirectional prefixes is scored as a causal one, which is a different number from its likelihood given a prefix.

Price: a forward pass over the tokens. It draws no random numbers. The value is for following a run; `eval/` scores with
overlapping windows and intervals.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .attention import Mask
from .rows import IGNORED
from .tokenizer import encode

COLUMNS = ("id", "text", "stream")
BATCH_TOKENS = 16_384
"""In one forward pass. All passes have the same shape, so that layers that are compiled one by one are compiled once
more, for it; a model that is compiled as a whole, with its loss, runs uncompiled here."""

LARGEST_PART = 16
"""A document gives at most this part of its stream's bytes: otherwise one long file could decide the number."""


class Scorer(Protocol):
    """What is asked of a model here."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on or off."""

    def loss(
        self, tokens_BT: Tensor, targets_BT: Tensor, positions_BT: Tensor, mask: Mask, valid_targets: int, /
    ) -> tuple[Tensor, Tensor]:
        """The loss, and losses_BT in nats."""


class Validation:
    """Held-out documents as rows of tokens. `size_bytes` is the raw text that is scored, by stream."""

    def __init__(
        self, documents: pl.DataFrame, tokenizer: Tokenizer, sequence_length: int, end_of_text: int, most_bytes: int
    ) -> None:
        """Choose and encode.

        Args:
            documents: columns id, text, stream; documents that no run trains on.
            end_of_text: id of the token before the first of a document.
            most_bytes: of raw text in all, shared equally by the streams.

        Raises:
            ValueError: if a column is missing, no document has text, or a stream is called `all`.
        """
        texts, streams = _choose(documents, most_bytes)
        self.streams = sorted(set(streams))
        if not texts or "all" in self.streams:
            wrong = "a stream is called `all`, which names the total" if texts else "no document has text"
            raise ValueError(f"validation: {wrong}; {documents.height} held-out documents were given")
        self.size_bytes = dict.fromkeys(self.streams, 0)
        for text, stream in zip(texts, streams, strict=True):
            self.size_bytes[stream] += len(text.encode())
        ids = encode(tokenizer, texts)
        numbers = [self.streams.index(stream) for stream in streams]
        self._lay_out([part.astype(np.int64) for part in ids], numbers, sequence_length, end_of_text)

    @property
    def tokens(self) -> int:
        """Tokens that are scored."""
        return int((self._targets != IGNORED).sum())

    def bits_per_byte(self, model: Scorer, device: torch.device) -> dict[str, float]:
        """`{"all": …, stream: …}` of the model as it is now; not finite where its losses are not."""
        nats = np.zeros(len(self.streams))
        was_training = model.training
        model.train(False)
        with torch.no_grad():
            for tokens, targets, positions, begins, streams in zip(
                self._tokens, self._targets, self._positions, self._begins, self._streams, strict=True
            ):
                ends = np.broadcast_to(np.arange(1, begins.shape[1] + 1, dtype=np.int32), begins.shape)
                tokens_BT, targets_BT, positions_BT = (
                    torch.from_numpy(array).to(device) for array in (tokens, targets, positions)
                )
                # Divided by 1: the sum; only the single losses are used.
                mask = Mask.of(begins, ends).to(device)
                _, losses_BT = model.loss(tokens_BT, targets_BT, positions_BT, mask, 1)
                valid = targets != IGNORED
                losses = losses_BT.cpu().double().numpy()[valid]
                nats += np.bincount(streams[valid], weights=losses, minlength=len(nats))
        model.train(was_training)
        total = float(nats.sum()) / sum(self.size_bytes.values())
        found = {"all": total, **{name: n / self.size_bytes[name] for name, n in zip(self.streams, nats, strict=True)}}
        return {name: float(value) / math.log(2) for name, value in found.items()}

    def _lay_out(self, ids: list[np.ndarray], numbers: list[int], time: int, end_of_text: int) -> None:
        """The arrays of all passes, [passes, rows, time], padded with rows that have no targets."""
        lengths = np.array([len(part) for part in ids])
        count = int(lengths.sum())
        rows = -(-count // time)
        passes = -(-rows // max(1, BATCH_TOKENS // time))
        size = passes * -(-rows // passes) * time

        def shaped(values: np.ndarray, padding: int) -> np.ndarray:
            return np.append(values, np.full(size - count, padding, values.dtype)).reshape(passes, -1, time)

        targets = np.concatenate(ids)
        firsts = np.cumsum(lengths) - lengths
        tokens = np.roll(targets, 1)
        tokens[firsts[lengths > 0]] = end_of_text
        place = np.arange(count)
        begins = np.maximum(np.repeat(firsts, lengths), place // time * time)
        self._tokens, self._targets = shaped(tokens, end_of_text), shaped(targets, IGNORED)
        self._positions = shaped((place - begins).astype(np.int32), 0)
        self._streams = shaped(np.repeat(np.array(numbers), lengths), 0)
        # Padding is one segment of its own from where the text ends.
        in_last = count % time
        self._begins = shaped((begins % time).astype(np.int32), 0)
        if in_last:
            self._begins.reshape(-1, time)[rows - 1, in_last:] = in_last


def _choose(documents: pl.DataFrame, most_bytes: int) -> tuple[list[str], list[str]]:
    """Texts and streams, in the order of streams and hashes."""
    missing = [name for name in COLUMNS if name not in documents.columns]
    if missing:
        raise ValueError(f"validation: column {missing[0]!r} is missing; the documents have {documents.columns}")
    names = sorted(documents["stream"].unique().to_list())
    share = most_bytes // max(1, len(names))
    texts: list[str] = []
    streams: list[str] = []
    for name in names:
        left = share
        there = documents.filter(pl.col("stream") == name).select("id", "text").rows()
        for _, text in sorted(there, key=lambda row: hashlib.sha256(row[0].encode()).digest()):
            part = _beginning(text, min(left, -(-share // LARGEST_PART)))
            if part:
                texts.append(part)
                streams.append(name)
                left -= len(part.encode())
    return texts, streams


def _beginning(text: str, most_bytes: int) -> str:
    """At most so many bytes, and never half a character."""
    return text[:most_bytes].encode()[:most_bytes].decode(errors="ignore")
