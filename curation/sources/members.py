"""What zip and tar archives have in common: which members are refused, and how a member becomes an entry.

An archive may be hostile. A name that leads out of it, a link, a device, an encrypted member is a named skip; so is a
member that unpacks to more than RATIO times its compressed size. What a header states about a size is never believed:
reading stops there, and a difference is an error.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field

from ...config import SourceConfig
from .listing import Entry, Listing, Skip, Wanted, text_of
from .packages import MAX_BOOK_BYTES, Facts, facts_of, rank_of_book
from .remote import Found, is_url

RATIO = 200
"""Deflate reaches 1,032 on zeros. Of the 145 files over a megabyte in a Python environment, text and machine code
reached 24, and one library that is padded with zeros 224."""

RATIO_FLOOR_BYTES = 1_000_000
"""Smaller members do no harm whatever their ratio."""

ARCHIVE_FLOOR_BYTES = 100_000_000
"""From here on the whole archive is held against RATIO as well: many small members can be a bomb too."""

MAX_MEMBERS = 2_000_000

BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError,
    EOFError, OSError, ValueError, NotImplementedError, RuntimeError, OverflowError, struct.error, IndexError,
)  # fmt: skip
"""What the libraries raise at broken or unknown archives."""


class BombError(ValueError):
    """The archive unpacks to more than it may; the message is the reason of the skip."""


@dataclass
class Members:
    """The members of one archive while they are listed."""

    config: SourceConfig
    file: Found
    prefix: str
    """Before the names of the members: the archive's own, where a source has several."""
    listing: Listing = field(default_factory=Listing)
    facts: list[tuple[int, Facts]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = Wanted(self.config.name, self.config.exclude, self.config.max_file_bytes, self.prefix)

    def skip(self, name: str, reason: str, size_bytes: int) -> None:
        """A member that is no document."""
        self.listing.skips.append(Skip(self.config.name, self.prefix + text_of(name), reason, size_bytes))

    def cut_off(self, reason: str) -> None:
        """The rest of the archive is not read."""
        self.listing.skips.append(Skip(self.config.name, text_of(self.file.name), reason, self.file.size_bytes))

    def add(self, name: str, size_bytes: int, form: str, key: str) -> None:
        """A member, if the source wants it."""
        if self.wanted(name, size_bytes, self.listing.skips):
            storage = self.config.storage
            self.listing.entries.append(
                Entry(
                    source=self.config.name,
                    file=self.file.file,
                    path=self.prefix + text_of(name),
                    size_bytes=size_bytes,
                    kind=self.config.kind,
                    form=form,
                    key=key,
                    options={"storage": dict(storage)} if storage else None,
                )
            )

    def is_book(self, name: str, size_bytes: int) -> bool:
        """Whether the member says something about the package, and is to be handed to `note`."""
        return rank_of_book(name) is not None and size_bytes <= MAX_BOOK_BYTES

    def note(self, name: str, data: bytes) -> None:
        """What a package's book says."""
        found = facts_of(name, data)
        if found is not None:
            self.facts.append((rank_of_book(name) or 0, found))

    def stated(self) -> Facts:
        """The facts from the book that knows best."""
        return min(self.facts, key=lambda ranked: ranked[0])[1] if self.facts else Facts()


def safe_name(name: str) -> str | None:
    """The name as it is below the archive's top; None if it is absolute, leads out, or is no name at all."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    drive = len(name) > 1 and name[1] == ":" and name[0].isalpha()
    if not parts or drive or name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        return None
    return "/".join(parts)


def too_dense(size_bytes: int, compressed_bytes: int, floor_bytes: int = RATIO_FLOOR_BYTES) -> bool:
    """Whether that much from that little is a bomb."""
    return size_bytes > floor_bytes and size_bytes > RATIO * compressed_bytes


def is_of_connection(file: str, error: BaseException) -> bool:
    """Whether an error may say something about the way to the file instead of the file: it is no skip then."""
    return is_url(file) and isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)


def words(error: BaseException) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {error}"[:300]
