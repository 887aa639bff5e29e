"""The containers in the arguments of a call: what it changes in them reaches the very objects that the tests passed.

The judge's process notes each list, dict, set, bytearray and deque as it writes the arguments, the candidate's process
as it reads them, so both number alike. Afterwards the candidate's side sends what is in each, and the judge's puts it
there. Price: a look at the arguments before and after a call, and their text once more if they have changed.

Standard library only: both contained processes have this module.
"""

from __future__ import annotations

import marshal
from _json import encode_basestring_ascii as ascii_text

from .plain import ENCODERS, NotPlain, Opaque, decode, listed, plain_type, tagged

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from typing import Any


class Objects:
    """Containers by number. The same number is the same container on both sides: twice in the arguments, in what the
    call returns (`{"$same": n}`), and in the contents of the others.
    """

    def __init__(self) -> None:
        self.each: list[Any] = []
        self.is_complete = False
        """All arguments are known: what comes now is no part of them."""
        self._numbers: dict[int, int] = {}

    def number(self, value: object) -> int | None:
        """Of a container that is known; a new one is noted."""
        found = self._numbers.get(id(value))
        if found is None:
            self.note(value)
        return found

    def note(self, value: object) -> None:
        """Give a new container the next number."""
        if not self.is_complete:
            self._numbers[id(value)] = len(self.each)
            self.each.append(value)

    def snapshot(self, arguments: Any) -> bytes | None:
        """Bytes that are equal as long as nothing in the arguments has changed; None if that cannot be said."""
        if not self.each:
            return b""
        try:
            return marshal.dumps(arguments, 2)  # the last form in which equal values are equal bytes
        except ValueError:
            return None

    def contents(self) -> str:
        """What is in each container now, as the text of a list."""
        return "[" + ",".join([self._content(each) for each in self.each]) + "]"

    def _content(self, value: object) -> str:
        try:
            return ENCODERS[plain_type(value)](value, 0, self)
        except NotPlain as error:
            return tagged("opaque", ascii_text(error.what))

    def refill(self, trees: object) -> None:
        """Put such contents into the containers.

        Raises:
            ValueError: if they are in no form of `plain.py`, or do not belong to these containers.
        """
        found = listed(trees)
        if len(found) != len(self.each):
            raise ValueError(f"contents of {len(found)} containers instead of {len(self.each)}")
        contents = [decode(tree, 0, self) for tree in found]
        for old, new in zip(self.each, contents, strict=True):
            if type(new) is not Opaque and type(new) is not plain_type(old):
                raise ValueError(f"contents of a {type(new).__name__} for a {type(old).__name__}")
            _refill(old, new)


def _refill(old: Any, new: Any) -> None:
    """Give `old` the contents of `new`; if the tests are iterating over it and nothing changed, they do not notice."""
    if isinstance(old, list | bytearray):
        old[:] = [new] if type(new) is Opaque else new  # type: ignore[list-item]  # bytes never are
    elif isinstance(old, dict):
        contents = {new: None} if type(new) is Opaque else new
        if list(old) != list(contents):
            old.clear()
        for key, item in contents.items():
            old[key] = item
    elif type(new) is Opaque or old != new:
        old.clear()
        for item in [new] if type(new) is Opaque else new:
            (old.add if isinstance(old, set) else old.append)(item)
