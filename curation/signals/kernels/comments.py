"""Comments and strings, read once: placeholders, code that was commented out, strings that hold prose or data.

Comes in: the source, the hidden ranges (see `spans`) and the placeholders as patterns. Goes out: an array of the
numbers that `NUMBERS` names. A comment's line reads as code if it has the shape of a statement and not that of a
sentence; in doubt it is prose. Documentation comments (`/**`, `///`, `//!`, `#'`) hold examples and are left out.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ...compiled import compiled
from .hashing import FNV_PRIME, FNV_SEED, hashes

NUMBERS = ("placeholder_count", "commented_out_bytes", "long_string_lines", "long_word_bytes")

LONG_STRING_WORDS, LONG_WORD_BYTES = 20, 20
"""A string with more words, a word with more bytes; both OpenCoder's."""

_SEED, _PRIME = np.uint64(FNV_SEED), np.uint64(FNV_PRIME)
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_WORDS = types.Array(types.uint64, 1, "C", readonly=True)
_TABLE, _FLOATS = types.int64[:, ::1], types.float64[::1]
_WORD = np.array([byte >= 128 or chr(byte).isalnum() or chr(byte) == "_" for byte in range(256)], np.bool_)
_LETTER = np.array([byte >= 128 or chr(byte).isalpha() for byte in range(256)], np.bool_)
_PATH = np.array([byte < 128 and (chr(byte).isalnum() or chr(byte) in "_.:$@&*") for byte in range(256)], np.bool_)
_TARGET = np.array(
    [byte < 128 and (chr(byte).isalnum() or chr(byte) in "_.[]*,$@&:<>-'\"") for byte in range(256)], np.bool_
)

_JUMPS = hashes(["return", "break", "continue", "throw", "raise", "goto", "delete", "del", "yield", "assert"])
_DECLARES = hashes(["var", "let", "const", "local", "my", "our", "auto", "val", "static", "final", "mut", "def", "set"])
_OPENS = hashes(["else", "try", "do", "struct", "class", "enum", "namespace", "interface", "switch", "finally", "impl"])
_TESTS = hashes(
    ["if", "elif", "while", "for", "with", "except", "elseif", "elsif", "until", "unless", "catch", "switch"]
)
_ALONE = hashes(["else", "try", "finally", "default"])
_DEFINES = hashes(["def", "class", "fn", "func", "function", "sub", "fun", "async"])
_VALUES = hashes(["None", "True", "False", "null", "nil", "true", "false", "undefined", "self", "this"])
_PROSE = hashes(
    [
        "where",
        "when",
        "if",
        "with",
        "for",
        "and",
        "or",
        "the",
        "a",
        "i",
        "e",
        "note",
        "example",
        "default",
        "usage",
        "sourceMappingURL",
        "pylint",
        "noqa",
        "type",
        "eslint",
        "flake8",
        "mypy",
        "pragma",
        "vim",
        "sourceURL",
        "defined",
    ]
)


@compiled(types.boolean(types.uint64, _WORDS))
def _is_in(value, words):
    for word in words:  # noqa: SIM110
        if word == value:
            return True
    return False


@compiled(types.boolean(types.uint8))
def _is_space(byte):
    return byte == 32 or 9 <= byte <= 13


@compiled(types.Tuple((types.int64, types.int64, types.int64))(_BYTES, types.int64, types.int64))
def _shape(source, a, b):
    """Pairs of words with a space between; words with `(` right behind; signs of code: dots, underscores, compares."""
    pairs = calls = signs = 0
    for i in range(a + 1, b - 1):
        byte, before, after = source[i], source[i - 1], source[i + 1]
        if byte == 32:
            pairs += (_WORD[before] or before == 44) and _WORD[after]
        elif byte == 40:
            calls += _WORD[before] or before in (93, 41)
        elif byte == 46:
            signs += _WORD[before] and _LETTER[after]
        elif byte == 95:
            signs += _WORD[before] and _WORD[after]
        elif byte == 61:
            signs += before in (61, 33)
        elif byte in (60, 62):
            signs += before in (32, 45) or before == byte
        elif byte == 91:
            signs += _WORD[before]
        elif byte in (38, 124, 58):
            signs += before == byte
    if b - a >= 2 and source[b - 1] == 40:
        calls += _WORD[source[b - 2]]
    return pairs, calls, signs


@compiled(types.boolean(_BYTES, types.int64, types.int64))
def _is_value(source, a, b):
    """Whether what stands behind a `=` or `return` is an expression rather than words of a sentence."""
    while a < b and source[a] == 32:
        a += 1
    if a >= b:
        return False
    pairs, calls, signs = _shape(source, a, b)
    first = source[a]
    if pairs > 1 and not (calls and pairs <= 3):
        return False
    if 48 <= first <= 57 or first in (34, 39, 91, 123, 45, 38):
        return True
    i = a
    while i < b and source[i] != 32:
        i += 1
    return (i == b and (_WORD[first] or first == 40)) or calls > 0 or (signs > 0 and pairs == 0)


