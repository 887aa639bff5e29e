"""Text signals: lengths, character classes, repetition; measured on bytes, for every document in any language.

Comes in: `text`. Goes out: the columns of `TEXT_SIGNALS`; for an empty document shares and means are null. Lines end
at LF, CR LF or CR, never at form feeds or Unicode separators. Lengths count characters: the UTF-8 continuation bytes
are removed first, then one byte is one character. No loop visits characters: bytes are translated to classes at once,
and the positions of white space give words and lines.

Price: a seventh of a bare parse (50 to 60 MB/s a core): positions of white space 7 ns a byte, duplicate lines 5,
compression 1.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ..steps import map_documents
from .signal import Signal, dtypes

COMPRESSED_BYTES = 65_536
"""Of each document, for compression: LZ4 looks back no further. It takes 1.6 ns a byte, zstd 3.8, zlib 8.5."""

PIECE_BYTES = 65_536
"""Positions of white space are found a piece at a time: they stay in the processor's cache, and a document of 50 MB
needs no array of 400 MB."""

SHORT_LINE = 2
"""OpenCoder leaves lines such as `}` and `},` out of its duplicate lines (quality_signals/code.py)."""

_CONTINUATION = bytes(range(0x80, 0xC0))
_ASCII = bytes(range(0x80))
_REPLACEMENT = "\ufffd".encode()

# Classes of bytes; white space comes last, so that one comparison finds it.
_LETTER, _OTHER, _DIGIT, _BEYOND, _CONTROL, _BLANK, _TAB, _LF = range(8)
_SPACE = ord(" ")


def _class(byte: int) -> int:
    character = chr(byte)
    if byte >= 0x80:
        return _BEYOND
    if character.isalpha():
        return _LETTER
    if character.isdigit():
        return _DIGIT
    named = {" ": _BLANK, "\t": _TAB, "\n": _LF, "\r": _BLANK, "\f": _BLANK, "\v": _BLANK}
    return named.get(character, _OTHER if character.isprintable() else _CONTROL)


_CLASSES = bytes(_class(byte) for byte in range(256))


def _text(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str = "own") -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "text")


_COUNT, _SHARE = pl.UInt32(), pl.Float64()

TEXT_SIGNALS: tuple[Signal, ...] = (
    _text("character_count", _COUNT, "characters", "0 and up", "Unicode code points; CR LF is one"),
    _text("line_count", _COUNT, "lines", "0 and up", "lines; a last line without line end counts", "OpenCoder"),
    _text("max_line_length", _COUNT, "characters", "0 and up", "the longest line", "StarCoder; Stack v2 section 3.3"),
    _text("mean_line_length", _SHARE, "characters", "0 and up", "over all lines", "StarCoder; Stack v2 section 3.3"),
    _text("blank_line_fraction", _SHARE, "of lines", "0..1", "lines that are empty or white space"),
    _text(
        "duplicate_line_fraction",
        _SHARE,
        "of lines",
        "0..1",
        f"lines of more than {SHORT_LINE} visible bytes that repeat an earlier one, white space aside",
        "OpenCoder (quality_signals/code.py); Gopher table A1",
    ),
    _text(
        "mixed_indentation_fraction",
        _SHARE,
        "of indented lines",
        "0..0.5",
        "the rarer of: lines that begin with a tab, lines that begin with two spaces",
    ),
    _text("word_count", _COUNT, "words", "0 and up", "runs between white space", "OpenCoder; Data-Juicer"),
    _text("mean_word_length", _SHARE, "characters", "1 and up", "over all words", "OpenCoder"),
    _text("longest_token_length", _COUNT, "characters", "0 and up", "the longest run without white space"),
    _text(
        "alphabetic_fraction",
        _SHARE,
        "of characters",
        "0..1",
        "letters, of any script",
        "StarCoder; Stack v2 section 3.3 (below 0.25)",
    ),
    _text(
        "alphanumeric_fraction",
        _SHARE,
        "of characters",
        "0..1",
        "letters of any script and ASCII digits",
        "StarCoder (below 0.25); RedPajama",
    ),
    _text("digit_fraction", _SHARE, "of characters", "0..1", "ASCII digits", "OpenCoder, there of visible characters"),
    _text("whitespace_fraction", _SHARE, "of characters", "0..1", "ASCII white space, line ends too", "OpenCoder"),
    _text("non_ascii_fraction", _SHARE, "of characters", "0..1", "characters beyond ASCII"),
    _text("replacement_fraction", _SHARE, "of characters", "0..1", "U+FFFD: bytes that were not UTF-8", "OpenCoder"),
    _text("control_character_count", _COUNT, "characters", "0 and up", "C0 other than white space, and DEL"),
    _text("nul_count", _COUNT, "characters", "0 and up", "NUL characters", "Stack v2 drops files with any"),
    _text(
        "compression_ratio",
        _SHARE,
        "bytes per byte",
        "0 and up",
        f"LZ4 size by size of the first {COMPRESSED_BYTES} bytes: low = repeats itself, 1 and over = does not",
    ),
)


class TextSignals:
    """Step: adds `TEXT_SIGNALS`."""

    name = "text"
    requires: tuple[str, ...] = ("text",)
    provides: Mapping[str, pl.DataType] = dtypes(TEXT_SIGNALS)

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the text columns."""
        as_bytes = batch.with_columns(pl.col("text").cast(pl.Binary))
        measured = map_documents(as_bytes, self.name, measure_text, self.requires, self.provides)
        return measured.with_columns(batch["text"])


