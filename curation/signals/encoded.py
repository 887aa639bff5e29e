"""Encoded data inside text: base64 and hexadecimal runs, `\\x41` and `\\u0041` escapes, lists of bytes.

Comes in: the bytes of a document and the length of its longest token. Goes out: the bytes of all runs and of the
longest one. The kinds are Stack v2's, without its traps: a run must mix letters with digits, so that word lists and
rulers made of slashes do not count, and every pattern is linear, so that 50 MB of hostile text take seconds, not hours.
Runs on neighbouring lines (PEM, strings joined by `+`) are one run.

Price: 1 ns a byte where nothing hints at encoded data, because each pattern is tried only after its hint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MIN_RUN = 60
"""PEM lines hold 64 characters, base64's default 76; Stack v2 asks for 64 in a row but lets runs cross lines."""

MIN_REPEATS = 8
"""Escapes or bytes in a row (Stack v2, section 3.3)."""

MAX_GAP = 64
"""Between the lines of one run: quotes, commas, line ends and indentation."""

STRIDE = 4
"""Every fourth byte is looked at: a run of `MIN_RUN` bytes shows as 15 hits in a row, and little else does."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_IN_ALPHABET = bytes(int(byte in _ALPHABET) for byte in range(256))
_SHOWS = b"\1" * (MIN_RUN // STRIDE)
_REST = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_ESCAPES = {
    b"\\x": re.compile(rb"\\x[0-9a-fA-F]{2}(?:\\x[0-9a-fA-F]{2}){%d,}" % (MIN_REPEATS - 1)),
    b"\\u": re.compile(rb"\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4}){%d,}" % (MIN_REPEATS - 1)),
}
_BYTES = re.compile(rb"0[xX][0-9a-fA-F]{1,2}(?:\s*+,\s*+0[xX][0-9a-fA-F]{1,2}\b){%d,}+" % (MIN_REPEATS - 1))
_BETWEEN = b" \t\r\n\"'`\\,;+()bn"
_LOWER, _UPPER, _DIGITS = b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789"
_HEXADECIMAL = b"0123456789abcdefABCDEF"


@dataclass(frozen=True)
class Encoded:
    """Bytes of encoded data."""

    longest: int
    total: int


def measure_encoded(data: bytes, longest_token: int, hexadecimal_literals: int) -> Encoded:
    """Encoded runs in `data`.

    Args:
        data: the document.
        longest_token: length of its longest run without white space; a shorter one rules base64 out.
        hexadecimal_literals: how often `0x…` stands in it; too few rule out lists of bytes.
    """
    lengths: list[int] = []
    if longest_token >= MIN_RUN:
        lengths += _runs(data)
    if data.count(b"\\") >= MIN_REPEATS:
        for hint, pattern in _ESCAPES.items():
            if data.count(hint) >= MIN_REPEATS:
                lengths += (match.end() - match.start() for match in pattern.finditer(data))
    if hexadecimal_literals >= MIN_REPEATS:
        lengths += (match.end() - match.start() for match in _BYTES.finditer(data))
    return Encoded(max(lengths, default=0), sum(lengths))


def _runs(data: bytes) -> Iterator[int]:
    """Lengths of base64 and hexadecimal runs, joined where only the like of quotes and line ends is between them."""
    joined, end = 0, 0
    for start, stop in _spans(data):
        if not _looks_random(data[start:stop]):
            continue
        if joined and (start - end > MAX_GAP or data[end:start].strip(_BETWEEN)):
            yield joined
            joined = 0
        joined += stop - start
        end = stop
    if joined:
        yield joined


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where at least `MIN_RUN` bytes of the base64 alphabet stand in a row, with their padding."""
    sampled = data[::STRIDE].translate(_IN_ALPHABET)
    position = sampled.find(_SHOWS)
    while position != -1:
        first = position * STRIDE
        # Up to the last byte between the samples that is outside the alphabet: no run crosses it.
        outside = data[first : first + (len(_SHOWS) - 1) * STRIDE + 1].rstrip(_ALPHABET)
        if outside:
            position = sampled.find(_SHOWS, -(-(first + len(outside)) // STRIDE))
            continue
        before = data[max(first - STRIDE, 0) : first]
        start = first - (len(before) - len(before.rstrip(_ALPHABET)))
        rest = _REST.match(data, first)
        assert rest is not None  # it matches the empty string
        if rest.end() - start >= MIN_RUN:
            yield start, rest.end()
        position = sampled.find(_SHOWS, rest.end() // STRIDE)


def _looks_random(run: bytes) -> bool:
    """Letters and digits, and both cases unless it is hexadecimal: no word, no path, no ruler."""
    sample = run[:4096]
    has_lower, has_upper, has_digit = (
        len(sample.translate(None, kind)) < len(sample) for kind in (_LOWER, _UPPER, _DIGITS)
    )
    is_hexadecimal = not sample.translate(None, _HEXADECIMAL)
    return has_digit and (has_lower or has_upper) and (is_hexadecimal or (has_lower and has_upper))
