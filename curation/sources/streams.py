"""Streams of bytes: decompression by the name of the file, and a count of what went through."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

STEP_BYTES = 8_192
"""What decompressors are fed with at once where it is counted."""


XZ_MEMORY_BYTES = 256_000_000
"""`xz -9` needs 65 MB to unpack."""


def _zstd(raw: Any) -> Any:
    # Arrow's, because zstandard's own ends in silence where a file is cut off. A frame that asks for a window of more
    # than 128 MB is refused, as by `zstd` without --long.
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))


class _Xz(io.RawIOBase):
    """xz streams one after the other, in bounded memory, which `lzma.LZMAFile` cannot promise."""

    def __init__(self, raw: Any):
        self.raw = raw
        self.decompressor = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
        self.begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self.decompressor.needs_input or self.decompressor.eof:
                data = self.decompressor.unused_data or self.raw.read(STEP_BYTES)
                if not data:
                    if self.begun and not self.decompressor.eof:
                        raise EOFError("the xz stream ends before its end marker")
                    return 0
            if self.decompressor.eof:
                data = data.lstrip(b"\0")  # padding between streams
                self.decompressor = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
                if not data:
                    self.begun = False
                    continue
            self.begun = True
            out = self.decompressor.decompress(data, max_length=len(buffer))
            if out:
                buffer[: len(out)] = out
                return len(out)


COMPRESSIONS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    ".bz2": bz2.BZ2File,
    ".xz": lambda raw: io.BufferedReader(_Xz(raw)),
    ".zst": _zstd,
}
"""Suffix → stream of what is inside."""

_SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}


def compression_of(name: str) -> str:
    """The suffix in COMPRESSIONS that the file's name ends with, or nothing."""
    lower = name.lower()
    for short, suffix in _SHORT.items():
        if lower.endswith(short):
            return suffix
    return next((suffix for suffix in COMPRESSIONS if lower.endswith(suffix)), "")


def decompressed(raw: Any, name: str) -> AbstractContextManager[Any]:
    """The stream of what is inside a file of that name; a file without compression as it is."""
    suffix = compression_of(name)
    return _Closing(COMPRESSIONS[suffix](raw) if suffix else raw, closes=bool(suffix))


class Counted:
    """Passes reads on and counts the bytes.

    Args:
        raw: what is read.
        step: give at most so much at once, so that the count says what was needed so far, and not what was buffered.
    """

    def __init__(self, raw: Any, step: int | None = None):
        self.raw = raw
        self.step = step
        self.count = 0
        self.closed = False

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""

    def readable(self) -> bool:
        """It is a file to Arrow."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and fewer where the step is shorter."""
        if self.step is not None:
            size = self.step if size < 0 else min(size, self.step)
        data: bytes = self.raw.read(size)
        self.count += len(data)
        return data


class _Closing:
    def __init__(self, stream: Any, closes: bool):
        self.stream = stream
        self.closes = closes

    def __enter__(self) -> Any:
        return self.stream

    def __exit__(self, *_: object) -> None:
        if self.closes:
            self.stream.close()
