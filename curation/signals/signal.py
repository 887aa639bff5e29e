"""The declaration of a column: what every signals module states about what it measures.

A table of `Signal` is the single source for the dtypes of a step, the column reference and the checks of rules; the
values that a step's function returns stand in the order of its table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Signal:
    """One column: `unit` and `range` in words for readers, `source` the paper and section, or "own"."""

    name: str
    dtype: pl.DataType
    unit: str
    range: str
    meaning: str
    source: str
    step: str


def dtypes(table: Iterable[Signal]) -> dict[str, pl.DataType]:
    """Name → dtype in the table's order: what a step provides."""
    return {signal.name: signal.dtype for signal in table}
