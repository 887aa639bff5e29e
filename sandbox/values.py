"""Plain values: the form in which they travel (see `plain.py`), and their equality.

Two values are compared as trees by their `canonical` text. No dict or set is built in this process from what a
candidate sent: crafted hashes make those quadratic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .plain import (
    DECODERS,
    MAX_DEPTH,
    SCALARS,
    NotPlain,
    check_depth,
    decode,
    encode,
    listed,
    pairs_of,
    show,
    tag_of,
)

__all__ = ["MAX_DEPTH", "NotPlain", "canonical", "decode", "encode", "show"]

_EXACT_DIGITS = 400
"""Of decimals that may equal an int or a float. Their text grows with the exponent: eight bytes of a candidate's must
not become megabytes here."""

_SETS = frozenset({"set", "frozenset", "keys", "items"})
_SEQUENCES = frozenset({"tuple", "deque", "values", "iterator", "endless"})


def canonical(tree: object, depth: int = 0) -> str:
    """Text that is equal for trees whose values are equal in Python's sense; unlike there, NaN equals NaN.

    So 1, 1.0, True and Decimal(1) are equal, a list and a tuple are not, and sets and dicts have no order. Iterators
    and views of values, which in Python equal only themselves, are equal if they yield the same.

    Raises:
        ValueError: if the tree is not in the form of `plain.py`.
        OverflowError: for a moment outside the calendar.
    """
    kind = type(tree)
    if tree is None:
        return "null"
    if kind is str:
        return _quoted(tree)
    if kind in SCALARS:
        return _number(tree)  # type: ignore[arg-type]
    check_depth(depth)
    if kind is list:
        return "[" + ",".join(_canonical_items(tree, depth)) + "]"
    tag, content = tag_of(tree)
    if tag in {"", "dict"}:
        pairs = pairs_of(content) if tag else content.items()
        return "<" + ",".join(sorted([canonical(k, depth + 1) + "=" + canonical(v, depth + 1) for k, v in pairs])) + ">"
    if tag in _SETS:
        items = [{"$tuple": list(pair)} for pair in pairs_of(content)] if tag == "items" else content
        return "{" + ",".join(sorted(set(_canonical_items(items, depth)))) + "}"
    if tag in _CANONICAL:
        return _CANONICAL[tag](DECODERS[tag](content, depth, None))
    if tag in _SEQUENCES:
        return f"{tag}(" + ",".join(_canonical_items(content, depth)) + ")"
    raise ValueError(f"${tag} has no place outside a call")


def _canonical_items(items: Any, depth: int) -> list[str]:
    return [canonical(item, depth + 1) for item in listed(items)]


def _quoted(text: Any) -> str:
    return f"s{len(text)}:{text}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if isinstance(value, float) and (math.isinf(value) or not value.is_integer()):
        return f"f{value.hex()}"
    return f"i{int(value):x}"


def _complex(value: complex) -> str:
    return _number(value.real) if value.imag == 0 else f"c{_number(value.real)},{_number(value.imag)}"


def _fraction(value: Any) -> str:
    """As that of the equal int or float, where there is one."""
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return _number(numerator)
    try:
        nearest = numerator / denominator
    except OverflowError:
        nearest = math.inf
    is_exact = math.isfinite(nearest) and nearest.as_integer_ratio() == (numerator, denominator)
    return _number(nearest) if is_exact else f"r{numerator:x}/{denominator:x}"


def _decimal(value: Any) -> str:
    if value.is_nan():
        return "nan"
    if value.is_infinite() or not value:
        return _number(float(value))
    sign, digits, exponent = value.as_tuple()
    if len(digits) + abs(exponent) <= _EXACT_DIGITS:
        return _fraction(value)
    significant = "".join(map(str, digits)).rstrip("0")
    return f"e{'-' if sign else ''}{significant}e{exponent + len(digits) - len(significant)}"


def _datetime(value: Any) -> str:
    import datetime

    if value.utcoffset() is None:
        return f"t{value.isoformat()}"
    return f"u{value.astimezone(datetime.UTC).isoformat()}"


def _range(value: range) -> str:
    """By length, start and step, as far as they matter; `len` has no room for long ones."""
    count = max(0, -((value.start - value.stop) // value.step))
    parts = [count, value.start, value.step][: count + 1]
    return f"range({','.join([_number(part) for part in parts])})"


_CANONICAL: dict[str, Callable[[Any], str]] = {
    "int": _number,
    "float": _number,
    "complex": _complex,
    "decimal": _decimal,
    "fraction": _fraction,
    "bytes": lambda value: "b" + value.hex(),
    "bytearray": lambda value: "b" + value.hex(),
    "date": lambda value: f"d{value.isoformat()}",
    "time": lambda value: f"h{value.isoformat()}",
    "datetime": _datetime,
    "timedelta": lambda value: f"l{value.days},{value.seconds},{value.microseconds}",
    "range": _range,
}
