"""Text signals: lengths, character classes, repetition, words; for every document in any language.

Comes in: `text` and `content_hash`. Goes out: the columns of `TEXT_SIGNALS`; for an empty document shares and means are
null. Lines end at LF, CR LF or CR, never at form feeds or Unicode separators. Lengths count characters. A whole batch
is measured in one compiled pass over its bytes (`kernels/text.py`); only compression goes by document.

Price: 10 to 12 ns a byte: the pass 6 to 7, compression 2, n-grams 1, columns 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ..buffers import utf8
from .signal import Signal, dtypes

COMPRESSED_BYTES = 65_536
"""Of each document, for compression: LZ4 looks back no further. It takes 1.6 ns a byte, zstd 3.8, zlib 8.5."""

ALPHABETIC_BELOW = 0x40000
"""No character from here on is a letter: planes 4 to 16 are unassigned or for private use."""

NGRAM_BYTES = 16_384
"""Words that begin this far in make the n-grams. 84 % of 470 files of installed packages are no longer; n-grams of so
much cost 1.2 ns a byte of the whole, of 65,536 bytes 2 to 3."""

SHORT_LINE = 2
"""OpenCoder leaves lines such as `}` and `},` out of its duplicate lines (quality_signals/code.py)."""

UNIFORM_DIGITS = 13
"""Hexadecimal digits of the content hash that fit into a double: 52 bits."""


def _text(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str = "own") -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "text")


_COUNT, _SHARE = pl.UInt32(), pl.Float64()
_NORMALISED = f"words without ASCII punctuation and case, of the first {NGRAM_BYTES} bytes"

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
    _text("median_line_length", _COUNT, "characters", "0 and up", "half of the lines are no longer", "own"),
    _text("p90_line_length", _COUNT, "characters", "0 and up", "nine in ten lines are no longer", "own"),
    *(
        _text(
            f"top_{n}gram_fraction",
            _SHARE,
            "of word characters",
            "0..1",
            f"in the most frequent {n} words in a row, 0 if none repeats; {_NORMALISED}",
            "Gopher table A1; RedPajama; OpenCoder",
        )
        for n in (2, 3, 4)
    ),
    *(
        _text(
            f"duplicate_{n}gram_fraction",
            _SHARE,
            "of word characters",
            "0..1",
            f"in {n} words in a row that occurred before, each character once; {_NORMALISED}",
            "Gopher table A1; datatrove; RedPajama and OpenCoder count the first occurrence too",
        )
        for n in range(5, 11)
    ),
    _text("distinct_word_fraction", _SHARE, "of words", "0..1", f"different words; {_NORMALISED}", "OpenCoder (data)"),
    _text("top_word_fraction", _SHARE, "of words", "0..1", f"the most frequent word; {_NORMALISED}", "OLMoE"),
    _text("top_two_word_fraction", _SHARE, "of words", "0..1", f"the two most frequent; {_NORMALISED}", "OLMoE"),
    _text(
        "word_entropy", _SHARE, "nats", "0 and up", f"of the words' frequencies; {_NORMALISED}", "RedPajama; OpenCoder"
    ),
    _text(
        "uppercase_word_fraction",
        _SHARE,
        "of words",
        "0..1",
        "words with ASCII letters, all of them capitals",
        "RedPajama; OpenCoder (over 0.5)",
    ),
    _text(
        "hexadecimal_word_fraction",
        _SHARE,
        "of word characters",
        "0..1",
        "in runs of letters, digits and _ that are 0x and digits, or 4 and more hexadecimal digits of both kinds",
        "OpenCoder, there 0x only and of all characters (over 0.4)",
    ),
    _text(
        "ellipsis_line_fraction",
        _SHARE,
        "of lines",
        "0..1",
        "lines that end in three points, an ellipsis or `read more`, before a closing bracket too",
        "Gopher; RedPajama; OpenCoder (over 0.1)",
    ),
    _text(
        "link_fraction",
        _SHARE,
        "of characters",
        "0..1",
        "in http, https, ftp and www addresses and in <tags> on one line",
        "OpenCoder (over 0.5)",
    ),
    _text(
        "uniform",
        _SHARE,
        "number",
        "0 up to 1",
        f"the first {UNIFORM_DIGITS} digits of content_hash as a number: `uniform < 0.8` holds for the same 80 % of "
        "documents always; null without a hash",
        "own",
    ),
)


class TextSignals:
    """Step: adds `TEXT_SIGNALS`."""

    name = "text"
    requires: tuple[str, ...] = ("text", "content_hash")
    provides: Mapping[str, pl.DataType] = dtypes(TEXT_SIGNALS)

    def setup(self) -> None:
        """Load the kernel, or compile it at the first use after an installation (15 s)."""
        _kernel()
        _alphabetic()

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the text columns."""
        measured = measure_texts(batch["text"])
        hashes = (None if digest is None else digest[:UNIFORM_DIGITS] for digest in batch["content_hash"].to_list())
        numbers = [int(digits, 16) / 16**UNIFORM_DIGITS if digits else None for digits in hashes]
        measured["uniform"] = pl.Series("uniform", numbers, dtype=pl.Float64)
        return batch.hstack([measured[name] for name in self.provides])


