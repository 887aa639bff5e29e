"""All columns of the annotated shards, as data: identity (made by the readers) and signals (made by the steps).

`codesieve signals` prints these tables, the documentation is made from them, rules and predicates are checked against
them. `step_errors` stands beside them: it tells about the run, not about the document.
"""

from __future__ import annotations

import polars as pl

from ..config import KINDS
from ..strict import nearest
from .signals.gate import GATE_SIGNALS
from .signals.licence import LICENCE_SIGNALS
from .signals.origin import ORIGIN_SIGNALS
from .signals.signal import Signal
from .signals.syntax import SYNTAX_SIGNALS
from .signals.text import TEXT_SIGNALS

__all__ = ["IDENTITY", "SIGNALS", "Signal", "signal"]


def _identity(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str) -> Signal:
    return Signal(name, dtype, unit, values, meaning, "own", "reader")


IDENTITY: tuple[Signal, ...] = (
    _identity("id", pl.String(), "hex", "32 digits", "128-bit hash of source, path, revision and content"),
    _identity("text", pl.String(), "text", "any", "the document; undecodable bytes are U+FFFD"),
    _identity("source", pl.String(), "name", "any", "the source that it was read from, as the configuration names it"),
    _identity("kind", pl.String(), "name", " | ".join(KINDS), "the stream it belongs to (Aryabumi 2024, section 2.1)"),
    _identity("language", pl.String(), "name", "Linguist's names in lower case, or unknown", "by name and content"),
    _identity("path", pl.String(), "path", "any", "inside the source, with /"),
    _identity("repository", pl.String(), "name", "any, or empty", "the project or package family it comes from"),
    _identity("revision", pl.String(), "name", "any, or empty", "commit or version of the repository"),
    _identity("license", pl.String(), "SPDX", "any, or empty", "what the source states about the whole repository"),
    _identity("size_bytes", pl.Int64(), "bytes", "0 and up", "length of the text in UTF-8"),
    _identity("content_hash", pl.String(), "hex", "32 digits", "xxh3-128 of the text: equal text, equal hash"),
    _identity("extra", pl.String(), "JSON", "an object", "what only this source knows"),
)

SIGNALS: tuple[Signal, ...] = (*TEXT_SIGNALS, *ORIGIN_SIGNALS, *LICENCE_SIGNALS, *GATE_SIGNALS, *SYNTAX_SIGNALS)


def signal(name: str) -> Signal:
    """The column of that name.

    Raises:
        KeyError: if there is none, with the nearest name.
    """
    for column in (*IDENTITY, *SIGNALS):
        if column.name == name:
            return column
    raise KeyError(f'no column "{name}"{nearest(name, [column.name for column in (*IDENTITY, *SIGNALS)])}')
