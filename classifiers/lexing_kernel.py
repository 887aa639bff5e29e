"""The lexer's inner loop, compiled: bytes of a window → bytes of the token line.

It says in loops what the regular expressions of `lexing.py` say, byte for byte; a test compares the two. Text comes in
as UTF-8 whose characters beyond ASCII are lower case already and are no white space. Price: 8 ns a byte against 80 for
the regular expressions. The parts are inlined: calls that hand on arrays count references, which took half of the time.
Importing this imports numba, so `lexing.py` does that at the first call.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

GROWTH = 12
"""Bytes of output for one of input, at most: a line end may become `NEWLINE_32` and a space."""

_WORD, _DIGIT, _UPPER, _LOWER, _PUNCTUATION, _REPEATS, _SPACE = (1 << bit for bit in range(7))


def _classes() -> Bytes:
    table = np.zeros(256, dtype=np.uint8)
    for byte in range(128):
        character = chr(byte)
        if character.isalnum() or character == "_":
            table[byte] |= _WORD
        table[byte] |= _DIGIT * character.isdigit() | _UPPER * character.isupper() | _LOWER * character.islower()
        if character in "!#$%&()*+,-./:;<=>?@[\\]^`{|}~":
            table[byte] |= _PUNCTUATION
        table[byte] |= _REPEATS * (character in "-=*/#~+<>!&|:.%^@;,`?$\\")
        table[byte] |= _SPACE * character.isspace()
    return table


def word_table(words: Iterable[str]) -> Bytes:
    """Words of ASCII as rows: length, letters. Row 0 marks the first letters and, from 128 on, the lengths."""
    encoded = [word.encode() for word in words]
    table = np.zeros((1 + len(encoded), 256), dtype=np.uint8)
    for row, word in zip(table[1:], encoded, strict=True):
        row[0] = len(word)
        row[1 : 1 + len(word)] = np.frombuffer(word, dtype=np.uint8)
        table[0, word[0]] = table[0, 128 + len(word)] = 1
    return table


def _pairs() -> Bytes:
    table = np.zeros((256, 256), dtype=np.uint8)
    for pair in ("->", "=>", "</", "/>", "/*", "*/", *(f"{one}=" for one in "-+*/%=<>!&|^:")):
        table[ord(pair[0]), ord(pair[1])] = 1
    return table


CLASSES, PAIRS = _classes(), _pairs()
NAMES = word_table(("NUM_", "HEX_", "STR_", "LONG_", "NEWLINE_", "BLANK_", "NONASCII_", "RUN_"))
_NUM, _HEX, _STR, _LONG, _NEWLINE, _BLANK, _NONASCII, _RUN = range(1, 9)
_LF, _TAB, _CR, _QUOTE, _APOSTROPHE, _BACKSLASH = (ord(one) for one in "\n\t\r\"'\\")
_UNDERSCORE, _ZERO = ord("_"), ord("0")
_X, _CAPITAL_X = ord("x"), ord("X")


@njit(cache=True, nogil=True)
def lex(data: Bytes, out: Bytes, quoted: bool, long_word: int, flag: int, flagged: Bytes) -> int:
    """Writes the tokens with a space behind each; returns how many bytes.

    Args:
        data: the text.
        out: at least `GROWTH` bytes for each of `data`, and 16.
        quoted: whether an apostrophe opens strings.
        long_word: longer words become `LONG_n`.
        flag: the byte in front of parts of words that are in `flagged`.
        flagged: from `word_table`.
    """
    size = len(data)
    place = to = 0
    while place < size:
        byte = data[place]
        kind = CLASSES[byte]
        start = place
        if kind & _WORD:
            place += 1
            while place < size and CLASSES[data[place]] & _WORD:
                place += 1
            if kind & _DIGIT:
                is_hex = byte == _ZERO and place - start > 1 and data[start + 1] in (_X, _CAPITAL_X)
                to = _numbered(out, to, _HEX if is_hex else _NUM, min(place - start, 12))
            elif place - start > long_word:
                to = _numbered(out, to, _LONG, _bit_length(place - start))
            else:
                to = _word(data, start, place, out, to, flag, flagged)
        elif kind & _PUNCTUATION:
            place += 1
            while place < size and CLASSES[data[place]] & _PUNCTUATION:
                place += 1
            to = _punctuation(data, start, place, out, to)
        elif byte == _LF:
            place, to = _line_start(data, place, out, to)
        elif byte == _QUOTE or (byte == _APOSTROPHE and quoted):
            place, to = _string(data, place, out, to)
        elif byte == _APOSTROPHE:
            place, to = place + 1, _copy(data, place, place + 1, out, to)
        elif byte >= 0x80:
            while place < size and data[place] >= 0x80:
                place += 1
            characters = _characters(data, start, place)
            if characters > 20:
                to = _numbered(out, to, _NONASCII, _bit_length(characters))
            else:
                to = _copy(data, start, place, out, to)
        else:
            place += 1
    return to


@njit(inline="always")
def _word(data: Bytes, start: int, end: int, out: Bytes, to: int, flag: int, flagged: Bytes) -> int:
    """Parts at case and underscore in lower case, runs of digits as `NUM_n`; `_` if there is none."""
    first = to
    place = start
    while place < end:
        kind = CLASSES[data[place]]
        begin = place
        if kind & _LOWER:
            while place < end and CLASSES[data[place]] & _LOWER:
                place += 1
        elif kind & _DIGIT:
            while place < end and CLASSES[data[place]] & _DIGIT:
                place += 1
            to = _numbered(out, to, _NUM, place - begin)
            continue
        elif kind & _UPPER:
            while place < end and CLASSES[data[place]] & _UPPER:
                place += 1
            if place < end and CLASSES[data[place]] & _LOWER:
                capitals = place - begin
                if capitals == 1:
                    while place < end and CLASSES[data[place]] & _LOWER:
                        place += 1
                elif capitals > 2:
                    place -= 1
        else:
            place += 1
            continue
        for index in range(begin, place):
            out[to + index - begin] = data[index] | 0x20
        length = place - begin
        if _is_in(flagged, out, to, length):
            for index in range(length, 0, -1):
                out[to + index] = out[to + index - 1]
            out[to] = flag
            to += 1
        to += length
        out[to] = 0x20
        to += 1
    if to == first:
        out[to], out[to + 1] = _UNDERSCORE, 0x20
        to += 2
    return to


@njit(inline="always")
def _punctuation(data: Bytes, start: int, end: int, out: Bytes, to: int) -> int:
    """Runs of one character, operators of two, single characters."""
    place = start
    while place < end:
        byte = data[place]
        length = 1
        if CLASSES[byte] & _REPEATS:
            while place + length < end and data[place + length] == byte:
                length += 1
        if length == 1 and place + 1 < end and PAIRS[byte, data[place + 1]]:
            length = 2
        if length > 3:
            to = _copy(data, place, place + 1, out, _name(out, to, _RUN))
        else:
            to = _copy(data, place, place + length, out, to)
        place += length
    return to


@njit(inline="always")
def _line_start(data: Bytes, place: int, out: Bytes, to: int) -> tuple[int, int]:
    """`NEWLINE_<column>`, or `BLANK_<column>` after more than one line end; tabs are four columns."""
    lines = column = width = 0
    while place < len(data) and CLASSES[data[place]] & _SPACE:
        byte = data[place]
        if byte == _LF:
            lines += 1
            column = width = 0
        elif byte == _TAB:
            width += 4 - column % 4
            column += 4 - column % 4
        else:
            width += 1
            column = 0 if byte == _CR else column + 1
        place += 1
    if width > 8:
        width = 12 if width <= 12 else 16 if width <= 16 else 24 if width <= 24 else 32
    return place, _numbered(out, to, _BLANK if lines > 1 else _NEWLINE, width)


@njit(inline="always")
def _string(data: Bytes, place: int, out: Bytes, to: int) -> tuple[int, int]:
    """`STR_n` for a string that ends on its line; the quotes themselves where they are three or do not."""
    quote = data[place]
    size = len(data)
    if place + 2 < size and data[place + 1] == quote and data[place + 2] == quote:
        return place + 3, _copy(data, place, place + 3, out, to)
    is_apostrophe = quote == _APOSTROPHE and place >= 2 and _is_letter(data[place - 1]) and _is_letter(data[place - 2])
    end = size if is_apostrophe else place + 1
    while end < size and data[end] != quote and data[end] != _LF:
        if data[end] == _BACKSLASH:
            if end + 1 >= size or data[end + 1] == _LF:
                end = size
                break
            end += 1  # of a character beyond ASCII, the rest follows as ordinary bytes
        end += 1
    if end < size and data[end] == quote:
        characters = _characters(data, place + 1, end)
        return end + 1, _numbered(out, to, _STR, min(_bit_length(characters), 10))
    return place + 1, _copy(data, place, place + 1, out, to)


@njit(inline="always")
def _is_letter(byte: int) -> bool:
    return bool(CLASSES[byte] & (_UPPER | _LOWER))


@njit(inline="always")
def _is_in(table: Bytes, out: Bytes, start: int, length: int) -> bool:
    if length > 127 or not table[0, out[start]] or not table[0, 128 + length]:
        return False
    for row in range(1, table.shape[0]):
        if table[row, 0] == length and table[row, 1] == out[start]:
            same = True
            for index in range(1, length):
                same &= table[row, 1 + index] == out[start + index]
            if same:
                return True
    return False


@njit(inline="always")
def _characters(data: Bytes, start: int, end: int) -> int:
    count = 0
    for index in range(start, end):
        count += data[index] & 0xC0 != 0x80
    return count


@njit(inline="always")
def _bit_length(number: int) -> int:
    bits = 0
    while number:
        number >>= 1
        bits += 1
    return bits


@njit(inline="always")
def _copy(data: Bytes, start: int, end: int, out: Bytes, to: int) -> int:
    for index in range(start, end):
        out[to] = data[index]
        to += 1
    out[to] = 0x20
    return to + 1


@njit(inline="always")
def _name(out: Bytes, to: int, name: int) -> int:
    for index in range(1, NAMES[name, 0] + 1):
        out[to] = NAMES[name, index]
        to += 1
    return to


@njit(inline="always")
def _numbered(out: Bytes, to: int, name: int, number: int) -> int:
    """`NAME_<number>` and a space; numbers of three digits at most."""
    to = _name(out, to, name)
    if number >= 100:
        out[to] = _ZERO + number // 100 % 10
        to += 1
    if number >= 10:
        out[to] = _ZERO + number // 10 % 10
        to += 1
    out[to] = _ZERO + number % 10
    out[to + 1] = 0x20
    return to + 2
