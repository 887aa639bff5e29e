"""The code between comments and strings, read once: words and the few signs that matter.

Comes in: the source, what is hidden in it (see `spans`), the functions, and the words of the language as tables of
hashes and patterns. Goes out: an array of the numbers that `NUMBERS` names. A word is a run of ASCII letters, digits,
underscores and bytes beyond ASCII; it ends where something hidden begins. One pass, 3 ns a byte.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ...compiled import compiled
from .hashing import FNV_PRIME, FNV_SEED

NUMBERS = (
    "identifier_count",
    "distinct_identifier_count",
    "distinct_identifier_bytes",
    "single_letter_count",
    "number_bytes",
    "print_count",
    "assert_count",
    "return_count",
    "pass_count",
    "assignment_count",
    "literal_assignment_count",
    "main_count",
    "preprocessor_lines",
    "trivial_function_count",
)

KEYWORD, RETURN, PASS, MAIN, LITERAL, ENDS = 1, 2, 4, 8, 16, 32
"""What a word is. ENDS: a function whose only statement begins with it is trivial."""

EQUALS, COLON_EQUALS, ARROW, LESS_EQUALS, STRICT, NAMED, TIGHT, FOLD, PREPROCESSOR, BRACES, INDENTED = (
    1 << bit for bit in range(11)
)
"""How a language writes assignments (`=`, `:=`, `<-`, `<=`), `STRICT`: no sign before its `=`, `NAMED`: `=` in round
brackets names an argument, `TIGHT`: no space before it; `FOLD`: words in any case; where function bodies begin."""

ASSERTION, PRINT = 0, 1
BOUNDARY, ANY, UPPER = 0, 1, 2
"""What follows a pattern: no word character, anything, a capital letter."""

TRIVIAL_BYTES = 1_000
"""Functions beyond this are not looked at again: 12 lines of 80 characters."""

_MAX_BRACKETS = 512
_SEED, _PRIME = np.uint64(FNV_SEED), np.uint64(FNV_PRIME)
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_INTS, _HASHES, _TABLE, _FLOATS = types.int64[::1], types.uint64[::1], types.int64[:, ::1], types.float64[::1]
_WORD = np.array(
    [byte >= 128 or chr(byte).isalnum() or chr(byte) == "_" for byte in range(256)],
    np.bool_,
)
_SIGN = np.array([chr(byte) in "!#$%&*+./<=>?@\\^|-~:" for byte in range(256)], np.bool_)
_STOPS = np.array([chr(byte) in "=<()[]{}#" for byte in range(256)], np.bool_)


@compiled(types.boolean(types.uint8))
def _is_blank(byte):
    return byte == 32 or 9 <= byte <= 13


@compiled(types.int64(types.uint64, _HASHES, _INTS))
def _flags(value, keys, flags):
    mask = np.uint64(len(keys) - 1)
    slot = value & mask
    while keys[slot] != 0:
        if keys[slot] == value:
            return flags[slot]
        slot = (slot + np.uint64(1)) & mask
    return 0


@compiled(types.uint64(_BYTES, types.int64, types.int64, types.boolean))
def _hash(source, start, end, fold):
    value = _SEED
    for i in range(start, end):
        byte = source[i]
        if fold and 65 <= byte <= 90:
            byte += np.uint8(32)
        value = (value ^ np.uint64(byte)) * _PRIME
    return value


@compiled(types.int64(_BYTES, types.int64, types.int64, types.uint8[::1], _TABLE, types.boolean))
def _kind_of_pattern(source, start, stop, blob, patterns, fold):
    """Kind of the first pattern that fits at `start`, -1 for none. A row: begin, end, what follows, kind."""
    for row in range(len(patterns)):
        begin, size = patterns[row, 0], patterns[row, 1] - patterns[row, 0]
        if start + size > stop:
            continue
        fits = True
        for i in range(size):
            byte = source[start + i]
            if fold and 65 <= byte <= 90:
                byte += np.uint8(32)
            if byte != blob[begin + i]:
                fits = False
                break
        if not fits:
            continue
        after = source[start + size] if start + size < stop else np.uint8(32)
        follows = patterns[row, 2]
        if (follows == BOUNDARY and not _WORD[after]) or follows == ANY or (follows == UPPER and 65 <= after <= 90):
            return patterns[row, 3]
    return -1


@compiled(types.boolean(_BYTES, types.int64, types.int64, types.int64))
def _assigns(source, i, size, style):
    """Whether the `=` at `i`, which no other one follows, is an assignment's."""
    before = source[i - 1] if i else np.uint8(32)
    earlier = source[i - 2] if i > 1 else np.uint8(32)
    after = source[i + 1] if i + 1 < size else np.uint8(32)
    if after in (62, 126) or before in (33, 126, 61):  # => =~ != ~= ==
        return False
    if before == 58:
        return style & (COLON_EQUALS | EQUALS) != 0 and earlier != 61
    if before == 60 and earlier != 60:
        return style & LESS_EQUALS != 0
    if style & EQUALS == 0 or (before == 62 and earlier != 62) or (before == 46 and earlier == 46):  # >= ..=
        return False
    if style & STRICT and (_SIGN[before] or after in (58, 47, 60)):
        return False
    if style & TIGHT:
        j = i - 1
        if before == 43:
            j -= 1
        if j < 0 or not (_WORD[source[j]] or source[j] == 93):
            return False
        while j >= 0 and _WORD[source[j]]:
            j -= 1
        return j < 0 or _is_blank(source[j]) or source[j] == 59 or source[j] == 40 or source[j] == 93
    return True


