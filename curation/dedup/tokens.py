"""Code as tokens, and runs of tokens as 64-bit hashes: compiled loops over the bytes of a batch.

A token is a run of word bytes (ASCII letters, digits, `_`, and every byte from 128 up) or one other byte that is no
space; spaces, line ends and control bytes only separate. So `a+b`, `a-b` and `a b` differ, and indentation, line
breaks and spacing do not count. Operators are tokens one by one, so that `( x )` and `(x)` are the same. Both near
duplicates and contamination are measured in these tokens. About 310 MB/s; imported inside functions only (numba).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from ..compiled import compiled

BYTES = types.Array(types.uint8, 1, "C", readonly=True)
OFFSETS = types.Array(types.int64, 1, "C", readonly=True)
HASHES = types.uint64[::1]

SPACE, WORD, OPERATOR = 0, 1, 2


def _classes() -> npt.NDArray[np.uint8]:
    table = np.full(256, OPERATOR, np.uint8)
    table[:33] = SPACE
    table[127] = SPACE
    table[[*range(48, 58), *range(65, 91), ord("_"), *range(97, 123)]] = WORD
    table[128:] = WORD
    return table


CLASSES = _classes()

# FNV-1a of 64 bits, for the bytes of one token.
_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
ODD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: base of the polynomial over tokens, and step between seeds."""


@compiled(types.uint64(types.uint64))
def mix(value: np.uint64) -> np.uint64:
    """A permutation of 64 bits, every bit of the result depending on every one given: the finaliser of splitmix64."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled(types.int64(BYTES, types.int64, types.int64, HASHES))
def token_hashes(data: npt.NDArray[np.uint8], start: int, end: int, out: npt.NDArray[np.uint64]) -> int:
    """Hashes of the tokens of `data[start:end]` into `out` (at least as long as the bytes); returns their number."""
    count = 0
    value = _BASIS
    before = SPACE
    for position in range(start, end):
        byte = data[position]
        kind = CLASSES[byte]
        if before != SPACE and (before == OPERATOR or kind != WORD):
            out[count] = value
            count += 1
            value = _BASIS
        if kind != SPACE:
            value = (value ^ np.uint64(byte)) * _PRIME
        before = kind
    if before != SPACE:
        out[count] = value
        count += 1
    return count


@compiled(types.int64(HASHES, types.int64, types.int64, HASHES))
def ngram_hashes(tokens: npt.NDArray[np.uint64], count: int, length: int, out: npt.NDArray[np.uint64]) -> int:
    """Hashes of all runs of `length` tokens among the first `count`, in their order; returns their number.

    A polynomial that rolls over the tokens, then `mix`. The length is part of the hash. `out` may be `tokens` itself.
    """
    leading = np.uint64(1)
    for _ in range(length - 1):
        leading *= ODD
    salt = np.uint64(length) * ODD
    rolling = leaving = np.uint64(0)
    for position in range(count):
        if position >= length:
            rolling -= leaving * leading
        rolling = rolling * ODD + tokens[position]
        if position >= length - 1:
            leaving = tokens[position - length + 1]
            out[position - length + 1] = mix(rolling ^ salt)
    return max(0, count - length + 1)