def measure_text(data: bytes) -> tuple[float | int | None, ...]:
    """The values of `TEXT_SIGNALS` for one document in UTF-8, in that order."""
    if not data:
        return tuple(0 if signal.dtype == _COUNT else None for signal in TEXT_SIGNALS)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    ascii_only = data.isascii()
    characters = data if ascii_only else data.translate(None, _CONTINUATION)
    layout = _layout(characters)
    count = len(characters)
    letters = layout.letters + (0 if ascii_only else _letters_beyond_ascii(data))
    indented = layout.tab_indented + layout.space_indented
    lines = data.translate(None, b" \t\f\v").split(b"\n")
    if not lines[-1] and data.endswith(b"\n"):
        lines.pop()
    return (
        count,
        len(lines),
        layout.longest_line,
        (count - layout.line_ends) / len(lines),
        lines.count(b"") / len(lines),
        _duplicate_fraction(lines),
        min(layout.tab_indented, layout.space_indented) / indented if indented else 0.0,
        layout.words,
        layout.visible / layout.words if layout.words else None,
        layout.longest_word,
        letters / count,
        (letters + layout.digits) / count,
        layout.digits / count,
        (count - layout.visible) / count,
        0.0 if ascii_only else len(characters.translate(None, _ASCII)) / count,
        0.0 if ascii_only else data.count(_REPLACEMENT) / count,
        layout.controls,
        layout.nuls,
        len(_lz4().compress(data[:COMPRESSED_BYTES], asbytes=True)) / min(len(data), COMPRESSED_BYTES),
    )


@dataclass
class _Layout:
    """Character classes, and where the white space is; summed over pieces."""

    letters: int = 0
    digits: int = 0
    controls: int = 0
    nuls: int = 0
    visible: int = 0
    line_ends: int = 0
    longest_line: int = 0
    tab_indented: int = 0
    space_indented: int = 0
    words: int = 0
    longest_word: int = 0


def _layout(characters: bytes) -> _Layout:
    layout = _Layout()
    for piece in _pieces(characters):
        classes = piece.translate(_CLASSES)
        codes = np.frombuffer(classes, dtype=np.uint8)
        spaces = (codes >= _BLANK).nonzero()[0]
        ends = spaces[codes[spaces] == _LF]
        words = _gaps(spaces, len(codes))
        layout.letters += len(codes) - int(np.count_nonzero(codes))
        layout.digits += _count(codes, _DIGIT)
        if _CONTROL in classes:
            layout.controls += _count(codes, _CONTROL)
            layout.nuls += piece.count(0)
        layout.visible += len(codes) - len(spaces)
        layout.line_ends += len(ends)
        layout.longest_line = max(layout.longest_line, int(_gaps(ends, len(codes)).max()))
        layout.words += int(np.count_nonzero(words))
        layout.longest_word = max(layout.longest_word, int(words.max()))
        starts = np.concatenate(([0], ends + 1))
        starts = starts[starts < len(codes) - 1]
        first = codes[starts]
        layout.tab_indented += _count(first, _TAB)
        raw = np.frombuffer(piece, dtype=np.uint8)  # form feeds are blanks as well, but do not indent
        layout.space_indented += int(np.count_nonzero((raw[starts] == _SPACE) & (raw[starts + 1] == _SPACE)))
    return layout


def _count(codes: npt.NDArray[np.uint8], code: int) -> int:
    return int(np.count_nonzero(codes == code))


def _gaps(positions: npt.NDArray[np.intp], end: int) -> npt.NDArray[np.intp]:
    """How many elements lie before, between and after `positions` in a sequence of length `end`."""
    gaps = np.empty(len(positions) + 1, dtype=np.intp)
    gaps[:-1] = positions
    gaps[-1] = end
    gaps[1:] -= positions + 1
    return gaps


def _pieces(characters: bytes) -> Iterator[bytes]:
    """Cuts behind line ends, so that no word or line is in two pieces; only a very long line makes a long piece."""
    start = 0
    while len(characters) - start > PIECE_BYTES:
        end = characters.find(b"\n", start + PIECE_BYTES) + 1
        if end == 0:
            break
        yield characters[start:end]
        start = end
    if start < len(characters):
        yield characters[start:]


def _duplicate_fraction(lines: list[bytes]) -> float:
    lines = [line for line in lines if len(line) > SHORT_LINE]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def _letters_beyond_ascii(data: bytes) -> int:
    counted = Counter(data.translate(None, _ASCII).decode("utf-8"))
    return sum(count for character, count in counted.items() if character.isalpha())


@cache
def _lz4() -> pa.Codec:
    return pa.Codec("lz4_raw")
