"""Lexing: a document becomes one line of tokens for fastText; training and scoring call the same function.

Newlines and indentation are tokens (`NEWLINE_4`: a new line at column 4, `BLANK_0`: blank lines before it), because
fastText would read them as spaces and a flattened file would look like the original. Identifiers are split at case and
underscore and lower-cased, numbers and strings become class tokens with a length, punctuation and the words of
comments stay. What served to label a document (see `masking.py`) is taken out, so that the classifier cannot learn
the label from its source. Longer documents give a piece of their beginning, middle and end.

The definition is `by_expressions`, one regular expression and a few rules; what runs is a compiled loop that gives the
same bytes (`lexing_kernel.py`; a test compares). Price: 8 ns a character of the window, 8 µs
a document and 25 µs for its header; the regular expressions take 80 ns a character.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .masking import FLAG, LAST_WORDS, without_header, without_markers

VERSION = 1
"""Of the token language: a model is only good for the version that it was trained with. Its card records it."""

EMPTY = "EMPTY"
"""The line of a document without tokens; fastText must never see an empty line."""

UNQUOTED = frozenset(
    {"haskell", "html", "markdown", "ocaml", "restructuredtext", "rust", "svg", "tex", "text", "vue", "xml"}
)
"""Languages in which a single quote does not open a string: lifetimes, primes and apostrophes."""

LONG_WORD = 40
"""Identifiers of more characters are one class token: they are hashes and encoded data, not names."""

_ASCII = bytes(range(0x80))
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNUSUAL = frozenset(map(chr, (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)))
_UNUSUAL |= {"\u0130", "\u212a"}
"""White space beyond ASCII, and the two characters whose lower case holds ASCII letters."""


def tokens(text: str, language: str, max_characters: int) -> str:
    """The tokens of a document in one line, separated by single spaces; `EMPTY` if there are none.

    Args:
        text: the document.
        language: its language; it decides what opens a comment and what a string.
        max_characters: how much of the text is looked at, counted after a licence or generator header is taken off.
    """
    piece = "\n".join(window(without_header(text, language), max_characters))
    line = _compiled(piece, language)
    if line is None:
        line = by_expressions(piece, language)
    return (without_markers(line) if FLAG in line else line) or EMPTY


def by_expressions(text: str, language: str) -> str:
    """The tokens of `text` by regular expressions: what `lexing_kernel.py` has to give, and what defines it."""
    find = _UNQUOTED if language in UNQUOTED else _QUOTED
    return " ".join(map(_normal, find(text)))


def window(text: str, max_characters: int) -> list[str]:
    """The whole text, or its beginning, middle and end in equal parts of `max_characters` together."""
    if len(text) <= max_characters:
        return [text]
    size = max(1, max_characters // 3)
    middle = (len(text) - size) // 2
    return [text[:size], text[middle : middle + size], text[len(text) - size :]]


# Possessive quantifiers: no token is ever given back, and a failed string costs one look at its line.
_CODE = r"""[A-Za-z0-9_]++|[!#-&(-/:-@\[-^`{-~]++|\n\s*+|"(?:""|[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")?+"""
# An apostrophe after two letters (`don't`) opens no string; one letter may be a prefix (`f'…'`).
_SINGLE = r"""|'(?:''|(?<![A-Za-z][A-Za-z]')[^'\\\n]*+(?:\\.[^'\\\n]*+)*+')?+"""
_OTHER = r"""|'|[^\x00-\x7f]++"""
_QUOTED = re.compile(_CODE + _SINGLE + _OTHER).findall
_UNQUOTED = re.compile(_CODE + _OTHER).findall

_WORD_PARTS = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+").findall
_PUNCTUATION_PARTS = re.compile(r"(?:([-=*/#~+<>!&|:.%^@;,`?$\\])\1+)|->|=>|</|/>|/\*|\*/|[-+*/%=<>!&|^:]=|.")


_OPEN_QUOTES = frozenset({'"', "'", '"""', "'''"})


def _compiled(text: str, language: str) -> str | None:
    """The same by the compiled loop; None for the few texts whose characters it does not know."""
    encoded = text.encode("utf-8", "surrogatepass")
    if not text.isascii():
        beyond = encoded.translate(None, _ASCII).decode("utf-8", "surrogatepass")
        if not _UNUSUAL.isdisjoint(beyond):
            return None
        if beyond != beyond.lower():
            encoded = _BEYOND_ASCII.sub(_lower, text).encode("utf-8", "surrogatepass")
    data = np.frombuffer(encoded, dtype=np.uint8)
    lex, growth, words = _kernel()
    out = np.empty(growth * len(data) + 16, dtype=np.uint8)
    end = lex(data, out, language not in UNQUOTED, LONG_WORD, ord(FLAG), words)
    return out[: max(end - 1, 0)].tobytes().decode("utf-8", "surrogatepass")


@cache
def _kernel() -> tuple[Callable[..., int], int, NDArray[np.uint8]]:
    from .lexing_kernel import GROWTH, lex, word_table  # imports numba, half a second

    return lex, GROWTH, word_table(LAST_WORDS)


def _lower(run: re.Match[str]) -> str:
    return run.group().lower()


def _normal(token: str) -> str:
    first = token[0]
    if first == "\n":
        return _line_start(token)
    if first in "\"'":
        return token if token in _OPEN_QUOTES else f"STR_{min((len(token) - 2).bit_length(), 10)}"
    if first > "\x7f":
        return _non_ascii(token)
    if first.isdigit():
        return f"{'HEX' if token[:2] in {'0x', '0X'} else 'NUM'}_{min(len(token), 12)}"
    if first.isalpha() or first == "_":
        return _word(token)
    parts = _PUNCTUATION_PARTS.finditer(token)
    return " ".join(part.group() if len(part.group()) <= 3 else f"RUN_{part.group(1)}" for part in parts)


def _line_start(token: str) -> str:
    """`NEWLINE_<column>` or `BLANK_<column>`; a tab counts as four columns, deep columns share a token."""
    column = len(token.rpartition("\n")[2].expandtabs(4))
    shared = next((end for end in (12, 16, 24) if column <= end), 32) if column > 8 else column
    return f"{'BLANK' if token.count(chr(10)) > 1 else 'NEWLINE'}_{shared}"


def _non_ascii(token: str) -> str:
    """Words of other scripts and symbols as they are, long runs by length; fastText splits at ASCII space only."""
    return f"NONASCII_{len(token).bit_length()}" if len(token) > 20 else token.lower()


def _word(token: str) -> str:
    if len(token) > LONG_WORD:
        return f"LONG_{len(token).bit_length()}"
    parts = []
    for part in _WORD_PARTS(token):
        lowered = part.lower()
        flagged = FLAG + lowered if lowered in LAST_WORDS else lowered
        parts.append(f"NUM_{len(part)}" if part.isdigit() else flagged)
    return " ".join(parts) or "_"
