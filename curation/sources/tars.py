"""Members of tar archives, with or without compression, as a stream.

Listing parses the headers, 0.1 ms a member, and notes where each member begins; a plain tar is then read there. A
compressed one has no index, so each unit of work unpacks it from the start to the unit's last member: with gzip at
270 MB/s and annotation at 6 to 10 MB/s a core that doubles the work at about 1 GB of members. A larger one is better
given as plain `.tar`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .documents import Document, documents_of
from .listing import Entry, Skip, text_of
from .members import ARCHIVE_FLOOR_BYTES, BROKEN, MAX_MEMBERS, BombError, Members, safe_name, too_dense, words
from .remote import open_file
from .streams import STEP_BYTES, Counted, compression_of, decompressed

MAX_HEADER_BYTES = 1_000_000
"""Of a long name or of extended headers, which tarfile reads whole into memory."""

BUFFER_BYTES = 1 << 16
"""What a member unpacked from is known to within this much of what it unpacked to."""

HEADERS = frozenset({
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
})  # fmt: skip


def list_tar(members: Members) -> None:
    """Put the members of the archive into the listing.

    A member is listed when the next header was read: only then it is known to be whole, and what it unpacked from.

    Raises:
        one of BROKEN: where the archive ends too early; the members before that are listed.
    """
    storage = members.config.storage
    pending: _Pending | None = None
    with open_file(members.file.file, storage) as opened:
        raw = Counted(opened, STEP_BYTES)
        with decompressed(raw, members.file.name) as inner:
            packed = raw if compression_of(members.file.name) else None
            stream = _Guarded(inner, packed, members.config.max_archive_bytes)
            try:
                with _open(stream) as archive:
                    for number, member in enumerate(_each(archive)):
                        _settle(members, pending, stream)
                        pending = None
                        if number >= MAX_MEMBERS:
                            raise BombError("over_max_archive_bytes")
                        pending = _Pending(member, _name(members, member), raw.count)
                        if pending.name and members.is_book(pending.name, member.size):
                            members.note(pending.name, _content(archive, member))
                _settle(members, pending, stream)
            except BombError as bomb:
                if pending and pending.name:
                    members.skip(pending.name, str(bomb), pending.member.size)
                members.cut_off(f"{bomb}: the rest of the archive")
            except BROKEN:
                if pending and pending.is_whole(stream):
                    _settle(members, pending, stream)
                elif pending and pending.name:
                    members.skip(pending.name, "truncated", pending.member.size)
                raise


def read_tar(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    """The documents in members of one archive, in the order of their offsets, which are their keys."""
    file = entries[0].file
    at = 0
    with open_file(file, (entries[0].options or {}).get("storage")) as raw, decompressed(raw, file) as stream:
        for entry in entries:
            offset = int(entry.key)
            try:
                if compression_of(file):
                    _pass_over(stream, offset - at)
                else:
                    stream.seek(offset)
                data = _exactly(stream, entry.size_bytes)
            except BROKEN as error:  # listing came to its end
                raise RuntimeError(f"{file}: changed while it was read: {entry.path}: {words(error)}") from error
            at = offset + entry.size_bytes
            yield from documents_of(entry, data)


@dataclass(frozen=True)
class _Pending:
    """A member whose end is not reached yet."""

    member: tarfile.TarInfo
    name: str | None
    raw_count: int

    def is_whole(self, stream: Counted) -> bool:
        """Whether the stream has come to its end."""
        return self.member.offset_data + self.member.size <= stream.count


class _Guarded(Counted):
    """A stream that ends with BombError where an archive has unpacked to too much."""

    def __init__(self, stream: Any, raw: Counted | None, max_bytes: int):
        super().__init__(stream)
        self.compressed = raw
        self.max_bytes = max_bytes

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if self.count > self.max_bytes:
            raise BombError("over_max_archive_bytes")
        if self.compressed and too_dense(self.count, self.compressed.count, ARCHIVE_FLOOR_BYTES):
            raise BombError("compression_ratio")
        return data


class _Header(tarfile.TarInfo):
    """A header that does not end the archive in silence when it is broken, and does not grow without bound."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.SubsequentHeaderError(str(error)) from None  # type: ignore[attr-defined]

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in HEADERS and self.size > MAX_HEADER_BYTES:
            raise tarfile.SubsequentHeaderError(f"a header of {self.size} bytes")  # type: ignore[attr-defined]
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.SubsequentHeaderError("an old sparse member, which is not read")  # type: ignore[attr-defined]
        result: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return result

    def _proc_gnusparse_00(self, member: tarfile.TarInfo, *_: object) -> None:
        """The map of a sparse member is not read; it is a skip."""
        member.sparse = b""

    _proc_gnusparse_01 = _proc_gnusparse_00
    _proc_gnusparse_10 = _proc_gnusparse_00


def _open(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=BUFFER_BYTES)


def _settle(members: Members, pending: _Pending | None, stream: _Guarded) -> None:
    """List the member whose end is reached now."""
    if pending is None:
        return
    member = pending.member
    if not pending.is_whole(stream):
        raise EOFError(f"{text_of(member.name)} is cut off")
    if pending.name is None:
        return
    packed = stream.compressed.count - pending.raw_count + STEP_BYTES if stream.compressed else member.size
    if too_dense(member.size, packed):
        members.skip(pending.name, "compression_ratio", member.size)
        return
    members.add(pending.name, member.size, "tar", str(member.offset_data))


def _name(members: Members, member: tarfile.TarInfo) -> str | None:
    """The member's name, or None after a skip if it is not a regular file inside the archive."""
    if member.isdir():
        return None
    name = safe_name(member.name)
    reason = None
    if name is None:
        reason = "unsafe_name"
    elif member.issym() or member.islnk():
        reason = "link"
    elif not member.isreg():
        reason = "not_a_file"
    elif member.sparse is not None:
        reason = "sparse"
    if reason:
        members.skip(name or member.name, reason, member.size)
        return None
    return name


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a stream, which tarfile would all keep."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        yield member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = archive.extractfile(member)
    if handle is None:
        raise tarfile.ReadError(f"{text_of(member.name)}: not a file")
    data = handle.read(member.size)
    if len(data) != member.size:
        raise EOFError(f"{text_of(member.name)} is cut off")
    return data


def _pass_over(stream: Any, size: int) -> None:
    while size > 0:
        data = stream.read(min(size, BUFFER_BYTES))
        if not data:
            raise EOFError("it is cut off")
        size -= len(data)


def _exactly(stream: Any, size: int) -> bytes:
    parts = []
    while size > 0:
        data = stream.read(size)
        if not data:
            raise EOFError("it is cut off")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
