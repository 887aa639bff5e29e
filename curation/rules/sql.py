"""The SQL of rules, parsed into a tree that can be reasoned about.

Comes in: the text of a predicate. Goes out: a node of `tree`, or None where the text uses more of SQL than is
known here (CASE, casts to text): then nothing is concluded about the rule, and Polars alone decides what it means.
Precedence is SQL's: OR, AND, NOT, comparisons and IS/IN/BETWEEN/LIKE, sums, products, signs. Rules are evaluated by
Polars; a test compares what the two say about the same rows.
"""

from __future__ import annotations

import re
from functools import cache

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
)

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"[^"]+")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol><=|>=|<>|!=|[=<>()+\-*/%,])
    )""",
    re.VERBOSE,
)
_RESERVED = re.compile(
    "AND|OR|NOT|IS|IN|BETWEEN|LIKE|ILIKE|NULL|TRUE|FALSE|CASE|WHEN|THEN|ELSE|END|CAST|AS|DISTINCT|FROM", re.IGNORECASE
)
_NUMBER_TYPES = re.compile("DOUBLE|FLOAT|REAL|INT|INTEGER|BIGINT", re.IGNORECASE)


class _Unknown(Exception):
    pass


@cache
def parse_predicate(text: str) -> Node | None:
    """The tree, or None if the text is not understood (which does not mean that it is wrong)."""
    try:
        parser = _Parser(_tokens(text))
        node = parser.any()
        if parser.kind is not None:
            return None
    except _Unknown:
        return None
    return node


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _Unknown(text[position:])
        kind, value = match.lastgroup, match[match.lastgroup]
        if kind == "word" and _RESERVED.fullmatch(value):
            kind, value = "key", value.upper()
        elif kind == "quoted":
            kind, value = "word", value[1:-1]
        found.append((kind, value))
        position = match.end()
    return found


class _Parser:
    """One level of precedence a method, loosest first."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens = tokens
        self.at = 0

    @property
    def kind(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def take(self, kind: str, *values: str) -> str | None:
        """The next token's text if it is of that kind and one of the values."""
        if self.kind == kind and (not values or self.tokens[self.at][1] in values):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def need(self, kind: str, *values: str) -> str:
        value = self.take(kind, *values)
        if value is None:
            raise _Unknown(self.at)
        return value

    def any(self) -> Node:
        parts = [self.all()]
        while self.take("key", "OR"):
            parts.append(self.all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def all(self) -> Node:
        parts = [self.negation()]
        while self.take("key", "AND"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def negation(self) -> Node:
        return Not(self.negation()) if self.take("key", "NOT") else self.comparison()

    def comparison(self) -> Node:
        left = self.sum()
        if op := self.take("symbol", "=", "<>", "!=", "<", "<=", ">", ">="):
            return self.last(Compare("<>" if op == "!=" else op, left, self.sum()))
        if self.take("key", "IS"):
            negated = self.take("key", "NOT")
            self.need("key", "NULL")
            return self.last(_negated(IsNull(left), negated))
        negated = self.take("key", "NOT")
        if self.take("key", "IN"):
            return self.last(_negated(In(left, self.values()), negated))
        if self.take("key", "BETWEEN"):
            low = self.sum()
            self.need("key", "AND")
            both = All((Compare(">=", left, low), Compare("<=", left, self.sum())))
            return self.last(_negated(both, negated))
        if like := self.take("key", "LIKE", "ILIKE"):
            pattern = self.need("string")[1:-1].replace("''", "'")
            return self.last(_negated(Like(left, pattern, like == "ILIKE"), negated))
        if negated:
            raise _Unknown(self.at)
        return left

    def last(self, node: Node) -> Node:
        """Comparisons are not chained: what `a < b < c` means is left to Polars."""
        if self.kind in {"symbol", "key"} and self.tokens[self.at][1] not in {")", ",", "AND", "OR"}:
            raise _Unknown(self.at)
        return node

    def values(self) -> tuple[float | str | bool | None, ...]:
        self.need("symbol", "(")
        found = []
        while True:
            node = self.sign()
            if not isinstance(node, Literal):
                raise _Unknown(self.at)
            found.append(node.value)
            if self.take("symbol", ")"):
                return tuple(found)
            self.need("symbol", ",")

    def sum(self) -> Node:
        node = self.product()
        while op := self.take("symbol", "+", "-"):
            node = Arithmetic(op, node, self.product())
        return node

    def product(self) -> Node:
        node = self.sign()
        while op := self.take("symbol", "*", "/", "%"):
            node = Arithmetic(op, node, self.sign())
        return node

    def sign(self) -> Node:
        if self.take("symbol", "-"):
            node = self.sign()
            if isinstance(node, Literal) and isinstance(node.value, int | float):
                return Literal(-node.value)
            return Arithmetic("-", Literal(0.0), node)
        return self.leaf()

    def leaf(self) -> Node:
        if number := self.take("number"):
            return Literal(float(number))
        if string := self.take("string"):
            return Literal(string[1:-1].replace("''", "'"))
        if key := self.take("key", "TRUE", "FALSE", "NULL"):
            return Literal({"TRUE": True, "FALSE": False, "NULL": None}[key])
        if self.take("key", "CAST"):
            self.need("symbol", "(")
            node = self.any()
            self.need("key", "AS")
            if not _NUMBER_TYPES.fullmatch(self.need("word")):
                raise _Unknown(self.at)
            self.need("symbol", ")")
            return Number(node)
        if self.take("symbol", "("):
            node = self.any()
            self.need("symbol", ")")
            return node
        name = self.need("word")
        if self.take("symbol", "("):
            parts = [self.any()]
            while self.take("symbol", ","):
                parts.append(self.any())
            self.need("symbol", ")")
            return Coalesce(tuple(parts)) if name.upper() == "COALESCE" else Call(name.upper(), tuple(parts))
        return Column(name)


def _negated(node: Node, negated: str | None) -> Node:
    return Not(node) if negated else node
