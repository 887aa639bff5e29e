"""The types of a predicate: what is compared with what, and whether it is a statement at all.

Comes in: a predicate as tree and as Polars expression, and the declarations of its columns. Goes out: problems in
words. The tree finds what Polars lets pass (a statement compared with a number is silently false); what the tree does
not know is tried by Polars on three made-up rows: nulls, zeros and ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from ..signals.signal import Signal
from .ranges import domain_of
from .reason import interval
from .tree import (
    All,
    Any,
    Arithmetic,
    Call,
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
    nodes,
    text_of,
)

NUMBER, STRING, STATEMENT, LIST = "a number", "a string", "a statement", "a list"


def problems_of_types(
    tree: Node | None, expression: pl.Expr, used: Iterable[str], declared: Mapping[str, Signal]
) -> list[str]:
    """Everything that is wrong with the types of a predicate; empty if nothing is."""
    found = [] if tree is None else list(dict.fromkeys(_of_tree(tree, declared)))
    return found or list(_of_polars(expression, used, declared))


def _of_tree(tree: Node, declared: Mapping[str, Signal]) -> Iterator[str]:
    kind = _kind(tree, declared)
    if kind not in {STATEMENT, None}:
        yield f"is {kind}, not a statement; compare it with something"
    for node in nodes(tree):
        match node:
            case Compare(_, left, right):
                yield from _same(node, _kind(left, declared), [_kind(right, declared)], declared)
            case In(operand, values):
                yield from _same(
                    node, _kind(operand, declared), [_kind(Literal(v), declared) for v in values], declared
                )
            case Like(_, pattern, _) if "_" in pattern:
                yield (
                    f"{text_of(node)}: in LIKE `_` stands for any character, so that '%_test.go' holds for latest.go; "
                    f"write ENDS_WITH(path, '_test.go'), STARTS_WITH or STRPOS(path, '_') > 0"
                )
            case Like(operand, _, _) if _kind(operand, declared) not in {STRING, None}:
                yield f"{text_of(node)}: LIKE is for strings, {text_of(operand)} is {_kind(operand, declared)}"
            case All(parts) | Any(parts):
                for part in parts:
                    if _kind(part, declared) not in {STATEMENT, None}:
                        yield f"{text_of(part)}: is {_kind(part, declared)}, not a statement; compare it with something"
            case Not(part) if _kind(part, declared) not in {STATEMENT, None}:
                yield f"NOT {text_of(part)}: is {_kind(part, declared)}, not a statement; compare it with something"
            case Arithmetic(op, left, right):
                yield from _of_arithmetic(node, op, left, right, declared)


def _same(node: Node, left: str | None, others: Iterable[str | None], declared: Mapping[str, Signal]) -> Iterator[str]:
    for right in others:
        if left is None or right is None or (left == right and left != LIST):
            continue
        names = [f"{each.name} is {declared[each.name].dtype}" for each in nodes(node) if isinstance(each, Column)]
        yield f"{text_of(node)}: compares {left} with {right} ({', '.join(names)})"
        return


def _of_arithmetic(node: Node, op: str, left: Node, right: Node, declared: Mapping[str, Signal]) -> Iterator[str]:
    for part in (left, right):
        if _kind(part, declared) not in {NUMBER, None}:
            yield f"{text_of(node)}: calculates with {_kind(part, declared)}"
            return
    box = {each.name: domain_of(declared[each.name]) for each in nodes(node) if isinstance(each, Column)}
    low, high = interval(right, box)
    if op in {"/", "%"} and low <= 0 <= high:
        yield (
            f"{text_of(node)}: divides by what can be 0, and 0/0 is NaN, which is over every limit; "
            f"write `a > 0.4 * b` in place of `a / b > 0.4`"
        )
    if op == "-" and interval(left, box)[0] < interval(right, box)[1] and _is_unsigned(node, declared):
        yield (
            f"{text_of(node)}: takes one count from another, and counts wrap round below 0; "
            f"write `a < b + c` in place of `a - b < c`"
        )


def _of_polars(expression: pl.Expr, used: Iterable[str], declared: Mapping[str, Signal]) -> Iterator[str]:
    schema = {name: declared[name].dtype for name in used} or {"": pl.Int8()}
    rows = pl.DataFrame({name: _made_up(dtype) for name, dtype in schema.items()}, schema=schema)
    try:
        dtype = rows.select(expression.alias("fires"))["fires"].dtype
    except pl.exceptions.PolarsError as error:
        yield f"cannot be evaluated: {str(error).splitlines()[0]}"
        return
    if dtype != pl.Boolean:
        yield f"is {dtype}, not a statement; compare it with something"


def _made_up(dtype: pl.DataType) -> list[object]:
    if dtype == pl.String:
        return [None, "", "a"]
    if dtype == pl.Boolean:
        return [None, False, True]
    if isinstance(dtype, pl.List):
        return [None, [], ["a"]]
    return [None, 0, 1]


def _kind(node: Node, declared: Mapping[str, Signal]) -> str | None:
    """What a node is; None if it is null, or a function whose type Polars knows."""
    match node:
        case Literal(bool()):
            return STATEMENT
        case Literal(str()):
            return STRING
        case Literal(None):
            return None
        case Literal() | Arithmetic() | Number():
            return NUMBER
        case Column(name):
            return _kind_of_type(declared[name].dtype)
        case Coalesce(parts):
            return next((kind for part in parts if (kind := _kind(part, declared))), None)
        case Call(name, _):
            return STATEMENT if name in {"STARTS_WITH", "ENDS_WITH", "REGEXP_LIKE"} else None
        case Compare() | All() | Any() | Not() | In() | IsNull() | Like():
            return STATEMENT


def _kind_of_type(dtype: pl.DataType) -> str | None:
    if dtype.is_numeric():
        return NUMBER
    if isinstance(dtype, pl.List):
        return LIST
    return {pl.String(): STRING, pl.Boolean(): STATEMENT}.get(dtype)


def _is_unsigned(node: Node, declared: Mapping[str, Signal]) -> bool:
    """Whether Polars calculates the node in an unsigned type: nothing in it can be negative or broken."""
    match node:
        case Column(name):
            return declared[name].dtype.is_unsigned_integer()
        case Literal(value):
            return isinstance(value, int | float) and float(value).is_integer()
        case Arithmetic(_, left, right):
            return _is_unsigned(left, declared) and _is_unsigned(right, declared)
        case Coalesce(parts):
            return all(_is_unsigned(part, declared) for part in parts)
        case _:
            return False
