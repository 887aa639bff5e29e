"""Plain values as text, for the pipe between the judge and the candidate, and for tests in JSON files.

None, bool, int, float, str, list and dicts with text keys are themselves in JSON. The others are an object of one key:
* `{"$tuple": [..]}`, likewise `$set`, `$frozenset`, `$deque`; `{"$dict": [[key, value], ..]}`
* `{"$bytes": "hex"}`, likewise `$bytearray` and `$int`; `{"$float": "nan"}`, `{"$complex": [1.0, 2.0]}`
* `{"$decimal": "0.1"}`, `{"$fraction": "hex/hex"}`; `$date`, `$time`, `$datetime` in ISO form, without `fold`;
  `{"$timedelta": [days, seconds, microseconds]}`
* `{"$range": [start, stop, step]}`; views of a dict: `$keys`, `$values`, and `{"$items": [[key, value], ..]}`
* an iterator is what it yields, `{"$iterator": [..]}`, or the beginning of that, `{"$endless": [..]}`
* in a call: `{"$same": n}`, a container of its arguments (`objects.py`); `{"$opaque": "type"}`, what cannot travel

The candidate's side only writes this text of its values and the judge's side only reads it with a JSON parser, so
nothing of the candidate is ever unpickled or evaluated.

Standard library only, and no heavy part of it: the contained processes import this file.
"""

from __future__ import annotations

import sys
from _json import encode_basestring_ascii

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .objects import Objects
else:
    from _collections import deque

MAX_DEPTH = 200
"""Of nested containers, on both sides: above any honest answer. A level takes up to three frames of Python here, and
three levels of JSON, whose parser counts as Python does: 600 of the 1,000 that it allows."""

LITERAL_INT = 10**15
"""Larger integers travel as hex: parsing long decimal numbers is quadratic and limited by the interpreter."""

MOST_ITEMS, MOST_CHARACTERS = 10_000, 2 * 2**20
"""Of an iterator, counted as text. Longer ones count as endless: tests may read what came, and no further."""

_MOST_DIGITS = 10_000
"""Of a fraction, which is reduced at the cost of the square."""


class NotPlain(ValueError):
    """The value holds something that is not plain data.

    Attributes:
        what: it is, for a sentence.
    """

    def __init__(self, what: str):
        super().__init__(f"{what}, which is not plain data")
        self.what = what


class Unread(BaseException):
    """The tests read an iterator further than it came here. No `except Exception` of theirs catches it."""


class Opaque:
    """Stands for contents that are not plain data: equal to nothing."""

    def __init__(self, type_name: str):
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}: not plain data>"


def encode(value: Any, depth: int = 0, objects: Objects | None = None) -> str:
    """`value` as ASCII JSON text in the form above. Subclasses of plain types are sent as their plain content.

    Iterators are read, up to `MOST_ITEMS`, which may raise whatever they raise.

    Args:
        objects: containers that are known, or become so.

    Raises:
        NotPlain: for any other type, and for values nested deeper than `MAX_DEPTH`.
    """
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is int and -LITERAL_INT < value < LITERAL_INT:
        return int.__repr__(value)
    if value is None:
        return "null"
    if depth > MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {MAX_DEPTH}")
    base = kind if kind in ENCODERS else plain_type(value)
    if objects is not None and base in CAN_CHANGE and (number := objects.number(value)) is not None:
        return tagged("same", str(number))
    return ENCODERS[base](value, depth, objects)


def decode(tree: object, depth: int = 0, objects: Objects | None = None) -> Any:
    """The Python value of a parsed tree: of tests and arguments, and in the judge's contained process of answers.

    Args:
        objects: containers that are known, or become so.

    Raises:
        ValueError: if the tree is not in the form above.
    """
    kind = type(tree)
    if kind in SCALARS:
        return tree
    check_depth(depth)
    if kind is list:
        made = _noted([], objects)
        made += _decoded(tree, depth, objects)
        return made
    tag, content = tag_of(tree)
    return DECODERS[tag](content, depth, objects)


def show(tree: object, most: int = 80) -> str:
    """Short printable text of a tree, for messages."""
    text = ascii(tree)
    return text if len(text) <= most else f"{text[: most - 3]}..."


# How each plain type is written. Its own methods read a value, not those that a subclass may have.

_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
_ITERATOR = "iterator"


