"""Randomness by counting: every draw is a hash of (document id, purpose, seed, epoch, number of the draw).

No generator is carried along, so any draw of any document can be made alone, for one document or for an array of
them, and documents that are added or left out change nothing for the others. A draw costs about 10 ns in an array.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)
"""Distance of one draw's counter from the next: SplitMix64's (Steele, Lea and Flood 2014)."""

_MASK = 2**64 - 1
_ID = re.compile(r"[0-9a-fA-F]{32}")


def document_hashes(ids: Sequence[str]) -> np.ndarray:
    """64 bits of each document id: of our own, 32 hexadecimal digits, those; of any other name a hash."""
    digits = "".join(
        name if _ID.fullmatch(name) else blake2b(name.encode(), digest_size=16).hexdigest() for name in ids
    )
    halves = np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64).reshape(len(ids), 2)
    hashes: np.ndarray = halves[:, 0] ^ mix(halves[:, 1])
    return hashes


def keyed(hashes: np.ndarray, purpose: str, seed: int, epoch: int = 0) -> np.ndarray:
    """A 64-bit key of each document for one purpose; keys of different purposes, seeds or epochs are unrelated."""
    key = hashlib.sha256(f"{purpose}:{seed}:{epoch}".encode()).digest()
    first, second = np.frombuffer(key[:16], dtype="<u8").astype(np.uint64)
    return mix(mix(hashes ^ first) + second)


def uniform(keys: np.ndarray | np.uint64, numbers: np.ndarray | np.uint64) -> np.ndarray:
    """Draw number `numbers` of each key, in [0, 1) with 53 bits; the two broadcast to at least one dimension."""
    drawn: np.ndarray = (mix(keys + np.atleast_1d(numbers) * STEP) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


def draw(key: int, number: int) -> float:
    """One draw of `uniform`, without the cost of arrays."""
    value = (key + number * int(STEP)) & _MASK
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    return float((value ^ (value >> 33)) >> 11) * 2.0**-53


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3 (Appleby): a bijection of 64 bits in which each input bit moves each output bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: np.ndarray = values ^ (values >> np.uint64(33))
    return mixed