@compiled(types.boolean(_BYTES, types.int64, types.int64))
def reads_as_code(source, a, b):
    """Whether the bytes from `a` to `b`, a comment's line without its marks and outer blanks, look like code."""
    if b - a < 3:
        return b > a and (source[a] == 125 or (source[a] == 123 and b == a + 1))
    last, first = source[b - 1], source[a]
    if last in (46, 63, 33):  # . ? !
        return False
    for i in range(a, b - 2):
        if source[i] == 58 and source[i + 1] == 47 and source[i + 2] == 47:  # ://
            return False
        if source[i] == 96:  # a quoted name in prose
            return False
    pairs, calls, signs = _shape(source, a, b)
    is_only_brackets = True
    for i in range(a, b):
        byte = source[i]
        if byte not in (123, 125, 40, 41, 91, 93, 59, 44):
            is_only_brackets = False
            break
    if is_only_brackets:
        return True
    end, value = a, _SEED  # the first word
    while end < b and _WORD[source[end]]:
        value = (value ^ np.uint64(source[end])) * _PRIME
        end += 1
    # where a single = stands outside brackets
    equals, depth, closes = -1, 0, -1
    for i in range(a, b):
        byte = source[i]
        if byte in (40, 91, 123):
            depth += 1
        elif byte in (41, 93, 125):
            depth -= 1
            if depth == 0 and closes < 0:
                closes = i
        elif byte == 61 and depth == 0 and equals < 0:
            before, after = source[i - 1] if i > a else np.uint8(61), source[i + 1] if i + 1 < b else np.uint8(61)
            is_compare = after in (61, 62) or before in (61, 33, 60, 62)
            equals = b if is_compare else i
    if first == 125 and (last in (123, 59, 41, 44)):  # } else {
        return True
    if last == 59:
        if pairs > 4:
            return False
        if _is_in(value, _JUMPS):
            return end == b - 1 or pairs <= 1 or calls > 0
        return (calls > 0 and pairs <= 3) or (a < equals < b and pairs <= 3) or (signs > 1 and pairs <= 1)
    if last == 123:
        return pairs <= 4 and (
            (source[b - 2] == 32 and source[b - 3] == 41) or source[b - 2] == 41 or _is_in(value, _OPENS)
        )
    if last == 58:
        if _is_in(value, _ALONE):
            return end == b - 1
        if _is_in(value, _DEFINES):
            return calls > 0 or (pairs <= 1 and value == _DEFINES[1] and 65 <= source[min(end + 1, b - 1)] <= 90)
        return _is_in(value, _TESTS) and (calls > 0 or signs > 0) and pairs <= 5 and depth == 0
    if _is_in(value, _JUMPS):
        if end == b:
            return False
        rest = end + 1
        word = _SEED
        for i in range(rest, b):
            word = (word ^ np.uint64(source[i])) * _PRIME
        if _is_in(word, _VALUES) or (rest < b and 48 <= source[rest] <= 57 and pairs == 0):
            return True
        return source[end] == 32 and (calls > 0 or signs > 0) and pairs <= 2 and last != 44
    if a < equals < b:
        words = 0
        stop = equals
        while stop > a and source[stop - 1] != 32 and not _WORD[source[stop - 1]] and source[stop - 1] != 93:
            stop -= 1  # += and others
        while stop > a and source[stop - 1] == 32:
            stop -= 1
        for i in range(a, stop):
            if source[i] == 32:
                words += source[i - 1] != 44
            elif not _TARGET[source[i]]:
                return False
        if not _LETTER[first] and first not in (95, 36, 64, 42):
            return False
        if words > 2 or (words and not _is_in(value, _DECLARES) and source[end] != 58):
            return False
        if _is_in(value, _PROSE):
            return False
        return _is_value(source, equals + 1, b)
    i = a
    while i < b and _PATH[source[i]]:
        i += 1
    if i > a and i < b and source[i] == 40 and _LETTER[first] and not _is_in(value, _PROSE):  # path(...)
        tail = b - 1 if last == 44 else b
        if closes == tail - 1 and depth == 0 and pairs <= 4:
            size = closes - i - 1
            has_path = False
            for j in range(a, i):
                has_path |= source[j] == 46 or source[j] == 95 or source[j] == 58
            if size == 0:
                return False  # `name()` alone is a heading
            if size <= 2 and (
                source[i + 1] == 115 or source[i + 1] == 101 or 48 <= source[i + 1] <= 57
            ):  # file(s), open(2)
                return False
            return has_path or pairs <= 2
        # a call that goes on in the next line
        return depth > 0 and (last in (40, 44)) and pairs <= 2 and (signs > 0 or last == 40)
    length = end - a
    rest = end + 1
    if end < b and source[end] == 32 and rest < b:
        is_import = length == 6 and source[a] == 105 and source[a + 1] == 109 and source[a + 2] == 112  # import
        is_include = length == 7 and source[a] == 105 and source[a + 1] == 110 and source[a + 2] == 99  # include
        is_from = length == 4 and source[a] == 102 and source[a + 1] == 114 and source[a + 2] == 111  # from
        if is_include:
            return (source[rest] == 60 and last == 62) or (source[rest] == 34 and last == 34)
        if is_import:
            return signs > 0 and pairs <= 3
        if is_from:
            for j in range(rest, b - 7):
                if (
                    source[j] == 32
                    and source[j + 1] == 105
                    and source[j + 2] == 109
                    and source[j + 3] == 112
                    and source[j + 7] == 32
                ):
                    return pairs <= 6 or last == 44
    return False


