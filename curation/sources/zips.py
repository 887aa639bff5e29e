"""Members of zip archives: listed from the central directory, read where they are."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Sequence

from .documents import Document, documents_of, skip
from .listing import Entry, Skip
from .members import ARCHIVE_FLOOR_BYTES, BROKEN, MAX_MEMBERS, Members, is_of_connection, safe_name, too_dense, words
from .remote import open_file


def list_zip(members: Members) -> None:
    """Put the members of the archive into the listing.

    Raises:
        one of BROKEN: if it has no readable central directory.
    """
    config = members.config
    total = 0
    with open_file(members.file.file, config.storage) as raw, zipfile.ZipFile(raw) as archive:
        for number, member in enumerate(archive.infolist()):
            if member.is_dir():
                continue
            total += member.file_size
            if total > config.max_archive_bytes or number >= MAX_MEMBERS:
                members.cut_off("over_max_archive_bytes: the rest of the archive")
                return
            if too_dense(total, members.file.size_bytes, ARCHIVE_FLOOR_BYTES):
                members.cut_off("compression_ratio: the rest of the archive")
                return
            name = safe_name(member.filename)
            if name is None:
                members.skip(member.filename, "unsafe_name", member.file_size)
            elif stat.S_ISLNK(member.external_attr >> 16):
                members.skip(name, "link", member.file_size)
            elif member.flag_bits & 1:
                members.skip(name, "encrypted", member.file_size)
            elif too_dense(member.file_size, member.compress_size):
                members.skip(name, "compression_ratio", member.file_size)
            else:
                if members.is_book(name, member.file_size):
                    _note(members, archive, member, name)
                members.add(name, member.file_size, "zip", str(number))


def read_zip(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    """The documents in members of one archive."""
    storage = (entries[0].options or {}).get("storage")
    with open_file(entries[0].file, storage) as raw, zipfile.ZipFile(raw) as archive:
        infos = archive.infolist()
        for entry in entries:
            try:
                data = archive.read(infos[int(entry.key)])
            except BROKEN as error:
                if is_of_connection(entry.file, error):
                    raise
                yield skip(entry, f"broken_member: {words(error)}")
                continue
            yield from documents_of(entry, data)


def _note(members: Members, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
    try:
        members.note(name, archive.read(member))
    except BROKEN:
        return  # it is named when its own turn to be read comes