@compiled(types.boolean(_BYTES, types.int64, _TABLE, types.int64, _HASHES, _INTS, types.boolean))
def _sets_to_literal(source, i, hidden, next_hidden, keys, flags, fold):
    """Whether the assignment that ends before `i` gives a name exactly one string, number or word like `true`."""
    size = len(source)
    left = i - 2
    while left >= 0 and (
        source[left] in (9, 32, 58) or (source[left] == 60 and (source[i - 1] == 45 or source[left - 1] != 60))
    ):
        left -= 1
    if left < 0 or not _WORD[source[left]]:
        return False
    while i < size and (source[i] == 32 or source[i] == 9):
        i += 1
    if next_hidden < len(hidden) and hidden[next_hidden, 0] == i and hidden[next_hidden, 2] != 0:
        i = hidden[next_hidden, 1]
    else:
        if i < size and (source[i] == 45 or source[i] == 43):
            i += 1
        start = i
        while i < size and (_WORD[source[i]] or (source[i] == 46 and i > start and 48 <= source[start] <= 57)):
            i += 1
        if i == start:
            return False
        if not 48 <= source[start] <= 57 and not _flags(_hash(source, start, i, fold), keys, flags) & LITERAL:
            return False
    while i < size and (source[i] == 32 or source[i] == 9 or source[i] == 13):
        i += 1
    if i == size or source[i] == 10 or source[i] == 59 or source[i] == 44 or source[i] == 125:  # ; , }
        return True
    while next_hidden < len(hidden) and hidden[next_hidden, 1] <= i:
        next_hidden += 1
    return next_hidden < len(hidden) and hidden[next_hidden, 0] == i and hidden[next_hidden, 2] == 0


