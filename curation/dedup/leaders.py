"""Clusters of near duplicates, each around the one document that is kept: a compiled loop over signatures.

Documents come in the order in which they are kept. Each looks up, in an index of its bands (runs of `rows` values),
those already kept, compares full signatures, and is either removed in favour of the most similar one that reaches the
threshold, or kept and indexed. So every removed document is similar to the kept document itself, not to a chain that
leads to it, and a cluster of a million copies costs a million comparisons, not their square. Price: 512 bytes of
signature and 8 bytes a band for each document; about 10 µs a document. Imported inside functions only (numba).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from ..compiled import compiled
from .sketch import VALUES
from .tokens import ODD, OFFSETS, mix

_BLOCK = 64


@compiled(types.int64(types.uint16[:, ::1], types.int64, types.int64, types.int64))
def equal_values(signatures: npt.NDArray[np.uint16], one: int, other: int, least: int) -> int:
    """How many values of two signatures agree; less than `least` is not counted to its end."""
    equal = 0
    for start in range(0, VALUES, _BLOCK):
        for index in range(start, start + _BLOCK):
            equal += signatures[one, index] == signatures[other, index]
        if equal + VALUES - start - _BLOCK < least:
            break
    return equal


@compiled(
    types.void(
        types.uint16[:, ::1],
        types.uint32[::1],
        OFFSETS,
        types.int64,
        types.int64,
        types.int64,
        types.int64[::1],
        types.int64[::1],
    )
)
def find_leaders(
    signatures: npt.NDArray[np.uint16],
    groups: npt.NDArray[np.uint32],
    order: npt.NDArray[np.int64],
    bands: int,
    rows: int,
    least: int,
    leader: npt.NDArray[np.int64],
    equal: npt.NDArray[np.int64],
) -> None:
    """For every document in `order`, first come first kept: its `leader` (itself if it is kept) and equal values.

    Only documents of one group are compared. `least` is the number of equal values that makes a near duplicate.
    """
    # A chained hash table: heads by slot, and for each entry (kept document × band) the next one of its slot. Zero is
    # the end. Pages of `following` are touched only for kept documents.
    size = np.uint64(max(1, len(order) * bands))
    heads = np.zeros(len(order) * bands + 1, np.uint32)
    following = np.empty(len(order) * bands + 1, np.uint32)
    kept = np.empty(len(order), np.int64)
    seen = np.zeros(len(order), np.uint32)
    slots = np.empty(bands, np.uint64)
    number_kept = 0
    for turn in range(len(order)):
        document = order[turn]
        best, best_equal = -1, least - 1
        for band in range(bands):
            key = mix(np.uint64(groups[document]) * ODD + np.uint64(band))
            for row in range(band * rows, (band + 1) * rows):
                key = (key ^ np.uint64(signatures[document, row])) * ODD
            slots[band] = ((mix(key) >> np.uint64(32)) * size) >> np.uint64(32)
            entry = heads[slots[band]]
            while entry != 0:
                position = int(entry - 1) // bands
                if int(entry - 1) % bands == band and seen[position] != turn + 1:
                    seen[position] = np.uint32(turn + 1)
                    candidate = kept[position]
                    if groups[candidate] == groups[document]:
                        found = equal_values(signatures, document, candidate, best_equal)
                        if found > best_equal or (found == best_equal and best >= 0 and position < best):
                            best, best_equal = position, found
                entry = following[entry]
        if best >= 0:
            leader[document], equal[document] = kept[best], best_equal
            continue
        leader[document], equal[document] = document, VALUES
        kept[number_kept] = document
        for band in range(bands):
            entry = np.uint32(number_kept * bands + band + 1)
            following[entry] = heads[slots[band]]
            heads[slots[band]] = entry
        number_kept += 1
