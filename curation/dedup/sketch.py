"""Signatures of documents: 256 numbers of 16 bits, whose share of equal ones estimates the Jaccard similarity.

Fast Similarity Sketching (Dahlgaard, Knudsen, Thorup, FOCS 2017, arXiv:1704.04370): an n-gram's hash gives one of the
256 bins and a value, and a bin keeps its smallest; while bins are empty, another round with fresh hashes fills only
those, and after 256 rounds every n-gram is offered to the bins one by one, so no bin stays empty. One hash an n-gram
for all but short documents, against 256 of classical MinHash, with its mean and no more than its variance,
√(J(1−J)/256) ≤ 0.032. Of each minimum the lowest 16 bits are kept (b-bit minwise hashing, Li and König 2010): two
different minima agree once in 65,536. About 210 MB/s; imported inside functions only (numba).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from ..compiled import compiled
from .tokens import BYTES, HASHES, ODD, OFFSETS, mix, ngram_hashes, token_hashes

VALUES = 256
_BIN_SHIFT = np.uint64(56)  # the upper 8 bits are the bin
_VALUE_BITS = np.uint64(46)  # below the round, of which there are at most 512
_VALUE_MASK = np.uint64((1 << 46) - 1)
_LOWEST = np.uint64(0xFFFF)
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled(types.void(HASHES, types.int64, HASHES))
def sketch(ngrams: npt.NDArray[np.uint64], count: int, bins: npt.NDArray[np.uint64]) -> None:
    """The `VALUES` minima of the first `count` (at least one) hashes into `bins`."""
    bins[:] = _NOTHING
    empty = VALUES
    for turn in range(2 * VALUES):
        if empty == 0:
            break
        first = np.uint64(turn) << _VALUE_BITS
        seed = np.uint64(turn) * ODD
        for index in range(count):
            value = ngrams[index] if turn == 0 else mix(ngrams[index] ^ seed)
            which = value >> _BIN_SHIFT if turn < VALUES else np.uint64(turn - VALUES)
            key = first | (value & _VALUE_MASK)
            if key < bins[which]:
                empty -= bins[which] == _NOTHING
                bins[which] = key


@compiled(types.void(BYTES, OFFSETS, types.int64, types.int64, types.uint16[:, ::1], types.int64[::1]))
def signatures(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    ngram: int,
    min_tokens: int,
    out: npt.NDArray[np.uint16],
    counts: npt.NDArray[np.int64],
) -> None:
    """Signature and number of tokens of each document `data[offsets[i]:offsets[i + 1]]`.

    A document of fewer than `min_tokens` tokens is one n-gram, all its tokens: its signature equals that of documents
    with the same tokens, and no other. A document without tokens has no signature; its row is left as it is.
    """
    longest = 1
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    tokens = np.empty(longest, np.uint64)
    bins = np.empty(VALUES, np.uint64)
    for document in range(len(offsets) - 1):
        count = token_hashes(data, offsets[document], offsets[document + 1], tokens)
        counts[document] = count
        if count == 0:
            continue
        number = ngram_hashes(tokens, count, count if count < min_tokens else ngram, tokens)
        sketch(tokens, number, bins)
        for index in range(VALUES):
            out[document, index] = np.uint16(bins[index] & _LOWEST)
