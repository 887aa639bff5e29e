"""Which part of a text is scored, and in which windows of the model's context.

A text is cut by bytes (the same text for every tokenizer) or by tokens (then its bytes are counted on the raw text that
those tokens stand for), and never inside a character. A text longer than the context is scored in windows that overlap
by half: every token is scored once, with at least half a context before it wherever the text has that much. Price: a
long text costs twice its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """Inputs `[start, stop)` go into the model; of the next tokens that they predict, `[scored, stop)` count."""

    start: int
    stop: int
    scored: int


def windows(tokens: int, context: int) -> Iterator[Window]:
    """Windows over a text of `tokens` tokens, where input i predicts token i and input 0 is the document start."""
    stop = min(tokens, context)
    if stop:
        yield Window(0, stop, 0)
    while stop < tokens:
        scored, start = stop, stop - context // 2
        stop = min(tokens, start + context)
        yield Window(start, stop, scored)


def cut_bytes(text: str, max_bytes: int) -> str:
    """The longest beginning of at most `max_bytes` bytes of UTF-8 that does not split a character."""
    if len(text) * 4 <= max_bytes:
        return text
    return text[:max_bytes].encode("utf-8")[:max_bytes].decode("utf-8", errors="ignore")


def excerpt(text: str, max_bytes: int, position: float) -> str:
    """About `max_bytes` bytes from the place `position` (0 to 1) of the text, from the start of a line on.

    In a line longer than `max_bytes` it starts inside the line.
    """
    data = text.encode("utf-8")
    if len(data) <= max_bytes:
        return text
    start = round(position * (len(data) - max_bytes))
    line = data.rfind(b"\n", 0, start) + 1
    if start - line <= max_bytes:
        start = line
    # Only the two ends can hold a part of a character, and only that part is ignored.
    return data[start : start + max_bytes].decode("utf-8", errors="ignore")


def cut_tokens(text: str, offsets: Sequence[tuple[int, int]], max_tokens: int) -> tuple[int, int]:
    """How many tokens to score, at most `max_tokens`, and the bytes of raw text that they cover exactly.

    A byte-level token may end inside a character; tokens are dropped until the next one starts a new character.
    `offsets` are the character spans of all tokens of the text, not trimmed of white space.
    """
    if len(offsets) <= max_tokens:
        return len(offsets), len(text.encode("utf-8"))
    kept = max_tokens
    while kept and offsets[kept][0] < offsets[kept - 1][1]:
        kept -= 1
    return kept, len(text[: offsets[kept][0]].encode("utf-8"))