def plain_type(value: object) -> Any:
    """The key of `ENCODERS` for `value`; by `type(value)` and not `__class__`, which an object can fake."""
    bases = type(value).__mro__
    for kind in bases:
        if kind in ENCODERS:
            return kind
        name = kind.__module__, kind.__name__  # of modules that are dear to import: such a value has imported its own
        if name in ENCODERS:
            return name
    if any("__next__" in kind.__dict__ for kind in bases):
        return _ITERATOR
    raise NotPlain(f"a value of type {type(value).__name__}")


def _encode_int(value: int, depth: int, objects: Objects | None) -> str:
    number = int.__index__(value)
    return int.__repr__(number) if -LITERAL_INT < number < LITERAL_INT else tagged("int", f'"{number:x}"')


def _encode_float(value: float, depth: int, objects: Objects | None) -> str:
    text = float.__repr__(value)
    return text if text[-1].isdigit() else tagged("float", f'"{text}"')


def _encode_complex(value: complex, depth: int, objects: Objects | None) -> str:
    number = complex.__complex__(value)
    return tagged("complex", f"[{encode(number.real)},{encode(number.imag)}]")


def _encode_dict(value: dict[Any, Any], depth: int, objects: Objects | None) -> str:
    items = list(dict.items(value))
    if all(type(key) is str and key[:1] != "$" for key, _ in items):
        pairs = [f"{encode_basestring_ascii(key)}:{encode(item, depth + 1, objects)}" for key, item in items]
        return "{" + ",".join(pairs) + "}"
    return tagged("dict", _encode_pairs(items, depth, objects))


def _encode_set(value: Any, depth: int, objects: Objects | None) -> str:
    kind = set if set in type(value).__mro__ else frozenset
    items: list[Any] = list(kind.__iter__(value))
    for item in items:
        _check_key(item)
    return tagged(kind.__name__, _encode_items(items, depth, objects))


def _encode_view(value: Any, depth: int, objects: Objects | None) -> str:
    tag = next(_VIEWS[kind] for kind in type(value).__mro__ if kind in _VIEWS)
    items = list(value)
    for item in items if tag == "keys" else ():
        _check_key(item)
    return tagged(tag, (_encode_pairs if tag == "items" else _encode_items)(items, depth, objects))


def _encode_iterator(value: Iterator[Any], depth: int, objects: Objects | None) -> str:
    texts: list[str] = []
    length = 0
    end = object()
    while (item := next(value, end)) is not end:
        if len(texts) == MOST_ITEMS or length > MOST_CHARACTERS:
            return tagged("endless", f"[{','.join(texts)}]")
        texts.append(encode(item, depth + 1, objects))
        length += len(texts[-1])
    return tagged("iterator", f"[{','.join(texts)}]")


def _encode_range(value: range, depth: int, objects: Objects | None) -> str:
    return tagged("range", f"[{encode(value.start)},{encode(value.stop)},{encode(value.step)}]")


def _encode_decimal(value: Any, depth: int, objects: Objects | None) -> str:
    return tagged("decimal", encode_basestring_ascii(sys.modules["decimal"].Decimal.__str__(value)))


def _encode_fraction(value: Any, depth: int, objects: Objects | None) -> str:
    numbers = int.__index__(value.numerator), int.__index__(value.denominator)
    return tagged("fraction", '"{:x}/{:x}"'.format(*numbers))


def _encode_moment(tag: str) -> Callable[[Any, int, Objects | None], str]:
    def text(value: Any, depth: int, objects: Objects | None) -> str:
        return tagged(tag, encode_basestring_ascii(getattr(sys.modules["datetime"], tag).isoformat(value)))

    return text


def _encode_duration(value: Any, depth: int, objects: Objects | None) -> str:
    return tagged("timedelta", f"[{encode(value.days)},{encode(value.seconds)},{encode(value.microseconds)}]")


def _encode_items(items: Iterable[Any], depth: int, objects: Objects | None) -> str:
    return "[" + ",".join([encode(item, depth + 1, objects) for item in items]) + "]"


def _encode_pairs(items: list[tuple[Any, Any]], depth: int, objects: Objects | None) -> str:
    pairs = []
    for key, item in items:
        _check_key(key)
        pairs.append(f"[{encode(key, depth + 1, objects)},{encode(item, depth + 1, objects)}]")
    return f"[{','.join(pairs)}]"


def _check_key(value: Any) -> None:
    """That it is a key on the other side too: a subclass of list can be one here, and is sent as a list."""
    if type(value) in SCALARS:
        return
    base = plain_type(value)
    if base in CAN_CHANGE:
        raise NotPlain(f"a key of type {type(value).__name__}")
    for item in tuple.__iter__(value) if base is tuple else ():
        _check_key(item)