@compiled(types.boolean(_BYTES, types.int64, types.int64, _TABLE, _HASHES, _INTS, types.int64))
def _is_trivial(source, start, end, hidden, keys, flags, style):
    """Whether the body of a function is nothing, or one statement that begins with a word of ENDS or is `...`."""
    h, above = 0, len(hidden)
    while h < above:
        middle = (h + above) // 2
        if hidden[middle, 0] < start:
            h = middle + 1
        else:
            above = middle
    opener = np.uint8(123 if style & BRACES else 58)
    depth, in_body, is_empty, ended = 0, False, True, False
    last = np.uint8(0)
    i = start
    while i < end:
        if h < len(hidden) and i >= hidden[h, 0]:
            if in_body and hidden[h, 2] == 1:
                if is_empty or ended:
                    return False
                last = np.uint8(34)
            i = max(i, hidden[h, 1])
            h += 1
            continue
        byte = source[i]
        if not in_body:
            if depth == 0 and byte == opener:
                in_body = True
            elif byte in (40, 91) or (byte == 123 and opener != 123):
                depth += 1
            elif byte in (41, 93) or (byte == 125 and opener != 123):
                depth -= 1
            i += 1
            continue
        if byte == 125 and depth == 0:
            return True
        if _is_blank(byte):
            if byte == 10 and depth == 0 and not is_empty and (_WORD[last] or last in (41, 93, 34)):
                j = i
                while j < end and _is_blank(source[j]):
                    j += 1
                if j < end and _WORD[source[j]] and not (h < len(hidden) and hidden[h, 0] <= j):
                    return False
            i += 1
            continue
        if ended:
            return False
        if is_empty:
            is_empty = False
            if byte == 46 and i + 2 < end and source[i + 1] == 46 and source[i + 2] == 46:
                i += 3
                last = np.uint8(41)
                continue
            j = i
            while j < end and _WORD[source[j]]:
                j += 1
            if j == i or not _flags(_hash(source, i, j, style & FOLD != 0), keys, flags) & ENDS:
                return False
            i = j
            last = source[j - 1]
            continue
        if byte in (40, 91, 123):
            depth += 1
        elif byte in (41, 93, 125):
            depth -= 1
        elif byte == 59 and depth == 0:
            ended = True
        last = byte
        i += 1
    return in_body


