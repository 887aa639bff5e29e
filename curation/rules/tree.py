"""A predicate as a tree: the nodes, ways to walk them, and the tree in SQL again.

`sql` makes trees, `dtypes` and `reason` look at them. Polars evaluates the text itself, never a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column by name."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A number, string, truth value or NULL."""

    value: float | str | bool | None


@dataclass(frozen=True)
class Compare:
    """`left op right` with op one of = <> < <= > >=."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True)
class All:
    """AND."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Any:
    """OR."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """NOT."""

    part: Node


@dataclass(frozen=True)
class In:
    """`operand IN (values)`."""

    operand: Node
    values: tuple[float | str | bool | None, ...]


@dataclass(frozen=True)
class IsNull:
    """`operand IS NULL`."""

    operand: Node


@dataclass(frozen=True)
class Like:
    """`operand LIKE pattern`."""

    operand: Node
    pattern: str
    ignore_case: bool


@dataclass(frozen=True)
class Arithmetic:
    """`left op right` with op one of + - * / %."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Coalesce:
    """The first that is not null."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Number:
    """A cast to a number type that can be negative."""

    part: Node


@dataclass(frozen=True)
class Call:
    """Another function: what it takes is known, what it gives is not."""

    name: str
    parts: tuple[Node, ...]


Node = Call | Column | Literal | Compare | All | Any | Not | In | IsNull | Like | Arithmetic | Coalesce | Number


def atoms(node: Node) -> Iterator[Node]:
    """The statements that AND, OR and NOT join."""
    match node:
        case All(parts) | Any(parts):
            for part in parts:
                yield from atoms(part)
        case Not(part):
            yield from atoms(part)
        case _:
            yield node


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    match node:
        case All(parts) | Any(parts) | Coalesce(parts) | Call(_, parts):
            return parts
        case Not(part) | Number(part):
            return (part,)
        case In(operand, _) | IsNull(operand) | Like(operand, _, _):
            return (operand,)
        case Compare(_, left, right) | Arithmetic(_, left, right):
            return (left, right)
        case _:
            return ()


def nodes(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from nodes(child)


def columns(node: Node) -> list[str]:
    """Names of the columns in the tree, each once, in their order."""
    return list(dict.fromkeys(each.name for each in nodes(node) if isinstance(each, Column)))


def text_of(node: Node) -> str:
    """The node in SQL, for messages; parentheses only where they are needed."""
    match node:
        case Column(name):
            return name
        case Literal(value):
            return _literal(value)
        case Compare(op, left, right):
            return f"{_inner(left, 5)} {op} {_inner(right, 5)}"
        case Arithmetic(op, left, right):
            level = _level(node)
            return f"{_inner(left, level)} {op} {_inner(right, level + 1)}"
        case All(parts):
            return " AND ".join(_inner(part, 3) for part in parts)
        case Any(parts):
            return " OR ".join(_inner(part, 2) for part in parts)
        case Not(part):
            return f"NOT {_inner(part, 3)}"
        case In(operand, values):
            return f"{_inner(operand, 5)} IN ({', '.join(map(_literal, values))})"
        case IsNull(operand):
            return f"{_inner(operand, 5)} IS NULL"
        case Like(operand, pattern, ignore_case):
            return f"{_inner(operand, 5)} {'ILIKE' if ignore_case else 'LIKE'} {_literal(pattern)}"
        case Coalesce(parts):
            return f"COALESCE({', '.join(map(text_of, parts))})"
        case Call(name, parts):
            return f"{name}({', '.join(map(text_of, parts))})"
        case Number(part):
            return f"CAST({text_of(part)} AS DOUBLE)"


def _level(node: Node) -> int:
    """How tightly a node binds."""
    match node:
        case Any():
            return 1
        case All():
            return 2
        case Not():
            return 3
        case Compare() | In() | IsNull() | Like():
            return 4
        case Arithmetic(op, _, _):
            return 5 if op in "+-" else 6
        case _:
            return 9


def _inner(node: Node, level: int) -> str:
    return text_of(node) if _level(node) >= level else f"({text_of(node)})"


def _literal(value: float | str | bool | None) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "TRUE", False: "FALSE"}[value]
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