ENCODERS: dict[Any, Callable[[Any, int, Objects | None], str]] = {
    bool: lambda value, depth, objects: "true" if value else "false",
    type(None): lambda value, depth, objects: "null",
    int: _encode_int,
    float: _encode_float,
    complex: _encode_complex,
    str: lambda value, depth, objects: encode_basestring_ascii(value),
    bytes: lambda value, depth, objects: tagged("bytes", f'"{bytes.hex(value)}"'),
    bytearray: lambda value, depth, objects: tagged("bytearray", f'"{bytearray.hex(value)}"'),
    list: lambda value, depth, objects: _encode_items(list.__iter__(value), depth, objects),
    tuple: lambda value, depth, objects: tagged("tuple", _encode_items(tuple.__iter__(value), depth, objects)),
    deque: lambda value, depth, objects: tagged("deque", _encode_items(deque.__iter__(value), depth, objects)),
    dict: _encode_dict,
    set: _encode_set,
    frozenset: _encode_set,
    **dict.fromkeys(_VIEWS, _encode_view),
    range: _encode_range,
    _ITERATOR: _encode_iterator,
    ("decimal", "Decimal"): _encode_decimal,
    ("fractions", "Fraction"): _encode_fraction,
    **{("datetime", tag): _encode_moment(tag) for tag in ("date", "time", "datetime")},
    ("datetime", "timedelta"): _encode_duration,
}
CAN_CHANGE = frozenset({list, dict, set, bytearray, deque})


# How each tag is read. Whatever is not exactly in its form is a ValueError.


def _noted(made: Any, objects: Objects | None) -> Any:
    if objects is not None:
        objects.note(made)
    return made


def _decoded(items: Any, depth: int, objects: Objects | None) -> list[Any]:
    return [item if type(item) in SCALARS else decode(item, depth + 1, objects) for item in listed(items)]


def _decode_set(content: object, depth: int, objects: Objects | None) -> Any:
    made = _noted(set(), objects)
    made |= _hashed(frozenset, _decoded(content, depth, objects))
    return made


def _decode_deque(content: object, depth: int, objects: Objects | None) -> Any:
    made = _noted(deque(), objects)
    made += _decoded(content, depth, objects)
    return made


def _decode_object(content: Any, depth: int, objects: Objects | None) -> Any:
    made = _noted({}, objects)
    for key, item in content.items():
        made[key] = item if type(item) in SCALARS else decode(item, depth + 1, objects)
    return made


def _decode_dict(content: object, depth: int, objects: Objects | None) -> Any:
    made = _noted({}, objects)
    made |= _hashed(dict, _decoded_pairs(content, depth, objects))
    return made


def _decoded_pairs(content: object, depth: int, objects: Objects | None) -> list[tuple[Any, Any]]:
    return [(decode(key, depth + 1, objects), decode(item, depth + 1, objects)) for key, item in pairs_of(content)]