@compiled(types.int64(_BYTES, types.int64, types.int64))
def _commented_out(source, start, end):
    """Bytes of the lines of a comment that read as code."""
    third = source[start + 2] if start + 2 < end else np.uint8(0)
    if source[start] == 47 and (third in (42, 47, 33)) and end - start > 4 and third != source[min(start + 3, end - 1)]:
        return 0  # /** /// //!
    if source[start] == 35 and source[start + 1 if start + 1 < end else start] == 39:
        return 0  # roxygen
    total = np.int64(0)
    line = start
    while line < end:
        stop = line
        while stop < end and source[stop] != 10:
            stop += 1
        a, b = line, stop
        while a < b and (_is_space(source[a]) or source[a] == 47 or source[a] == 42 or source[a] == 35):
            a += 1
        if line == start:  # marks of other languages
            while a < b and (
                source[a] == 45 or source[a] == 37 or source[a] == 59 or source[a] == 33 or _is_space(source[a])
            ):
                a += 1
        while b > a and _is_space(source[b - 1]):
            b -= 1
        if b - a >= 2 and source[b - 1] == 47 and source[b - 2] == 42:
            b -= 2
        while b > a and _is_space(source[b - 1]):
            b -= 1
        if b > a and reads_as_code(source, a, b):
            total += stop - line
        line = stop + 1
    return total


@compiled(types.boolean(_BYTES, types.int64, types.int64, types.uint8[::1], _TABLE))
def _fits_any(source, start, stop, blob, patterns):
    for row in range(len(patterns)):
        begin, size = patterns[row, 0], patterns[row, 1] - patterns[row, 0]
        if start + size > stop or source[start] != blob[begin]:
            continue
        i = 1
        while i < size and source[start + i] == blob[begin + i]:
            i += 1
        if i == size and (not _WORD[source[start + i - 1]] or start + i == stop or not _WORD[source[start + i]]):
            return True
    return False


@compiled(_FLOATS(_BYTES, _TABLE, types.uint8[::1], _TABLE, types.boolean[::1]))
def measure_hidden(source: Any, hidden: Any, blob: Any, patterns: Any, begins: Any) -> Any:
    """`NUMBERS`. `patterns`: rows of begin and end in `blob`; `begins`: bytes that one of them begins with."""
    placeholders = commented_out = long_lines = long_bytes = 0
    counted = np.int64(-1)  # end of the last line that counted as one with a long string
    for h in range(len(hidden)):
        start, stop, kind = hidden[h, 0], hidden[h, 1], hidden[h, 2]
        if kind == 0:
            i = start
            while i < stop:
                if _WORD[source[i]]:
                    if begins[source[i]]:
                        placeholders += _fits_any(source, i, stop, blob, patterns)
                    while i < stop and _WORD[source[i]]:
                        i += 1
                else:
                    i += 1
            commented_out += _commented_out(source, start, stop)
        elif kind == 1:
            words, lines = 0, 1
            i = start
            while i < stop:
                byte = source[i]
                if _is_space(byte) or byte in (34, 39, 96):
                    lines += byte == 10
                    i += 1
                    continue
                begin, is_address = i, False
                while i < stop:
                    byte = source[i]
                    if _is_space(byte) or byte in (34, 39, 96):
                        break
                    is_address |= byte == 58 and i + 2 < stop and source[i + 1] == 47 and source[i + 2] == 47
                    i += 1
                words += 1
                is_address |= (
                    i - begin > 4 and source[begin] == 119 and source[begin + 1] == 119 and source[begin + 3] == 46
                )
                if i - begin > LONG_WORD_BYTES and not is_address:
                    long_bytes += i - begin
            if words > LONG_STRING_WORDS:
                long_lines += lines - (start <= counted)
                counted = stop
                while counted < len(source) and source[counted] != 10:
                    counted += 1
    numbers = np.empty(4)
    numbers[0], numbers[1], numbers[2], numbers[3] = placeholders, commented_out, long_lines, long_bytes
    return numbers
