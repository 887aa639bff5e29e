"""Whether a predicate can be true, and whether it can be false: interval arithmetic over the ranges of the columns.

Comes in: a tree of `tree` and a box, the domain of each column. Goes out: the box that is left when the predicate
is true (or false), or None when it cannot be. The box is never too small: what is not understood may be anything. So
"never fires" is a proof, and "may fire" is not. A part of OR is joined column by column, sums and products are taken
at their bounds, and two columns are not related to each other; that is what is given up.

Null follows SQL: a comparison with null is neither true nor false, AND and OR are Kleene's, COALESCE and IS NULL
decide about it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from .ranges import Domain
from .tree import (
    All,
    Any,
    Arithmetic,
    Coalesce,
    Column,
    Compare,
    In,
    IsNull,
    Like,
    Literal,
    Node,
    Not,
    Number,
)

Box = Mapping[str, Domain]

SLACK = 1e-9
"""Sums and products are widened by this share: the engine rounds, and a proof must not hang on the last digit."""

_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


def can_be(node: Node, wanted: bool, box: Box) -> bool:
    """Whether there may be a document for which the predicate has that value."""
    return narrowed(node, wanted, box) is not None


def narrowed(node: Node, wanted: bool, box: Box) -> Box | None:
    """What the columns can be when the predicate has that value; None if it never has."""
    match node:
        case All(parts):
            return _together(parts, True, box) if wanted else _either(parts, False, box)
        case Any(parts):
            return _either(parts, True, box) if wanted else _together(parts, False, box)
        case Not(part):
            return narrowed(part, not wanted, box)
        case Literal(value):
            return box if value is wanted else None
        case Column(name):
            return _with(box, name, box[name].named({wanted}).not_null()) if name in box else box
        case Compare(op, left, right):
            return _compared(op if wanted else _OPPOSITE[op], left, right, box)
        case In(operand, values):
            return _listed(operand, values, wanted, box)
        case IsNull(operand):
            return _null(operand, wanted, box)
        case Like(Column(name), pattern, ignore_case):
            return _alike(name, pattern, ignore_case, wanted, box)
        case Coalesce(parts):
            return _either(parts, wanted, box)
        case _:
            return box


def interval(node: Node, box: Box) -> tuple[float, float]:
    """Bounds of a number."""
    match node:
        case Literal(value) if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value), float(value)
        case Column(name) if name in box:
            return box[name].bounds()
        case Number(part):
            return interval(part, box)
        case Coalesce(parts):
            bounds = [interval(part, box) for part in parts]
            return min(low for low, _ in bounds), max(high for _, high in bounds)
        case Arithmetic("-", Literal(0.0), right):
            low, high = interval(right, box)
            return -high, -low
        case Arithmetic(op, left, right):
            return _widened(_arithmetic(op, interval(left, box), interval(right, box)))
        case _:
            return -math.inf, math.inf


def _together(parts: Sequence[Node], wanted: bool, box: Box) -> Box | None:
    left: Box | None = box
    for _ in range(2):  # the second round sees what later parts said
        for part in parts:
            left = None if left is None else narrowed(part, wanted, left)
    return left


def _either(parts: Sequence[Node], wanted: bool, box: Box) -> Box | None:
    ways = [way for part in parts if (way := narrowed(part, wanted, box)) is not None]
    if not ways:
        return None
    joined = dict(ways[0])
    for way in ways[1:]:
        joined = {name: domain.joined(way[name]) for name, domain in joined.items()}
    return joined


def _with(box: Box, name: str, domain: Domain) -> Box | None:
    return None if domain.is_empty else {**box, name: domain}


def _without_null(node: Node, box: Box | None) -> Box | None:
    """A number or name that is compared is not null, and none of the columns that it is made of."""
    match node:
        case Column(name) if box is not None and name in box:
            return _with(box, name, box[name].not_null())
        case Number(part):
            return _without_null(part, box)
        case Arithmetic(_, left, right):
            return _without_null(right, _without_null(left, box))
        case _:
            return box


def _compared(op: str, left: Node, right: Node, box: Box) -> Box | None:
    if Literal(None) in (left, right):
        return None
    known = _without_null(right, _without_null(left, box))
    if known is None:
        return None
    for one, other, relation in ((left, right, op), (right, left, _MIRRORED[op])):
        if isinstance(other, Literal) and isinstance(other.value, str | bool):
            return _equal_name(relation, one, other.value, known)
    (low, high), (other_low, other_high) = interval(left, known), interval(right, known)
    possible = {
        "=": low <= other_high and other_low <= high,
        "<>": not (low == high == other_low == other_high),
        "<": low < other_high,
        "<=": low <= other_high,
        ">": high > other_low,
        ">=": high >= other_low,
    }[op]
    if not possible:
        return None
    after = _bounded(left, op, (other_low, other_high), known)
    return None if after is None else _bounded(right, _MIRRORED[op], (low, high), after)


def _bounded(node: Node, op: str, other: tuple[float, float], box: Box) -> Box | None:
    """The box when `node op other`, for a column."""
    if not isinstance(node, Column) or node.name not in box:
        return box
    domain, (low, high) = box[node.name], other
    match op:
        case "=":
            domain = domain.within(low, high)
        case "<":
            domain = domain.below(high)
        case "<=":
            domain = domain.within(-math.inf, high)
        case ">":
            domain = domain.above(low)
        case ">=":
            domain = domain.within(low, math.inf)
        case "<>" if low == high:
            domain = domain.below(low).joined(domain.above(low))
    return _with(box, node.name, domain)


def _equal_name(op: str, node: Node, value: str | bool, box: Box) -> Box | None:
    if isinstance(node, Literal):
        return box if (op == "=") == (node.value == value) or op not in {"=", "<>"} else None
    if not isinstance(node, Column) or node.name not in box or op not in {"=", "<>"}:
        return box
    domain = box[node.name]
    return _with(box, node.name, domain.named({value}) if op == "=" else domain.not_named({value}))


def _listed(operand: Node, values: Sequence[float | str | bool | None], wanted: bool, box: Box) -> Box | None:
    if not wanted and None in values:
        return None  # x NOT IN (…, NULL) is never true
    each = tuple(Compare("=" if wanted else "<>", operand, Literal(value)) for value in values if value is not None)
    return _either(each, True, box) if wanted else _together(each, True, box)


def _null(operand: Node, wanted: bool, box: Box) -> Box | None:
    if isinstance(operand, Column) and operand.name in box:
        domain = box[operand.name]
        return _with(box, operand.name, domain.only_null() if wanted else domain.not_null())
    return box


def _alike(name: str, pattern: str, ignore_case: bool, wanted: bool, box: Box) -> Box | None:
    domain = box[name].not_null() if name in box else None
    if domain is None:
        return box
    if domain.names is not None:
        parts = ({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern)
        wildcard = re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else 0))
        alike = {value for value in domain.names if isinstance(value, str) and wildcard.fullmatch(value)}
        domain = domain.named(alike) if wanted else domain.not_named(alike)
    return _with(box, name, domain)


def _arithmetic(op: str, left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    match op:
        case "+":
            return left[0] + right[0], left[1] + right[1]
        case "-":
            return left[0] - right[1], left[1] - right[0]
        case "*":
            products = [_product(a, b) for a in left for b in right]
            return min(products), max(products)
        case "/" if right[0] > 0 or right[1] < 0:
            products = [_product(a, 1 / b) for a in left for b in right]
            return min(products), max(products)
        case _:
            return -math.inf, math.inf


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _widened(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return (
        low - SLACK * abs(low) if math.isfinite(low) else -math.inf,
        high + SLACK * abs(high) if math.isfinite(high) else math.inf,
    )
