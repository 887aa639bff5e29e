"""Encoded data and number literals of a batch, in one pass over its bytes and a few probes.

Comes in: the UTF-8 bytes of all documents in a row with their offsets. Goes out: rows of `counts` in the order of
`COUNTS`, a column for each document.

A base64 run of `min_run` bytes cannot hide between probes that are closer than that, so most bytes are never looked
at; escapes, byte lists and literals begin at a backslash, an x or a point. Everything is linear: what was scanned and
found short is not scanned again. Price: 1.5 ns a byte.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from ...compiled import compiled

COUNTS = ("longest_encoded_run", "encoded_bytes", "hexadecimal_literal_count", "float_literal_count")

# Classes of bytes.
_LOWER, _UPPER, _DIGIT, _SIGN, _HEX, _WORD, _BETWEEN, _SPACE, _STARTS = (1 << bit for bit in range(9))
_ALPHABET = _LOWER | _UPPER | _DIGIT | _SIGN
_LETTER = _LOWER | _UPPER


def _classes(byte: int) -> int:
    return (
        (_LOWER if byte in b"abcdefghijklmnopqrstuvwxyz" else 0)
        | (_UPPER if byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" else 0)
        | (_DIGIT if byte in b"0123456789" else 0)
        | (_SIGN if byte in b"+/" else 0)
        | (_HEX if byte in b"0123456789abcdefABCDEF" else 0)
        | (_WORD if byte < 0x80 and (chr(byte).isalnum() or byte == 95) else 0)
        | (_BETWEEN if byte in b" \t\r\n\"'`\\,;+()bn" else 0)
        | (_SPACE if byte in b" \t\r\n\f\v" else 0)
        | (_STARTS if byte in b"xX.\\" else 0)
    )


_CLASSES = np.array([_classes(byte) for byte in range(256)], dtype=np.int64)
_SAMPLE = 4096  # of a run, to see whether it looks random

_Bytes = nb.types.Array(nb.uint8, 1, "C", readonly=True)
_Offsets = nb.types.Array(nb.int64, 1, "C", readonly=True)
_types: Any = nb.types  # it has no annotations
_Found = _types.UniTuple(nb.int64, 2)


@compiled(nb.boolean(_Bytes, nb.int64, nb.int64))
def _looks_random(data: Any, start: int, end: int) -> bool:
    """Letters and digits, and both cases unless it is hexadecimal: no word, no path, no ruler."""
    seen, everywhere = 0, _HEX
    for i in range(start, min(end, start + _SAMPLE)):
        classes = _CLASSES[data[i]]
        seen |= classes
        everywhere &= classes
    if not (seen & _DIGIT and seen & _LETTER):
        return False
    return everywhere != 0 or (seen & _LETTER) == _LETTER


@compiled(_Found(_Bytes, nb.int64, nb.int64, nb.int64, nb.int64))
def _runs(data: Any, start: int, end: int, min_run: int, max_gap: int) -> tuple[int, int]:
    """Longest and all bytes in base64 and hexadecimal runs, joined where only the like of quotes is between them."""
    longest = total = joined = last = 0
    free = start  # no run begins before
    probe = start + min_run - 3
    while probe < end:
        if not _CLASSES[data[probe]] & _ALPHABET:
            free = probe + 1
            probe += min_run - 2
            continue
        first = probe
        while first > free and _CLASSES[data[first - 1]] & _ALPHABET:
            first -= 1
        stop = probe + 1
        while stop < end and _CLASSES[data[stop]] & _ALPHABET:
            stop += 1
        after = stop
        while after < end and after < stop + 2 and data[after] == 61:
            after += 1
        if after - first >= min_run and _looks_random(data, first, after):
            apart = joined > 0 and first - last > max_gap
            if joined and not apart:
                for i in range(last, first):
                    apart |= not _CLASSES[data[i]] & _BETWEEN
            if apart:
                longest = max(longest, joined)
                joined = 0
            joined += after - first
            total += after - first
            last = after
        free = stop
        probe = stop + min_run - 2
    return max(longest, joined), total


@compiled(nb.int64(_Bytes, nb.int64, nb.int64))
def _escape(data: Any, position: int, end: int) -> int:
    """Bytes of the `\\x41` or `\\u0041` at `position`, 0 if there is none."""
    if position + 4 > end or data[position] != 92:
        return 0
    size = 4 if data[position + 1] == 120 else 6 if data[position + 1] == 117 else 0
    if size == 0 or position + size > end:
        return 0
    for i in range(position + 2, position + size):
        if not _CLASSES[data[i]] & _HEX:
            return 0
    return size


@compiled(nb.int64(_Bytes, nb.int64, nb.int64))
def _byte_literal(data: Any, position: int, end: int) -> int:
    """Bytes of the `0x4` or `0x41` at `position`, 0 if there is none."""
    if position + 3 > end or data[position] != 48 or (data[position + 1] | 32) != 120:
        return 0
    if not _CLASSES[data[position + 2]] & _HEX:
        return 0
    return 4 if position + 3 < end and _CLASSES[data[position + 3]] & _HEX else 3


@compiled(_Found(_Bytes, nb.int64, nb.int64))
def _byte_list(data: Any, start: int, end: int) -> tuple[int, int]:
    """How many bytes in a row, `0x41, 0x42`, begin at `start`, and where they end."""
    stop = start + _byte_literal(data, start, end)
    items = 1 if stop > start else 0
    while items:
        comma = stop
        while comma < end and _CLASSES[data[comma]] & _SPACE:
            comma += 1
        if comma == end or data[comma] != 44:
            break
        comma += 1
        while comma < end and _CLASSES[data[comma]] & _SPACE:
            comma += 1
        size = _byte_literal(data, comma, end)
        if size == 0 or (comma + size < end and _CLASSES[data[comma + size]] & _WORD):
            break
        items += 1
        stop = comma + size
    return items, stop


@compiled(nb.void(_Bytes, _Offsets, nb.int64, nb.int64, nb.int64, nb.int64[:, ::1]))
def measure(data: Any, offsets: Any, min_run: int, max_gap: int, min_repeats: int, counts: Any) -> None:
    """Fill `counts`, a column for each document, from the bytes between `offsets`."""
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        longest, total = _runs(data, start, end, min_run, max_gap)
        hexadecimals = floats = 0
        escapes_end = lists_end = float_end = start
        for i in range(start, end):
            byte = data[i]
            if not _CLASSES[byte] & _STARTS:
                continue
            if byte == 46:
                is_inside = i - 1 >= float_end and i + 1 < end
                if is_inside and _CLASSES[data[i - 1]] & _DIGIT and _CLASSES[data[i + 1]] & _DIGIT:
                    floats += 1
                    float_end = i + 2
            elif byte == 92:
                if i < escapes_end:
                    continue
                size = _escape(data, i, end)
                repeats, stop = 0, i
                while size and _escape(data, stop, end) == size:
                    repeats += 1
                    stop += size
                escapes_end = max(stop, i + 1)
                if repeats >= min_repeats:
                    longest = max(longest, stop - i)
                    total += stop - i
            elif i > start and data[i - 1] == 48:
                if i + 1 == end or not _CLASSES[data[i + 1]] & _HEX:
                    continue
                if i - 1 == start or not _CLASSES[data[i - 2]] & _WORD:
                    hexadecimals += 1
                if i - 1 >= lists_end:
                    items, stop = _byte_list(data, i - 1, end)
                    # The last item alone may begin a list: as the first one it may follow anything.
                    lists_end = stop if items >= min_repeats else max(stop - 4, i)
                    if items >= min_repeats:
                        longest = max(longest, stop - i + 1)
                        total += stop - i + 1
        counts[0, row] = longest
        counts[1, row] = total
        counts[2, row] = hexadecimals
        counts[3, row] = floats
