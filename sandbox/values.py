"""Plain values as text, for the pipe between the judge and the candidate, and for tests in JSON files.

None, bool, int, float, str, list and dicts with text keys are themselves in JSON. The others are an object with one
key: `{"$tuple": [..]}`, `{"$set": [..]}`, `{"$frozenset": [..]}`, `{"$bytes": "hex"}`, `{"$dict": [[key, value], ..]}`,
`{"$float": "nan"}`, `{"$complex": [1.0, 2.0]}`, `{"$int": "hex"}`. The candidate's side only writes this text and the
judge's side only reads it with a JSON parser, so nothing of the candidate is ever unpickled or evaluated. Two trees are
compared by their `canonical` text: no dict or set is built here from what a candidate sent (crafted hashes make those
quadratic).

Standard library only, and no heavy part of it: the contained process imports this file.
"""

from __future__ import annotations

import math
from _json import encode_basestring_ascii

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 100
"""Of nested containers, on both sides: far above any honest answer, far below Python's recursion limit."""

LITERAL_INT = 10**15
"""Larger integers travel as hex: parsing long decimal numbers is quadratic and limited by the interpreter."""


class NotPlain(ValueError):
    """The value holds something that is not plain data."""


def encode(value: Any, depth: int = 0) -> str:
    """`value` as ASCII JSON text in the form above. Subclasses of plain types are sent as their plain content.

    Raises:
        NotPlain: for any other type, and for values nested deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {MAX_DEPTH}")
    base: Any = _plain_type(value)
    if value is None:
        return "null"
    if base is bool:
        return "true" if value else "false"
    if base is int:
        number = int.__index__(value)
        return int.__repr__(number) if -LITERAL_INT < number < LITERAL_INT else _tagged("int", f'"{number:x}"')
    if base is float:
        text = float.__repr__(value)
        return text if text[-1].isdigit() else _tagged("float", f'"{text}"')
    if base is complex:
        real, imaginary = complex.__complex__(value).real, complex.__complex__(value).imag
        return _tagged("complex", f"[{encode(real)},{encode(imaginary)}]")
    if base is str:
        return encode_basestring_ascii(value)
    if base is bytes or base is bytearray:
        return _tagged("bytes", f'"{base.hex(value)}"')
    if base is dict:
        return _encode_dict(value, depth)
    items = ",".join([encode(item, depth + 1) for item in base.__iter__(value)])
    return f"[{items}]" if base is list else _tagged(base.__name__, f"[{items}]")


def decode(tree: object, depth: int = 0) -> object:
    """The Python value of a parsed tree. For trees that we wrote: tests and arguments.

    Raises:
        ValueError: if the tree is not in the form above.
    """
    _check_depth(depth)
    if isinstance(tree, list):
        return [decode(item, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag, content = _tag(tree)
    if tag == "":
        return {key: decode(item, depth + 1) for key, item in tree.items()}
    if tag == "int":
        return int(_text(content), 16)
    if tag == "float":
        return float(_text(content))
    if tag == "complex":
        return complex(*_floats(content))
    if tag == "bytes":
        return bytes.fromhex(_text(content))
    if tag == "dict":
        return {decode(key, depth + 1): decode(item, depth + 1) for key, item in _pairs(content)}
    items = [decode(item, depth + 1) for item in _list(content)]
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](items)


def canonical(tree: object, depth: int = 0) -> str:
    """Text that is equal for trees whose values are equal in Python's sense; unlike there, NaN equals NaN.

    So 1, 1.0 and True are equal, a list and a tuple are not, and sets and dicts have no order.

    Raises:
        ValueError: if the tree is not in the form above.
    """
    _check_depth(depth)
    if tree is None:
        return "null"
    if isinstance(tree, bool | int | float):
        return _number(tree)
    if isinstance(tree, str):
        return f"s{len(tree)}:{tree}"
    if isinstance(tree, list):
        return "[" + ",".join([canonical(item, depth + 1) for item in tree]) + "]"
    if not isinstance(tree, dict):
        raise ValueError(f"a {type(tree).__name__} is not part of JSON")
    tag, content = _tag(tree)
    if tag == "int":
        return _number(int(_text(content), 16))
    if tag == "float":
        return _number(float(_text(content)))
    if tag == "complex":
        real, imaginary = _floats(content)
        return _number(real) if imaginary == 0 else f"c{_number(real)},{_number(imaginary)}"
    if tag == "bytes":
        return "b" + bytes.fromhex(_text(content)).hex()
    if tag in {"", "dict"}:
        pairs = [(key, item) for key, item in (_pairs(content) if tag else tree.items())]
        return "<" + ",".join(sorted(canonical(k, depth + 1) + "=" + canonical(v, depth + 1) for k, v in pairs)) + ">"
    items = [canonical(item, depth + 1) for item in _list(content)]
    return "(" + ",".join(items) + ")" if tag == "tuple" else "{" + ",".join(sorted(set(items))) + "}"


def show(tree: object, most: int = 80) -> str:
    """Short printable text of a tree, for messages."""
    text = ascii(tree)
    return text if len(text) <= most else f"{text[: most - 3]}..."


_TAGS = frozenset({"int", "float", "complex", "bytes", "dict", "tuple", "set", "frozenset"})
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


def _plain_type(value: object) -> type:
    """The plain type that `value` is or derives from; `type(value)` and not `__class__`, which an object can fake."""
    for kind in type(value).__mro__:
        if kind in _PLAIN:
            return kind
    raise NotPlain(f"a value of type {type(value).__name__}, which is not plain data")


def _encode_dict(value: dict[object, object], depth: int) -> str:
    items = list(dict.items(value))
    if all(type(key) is str and not key.startswith("$") for key, _ in items):
        pairs = [f"{encode(key)}:{encode(item, depth + 1)}" for key, item in items]
        return "{" + ",".join(pairs) + "}"
    pairs = [f"[{encode(key, depth + 1)},{encode(item, depth + 1)}]" for key, item in items]
    return _tagged("dict", "[" + ",".join(pairs) + "]")


def _tagged(tag: str, text: str) -> str:
    return f'{{"${tag}":{text}}}'


def _tag(tree: dict[str, object]) -> tuple[str, object]:
    """(tag, content) of a tagged object; an ordinary one has the tag ""."""
    special = [key for key in tree if key.startswith("$")]
    if not special:
        return "", tree
    tag = special[0][1:]
    if len(tree) != 1 or tag not in _TAGS:
        raise ValueError(f"an object with the key {special[0]!r} must have that key alone, and one of {sorted(_TAGS)}")
    return tag, tree[special[0]]


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH}")


def _number(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if isinstance(value, float) and (math.isinf(value) or not value.is_integer()):
        return f"f{value.hex()}"
    return f"i{int(value):x}"


def _text(content: object) -> str:
    if not isinstance(content, str):
        raise ValueError(f"expected text (got {show(content)})")
    return content


def _floats(content: object) -> tuple[float, float]:
    parts = [decode(item) for item in _list(content)]
    if len(parts) != 2 or not all(isinstance(part, float) for part in parts):
        raise ValueError(f"expected two floating-point numbers (got {show(content)})")
    real, imaginary = parts
    return real, imaginary  # type: ignore[return-value]


def _list(content: object) -> list[object]:
    if not isinstance(content, list):
        raise ValueError(f"expected a list (got {show(content)})")
    return content


def _pairs(content: object) -> list[tuple[object, object]]:
    pairs = []
    for item in _list(content):
        if not isinstance(item, list) or len(item) != 2:
            raise ValueError(f"expected [key, value] (got {show(item)})")
        pairs.append((item[0], item[1]))
    return pairs