def _hashed(make: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    try:
        return make(items)
    except TypeError as error:
        raise ValueError(f"a key that cannot be one: {error}") from error


def _decode_bytearray(content: object, depth: int, objects: Objects | None) -> Any:
    return _noted(bytearray.fromhex(_text(content)), objects)


def _decode_complex(content: object, depth: int, objects: Objects | None) -> complex:
    parts = _decoded(content, depth, None)
    if len(parts) != 2 or not all(type(part) is float for part in parts):
        raise ValueError(f"expected two floating-point numbers (got {show(content)})")
    return complex(*parts)


def _decode_decimal(content: object, depth: int, objects: Objects | None) -> Any:
    import decimal

    text = _text(content)
    try:
        value = decimal.Decimal(text)
    except ArithmeticError as error:
        raise ValueError(f"not a decimal number: {show(text)}") from error
    if str(value).upper() != text.upper():
        raise ValueError(f"not a decimal number as Python writes it: {show(text)}")
    return value


def _decode_fraction(content: object, depth: int, objects: Objects | None) -> Any:
    import fractions

    text = _text(content)
    above, _, below = text.partition("/")
    if len(text) > 2 * _MOST_DIGITS:
        raise ValueError(f"a fraction of more than {_MOST_DIGITS} digits")
    numerator, denominator = int(above, 16), int(below, 16)
    if denominator < 1 or f"{numerator:x}/{denominator:x}" != text:
        raise ValueError(f"not a fraction: {show(text)}")
    return fractions.Fraction(numerator, denominator)


def _decode_moment(tag: str) -> Callable[[object, int, Objects | None], Any]:
    def moment(content: object, depth: int, objects: Objects | None) -> Any:
        import datetime

        value = getattr(datetime, tag).fromisoformat(_text(content))
        if value.isoformat() != content:
            raise ValueError(f"not a {tag} as Python writes it: {show(content)}")
        return value

    return moment


def _decode_duration(content: object, depth: int, objects: Objects | None) -> Any:
    import datetime

    try:
        return datetime.timedelta(*_integers(content))
    except OverflowError as error:
        raise ValueError(f"not a duration: {show(content)}") from error


def _decode_range(content: object, depth: int, objects: Objects | None) -> range:
    start, stop, step = _integers(content)
    return range(start, stop, step)  # ValueError if the step is 0


def _decode_keys(content: object, depth: int, objects: Objects | None) -> Any:
    return _hashed(dict.fromkeys, _decoded(content, depth, objects)).keys()


def _decode_values(content: object, depth: int, objects: Objects | None) -> Any:
    return dict(enumerate(_decoded(content, depth, objects))).values()


def _decode_view_of_items(content: object, depth: int, objects: Objects | None) -> Any:
    return _hashed(dict, _decoded_pairs(content, depth, objects)).items()


def _decode_iterator(content: object, depth: int, objects: Objects | None) -> Iterator[Any]:
    return (item for item in _decoded(content, depth, objects))


def _decode_endless(content: object, depth: int, objects: Objects | None) -> Iterator[Any]:
    items = _decoded(content, depth, objects)

    def begin() -> Iterator[Any]:
        yield from items
        raise Unread(f"an iterator of the candidate's has more than the {len(items)} items that were sent")

    return begin()


def _decode_same(content: object, depth: int, objects: Objects | None) -> Any:
    if objects is None or type(content) is not int or not 0 <= content < len(objects.each):
        raise ValueError(f"no container is known as {show(content)}")
    return objects.each[content]


DECODERS: dict[str, Callable[[Any, int, Objects | None], Any]] = {
    "": _decode_object,
    "int": lambda content, depth, objects: int(_text(content), 16),
    "float": lambda content, depth, objects: float(_text(content)),
    "complex": _decode_complex,
    "bytes": lambda content, depth, objects: bytes.fromhex(_text(content)),
    "bytearray": _decode_bytearray,
    "tuple": lambda content, depth, objects: tuple(_decoded(content, depth, objects)),
    "frozenset": lambda content, depth, objects: _hashed(frozenset, _decoded(content, depth, objects)),
    "set": _decode_set,
    "deque": _decode_deque,
    "dict": _decode_dict,
    "decimal": _decode_decimal,
    "fraction": _decode_fraction,
    **{tag: _decode_moment(tag) for tag in ("date", "time", "datetime")},
    "timedelta": _decode_duration,
    "range": _decode_range,
    "keys": _decode_keys,
    "values": _decode_values,
    "items": _decode_view_of_items,
    "iterator": _decode_iterator,
    "endless": _decode_endless,
    "same": _decode_same,
    "opaque": lambda content, depth, objects: Opaque(_text(content)),
}
SCALARS = frozenset({type(None), bool, int, float, str})


# The form.


def tagged(tag: str, text: str) -> str:
    return f'{{"${tag}":{text}}}'


def tag_of(tree: Any) -> tuple[str, Any]:
    """(tag, content) of a tagged object; an ordinary one has the tag ""."""
    if type(tree) is not dict:
        raise ValueError(f"a {type(tree).__name__} is not part of JSON")
    special = [key for key in tree if key[:1] == "$"]
    if not special:
        return "", tree
    tag = special[0][1:]
    if len(tree) != 1 or not tag or tag not in DECODERS:
        known = sorted(filter(None, DECODERS))
        raise ValueError(f"an object with the key {special[0]!r} must have that key alone, and one of {known}")
    return tag, tree[special[0]]


def check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH}")


def _text(content: object) -> str:
    if type(content) is not str:
        raise ValueError(f"expected text (got {show(content)})")
    return content


def listed(content: object) -> list[Any]:
    if type(content) is not list:
        raise ValueError(f"expected a list (got {show(content)})")
    return content


def _integers(content: object) -> tuple[int, int, int]:
    parts = _decoded(content, 0, None)
    if len(parts) != 3 or not all(type(part) is int for part in parts):
        raise ValueError(f"expected three integers (got {show(content)})")
    return parts[0], parts[1], parts[2]


def pairs_of(content: object) -> list[tuple[Any, Any]]:
    pairs = []
    for item in listed(content):
        if type(item) is not list or len(item) != 2:
            raise ValueError(f"expected [key, value] (got {show(item)})")
        pairs.append((item[0], item[1]))
    return pairs
