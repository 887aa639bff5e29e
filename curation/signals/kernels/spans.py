"""Byte ranges of captured nodes, measured: shares, lengths, nesting, what is outside all of them.

Comes in: the source and the ranges in groups, in any order, nested or not. Goes out: an array of the numbers that
`NUMBERS` names, the ranges that hide code (comments and strings, outermost and in order) for the other kernels, and
the functions in order. Ranges are sorted as integers (start, then longest first), so all of it is n log n.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ...compiled import compiled

GROUPS = ("comments", "strings", "docstrings", "functions", "classes", "branches", "imports", "visible_text")
"""The order of the groups; `bounds[g]:bounds[g + 1]` are the ranges of group g."""

NUMBERS = (
    "comment_bytes",
    "string_bytes",
    "docstring_bytes",
    "visible_bytes",
    "longest_string_bytes",
    "max_nesting_depth",
    "longest_function_lines",
    "median_function_lines",
    "p90_function_lines",
    "longest_class_lines",
    "top_level_bytes",
    "line_count",
)

COMMENT, STRING, DOCSTRING = 0, 1, 2
"""Kinds of hidden ranges, their third column."""

_LOW = np.int64(0xFFFFFFFF)
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_INTS, _TABLE, _FLOATS = types.int64[::1], types.int64[:, ::1], types.float64[::1]


@compiled(types.boolean(types.uint8))
def _is_blank(byte):
    return byte == 32 or 9 <= byte <= 13


@compiled(_INTS(_INTS, _INTS, types.int64, types.int64))
def _keys(starts, ends, first, last):
    """Ranges as numbers that sort by start, the longest first; sorted unless they are already, as nearly always."""
    keys = np.empty(last - first, np.int64)
    is_sorted = True
    for i in range(first, last):
        keys[i - first] = (starts[i] << 32) | (_LOW - ends[i])
        if i > first and keys[i - first] < keys[i - first - 1]:
            is_sorted = False
    if not is_sorted:
        keys.sort()
    return keys


@compiled(_TABLE(_INTS))
def _outermost(keys):
    """The ranges that are in no other one."""
    found = np.empty((len(keys), 2), np.int64)
    count, last = 0, np.int64(0)
    for key in keys:
        start, end = key >> 32, _LOW - (key & _LOW)
        if start >= last:
            found[count, 0], found[count, 1] = start, end
            count, last = count + 1, end
    return found[:count]


@compiled(types.int64(_TABLE))
def _covered(spans):
    total = np.int64(0)
    for i in range(len(spans)):
        total += spans[i, 1] - spans[i, 0]
    return total


@compiled(_TABLE(_TABLE, _TABLE, _TABLE))
def _hidden(comments, strings, docstrings):
    """Comments and strings in one order; what begins inside another one is left out."""
    found = np.empty((len(comments) + len(strings), 3), np.int64)
    i = j = k = count = 0
    last = np.int64(0)
    while i < len(comments) or j < len(strings):
        if j == len(strings) or (i < len(comments) and comments[i, 0] <= strings[j, 0]):
            start, end, kind = comments[i, 0], comments[i, 1], COMMENT
            i += 1
        else:
            start, end, kind = strings[j, 0], strings[j, 1], STRING
            while k < len(docstrings) and docstrings[k, 0] < start:
                k += 1
            if k < len(docstrings) and docstrings[k, 0] == start:
                kind = DOCSTRING
            j += 1
        if start >= last:
            found[count, 0], found[count, 1], found[count, 2] = start, end, kind
            count, last = count + 1, end
    return found[:count]


@compiled(types.boolean(_BYTES, types.int64, types.int64))
def _continues(source, start, end):
    """Whether a range goes on with an `if` above it: it begins with else, elif, elsif, or follows an else."""
    if start + 4 <= end and (source[start] | 32) == 101 and (source[start + 1] | 32) == 108:  # "el"
        third, fourth = source[start + 2] | 32, source[start + 3] | 32
        if (third == 115 and (fourth in (101, 105))) or (third == 105 and fourth == 102):  # se, si, if
            return True
    i = start - 1
    while i >= 0 and _is_blank(source[i]):
        i -= 1
    if i < 3 or i == start - 1:
        return False
    is_else = (
        (source[i] | 32) == 101
        and (source[i - 1] | 32) == 115
        and (source[i - 2] | 32) == 108
        and (source[i - 3] | 32) == 101
    )
    return is_else and (i == 3 or not (source[i - 4] == 95 or source[i - 4] >= 128 or 65 <= source[i - 4] <= 122))


@compiled(types.int64(_BYTES, _INTS))
def _depth(source, keys):
    """Most ranges around one place; equal ranges count once, an `else if` is as deep as its `if`."""
    ends, levels = np.empty(len(keys) + 1, np.int64), np.zeros(len(keys) + 1, np.int64)
    top = deepest = 0
    for i in range(len(keys)):
        if i and keys[i] == keys[i - 1]:
            continue
        start, end = keys[i] >> 32, _LOW - (keys[i] & _LOW)
        while top and ends[top] <= start:
            top -= 1
        level = levels[top]
        if top == 0 or level == 0 or not _continues(source, start, end):
            level += 1
        top += 1
        ends[top], levels[top] = end, level
        deepest = max(deepest, level)
    return deepest


@compiled(_INTS(_BYTES))
def _newlines(source):
    """Newlines before each block of 64 bytes; the last entry counts all. An array of them took twice as long."""
    blocks = (len(source) + 63) // 64
    before = np.zeros(blocks + 1, np.int64)
    for block in range(blocks):
        count = 0
        for i in range(64 * block, min(64 * block + 64, len(source))):
            count += source[i] == 10
        before[block + 1] = before[block] + count
    return before


@compiled(types.int64(_BYTES, _INTS, types.int64))
def _row(source, newlines, position):
    """Newlines before `position`."""
    block = position // 64
    count = newlines[block]
    for i in range(64 * block, position):
        count += source[i] == 10
    return count


@compiled(_INTS(_BYTES, _INTS, _INTS))
def _lines(source, keys, newlines):
    """First to last line of each range, blank ends aside: some grammars put the newline behind a node into it."""
    found = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        start, end = keys[i] >> 32, _LOW - (keys[i] & _LOW)
        while end > start and _is_blank(source[end - 1]):
            end -= 1
        found[i] = _row(source, newlines, end) - _row(source, newlines, start) + 1
    return found


@compiled(types.int64(_BYTES, _TABLE))
def _outside(source, spans):
    """Bytes outside the ranges, white space aside."""
    total: Any = 0
    position: Any = 0
    for i in range(len(spans) + 1):
        stop = spans[i, 0] if i < len(spans) else len(source)
        while position < stop:
            total += not _is_blank(source[position])
            position += 1
        position = spans[i, 1] if i < len(spans) else stop
    return total


@compiled(types.Tuple((_FLOATS, _TABLE, _TABLE))(_BYTES, _INTS, _INTS, _INTS))
def measure_spans(source: Any, starts: Any, ends: Any, bounds: Any) -> tuple[Any, Any, Any]:
    """`NUMBERS`; hidden ranges as (start, end, kind); functions as (start, end). No range ends behind the source."""
    comments = _keys(starts, ends, bounds[0], bounds[1])
    outer_comments = _outermost(comments)
    outer_strings = _outermost(_keys(starts, ends, bounds[1], bounds[2]))
    docstring_keys = _keys(starts, ends, bounds[2], bounds[3])
    docstrings = _outermost(docstring_keys)
    functions = _keys(starts, ends, bounds[3], bounds[4])
    classes = _keys(starts, ends, bounds[4], bounds[5])
    blocks = _keys(starts, ends, bounds[3], bounds[6])
    hidden = _hidden(outer_comments, outer_strings, docstrings)
    newlines = _newlines(source)
    numbers = np.zeros(12)
    numbers[0], numbers[1], numbers[2] = _covered(outer_comments), _covered(outer_strings), _covered(docstrings)
    numbers[3] = _covered(_outermost(_keys(starts, ends, bounds[7], bounds[8])))
    for i in range(len(hidden)):
        if hidden[i, 2] == STRING:
            numbers[4] = max(numbers[4], hidden[i, 1] - hidden[i, 0])
    numbers[5] = _depth(source, blocks)
    if len(functions):
        lines = _lines(source, functions, newlines)
        lines.sort()
        count = len(lines)
        numbers[6] = lines[count - 1]
        numbers[7] = (lines[count // 2] + lines[(count - 1) // 2]) / 2
        numbers[8] = lines[(9 * count + 9) // 10 - 1]  # nearest rank
    if len(classes):
        numbers[9] = _lines(source, classes, newlines).max()
    named = _keys(starts, ends, bounds[6], bounds[7])
    covering = np.concatenate((comments, docstring_keys, functions, classes, named))
    covering.sort()
    numbers[10] = _outside(source, _outermost(covering))
    numbers[11] = newlines[len(newlines) - 1] + (len(source) > 0 and source[len(source) - 1] != 10)
    spans = np.empty((len(functions), 2), np.int64)
    for i in range(len(functions)):
        spans[i, 0], spans[i, 1] = functions[i] >> 32, _LOW - (functions[i] & _LOW)
    return numbers, hidden, spans