@compiled(
    _FLOATS(
        _BYTES, _TABLE, _TABLE, _HASHES, _INTS, types.uint8[::1], _TABLE, types.boolean[::1], types.int64, types.int64
    )
)
def measure_code(
    source: Any,
    hidden: Any,
    functions: Any,
    keys: Any,
    flags: Any,
    blob: Any,
    patterns: Any,
    begins: Any,
    style: int,
    identifier_bytes: int,
) -> Any:
    """`NUMBERS`. `begins`: bytes that a pattern begins with; identifiers are those that begin in so many bytes."""
    size = len(source)
    slots = 64
    while slots < min(size, identifier_bytes) // 2:  # two letters and a space: words fill two thirds at most
        slots *= 2
    seen, mask = np.zeros(slots, np.uint64), np.uint64(slots - 1)
    brackets, depth = np.zeros(_MAX_BRACKETS, np.uint8), 0
    fold = style & FOLD != 0
    identifiers = distinct = distinct_bytes = letters = number_bytes = prints = asserts = returns = passes = 0
    assignments = literals = mains = directives = trivial = 0
    next_function, directive_end = 0, 0
    last_bracket, is_fresh = -1, True
    i = h = skipped = 0
    while i < size:
        stop = hidden[h, 0] if h < len(hidden) else size
        while i < stop:
            byte = source[i]
            if _WORD[byte]:
                start, value = i, _SEED
                while i < stop and _WORD[source[i]]:
                    byte = source[i]
                    if fold and 65 <= byte <= 90:
                        byte += np.uint8(32)
                    value = (value ^ np.uint64(byte)) * _PRIME
                    i += 1
                is_fresh = False
                first = source[start]
                if first <= 57:  # a digit: all other word characters sort behind them
                    number_bytes += i - start
                    if i + 1 < stop and source[i] == 46 and 48 <= source[i + 1] <= 57:
                        number_bytes += 1
                    elif i + 1 < stop and (source[i] == 45 or source[i] == 43) and 48 <= source[i + 1] <= 57:
                        is_exponent = (source[i - 1] | 32) == 101 and not (
                            i > start + 1 and (source[start + 1] | 32) == 120
                        )
                        number_bytes += is_exponent and i - start > 1
                    continue
                flag = _flags(value, keys, flags)
                if flag & KEYWORD == 0 and start - skipped < identifier_bytes:
                    identifiers += 1
                    slot = value & mask
                    while seen[slot] != 0 and seen[slot] != value:
                        slot = (slot + np.uint64(1)) & mask
                    if seen[slot] == 0:
                        seen[slot] = value
                        distinct += 1
                        distinct_bytes += i - start
                        letters += i - start == 1
                if flag > KEYWORD:
                    returns += flag & RETURN != 0
                    passes += flag & PASS != 0
                    if flag & MAIN:
                        while next_function < len(functions) and functions[next_function, 0] <= start:
                            next_function += 1
                        in_header = next_function > 0 and functions[next_function - 1, 0] > last_bracket
                        j = i
                        while j < stop and _is_blank(source[j]):
                            j += 1
                        if in_header and j < stop and source[j] == 40:
                            mains += 1
                if begins[first]:
                    kind = _kind_of_pattern(source, start, stop, blob, patterns, fold)
                    prints += kind == PRINT
                    asserts += kind == ASSERTION
                continue
            if byte == 10:
                is_fresh = True
            elif _STOPS[byte]:
                if byte == 61:
                    if i + 1 < size and source[i + 1] == 61:
                        while i < stop and source[i] == 61:
                            i += 1
                        continue
                    if style and _assigns(source, i, size, style):
                        in_round = depth and source[i - 1] != 58 and brackets[min(depth, _MAX_BRACKETS) - 1] == 40
                        is_named = style & NAMED or (style & LESS_EQUALS and source[i - 1] == 60)
                        if not (in_round and is_named):
                            assignments += 1
                            literals += _sets_to_literal(source, i + 1, hidden, h, keys, flags, fold)
                elif byte == 60:
                    if style & ARROW and i + 1 < stop and source[i + 1] == 45:
                        assignments += 1
                        literals += _sets_to_literal(source, i + 2, hidden, h, keys, flags, fold)
                elif byte == 35:
                    if style & PREPROCESSOR and is_fresh and i >= directive_end:
                        j = i
                        while j < size:
                            if source[j] == 10:
                                directives += 1
                                back = j - 1
                                if source[back] == 13:
                                    back -= 1
                                if source[back] != 92:
                                    break
                            j += 1
                        directives += j == size
                        directive_end = j
                elif byte in (40, 91, 123):
                    if depth < _MAX_BRACKETS:
                        brackets[depth] = byte
                    depth += 1
                    last_bracket = i
                elif depth:
                    depth -= 1
                    last_bracket = i
                is_fresh = False
            elif is_fresh and not _is_blank(byte):
                is_fresh = False
            i += 1
        if h < len(hidden):
            is_fresh = (is_fresh and hidden[h, 2] == 0) or (
                hidden[h, 1] > hidden[h, 0] and source[hidden[h, 1] - 1] == 10
            )
            skipped += hidden[h, 1] - hidden[h, 0] - 1
            i = hidden[h, 1]
            h += 1
    if style & (BRACES | INDENTED):
        for f in range(len(functions)):
            if functions[f, 1] - functions[f, 0] <= TRIVIAL_BYTES:
                trivial += _is_trivial(source, functions[f, 0], functions[f, 1], hidden, keys, flags, style)
    numbers = np.empty(14)
    numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] = (
        identifiers,
        distinct,
        distinct_bytes,
        letters,
        number_bytes,
    )
    numbers[5], numbers[6], numbers[7], numbers[8] = prints, asserts, returns, passes
    numbers[9], numbers[10], numbers[11], numbers[12], numbers[13] = assignments, literals, mains, directives, trivial
    return numbers
