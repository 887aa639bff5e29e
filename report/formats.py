"""Numbers as a person reads them. The exact value stands beside a rounded one, in the page's `<data>` elements."""

from __future__ import annotations

from typing import Any


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def size(size_bytes: int) -> str:
    """Bytes in decimal units with three significant digits: `12.3 MB`."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    if unit == "B":
        return f"{size_bytes} B"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def percent(share: float) -> str:
    """`38.2 %`; what is not zero never looks like it."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def share(part: float, whole: float) -> float:
    """`part` of `whole`; nothing of nothing is 0."""
    return part / whole if whole else 0.0


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`."""
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def value(anything: Any) -> str:
    """A signal's value: integers in full, fractions with four significant digits."""
    if anything is None:
        return "–"
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    if isinstance(anything, int):
        return f"{anything:,}"
    if isinstance(anything, float):
        return f"{anything:.4g}"
    return str(anything)
