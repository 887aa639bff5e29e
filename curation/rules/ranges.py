"""What a column can hold: the words of `Signal.range` as sets that can be cut, joined and added up.

Comes in: a column's declaration. Goes out: its `Domain`: pieces of the number line, a list of names, truth values, or
any text; and whether it can be null. Pieces are closed: `x > 1` starts at the next number that the type has, so that
"share > 1" is seen to be impossible and "count > 0 AND count < 1" as well.

Words that are understood: `0..1`, `0 up to 1` (without 1), `0 and up`, `true | false`, `a | b | c`, each with
`, or null` behind it; for text also prose, which stands for any text. A number column whose range is in other words is
an error, so that a table cannot say less than the checks need.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from ..languages import UNKNOWN, languages
from ..signals.signal import Signal

Pieces = tuple[tuple[float, float], ...]

_BETWEEN = re.compile(r"(-?\d+(?:\.\d+)?) *\.\. *(-?\d+(?:\.\d+)?)")
_UP_TO = re.compile(r"(-?\d+(?:\.\d+)?) up to (-?\d+(?:\.\d+)?)")
_FROM = re.compile(r"(-?\d+(?:\.\d+)?) and up")
_NAMES = re.compile(r"[\w.+#-]+(?: \| [\w.+#-]+)+")
EVERYTHING: Pieces = ((-math.inf, math.inf),)


@dataclass(frozen=True)
class Domain:
    """A set of values: of numbers (`pieces`), of names or truth values (`names`), or any text (both None)."""

    pieces: Pieces | None = None
    names: frozenset[str | bool] | None = None
    nullable: bool = True
    integer: bool = False

    @property
    def has_values(self) -> bool:
        """Whether anything but null is left."""
        return self.pieces != () and self.names != frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether not even null is left."""
        return not self.has_values and not self.nullable

    def not_null(self) -> Domain:
        """Without null."""
        return replace(self, nullable=False)

    def only_null(self) -> Domain:
        """Null, if it can be."""
        return Domain(pieces=(), names=frozenset(), nullable=self.nullable, integer=self.integer)

    def bounds(self) -> tuple[float, float]:
        """Least and greatest number; no bounds where there are no numbers."""
        if not self.pieces:
            return -math.inf, math.inf
        return self.pieces[0][0], self.pieces[-1][1]

    def within(self, low: float, high: float) -> Domain:
        """The numbers from `low` to `high`, both included."""
        if self.pieces is None:
            return self
        if self.integer:
            low, high = _up(low), _down(high)
        cut = ((max(low, start), min(high, end)) for start, end in self.pieces)
        return replace(self, pieces=tuple((start, end) for start, end in cut if start <= end))

    def below(self, value: float) -> Domain:
        """The numbers less than `value`."""
        step = value - 1 if self.integer and value.is_integer() else value
        return self.within(-math.inf, step if self.integer else math.nextafter(value, -math.inf))

    def above(self, value: float) -> Domain:
        """The numbers greater than `value`."""
        step = value + 1 if self.integer and value.is_integer() else value
        return self.within(step if self.integer else math.nextafter(value, math.inf), math.inf)

    def named(self, names: Iterable[str | bool]) -> Domain:
        """The values among `names`."""
        wanted = frozenset(names)
        if self.pieces is not None:
            return self
        return replace(self, names=wanted if self.names is None else self.names & wanted)

    def not_named(self, names: Iterable[str | bool]) -> Domain:
        """The values not among `names`; of any text it is any text."""
        return self if self.names is None else replace(self, names=self.names - frozenset(names))

    def joined(self, other: Domain) -> Domain:
        """What is in one of them."""
        nullable = self.nullable or other.nullable
        if not self.has_values or not other.has_values:
            return replace(self if self.has_values else other, nullable=nullable)
        if self.pieces is not None and other.pieces is not None:
            pieces = _merged((*self.pieces, *other.pieces))
            return replace(self, pieces=pieces, nullable=nullable)
        names = None if self.names is None or other.names is None else self.names | other.names
        return replace(self, names=names, nullable=nullable)


def domain_of(column: Signal) -> Domain:
    """What `column` can hold.

    Raises:
        ValueError: if the words of its range are not understood.
    """
    words = column.range
    nullable = column.step != "reader"
    stated = words.removesuffix(", or null").removesuffix(" or null").strip()
    if column.name == "language":
        return Domain(names=frozenset({*languages(), UNKNOWN}), nullable=nullable)
    if column.name == "parsed_as":
        return Domain(names=frozenset(languages()), nullable=nullable)
    if column.dtype == pl.Boolean:
        if stated != "true | false":
            raise ValueError(f'column "{column.name}": range "{words}": a statement is "true | false"')
        return Domain(names=frozenset({True, False}), nullable=nullable)
    if column.dtype.is_numeric():
        return Domain(pieces=(_numbers(column, stated),), nullable=nullable, integer=column.dtype.is_integer())
    if column.dtype == pl.String and _NAMES.fullmatch(stated):
        return Domain(names=frozenset(stated.split(" | ")), nullable=nullable)
    if "|" in stated or ".." in stated:
        raise ValueError(f'column "{column.name}": range "{words}": names are written "a | b | c"')
    return Domain(nullable=nullable)


def _numbers(column: Signal, stated: str) -> tuple[float, float]:
    if between := _BETWEEN.fullmatch(stated):
        return float(between[1]), float(between[2])
    if half_open := _UP_TO.fullmatch(stated):
        return float(half_open[1]), math.nextafter(float(half_open[2]), -math.inf)
    if start := _FROM.fullmatch(stated):
        return float(start[1]), math.inf
    raise ValueError(
        f'column "{column.name}": range "{column.range}": numbers are written "0..1", "0 up to 1" or "0 and up"'
    )


def _merged(pieces: Pieces) -> Pieces:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(pieces):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _up(value: float) -> float:
    return float(math.ceil(value)) if math.isfinite(value) else value


def _down(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value