def measure_texts(texts: pl.Series) -> dict[str, pl.Series]:
    """Name → column, of all `TEXT_SIGNALS` but `uniform`."""
    data, offsets = utf8(texts)
    kernel = _kernel()
    counts = np.empty((len(kernel.COUNTS), len(texts)), dtype=np.int64)
    shares = np.empty((len(kernel.SHARES), len(texts)), dtype=np.float64)
    kernel.measure(data, offsets, _alphabetic(), NGRAM_BYTES, counts, shares)
    returns = counts[kernel.COUNTS.index("carriage_returns")]
    columns = {name: pl.Series(name, row) for name, row in zip(kernel.COUNTS, counts.astype(np.uint32), strict=True)}
    for name, row in zip(kernel.SHARES, shares, strict=True):
        columns[name] = pl.Series(name, row, nan_to_null=True)
    ratios = _compression(data, offsets, returns)
    columns["compression_ratio"] = pl.Series("compression_ratio", ratios, dtype=pl.Float64)
    return {signal.name: columns[signal.name] for signal in TEXT_SIGNALS if signal.name in columns}


def measure_text(data: bytes) -> tuple[float | int | None, ...]:
    """The values of `TEXT_SIGNALS` but `uniform` for one document in UTF-8, in that order."""
    return tuple(column[0] for column in measure_texts(pl.Series([data.decode("utf-8")])).values())


def _compression(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], returns: npt.NDArray[np.int64]
) -> list[float | None]:
    """LZ4's size by the size of each document's beginning, line ends as LF."""
    codec = _lz4()
    ratios: list[float | None] = []
    view = data.data
    bounds = offsets.tolist()
    for start, end, has_return in zip(bounds, bounds[1:], (returns > 0).tolist(), strict=False):
        piece: Any = view[start : min(end, start + COMPRESSED_BYTES)]
        if has_return:
            # Twice as much as is compressed, should every line end be CR LF.
            piece = bytes(view[start : min(end, start + 2 * COMPRESSED_BYTES)])
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")[:COMPRESSED_BYTES]
        ratios.append(len(codec.compress(piece, asbytes=True)) / len(piece) if end > start else None)
    return ratios


@cache
def _lz4() -> pa.Codec:
    return pa.Codec("lz4_raw")


@cache
def _kernel() -> Any:
    from .kernels import text

    return text


@cache
def _alphabetic() -> npt.NDArray[np.uint8]:
    """For each code point below `ALPHABETIC_BELOW`: whether Python calls it a letter."""
    return np.fromiter((chr(point).isalpha() for point in range(ALPHABETIC_BELOW)), np.uint8, ALPHABETIC_BELOW)
