"""Texts as compiled loops take them: the bytes of a whole batch as they lie in memory, without a copy a text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl


def utf8(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of all texts in a row, and where each begins and the last one ends; null is empty."""
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    return np.frombuffer(data, np.uint8), ends
