"""Encoded data inside text: base64 and hexadecimal runs, `\\x41` and `\\u0041` escapes, lists of bytes; and literals.

Comes in: the documents of a batch. Goes out: for each the bytes of all runs and of the longest one, and how many
hexadecimal and float literals it holds. The kinds are Stack v2's, without its traps: a run must mix letters with
digits, so that word lists and rulers made of slashes do not count, and everything is linear. Runs on neighbouring
lines (PEM, strings joined by `+`) are one run.

Price: 1.5 ns a byte, in compiled code (`kernels/encoded.py`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MIN_RUN = 60
"""PEM lines hold 64 characters, base64's default 76; Stack v2 asks for 64 in a row but lets runs cross lines. Up to two
`=` at the end count."""

MIN_REPEATS = 8
"""Escapes or bytes in a row (Stack v2, section 3.3)."""

MAX_GAP = 64
"""Between the lines of one run: quotes, commas, line ends and indentation."""


class Encoded(NamedTuple):
    """Numbers for one document."""

    longest: int
    total: int
    hexadecimals: int
    floats: int


def measure_batch(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The fields of `Encoded` as rows, a column for each document between `offsets` of `data`."""
    kernel = load()
    counts = np.empty((len(kernel.COUNTS), len(offsets) - 1), dtype=np.int64)
    kernel.measure(data, offsets, MIN_RUN, MAX_GAP, MIN_REPEATS, counts)
    return counts


def measure_encoded(data: bytes) -> Encoded:
    """The numbers of one document."""
    counts = measure_batch(np.frombuffer(data, np.uint8), np.array([0, len(data)], np.int64))
    return Encoded(*counts[:, 0].tolist())


@cache
def load() -> Any:
    """The kernel; compiled at the first use after an installation (5 s)."""
    from .kernels import encoded

    return encoded
