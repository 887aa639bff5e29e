"""Lexing: a document becomes one line of tokens for fastText; training and scoring call the same function.

Newlines and indentation are tokens (`NEWLINE_4`: a new line at column 4, `BLANK_0`: blank lines before it), because
fastText would read them as spaces and a flattened file would look like the original. Identifiers are split at case and
underscore and lower-cased, numbers and strings become class tokens with a length, punctuation and the words of
comments stay. What served to label a document (see `masking.py`) is taken out, so that the classifier cannot learn
the label from its source. Longer documents give a piece of their beginning, middle and end.

Price: one pass of one regular expression and a dictionary look-up a token: 16 MB/s of windows on one core, half the
speed of a regular expression that finds words and does nothing else.
"""

from __future__ import annotations

import re

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

_MEMO_ENTRIES = 1 << 17
_MEMO_CHARACTERS = 24
"""What is remembered takes 25 MB at most, and only short tokens are: long ones do not come back."""


def tokens(text: str, language: str, max_characters: int) -> str:
    """The tokens of a document in one line, separated by single spaces; `EMPTY` if there are none.

    Args:
        text: the document.
        language: its language; it decides what opens a comment and what a string.
        max_characters: how much of the text is looked at, counted after a licence or generator header is taken off.
    """
    pieces = window(without_header(text, language), max_characters)
    find = _UNQUOTED if language in UNQUOTED else _QUOTED
    line = " ".join(map(_memo.__getitem__, find("\n".join(pieces))))
    return (without_markers(line) if FLAG in line else line) or EMPTY


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


class _Memo(dict[str, str]):
    """Remembers what a short token becomes; bounded, and forgetting changes nothing but speed."""

    def __missing__(self, token: str) -> str:
        normal = _normal(token)
        if len(token) <= _MEMO_CHARACTERS:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[token] = normal
        return normal


_memo = _Memo()


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
