"""The hash by which kernels know a word: FNV-1a with 64 bits, here in plain Python for the tables that they get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

FNV_SEED, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def word_hash(word: bytes) -> int:
    """FNV-1a of `word`; 0, which marks a free slot of a table, does not occur in practice."""
    value = FNV_SEED
    for byte in word:
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def hashes(words: Iterable[str]) -> NDArray[np.uint64]:
    """The hashes of some words, for a short linear search."""
    return np.array([word_hash(word.encode()) for word in words], np.uint64)


def hash_table(flags: Mapping[bytes, int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Open addressing: slot = hash modulo the size, a power of two at least four times the number of words."""
    size = 16
    while size < 4 * len(flags):
        size *= 2
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for word, flag in flags.items():
        slot = word_hash(word) & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], values[slot] = word_hash(word), flag
    return keys, values
